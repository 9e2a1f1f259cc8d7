"""The embedded engine: exact beanstalkd semantics in memory, with an optional SQLite journal."""

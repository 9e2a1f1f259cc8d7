"""One segment as a front-end sees it: its operations, entries and bodies."""

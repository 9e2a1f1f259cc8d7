"""The store of segments: its interface, and the formats of its records."""

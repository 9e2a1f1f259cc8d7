"""The store of segments: what the engine asks of it, and how records read."""

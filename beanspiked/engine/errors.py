"""What an engine can fail with.

EngineError
├── StoreFull           the store has no room for more; nothing was changed
├── StoreFailed         the store did not take a change, and it was not made
└── StoreUnusable       a store cannot be opened: missing, locked, foreign, damaged, or of a newer version
"""

__all__ = ["EngineError", "StoreFailed", "StoreFull", "StoreUnusable"]


class EngineError(Exception):
    """Any failure of a tube engine."""


class StoreFull(EngineError):  # noqa: N818 - it names a state of the store
    """The store has no room; the change was not made."""


class StoreFailed(EngineError):  # noqa: N818 - likewise
    """The store did not take the change; it was not made."""


class StoreUnusable(EngineError):  # noqa: N818 - likewise
    """The store cannot be opened."""

"""What an engine can fail with.

EngineError
├── StoreFull           the store has no room for more; nothing was changed
├── StoreFailed         the store did not take a change, or whether it did is not known
├── JobGone             the job is not there any more, or not the caller's
└── StoreUnusable       a store cannot be opened: missing, locked, foreign, damaged, or of a newer version
"""

__all__ = ["EngineError", "JobGone", "StoreFailed", "StoreFull", "StoreUnusable"]


class EngineError(Exception):
    """Any failure of a tube engine."""


class StoreFull(EngineError):  # noqa: N818 - it names a state of the store
    """The store has no room; the change was not made."""


class StoreFailed(EngineError):  # noqa: N818 - likewise
    """The store did not take the change. An embedded one did not make it; a shared one that fell silent may have."""


class JobGone(EngineError):  # noqa: N818 - likewise
    """Somebody else deleted or took the job, or this front-end lost it; the change was not made."""


class StoreUnusable(EngineError):  # noqa: N818 - likewise
    """The store cannot be opened."""

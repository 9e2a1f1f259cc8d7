"""The engines' errors.

BeanspikeError
└── EngineError
    ├── StoreFull           the store has no room for more; nothing was changed
    ├── StoreFailed         the store did not take a change
    │   └── OutcomeUnknown  whether it did is not known
    ├── JobGone             the job is not there any more, or not the caller's
    ├── DamagedEntry        what a store keeps of a job cannot be read
    │   └── NewerEntry      it is of a format that this version does not know
    └── StoreUnusable       a store cannot be opened: missing, locked, foreign, damaged, or of a newer version
"""

__all__ = [
    "BeanspikeError",
    "DamagedEntry",
    "EngineError",
    "JobGone",
    "NewerEntry",
    "OutcomeUnknown",
    "StoreFailed",
    "StoreFull",
    "StoreUnusable",
]


class BeanspikeError(Exception):
    """Base of all errors of beanspiked, except those for impossible arguments."""


class EngineError(BeanspikeError):
    """Any failure of a tube engine."""


class StoreFull(EngineError):  # noqa: N818 - it names a state of the store
    """The store has no room; the change was not made."""


class StoreFailed(EngineError):  # noqa: N818 - likewise
    """The store did not take the change."""


class OutcomeUnknown(StoreFailed):
    """A shared store fell silent, and the session with it: the change was made, or it was not."""


class JobGone(EngineError):  # noqa: N818 - likewise
    """Somebody else deleted or took the job, or this front-end lost it; the change was not made."""


class DamagedEntry(EngineError):  # noqa: N818 - likewise
    """What a store keeps of a job cannot be read: it is too short, contradicts itself, or was written by a newer version."""


class NewerEntry(DamagedEntry):
    """What a store keeps of a job has a newer format than this version knows, which leaves it alone."""


class StoreUnusable(EngineError):  # noqa: N818 - likewise
    """The store cannot be opened."""

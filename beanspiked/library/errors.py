"""What the library raises, besides ValueError and TypeError for arguments that cannot be.

BeanspikeError
├── JobLost             this program does not hold the job any more: abandon the work
├── JobNotFound         there is no such job
│   └── NotKickable     there is one, but it is neither buried nor delayed
├── DecodingError       raised by a worker's decoder: the body cannot be understood; the job is buried
├── ConnClosed          the connection to the store was closed by this program
│   └── ConnForked      it belongs to another process, which this one was forked from: connect anew
└── EngineError         see beanspiked.engine.errors: StoreFull, StoreFailed, OutcomeUnknown, StoreUnusable, DamagedEntry
"""

from beanspiked.engine.errors import (
    BeanspikeError,
    DamagedEntry,
    EngineError,
    OutcomeUnknown,
    StoreFailed,
    StoreFull,
    StoreUnusable,
)

__all__ = [
    "BeanspikeError",
    "ConnClosed",
    "ConnForked",
    "DamagedEntry",
    "DecodingError",
    "EngineError",
    "JobLost",
    "JobNotFound",
    "NotKickable",
    "OutcomeUnknown",
    "StoreFailed",
    "StoreFull",
    "StoreUnusable",
]


class JobLost(BeanspikeError):  # noqa: N818 - it says what happened
    """This program does not hold the job any more: its time to run is over, it was deleted, or the store gave it to others.

    Whoever works on it should stop: somebody else may be doing so already.
    """


class JobNotFound(BeanspikeError):  # noqa: N818 - likewise
    """There is no such job."""


class NotKickable(JobNotFound):
    """The job is neither buried nor delayed."""


class DecodingError(BeanspikeError):
    """A body that cannot be understood; a worker buries such a job with the text of this error."""


class ConnClosed(BeanspikeError):  # noqa: N818 - likewise
    """The connection to the store was closed by this program."""


class ConnForked(ConnClosed):
    """The connection belongs to another process, which goes on using it; this one was forked from that, and has to connect for itself.

    Attributes:
        client_id: What the connection is called in logs.
        owner: The process that it belongs to.
    """

    def __init__(self, client_id: str, owner: int) -> None:
        super().__init__(client_id, owner)
        self.client_id: str = client_id
        self.owner: int = owner

    def __str__(self) -> str:
        return f"{self.client_id} belongs to process {self.owner}, which this one was forked from: connect anew here"

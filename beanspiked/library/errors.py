"""The library's errors. Impossible arguments raise ValueError or TypeError instead.

BeanspikeError
├── JobLost             this program does not hold the job any more: stop working on it
├── JobNotFound         there is no such job
│   └── NotKickable     the job is neither buried nor delayed
├── DecodingError       raised by a worker's decoder: the body is malformed; the job is buried
├── ConnClosed          this program has closed the connection to the store
│   └── ConnForked      it belongs to another process, which this one was forked from: connect again
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
    """This program does not hold the job any more: its time to run is over, it was deleted, or the store gave it to another worker.

    Stop working on it: another worker may have begun already.
    """


class JobNotFound(BeanspikeError):  # noqa: N818 - likewise
    """There is no such job."""


class NotKickable(JobNotFound):
    """The job is neither buried nor delayed."""


class DecodingError(BeanspikeError):
    """The body is malformed; a worker buries such a job with the text of this error."""


class ConnClosed(BeanspikeError):  # noqa: N818 - likewise
    """This program has closed the connection to the store."""


class ConnForked(ConnClosed):
    """The connection belongs to another process, which this one was forked from. Connect again in this process.

    Attributes:
        client_id: The connection's name in logs.
        owner: The process that it belongs to.
    """

    def __init__(self, client_id: str, owner: int) -> None:
        super().__init__(client_id, owner)
        self.client_id: str = client_id
        self.owner: int = owner

    def __str__(self) -> str:
        return f"{self.client_id} belongs to process {self.owner}, which this one was forked from; connect again in this process"

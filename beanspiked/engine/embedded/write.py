"""What goes to the journal and what comes back from it."""

from typing import Final

from beanspiked.engine.contract import Details, Job, Tube
from beanspiked.engine.later import Later

__all__ = ["BURY", "DELETE", "DROP", "KICK", "PAUSE", "PUT", "RELEASE", "UPDATE", "Row", "Write"]

PUT: Final = 0
DELETE: Final = 1
RELEASE: Final = 2
BURY: Final = 3
KICK: Final = 4
PAUSE: Final = 5
UPDATE: Final = 6
# All jobs of a tube deleted.
DROP: Final = 7


class Write(Later):
    """One change on its way to the journal, with the values that it sets.

    Attributes:
        op: Which change.
        job: The job that is changed, or None.
        jobs: The jobs that are changed, for KICK and DROP.
        place: When the job is due, the number of its burial, or the end of a pause.
        name: The tube to be paused, or the reason of a burial.
    """

    def __init__(self, op: int, job: Job | None = None, name: str = "") -> None:
        super().__init__()
        self.op: int = op
        self.job: Job | None = job
        self.jobs: list[Job] = []
        self.pri: int = 0
        self.delay: float = 0.0
        self.place: float = 0.0
        self.name: str = name
        self.body: bytes = b""
        self.raw_size: int = -1
        self.tube: Tube | None = None


class Row:
    """One job as the journal keeps it."""

    def __init__(
        self,
        id: int,  # noqa: A002 - the protocol's own word
        tube: str,
        state: int,
        pri: int,
        delay: float,
        ttr: float,
        born: float,
        place: float,
        counters: tuple[int, int, int, int, int],
        body: bytes,
        details: Details | None,
    ) -> None:
        self.id: int = id
        self.tube: str = tube
        self.state: int = state
        self.pri: int = pri
        self.delay: float = delay
        self.ttr: float = ttr
        self.born: float = born
        self.place: float = place
        self.counters: tuple[int, int, int, int, int] = counters
        self.body: bytes = body
        self.details: Details | None = details

    def job(self, tube: Tube) -> Job:
        """Make the job that this row is of."""
        job = Job(self.id, tube, self.pri, self.delay, self.ttr, self.born, self.body, self.details)
        job.reserves, job.timeouts, job.releases, job.buries, job.kicks = self.counters
        return job

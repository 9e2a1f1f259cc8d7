"""Goes through the jobs of a tube that a filter wants, some at a time."""

from typing import Final, cast

from beanspiked.engine.contract import RESERVED, Filter, Job
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import EmbeddedTube
from beanspiked.engine.errors import DamagedEntry
from beanspiked.engine.timers import Clock

__all__ = ["Scan"]

# How much a slice may cost: as much as so many jobs, of which bodies are not searched.
SLICE_COST: Final = 1000
# A body that is searched costs one more for each so many bytes.
BYTES_A_COST: Final = 1024
# The jobs of a tube with fewer are taken from its queues: the table has those of all tubes.
FEW: Final = 1000


class Scan:
    """What is left to be gone through.

    Those put after it began are left out, and those that are on their way to the journal when it comes to them.

    Args:
        tube: The tube.
        table: All jobs.
        wanted: The filter.
        last_id: That of the last job that there is now.
        clock: What ages are told by.

    Attributes:
        ended: Whether nothing is left.
    """

    def __init__(self, tube: EmbeddedTube, table: JobTable, wanted: Filter, last_id: int, clock: Clock) -> None:
        self.ended: bool = False
        self._tube = tube
        self._table = table
        self._wanted = wanted
        self._last_id = last_id
        self._clock = clock
        self._now: float = 0.0
        self._cost: int = 0
        self._jobs: list[Job] = []
        self._at: int = 0
        self._ids: list[int] = []
        self._ids_at: int = 0
        self._shards: list[int] = []
        queues = [tube.queue(state) for state in wanted.states if state != RESERVED]
        held = RESERVED in wanted.states and tube.counts.reserved > 0
        if wanted.ids is not None:
            self._ids = wanted.ids
        elif not held and sum([len(queue) for queue in queues]) <= FEW:
            self._jobs = [cast(Job, entry) for queue in queues for entry in queue.entries()]
        else:
            self._shards = table.shards()

    def begin_slice(self) -> None:
        """Go on for as long as a slice may last."""
        self._cost = 0
        self._now = self._clock.now()

    def next(self) -> Job | None:
        """Return the next job to which all but the text applies; None when the slice is over."""
        while self._cost < SLICE_COST:
            while self._at == len(self._jobs):
                if not self._fetch():
                    self.ended = True
                    return None
            self._cost += 1
            job = self._jobs[self._at]
            self._at += 1
            if job.id <= self._last_id and self.holds(job):
                return job
        return None

    def holds(self, job: Job) -> bool:
        """Tell whether all but the text applies to a job that was gone through, and it is there."""
        there = job.tube is self._tube and job.moving is None and self._table.get(job.id) is job
        return there and self._wanted.admits(job, self._now)

    def has_text(self, job: Job) -> bool:
        """Tell whether a body contains the text. One that is damaged, which shows when the job is taken, contains none."""
        text = self._wanted.text
        if not text:
            return True
        if job.details is None or job.details.raw_size < 0:
            self._cost += len(job.body) // BYTES_A_COST
            return text in job.body
        self._cost += job.details.raw_size // BYTES_A_COST
        try:
            return text in job.raw_body()
        except DamagedEntry:
            return False

    def take(self, most: int) -> list[Job]:
        """Return the next jobs that match: up to so many, and those of one slice."""
        found: list[Job] = []
        self.begin_slice()
        while len(found) < most:
            job = self.next()
            if job is None:
                break
            if self.has_text(job):
                found.append(job)
        return found

    def _fetch(self) -> bool:
        """Fetch more jobs, or none although there are more; tell whether there were more."""
        self._at = 0
        self._jobs = []
        if self._ids_at < len(self._ids):
            for job_id in self._ids[self._ids_at : self._ids_at + FEW]:
                job = self._table.get(job_id)
                if job is not None:
                    self._jobs.append(job)
            self._ids_at += FEW
            return True
        if self._shards:
            self._jobs = self._table.shard(self._shards.pop())
            return True
        return False

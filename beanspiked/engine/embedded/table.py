"""All jobs by id."""

from typing import Final

from beanspiked.engine.contract import Job

__all__ = ["SHARD_SIZE", "JobTable"]

SHIFT: Final = 10
SHARD_SIZE: Final = 1 << SHIFT
MASK: Final = SHARD_SIZE - 1


class Shard:
    """The jobs of 1024 consecutive ids.

    Attributes:
        jobs: The job of each id, or None.
        count: How many there are.
    """

    __slots__ = ("count", "jobs")

    def __init__(self) -> None:
        self.jobs: list[Job | None] = [None] * SHARD_SIZE
        self.count: int = 0


class JobTable:
    """Jobs by id, in shards of consecutive ids.

    Ids are given out one after the other, so a list has a slot of 8 bytes for each; a dict would take 68 bytes a job, the id included. A
    single list of a million jobs would stop the event loop for some milliseconds whenever it grows, and would not shrink.
    """

    def __init__(self) -> None:
        self._shards: dict[int, Shard] = {}

    def get(self, job_id: int) -> Job | None:
        """Find a job."""
        shard = self._shards.get(job_id >> SHIFT)
        return None if shard is None else shard.jobs[job_id & MASK]

    def add(self, job: Job) -> None:
        """Add a job."""
        number = job.id >> SHIFT
        shard = self._shards.get(number)
        if shard is None:
            shard = Shard()
            self._shards[number] = shard
        shard.jobs[job.id & MASK] = job
        shard.count += 1

    def remove(self, job: Job) -> None:
        """Remove a job."""
        number = job.id >> SHIFT
        shard = self._shards[number]
        shard.jobs[job.id & MASK] = None
        shard.count -= 1
        if shard.count == 0:
            del self._shards[number]

    def shards(self) -> list[int]:
        """List the numbers of the shards, the last one first; a shard is removed when it is empty."""
        return sorted(self._shards, reverse=True)

    def shard(self, number: int) -> list[Job]:
        """List the jobs of a shard."""
        shard = self._shards.get(number)
        return [] if shard is None else [job for job in shard.jobs if job is not None]

    def all(self) -> list[Job]:
        """List all jobs; this takes long among many."""
        return [job for number in self._shards for job in self.shard(number)]

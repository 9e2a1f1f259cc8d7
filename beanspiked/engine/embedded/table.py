"""All jobs by id."""

from typing import Final

from beanspiked.engine.contract import Job

__all__ = ["JobTable"]

SHIFT: Final = 12


class JobTable:
    """A dict of jobs by id, in shards of 4096 consecutive ids.

    A single dict of a million jobs would stop the event loop for tens of milliseconds whenever it grows, and would not shrink.
    """

    def __init__(self) -> None:
        self._shards: dict[int, dict[int, Job]] = {}

    def get(self, job_id: int) -> Job | None:
        """Find a job."""
        shard = self._shards.get(job_id >> SHIFT)
        return None if shard is None else shard.get(job_id)

    def add(self, job: Job) -> None:
        """Add a job."""
        number = job.id >> SHIFT
        shard = self._shards.get(number)
        if shard is None:
            shard = {}
            self._shards[number] = shard
        shard[job.id] = job

    def remove(self, job: Job) -> None:
        """Remove a job."""
        number = job.id >> SHIFT
        shard = self._shards[number]
        del shard[job.id]
        if not shard:
            del self._shards[number]

    def shards(self) -> list[int]:
        """List the numbers of the shards, the last one first; a shard is removed when it is empty."""
        return sorted(self._shards, reverse=True)

    def shard(self, number: int) -> list[Job]:
        """List the jobs of a shard."""
        return list(self._shards.get(number, {}).values())

    def all(self) -> list[Job]:
        """List all jobs; this takes long among many."""
        return [job for shard in self._shards.values() for job in shard.values()]

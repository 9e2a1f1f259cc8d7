"""All jobs by id."""

from typing import Final

from beanspiked.engine.contract import Job

__all__ = ["SHARD_SIZE", "JobTable"]

SHIFT: Final = 10
SHARD_SIZE: Final = 1 << SHIFT
MASK: Final = SHARD_SIZE - 1
# A shard becomes a list when it would have more jobs than MANY, and a dict again when it has as few as FEW.
MANY: Final = 128
FEW: Final = 32


class Shard:
    """The jobs of 1024 consecutive ids.

    Attributes:
        few: The jobs by id, while they are few.
        slots: The job of each id, or None; empty while the jobs are few.
        count: How many jobs there are.
    """

    __slots__ = ("count", "few", "slots")

    def __init__(self) -> None:
        self.few: dict[int, Job] = {}
        self.slots: list[Job | None] = []
        self.count: int = 0


class JobTable:
    """Jobs by id, in shards of consecutive ids.

    Ids are given out one after the other, so a list has a slot of 8 bytes for each; a dict would take 68 bytes a job, the id included.
    Where most jobs are gone, a dict takes less. A single list of a million jobs would stop the event loop for some milliseconds whenever
    it grows, and would not shrink.
    """

    def __init__(self) -> None:
        self._shards: dict[int, Shard] = {}

    def get(self, job_id: int) -> Job | None:
        """Find a job."""
        shard = self._shards.get(job_id >> SHIFT)
        if shard is None:
            return None
        return shard.slots[job_id & MASK] if shard.slots else shard.few.get(job_id)

    def add(self, job: Job) -> None:
        """Add a job."""
        number = job.id >> SHIFT
        shard = self._shards.get(number)
        if shard is None:
            shard = Shard()
            self._shards[number] = shard
        elif shard.count == MANY and shard.few:
            shard.slots = [None] * SHARD_SIZE
            for each in shard.few.values():
                shard.slots[each.id & MASK] = each
            shard.few = {}
        if shard.slots:
            shard.slots[job.id & MASK] = job
        else:
            shard.few[job.id] = job
        shard.count += 1

    def remove(self, job: Job) -> None:
        """Remove a job."""
        number = job.id >> SHIFT
        shard = self._shards[number]
        shard.count -= 1
        if shard.slots:
            shard.slots[job.id & MASK] = None
            if shard.count == FEW:
                shard.few = {each.id: each for each in shard.slots if each is not None}
                shard.slots = []
        else:
            del shard.few[job.id]
            if shard.count == 0:
                del self._shards[number]

    def shards(self) -> list[int]:
        """List the numbers of the shards, the last one first; a shard is removed when it is empty."""
        return sorted(self._shards, reverse=True)

    def shard(self, number: int) -> list[Job]:
        """List the jobs of a shard."""
        shard = self._shards.get(number)
        if shard is None:
            return []
        return [job for job in shard.slots if job is not None] if shard.slots else list(shard.few.values())

    def all(self) -> list[Job]:
        """List all jobs; this takes long among many."""
        return [job for number in self._shards for job in self.shard(number)]

"""Moves jobs from the segments of one tube to those of another: the first steps; see tubes/pair_ends.py for the whole."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.queries.choosing import JOBS_AT_ONCE
from beanspiked.engine.aerospike.queries.finder import QUEUES
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, SharedJob, job_id
from beanspiked.engine.aerospike.segment.view import BYTES_MAX
from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.aerospike.store.pairs import SERIALS_TO_ATTACH, Pair, pair_lease
from beanspiked.engine.aerospike.store.seam import READY, Change, Fenced, Full, Refused, Segment, TooBig, Unknown
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.segment.codec import Formats
    from beanspiked.engine.aerospike.segment.committer import Committer
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Entries
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.aerospike.tubes.pair_ends import PairEnds
    from beanspiked.engine.aerospike.tubes.puts import Puts
    from beanspiked.engine.aerospike.tubes.retirement import Retirement
    from beanspiked.engine.aerospike.tubes.tube import SharedTube
    from beanspiked.engine.aerospike.tubes.view import Scout

__all__ = ["Moving"]

NOTHING: Final[dict[bytes, bytes]] = {}
# What a job takes in a segment besides its body, about, in bytes.
ENTRY_BYTES: Final = 64


class Moving:
    """Moves jobs of one segment.

    Args:
        store: The store.
        tasks: What tries again.
        formats: How jobs are packed.
        puts: What makes segments.
        pair_ends: What makes the last steps.
        retirement: What ends segments that are empty.
        scout: What looks at segments.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: "Tasks",
        formats: "Formats",
        puts: "Puts",
        pair_ends: "PairEnds",
        retirement: "Retirement",
        scout: "Scout",
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._formats = formats
        self._puts = puts
        self._ends = pair_ends
        self._retirement = retirement
        self._scout = scout
        self._making = asyncio.Lock()

    async def move(self, source: Segment, state: int, jobs: list[SharedJob], target: "SharedTube") -> int:
        """Move jobs of one segment and state; return how many have moved: some may be gone by then. Raises EngineError."""
        moved = 0
        batch: list[SharedJob] = []
        size = 0
        for job in jobs:
            weight = len(job.stored) + ENTRY_BYTES
            if batch and (len(batch) == BATCH_MAX or size + weight > BYTES_MAX):
                moved += await self._move(source, state, batch, target)
                batch, size = [], 0
            batch.append(job)
            size += weight
        return moved + (await self._move(source, state, batch, target) if batch else 0)

    async def _move(self, source: Segment, state: int, jobs: list[SharedJob], target: "SharedTube") -> int:
        made = await self._make(target)
        pair = Pair(source.number, made.number, QUEUES[state])
        failure: EngineError | None = None
        try:
            await self._begin(pair, [job.place for job in jobs], made)
        except EngineError as error:
            # Whatever it was: how far it came is seen now.
            failure = error
        moved = await self._ends.finish(pair)
        if moved:
            target.total_jobs += moved
            self._scout.refresh_segment(made)
            return moved
        made.close()
        self._retirement.come_back_to(target.name, made.number)
        if failure is not None and not isinstance(failure, (Fenced, Refused)):
            raise failure
        # Somebody else has taken some of them first.
        return 0

    async def _make(self, target: "SharedTube") -> "Committer":
        """Make a segment that takes no puts. Raises StoreFull or StoreFailed."""
        until = self._tasks.for_a_while()()

        async def make() -> "Committer | None":
            # One after the other: where there is no page with room, each would make one.
            async with self._making:
                return await self._puts.create(target, until)

        try:
            made = await self._tasks.try_for_a_while(make, Full)
        except TooBig as error:
            raise StoreFull("the directory is full") from error
        if made is None:
            raise StoreFailed("the session is over")
        made.closed = True
        return made

    async def _begin(self, pair: Pair, keys: list[bytes], made: "Committer") -> None:
        """Make the first three steps. Raises EngineError: then perhaps not all of them are made."""
        arriving = await self._attach(pair, leaving=False)
        leaving = await self._attach(pair, leaving=True)
        await self._ends.once(partial(self._store.shift, pair.source, pair.queue, keys, leaving, None))
        source = await self._tasks.try_for_a_while(partial(self._store.read, pair.source))
        jobs = NOTHING if source is None else source.leases.get(leaving, NOTHING)
        put = await self._copy(pair.source, jobs, made)
        # Into the queue and out of it again, in one operation: the target was empty.
        change = Change(last_slot=len(put), puts={READY: put}, take=len(put), close=True)
        await self._ends.once(partial(self._store.apply, pair.target, arriving, change))

    async def _attach(self, pair: Pair, *, leaving: bool) -> int:
        """Give a segment of a pair a lease; return it. Raises EngineError."""
        number = pair.source if leaving else pair.target
        for serial in range(SERIALS_TO_ATTACH):
            lease = pair_lease(pair, serial, leaving=leaving)
            try:
                await self._ends.once(partial(self._store.apply, number, lease, Change(attach=True)))
            except Unknown:
                continue
            return lease
        raise StoreFailed("the store does not say whether segments have leases")

    async def _copy(self, number: int, jobs: "Entries", made: "Committer") -> dict[bytes, bytes]:
        """Pack jobs of a segment anew for another one, with their keys there; bodies that lie outside are copied."""
        copies: dict[bytes, bytes] = {}
        for slot, (key, packed) in enumerate(jobs.items(), 1):
            if slot % JOBS_AT_ONCE == 0:
                await asyncio.sleep(0)
            job = self._formats.unpack(packed)
            job.form = made.form
            if job.body_number:
                names = [(number, job.body_number)]
                bodies = await self._tasks.try_for_a_while(partial(self._store.read_bodies, names))
                if bodies[0] is None:
                    raise StoreFailed(f"the body of job {job_id(number, job_slot(key))} is lost")
                write = partial(made.bodies.write, bodies[0], job.form)
                job.body_number = await self._tasks.try_for_a_while(write, Full)
            copies[key[:-2] + slot.to_bytes(2, "big")] = self._formats.pack(job)
        return copies

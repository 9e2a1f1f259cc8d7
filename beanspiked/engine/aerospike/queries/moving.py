"""Moves jobs from the segments of one tube to those of another, so that each is in one of them whoever dies in between.

A job's id is its place in its segment, so a move puts a copy and deletes the job. Both segments are records of their own; the steps are:

1. A closed segment is made for the target, and both are given a lease of the pair (store/pairs.py).
2. The jobs go from their queue into the lease in the source, as they are then: nobody can take them any more.
3. Copies of them are put into the lease in the target, all in one operation, once. Nobody can take them yet.
4. The jobs are deleted in the source.
5. The copies go from the lease in the target into their queue.

Whoever finds a pair can see to it (`finish`), also when somebody else is about to. Renaming the lease in the target decides for ever if
the copies were put. If they were, step 4 follows; if not, the jobs go back into their queue. Each later step is made under a lease that was
renamed for it, so that it fails as a whole once somebody else has renamed that again.
"""

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.queries.looks import QUEUES
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, SharedJob, job_id
from beanspiked.engine.aerospike.segment.view import BYTES_MAX
from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.aerospike.store.pairs import FIRST_SERIAL, SERIALS, Pair, find_lease, pair_lease, pairs_of
from beanspiked.engine.aerospike.store.seam import (
    READY,
    Busy,
    Change,
    Fenced,
    Full,
    Move,
    Refused,
    Segment,
    Settlement,
    StoreError,
    TooBig,
    Unknown,
)
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.segment.committer import Committer
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Entries
    from beanspiked.engine.aerospike.tubes.tube import SharedTube

__all__ = ["Moving"]

logger = logging.getLogger(__name__)

# How often a pair is seen to before that is left for later: each time somebody else may have been faster.
TRIES: Final = 20
EMPTY: Final[dict[bytes, bytes]] = {}


class Moving:
    """Moves jobs, and finishes what others, who may be dead, have begun.

    Args:
        engine: Whose it is.
        store: The store.
        chance: What serials come from.
    """

    def __init__(self, engine: "SharedEngine", store: "SegmentStore", chance: random.Random | None = None) -> None:
        self._engine = engine
        self._store = store
        self._chance = chance or random.Random()  # noqa: S311 - two who see to the same pair are not to choose the same
        # Pairs that could not be finished, to be tried again.
        self._left: dict[Pair, None] = {}
        self._going_on: bool = False

    async def move(self, segment: Segment, state: int, jobs: list[SharedJob], target: "SharedTube") -> int:
        """Move jobs of one segment and state; return how many have moved: some may be gone by then. Raises EngineError."""
        moved = 0
        batch: list[SharedJob] = []
        size = 0
        for job in jobs:
            weight = len(job.stored) + 64
            if batch and (len(batch) == BATCH_MAX or size + weight > BYTES_MAX):
                moved += await self._move(segment, state, batch, target)
                batch, size = [], 0
            batch.append(job)
            size += weight
        return moved + (await self._move(segment, state, batch, target) if batch else 0)

    async def _move(self, source: Segment, state: int, jobs: list[SharedJob], target: "SharedTube") -> int:
        made = await self._make(target)
        pair = Pair(source.number, made.number, state)
        failure: EngineError | None = None
        try:
            await self._begin(pair, [job.place for job in jobs], made)
        except EngineError as error:
            # Whatever it was: how far it came is seen below.
            failure = error
        moved = await self.finish(pair)
        target.total_jobs += moved
        if moved:
            self._engine.scout.refresh_segment(made)
        else:
            await self._let_go(pair)
            if failure is not None and not isinstance(failure, (Fenced, Refused)):
                raise failure
            # Somebody else has taken some of them first.
        return moved

    async def _make(self, target: "SharedTube") -> "Committer":
        """Make a segment that takes no puts. Raises StoreFull or StoreFailed."""
        try:
            made = await self._engine.tasks.try_for_a_while(lambda: self._engine.puts.create(target), Full)
        except TooBig as error:
            raise StoreFull("the directory is full") from error
        if made is None:
            raise StoreFailed("the session is over")
        made.closed = True
        return made

    # --- the steps

    async def _begin(self, pair: Pair, keys: list[bytes], made: "Committer") -> None:
        """Make the first three steps. Raises EngineError: then perhaps not all of them are made."""
        arriving = pair_lease(pair.source, pair.state, FIRST_SERIAL, leaving=False)
        leaving = pair_lease(pair.target, pair.state, FIRST_SERIAL, leaving=True)
        await self._attach(pair.target, arriving)
        await self._attach(pair.source, leaving)
        await self._once(partial(self._store.shift, pair.source, QUEUES[pair.state], keys, leaving, None))
        source: Segment | None = await self._engine.try_for_a_while(partial(self._store.read, pair.source))
        jobs = EMPTY if source is None else source.leases.get(leaving, EMPTY)
        put = await self._copy(pair.source, jobs, made)
        # Into the queue and out of it again, in one operation: the target was empty.
        change = Change(last_slot=len(put), puts={READY: put}, take=len(put), close=True)
        await self._once(partial(self._store.apply, pair.target, arriving, change))

    async def _copy(self, number: int, jobs: "Entries", made: "Committer") -> dict[bytes, bytes]:
        """Pack jobs of a segment anew for another one, with their keys there; bodies that lie outside are copied."""
        copies: dict[bytes, bytes] = {}
        for slot, (key, packed) in enumerate(jobs.items(), 1):
            job = self._engine.formats.unpack(packed)
            job.form = made.form
            if job.body_number:
                names = [(number, job.body_number)]
                bodies = await self._engine.try_for_a_while(partial(self._store.read_bodies, names))
                if bodies[0] is None:
                    raise StoreFailed(f"the body of job {job_id(number, job_slot(key))} is lost")
                write = partial(made.bodies.write, bodies[0], job.form)
                job.body_number = await self._engine.tasks.try_for_a_while(write, Full)
            copies[key[:-2] + slot.to_bytes(2, "big")] = self._engine.formats.pack(job)
        return copies

    async def _attach(self, number: int, lease: int) -> None:
        try:
            await self._engine.try_for_a_while(lambda: self._store.attach(number, lease))
        except Refused:
            # An earlier try has done it: nobody else names the lease so.
            return

    async def _once(self, operation: "Callable[[], Coroutine[Any, Any, object]]") -> None:
        """Do what must not be done twice: it is tried again only where it was certainly not done."""
        await self._engine.tasks.try_for_a_while(operation, Unknown, Full)

    # --- the end

    async def finish(self, pair: Pair) -> int:
        """See to a pair until no job is on the move in it; return how many have moved. Raises EngineError; it is tried again then."""
        try:
            moved = await self._settle_for_a_while(pair)
        except EngineError:
            self._left[pair] = None
            raise
        self._left.pop(pair, None)
        return moved

    async def _settle_for_a_while(self, pair: Pair) -> int:
        moved = 0
        for _ in range(TRIES):
            failure: StoreError | None = None
            try:
                moved = max(moved, await self._settle(pair))
            except (Busy, Fenced, Unknown) as error:
                # Somebody else sees to it, or has; or it is not known whether a step was made.
                failure = error
            if failure is None:
                return moved
            logger.info("the pair of segments %d and %d: %s", pair.source, pair.target, failure)
            await self._engine.pause_between_tries()
        raise StoreFailed("a move between two segments is not finished yet")

    async def _settle(self, pair: Pair) -> int:
        """Decide what becomes of a pair, and make its last steps; return how many jobs came into the target by them."""
        arrived, copies = await self._own(pair.target, pair.source, pair.state, leaving=False)
        left, jobs = await self._own(pair.source, pair.target, pair.state, leaving=True)
        queue = QUEUES[pair.state]
        if left and jobs:
            moves = [Move(key) if copies else Move(key, queue, key, packed) for key, packed in jobs.items()]
            await self._once(partial(self._store.apply, pair.source, left, Change(moves=moves)))
            if copies:
                self._drop_bodies(pair.source, jobs)
        if arrived and copies:
            moves = [Move(key, queue, key, packed) for key, packed in copies.items()]
            await self._once(partial(self._store.apply, pair.target, arrived, Change(moves=moves, close=True)))
        for number, lease in (pair.source, left), (pair.target, arrived):
            if lease:
                # Nothing is in it any more.
                await self._engine.try_for_a_while(partial(self._store.reclaim, number, lease))
        if arrived:
            await self._let_go(pair)
        return len(copies)

    async def _own(self, number: int, other: int, state: int, *, leaving: bool) -> "tuple[int, Entries]":
        """Rename the lease of a pair in one of its segments, and learn what it holds; 0 where there is none any more."""
        while True:
            segment: Segment | None = await self._engine.try_for_a_while(partial(self._store.read, number))
            lease = None if segment is None else find_lease(list(segment.leases), other, state, leaving=leaving)
            if lease is None:
                return 0, EMPTY
            serial = self._chance.randrange(FIRST_SERIAL + 1, SERIALS)
            renamed = pair_lease(other, state, serial, leaving=leaving)
            try:
                settle = partial(self._store.settle, number, lease, renamed)
                settlement: Settlement = await self._engine.try_for_a_while(settle)
            except Fenced:
                # Somebody else has just renamed it, or has finished.
                continue
            return renamed, settlement.held

    def _drop_bodies(self, number: int, jobs: "Entries") -> None:
        """Remove the bodies of jobs that have moved."""
        bodies = [self._engine.formats.unpack(packed).body_number for packed in jobs.values()]
        names = [(number, body) for body in bodies if body]
        if names:
            self._engine.retirement.drop_bodies(names)

    async def _let_go(self, pair: Pair) -> None:
        """Let others know of the jobs in the target, and let it die where there are none."""
        segment: Segment | None = await self._engine.try_for_a_while(partial(self._store.read, pair.target))
        if segment is None:
            return
        await self._engine.try_for_a_while(partial(self._store.close, pair.target))
        if segment.empty():
            await self._engine.retirement.end(segment.tube, pair.target)
        self._engine.scout.segment_changed(segment.tube, pair.target)

    # --- what was left behind

    async def finish_for(self, number: int, leases: "Sequence[int]") -> None:
        """See to the pairs that a segment is in, by its leases, unless who has made them lives. Raises StoreError."""
        for pair in pairs_of(number, leases):
            target = (await self._store.leases([pair.target]))[0]
            if target is not None and self._lives(target.owner):
                continue
            try:
                await self.finish(pair)
            except StoreFailed as failure:
                raise Busy(str(failure)) from failure

    def _lives(self, session: int) -> bool:
        membership = self._engine.membership
        return session in membership.others or (session == membership.session.number and not membership.session.over)

    def go_on(self) -> None:
        """Try again to finish what could not be finished."""
        if self._left and not self._going_on:
            self._going_on = True
            self._engine.spawn(self._go_on())

    async def _go_on(self) -> None:
        try:
            for pair in list(self._left):
                try:
                    await self.finish(pair)
                except EngineError as error:
                    logger.warning("jobs on the move from segment %d to %d wait: %s", *pair[:2], error)
        finally:
            self._going_on = False

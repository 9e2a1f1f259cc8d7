"""Finishes moves of jobs from one segment to another, so that each is in one of them whoever died meanwhile.

A job's id is its place in its segment, so a move puts a copy and deletes the job, in two records. The steps are:

1. A segment is made that takes no puts, and both segments get a lease of the pair (store/pairs.py).
2. The jobs go from their queue into the lease in the source, as they are then: nobody can take them any more.
3. Copies of them are put into the lease in the target, all in one operation, once. Nobody can take them yet.
4. The jobs are deleted in the source.
5. The copies go from the lease in the target into their queue.

Whoever finds a pair can finish it, also when somebody else is about to. Renaming the lease in the target decides for ever whether the
copies were put. If they were, step 4 follows; if not, the jobs go back into their queue. Each later step is made under a lease that was
renamed for it, so that it fails as a whole once somebody else has renamed that again.
"""

import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.cluster.session import Sessions
from beanspiked.engine.aerospike.segment.codec import Formats
from beanspiked.engine.aerospike.store.pairs import SERIALS, SERIALS_TO_ATTACH, Pair, find_leases, pair_lease, pairs_of
from beanspiked.engine.aerospike.store.seam import Busy, Change, Fenced, Full, Move, StoreError, Unknown
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.errors import EngineError, StoreFailed

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Entries

__all__ = ["PairEnds"]

logger = logging.getLogger(__name__)

# How often a pair is seen to before that is left for later: each time somebody else may have been faster.
TRIES: Final = 20
NOTHING: Final[dict[bytes, bytes]] = {}


class PairEnds:
    """Makes the last steps of moves, whoever has made the first.

    Args:
        store: The store.
        tasks: What tries again.
        sessions: Which front-ends live.
        formats: How jobs are packed.
        retirement: What ends segments that are empty.
        scout: Whom to tell of segments that were changed.
        chance: What serials come from.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: Tasks,
        sessions: Sessions,
        formats: Formats,
        retirement: Retirement,
        scout: Scout,
        chance: random.Random | None = None,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._sessions = sessions
        self._formats = formats
        self._retirement = retirement
        self._scout = scout
        self._chance = chance or random.Random()  # noqa: S311 - two who see to the same pair are not to choose the same
        # Pairs that could not be finished, to be tried again.
        self._left: dict[Pair, None] = {}
        self._going_on: bool = False

    async def once(self, operation: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do what must not be done twice: it is tried again only where it was certainly not done. Raises EngineError."""
        await self._tasks.try_for_a_while(operation, Unknown, Full)

    async def finish(self, pair: Pair) -> int:
        """See to a pair until no job is on the move in it; return how many have moved. Raises EngineError; it is tried again then."""
        try:
            moved = await self._settle_for_a_while(pair)
        except EngineError as error:
            if pair not in self._left:
                # Once: it is tried again every second.
                logger.warning("jobs on the move from segment %d to %d wait: %s", pair.source, pair.target, error)
                self._left[pair] = None
            raise
        self._left.pop(pair, None)
        return moved

    async def finish_for(self, number: int, leases: Sequence[int]) -> None:
        """See to the pairs that a segment is in, by its leases, unless who has made them lives and is at it. Raises StoreError."""
        for pair in pairs_of(number, leases):
            target = (await self._store.leases([pair.target]))[0]
            if target is not None and find_leases(target.leases, pair, leaving=False) and self._lives(target.owner):
                continue
            try:
                await self.finish(pair)
            except StoreFailed as failure:
                raise Busy(str(failure)) from failure

    def go_on(self) -> None:
        """Try again to finish what could not be finished."""
        if self._left and not self._going_on:
            self._going_on = True
            self._tasks.spawn(self._go_on())

    async def _go_on(self) -> None:
        try:
            for pair in list(self._left):
                with contextlib.suppress(EngineError):
                    await self.finish(pair)
        finally:
            self._going_on = False

    def _lives(self, session: int) -> bool:
        mine = self._sessions.session
        return session in self._sessions.others or (session == mine.number and not mine.over)

    async def _settle_for_a_while(self, pair: Pair) -> int:
        moved = 0
        for _ in range(TRIES):
            failure: StoreError | None = None
            try:
                arriving = await self._own(pair, leaving=False)
                leaving = await self._own(pair, leaving=True)
                # Copies that were put come into their queue for certain, though perhaps nobody tells by which step.
                moved = max(moved, len(_holding(arriving)[1]))
                await self._settle(pair, arriving, leaving)
            except (Busy, Fenced, Unknown) as error:
                # Somebody else sees to it, or has; or it is not known whether a step was made.
                failure = error
            if failure is None:
                return moved
            logger.info("the pair of segments %d and %d: %s", pair.source, pair.target, failure)
            await self._tasks.pause_between_tries()
        raise StoreFailed("a move between two segments is not finished yet")

    async def _settle(self, pair: Pair, arriving: "dict[int, Entries]", leaving: "dict[int, Entries]") -> None:
        """Make the last steps of a pair whose leases are owned here: the copies decide what becomes of it."""
        arrived, copies = _holding(arriving)
        left, jobs = _holding(leaving)
        if jobs:
            moves = [Move(key) if copies else Move(key, pair.queue, key, packed) for key, packed in jobs.items()]
            await self.once(partial(self._store.apply, pair.source, left, Change(moves=moves)))
            if copies:
                self._drop_bodies(pair.source, jobs)
        if copies:
            moves = [Move(key, pair.queue, key, packed) for key, packed in copies.items()]
            await self.once(partial(self._store.apply, pair.target, arrived, Change(moves=moves, close=True)))
        # Nothing is in them any more.
        for lease in leaving:
            await self._tasks.try_for_a_while(partial(self._store.reclaim, pair.source, lease))
        for lease in arriving:
            await self._tasks.try_for_a_while(partial(self._store.reclaim, pair.target, lease))
        if leaving or arriving:
            await self._look_after(pair)

    async def _own(self, pair: Pair, *, leaving: bool) -> "dict[int, Entries]":
        """Rename the leases of a pair in one of its segments, and learn what they hold."""
        number = pair.source if leaving else pair.target
        while True:
            segment = await self._tasks.try_for_a_while(partial(self._store.read, number))
            leases = [] if segment is None else find_leases(segment.leases, pair, leaving=leaving)
            owned: dict[int, Entries] = {}
            for lease in leases:
                renamed = pair_lease(pair, self._chance.randrange(SERIALS_TO_ATTACH, SERIALS), leaving=leaving)
                try:
                    settlement = await self._tasks.try_for_a_while(partial(self._store.settle, number, lease, renamed))
                except Fenced:
                    # Somebody else has just renamed it, or has finished.
                    break
                owned[renamed] = settlement.held
            if len(owned) == len(leases):
                return owned

    def _drop_bodies(self, number: int, jobs: "Entries") -> None:
        """Remove the bodies of jobs that have moved."""
        bodies = [self._formats.unpack(packed).body_number for packed in jobs.values()]
        names = [(number, body) for body in bodies if body]
        if names:
            self._retirement.drop_bodies(names)

    async def _look_after(self, pair: Pair) -> None:
        """Let others know of the jobs in both segments; an empty target dies, and an empty source once it is closed."""
        for number in pair.target, pair.source:
            segment = await self._tasks.try_for_a_while(partial(self._store.read, number))
            if segment is None:
                continue
            if segment.empty():
                if number == pair.target:
                    await self._tasks.try_for_a_while(partial(self._store.close, number))
                await self._retirement.end(segment.tube, number)
            self._scout.segment_changed(segment.tube, number)


def _holding(owned: "dict[int, Entries]") -> "tuple[int, Entries]":
    """Return the lease that holds jobs, and the jobs; 0 without any."""
    return next(((lease, held) for lease, held in owned.items() if held), (0, NOTHING))

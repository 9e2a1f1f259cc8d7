"""The end of sessions: who has been silent for long is declared dead, and what it held is taken back.

Death is a decision, and a write (segment-protocol H5): a session that has been silent for DEAD_AFTER by the server's clock is killed by
somebody whose own session was healthy for as long, and only then its leases are taken.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beanspiked.engine.aerospike.cluster.chores import Chores
from beanspiked.engine.aerospike.cluster.listener import LocalTubes, SegmentEnder
from beanspiked.engine.aerospike.cluster.session import KnownSession, Session, Sessions
from beanspiked.engine.aerospike.cluster.usage import COUNTER_NAMES
from beanspiked.engine.aerospike.store.keys import lease_session
from beanspiked.engine.aerospike.store.pairs import pairs_of
from beanspiked.engine.aerospike.store.seam import NEVER_WROTE, OPEN, Damaged, StoreError

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Leases, Segment

__all__ = ["DEAD_AFTER", "Burial"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# All in seconds.
DEAD_AFTER: Final = 10.0
# How long a session that is to be killed must have been seen silent.
QUIET_FOR: Final = 3.0
# Queries may miss records while data moves between nodes: a dead session is forgotten after two empty passes so far apart.
PASSES_APART: Final = 60.0
# After a pass that could not look at everything.
PASS_AGAIN: Final = 5.0
RECLAIMS_AT_ONCE: Final = 2
# How many segments are looked through for leases at once.
AUDITED_AT_ONCE: Final = 250


class Burial:
    """Buries the sessions of others, and own ones that are over.

    Args:
        store: The store.
        sessions: What is known of the sessions.
        tubes: The tubes of this front-end.
        ender: What sees segments to their end.
        chores: What does this beside the heartbeat.
        monotonic: A clock in seconds that goes on while the machine sleeps.
    """

    def __init__(
        self,
        store: "SegmentStore",
        sessions: Sessions,
        tubes: LocalTubes,
        ender: SegmentEnder,
        chores: Chores,
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._tubes = tubes
        self._ender = ender
        self._chores = chores
        self._monotonic = monotonic
        # When dead sessions are looked for leases next, and which of them were once with nothing left out.
        self._next_passes: dict[int, float] = {}
        self._passed: set[int] = set()
        self._suspects: set[int] = set()
        # However many sessions are dead: a store that is slow to answer has threads left for everything else.
        self._reclaims = asyncio.Semaphore(RECLAIMS_AT_ONCE)

    def know(self, listed: set[int]) -> None:
        """Take note of which sessions are listed: others may have forgotten some."""
        self._next_passes = {number: at for number, at in self._next_passes.items() if number in listed}
        self._passed &= listed

    async def bury(self) -> None:
        """Declare dead who has been silent for long, and take back what the dead held."""
        for record in self._sessions.records:
            if record.number in (self._sessions.session.number, self._sessions.entering) or record.newer:
                # A front-end that knows the format of its record declares it dead.
                continue
            try:
                if not record.dead and not await self._kill(record):
                    continue
            except StoreError as error:
                # It must not keep the others from their end.
                logger.info("session %d cannot be looked after yet: %s", record.number, error)
                continue
            self.reclaim_when_due(record.number)

    async def _kill(self, record: KnownSession) -> bool:
        """Declare a session dead if it has been silent for long; tell whether it is dead by this."""
        healthy = not self._sessions.session.over and self._monotonic() - self._sessions.healthy_since >= DEAD_AFTER
        if record.silent_ms <= DEAD_AFTER * 1000 or not healthy:
            return False
        # After a jump of a node's clock all seem silent until their next heartbeat. And who is listed may be about to join.
        if self._monotonic() - record.quiet_since < (DEAD_AFTER if record.silent_ms == NEVER_WROTE else QUIET_FOR):
            return False
        try:
            if not await self._store.kill(record.number, round(DEAD_AFTER * 1000)):
                return False
        except StoreError:
            self._sessions.doubt()
            raise
        # What it uses counts no more, from now on.
        self._sessions.forget_other(record.number)
        if record.silent_ms == NEVER_WROTE:
            logger.info("session %d has not joined and is declared dead", record.number)
            return True
        logger.warning(
            "session %d has been silent for %d s and is declared dead; its held jobs become ready",
            record.number,
            record.silent_ms // 1000,
        )
        self._chores.begin(f"counters {record.number}", partial(self.keep_counters, record.usage()))
        return True

    def reclaim_when_due(self, number: int) -> None:
        """Take back what a dead session held, if that is due."""
        if self._monotonic() >= self._next_passes.get(number, 0.0):
            self._chores.begin(f"reclaim {number}", partial(self._reclaim_again, number))

    async def _reclaim_again(self, number: int) -> None:
        """Take a dead session's leases back, and forget it when a second pass has found none."""
        self._next_passes[number] = self._monotonic() + PASS_AGAIN
        found, whole = await self.reclaim(number, self._reclaims)
        now = self._monotonic()
        if not whole:
            return
        # One that knows formats which are not known here may have left something that cannot be seen from here.
        newer = any(record.number == number and record.reads > self._store.newest for record in self._sessions.records)
        if number in self._passed and not found and not newer:
            await self._store.forget_session(number)
        else:
            self._next_passes[number] = now + PASSES_APART
            self._passed.add(number)

    async def keep_counters(self, usage: dict[str, list[int]], at_once: int = 1) -> None:
        """Add what a dead session has counted to its tubes; whoever killed it does, so it happens once."""

        async def keep(name: str) -> None:
            counters = dict(zip(COUNTER_NAMES, usage[name][3:6], strict=True))
            if any(counters.values()):
                try:
                    # A tube without segments is over, and begins anew. Nobody would ever forget what was added.
                    record = (await self._store.directories([name]))[0]
                    await self._sessions.usages()
                    if (
                        (record is not None and record.segments)
                        or self._tubes.used_here(name)
                        or self._sessions.used_elsewhere(name)
                    ):
                        await self._store.add_counters(name, counters)
                except StoreError as error:
                    logger.info("counters of tube %s are lost: %s", name, error)

        await _side_by_side(usage, keep, at_once)

    async def reclaim(self, number: int, turns: asyncio.Semaphore, at_once: int = 1) -> tuple[int, bool]:
        """Make the jobs that a dead session held ready, and close its segments.

        Args:
            number: The session.
            turns: What each call waits for.
            at_once: How many segments are seen to side by side.

        Returns:
            How many leases it had or may have, and whether all of its segments could be looked at: one that cannot keeps no other from
            its end.
        """
        found: list[int] = []
        failed: list[int] = []
        # Perhaps with leases that somebody who repairs them will find: the session is not forgotten, and they are looked at rarely.
        unreadable: list[int] = []
        over: list[Segment] = []

        async def take_back(segment_number: int) -> None:
            try:
                async with turns:
                    found.append(await self._reclaim_segment(number, segment_number, over))
            except Damaged as damage:
                unreadable.append(segment_number)
                logger.info("session %d: segment %d is left alone: %s", number, segment_number, damage)
            except StoreError as error:
                failed.append(segment_number)
                logger.info("session %d: segment %d is not taken back yet: %s", number, segment_number, error)
            except Exception as bug:
                unreadable.append(segment_number)
                logger.error("internal error: segment %d is left alone", segment_number, exc_info=bug)

        async def end(segment: "Segment") -> None:
            try:
                async with turns:
                    await self._end_empty(number, segment)
            except StoreError as error:
                failed.append(segment.number)
                logger.info("session %d: segment %d is not ended yet: %s", number, segment.number, error)

        async with turns:
            leased = await self._store.leased_by(number)
        await _side_by_side(leased, take_back, at_once)
        # Jobs first.
        await _side_by_side(over, end, at_once)
        leases = sum(found)
        if leases:
            logger.info("session %d: %d leases taken back", number, leases)
        return leases + len(unreadable), not failed

    async def _reclaim_segment(self, number: int, segment_number: int, over: "list[Segment]") -> int:
        """Take back what a dead session has in one segment; return how many leases it had. An empty one goes to those that are over."""
        segment = await self._store.read(segment_number)
        if segment is None:
            return 0
        if segment.owner == number and pairs_of(segment_number, list(segment.leases)):
            # While there is a lease of the session it is found again, should this fail.
            await self._sessions.listener.finish_moves(segment_number, list(segment.leases))
            segment = await self._store.read(segment_number)
            if segment is None:
                return 0
        leases = [lease for lease in segment.leases if lease_session(lease) == number]
        if segment.owner == number and segment.state == OPEN:
            # While there is a lease it is found again, should this fail.
            await self._store.close(segment_number)
        if segment.empty():
            over.append(segment)
            return len(leases)
        for lease in leases:
            await self._store.reclaim(segment_number, lease)
        self._sessions.listener.became_ready(segment.tube, segment.number)
        return len(leases)

    async def _end_empty(self, session: int, segment: "Segment") -> None:
        """Let a segment die in which a session has nothing, or at least take its leases out.

        In this order: perhaps nobody ever looks at its tube, and while there is a lease it is found again, should somebody die here.
        """
        if await self._ender.end_now(segment.tube, segment.number):
            return
        for lease in segment.leases:
            # Something may have come into it meanwhile.
            if lease_session(lease) == session and await self._store.reclaim(segment.number, lease):
                self._sessions.listener.became_ready(segment.tube, segment.number)

    async def audit(self) -> None:
        """Take back leases of this session that nobody here knows: of attaches and creates whose answer was lost."""
        session = self._sessions.session
        if session.over:
            return
        known = self._tubes.known_leases()
        unknown: set[int] = set()
        numbers = await self._store.leased_by(session.number)
        for start in range(0, len(numbers), AUDITED_AT_ONCE):
            # Their leases only: of jobs there may be a hundred megabytes.
            for segment in await self._store.leases(numbers[start : start + AUDITED_AT_ONCE]):
                if segment is None:
                    continue
                try:
                    unknown |= await self._audit_segment(session, segment, known)
                except StoreError as error:
                    logger.info("segment %d is not looked through for leases: %s", segment.number, error)
        self._suspects = unknown

    async def _audit_segment(self, session: Session, segment: "Leases", known: set[int]) -> set[int]:
        """Take back the leases in one segment that were suspect before; return those that are from now on."""
        unknown: set[int] = set()
        number = segment.number
        for lease in segment.leases:
            if lease_session(lease) != session.number or lease in known:
                continue
            if lease not in self._suspects:
                # It may be on its way to being known: the next audit decides.
                unknown.add(lease)
            elif lease not in self._tubes.known_leases():
                forsaken = segment.owner == session.number and not self._tubes.knows_segment(number)
                if forsaken:
                    # While there is a lease it is found again, should this fail.
                    await self._store.close(number)
                # See _end_empty.
                if forsaken and await self._ender.end_now(segment.tube, number):
                    break
                if await self._store.reclaim(number, lease):
                    logger.warning("segment %d: jobs under an unknown lease are made ready", number)
                if forsaken:
                    await self._ender.end(segment.tube, number)
                self._sessions.listener.became_ready(segment.tube, segment.number)
        return unknown


async def _side_by_side(items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, None]], at_once: int) -> None:
    """Do something with each of many, some at once."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await work(item)

    await asyncio.gather(*[some() for _ in range(at_once)])

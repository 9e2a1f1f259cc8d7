"""The end of sessions: a session that has been silent for long is declared dead, and the jobs that it held become ready.

Death is a decision and a write (segment-protocol H5). A front-end declares a session dead that has been silent for DEAD_AFTER by the
server's clock, if its own session was healthy for as long. Only then the leases are taken.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.chores import Chores
from beanspiked.engine.aerospike.cluster.listener import LocalTubes, SegmentEnder
from beanspiked.engine.aerospike.cluster.session import KnownSession, Session, Sessions
from beanspiked.engine.aerospike.cluster.usage import COUNTER_NAMES
from beanspiked.engine.aerospike.store.keys import lease_session
from beanspiked.engine.aerospike.store.pairs import pairs_of
from beanspiked.engine.aerospike.store.seam import NEVER_WROTE, OPEN, Damaged, StoreError
from beanspiked.engine.aerospike.store.tasks import side_by_side

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Leases, Segment

__all__ = ["DEAD_AFTER", "Burial"]

logger = logging.getLogger(__name__)

# All in seconds.
DEAD_AFTER: Final = 10.0
# How long a session must have been seen silent before it is declared dead.
QUIET_FOR: Final = 3.0
# Queries may miss records while data moves between nodes: a dead session is forgotten after two empty passes, this far apart.
PASSES_APART: Final = 60.0
# The pause after a pass that could not look at everything.
PASS_AGAIN: Final = 5.0
RECLAIMS_AT_ONCE: Final = 2
# How long a session that another front-end has ended, its own one or one that declared it dead, is left to that front-end.
LEFT_TO_OTHERS: Final = 4.0
# How many segments are searched for leases at once. An audit of many is spread over so many seconds: nobody waits for it.
AUDITED_AT_ONCE: Final = 100
AUDIT_SECONDS: Final = 30.0
# Of how many tubes the directories are read together, to keep their counters at a stop and after a death.
KEPT_TOGETHER: Final = 16


class Burial:
    """Buries the sessions of others, and this front-end's own former ones.

    Args:
        store: The store.
        sessions: What is known of the sessions.
        tubes: The tubes of this front-end.
        ender: What ends segments.
        chores: What runs this beside the heartbeat.
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
        # When dead sessions are searched for leases next, and which of them have had one complete pass.
        self._next_passes: dict[int, float] = {}
        self._passed: set[int] = set()
        self._suspects: set[int] = set()
        # A bound for all dead sessions together: if the store is slow, threads are left for everything else.
        self._reclaims = asyncio.Semaphore(RECLAIMS_AT_ONCE)

    def know(self, listed: set[int]) -> None:
        """Forget sessions that are no longer listed: other front-ends have forgotten them."""
        self._next_passes = {number: at for number, at in self._next_passes.items() if number in listed}
        self._passed &= listed

    async def bury(self) -> None:
        """Declare sessions dead that have been silent for long, and take back the leases of dead ones."""
        for record in self._sessions.records:
            if record.number in (self._sessions.session.number, self._sessions.entering) or record.newer:
                # Only front-ends that know the format of its record declare it dead.
                continue
            try:
                if record.dead:
                    self._next_passes.setdefault(record.number, self._monotonic() + LEFT_TO_OTHERS)
                elif not await self._kill(record):
                    continue
            except StoreError as error:
                # One session must not keep the others from their end.
                logger.info("session %d cannot be looked after yet: %s", record.number, error)
                continue
            self.reclaim_when_due(record.number)

    async def _kill(self, record: KnownSession) -> bool:
        """Declare a session dead if it has been silent for long; tell whether that was done."""
        healthy = not self._sessions.session.over and self._monotonic() - self._sessions.healthy_since >= DEAD_AFTER
        if record.silent_ms <= DEAD_AFTER * 1000 or not healthy:
            return False
        # After a jump of a node's clock all seem silent until their next heartbeat. And a listed session may be about to join.
        if self._monotonic() - record.quiet_since < (DEAD_AFTER if record.silent_ms == NEVER_WROTE else QUIET_FOR):
            return False
        try:
            if not await self._store.kill(record.number, round(DEAD_AFTER * 1000)):
                return False
        except StoreError:
            self._sessions.doubt()
            raise
        # From now on the tubes that it uses do not count.
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
        """Take back the leases of a dead session, if that is due."""
        if self._monotonic() >= self._next_passes.get(number, 0.0):
            self._chores.begin(f"reclaim {number}", partial(self._reclaim_again, number))

    async def _reclaim_again(self, number: int) -> None:
        """Take back a dead session's leases; forget the session when a second pass has found none."""
        self._next_passes[number] = self._monotonic() + PASS_AGAIN
        found, whole = await self.reclaim(number, self._reclaims)
        now = self._monotonic()
        if not whole:
            return
        # A session that knows newer formats may have left something that this version cannot see.
        newer = any(record.number == number and record.reads > self._store.newest for record in self._sessions.records)
        if number in self._passed and not found and not newer:
            await self._store.forget_session(number)
        else:
            self._next_passes[number] = now + PASSES_APART
            self._passed.add(number)

    async def keep_counters(self, usage: dict[str, list[int]], at_once: int = 1) -> None:
        """Add a dead session's counters to its tubes'. Only the front-end that declared it dead does this, so it happens once."""
        counted = {
            name: dict(zip(COUNTER_NAMES, use[3:6], strict=True)) for name, use in usage.items() if any(use[3:6])
        }

        async def keep(names: list[str]) -> None:
            try:
                records = await self._store.directories(names)
                await self._sessions.usages()
            except StoreError as error:
                logger.info("counters of %d tubes are lost: %s", len(names), error)
                return
            for name, record in zip(names, records, strict=True):
                # A tube without segments is over and begins anew; counters that are added now would stay for ever.
                lives = record is not None and (record.segments or record.pages)
                if lives or self._tubes.used_here(name) or self._sessions.used_elsewhere(name):
                    await add(name)

        async def add(name: str) -> None:
            try:
                await self._store.add_counters(name, counted[name])
            except StoreError as error:
                logger.info("counters of tube %s are lost: %s", name, error)

        names = list(counted)
        parts = [names[start : start + KEPT_TOGETHER] for start in range(0, len(names), KEPT_TOGETHER)]
        await side_by_side(parts, keep, at_once)

    async def reclaim(self, number: int, turns: asyncio.Semaphore, at_once: int = 1) -> tuple[int, bool]:
        """Make the jobs that a dead session held ready, and close its segments.

        Args:
            number: The session.
            turns: What each call waits for.
            at_once: How many segments are treated at once.

        Returns:
            How many leases it had or may have, and whether all of its segments could be looked at. A segment that cannot be looked at
            keeps no other from its end.
        """
        found: list[int] = []
        failed: list[int] = []
        # They may have leases, which are found once the segments are repaired: the session is not forgotten, and they are looked at rarely.
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
        await side_by_side(leased, take_back, at_once)
        # Jobs come first: empty segments end afterwards.
        await side_by_side(over, end, at_once)
        leases = sum(found)
        if leases:
            logger.info("session %d: %d leases taken back", number, leases)
        return leases + len(unreadable), not failed

    async def _reclaim_segment(self, number: int, segment_number: int, over: "list[Segment]") -> int:
        """Take back a dead session's leases in one segment; return how many. An empty segment is added to `over`."""
        segment = await self._store.read(segment_number)
        if segment is None:
            return 0
        if segment.owner == number and pairs_of(segment_number, list(segment.leases)):
            # If this fails, the segment is found again as long as the session has a lease in it.
            await self._sessions.listener.finish_moves(segment_number, list(segment.leases))
            segment = await self._store.read(segment_number)
            if segment is None:
                return 0
        leases = [lease for lease in segment.leases if lease_session(lease) == number]
        if segment.owner == number and segment.state == OPEN:
            # If this fails, the segment is found again as long as it has a lease.
            await self._store.close(segment_number)
        if segment.empty():
            over.append(segment)
            return len(leases)
        # This makes all waiters look once more. An empty lease needs no look, and a front-end that ends has thousands of them.
        changed = any(segment.leases[lease] for lease in leases)
        try:
            for lease in leases:
                # A late take may have come after the read.
                changed = bool(await self._store.reclaim(segment_number, lease)) or changed
        except StoreError:
            # It may be done: then this lease is found no more.
            changed = True
            raise
        finally:
            if changed:
                self._sessions.listener.became_ready(segment.tube, segment.number)
        return len(leases)

    async def _end_empty(self, session: int, segment: "Segment") -> None:
        """Let a segment die in which a session has no jobs, or at least remove its leases.

        The leases go last: perhaps nobody ever looks at the tube, and if this front-end dies, the segment is found by its leases.
        """
        if await self._ender.end_now(segment.tube, segment.number):
            return
        for lease in segment.leases:
            # A job may have been put into it meanwhile.
            if lease_session(lease) == session and await self._store.reclaim(segment.number, lease):
                self._sessions.listener.became_ready(segment.tube, segment.number)

    async def audit(self) -> None:
        """Take back this session's leases that are unknown here: those of attaches and creates whose answer was lost."""
        session = self._sessions.session
        if session.over:
            return
        unknown: set[int] = set()
        numbers = await self._store.leased_by(session.number)
        # Leases that are made from now on may be suspected; the next audit knows better.
        known = self._tubes.known_leases()
        pause = AUDIT_SECONDS * AUDITED_AT_ONCE / max(AUDITED_AT_ONCE, len(numbers))
        for start in range(0, len(numbers), AUDITED_AT_ONCE):
            if start:
                await asyncio.sleep(pause)
            current = self._sessions.session
            if current is not session or current.over:
                return
            # Only the leases are read: the jobs may have a hundred megabytes.
            for segment in await self._store.leases(numbers[start : start + AUDITED_AT_ONCE]):
                if segment is None:
                    continue
                try:
                    unknown |= await self._audit_segment(session, segment, known)
                except StoreError as error:
                    logger.info("segment %d is not looked through for leases: %s", segment.number, error)
        self._suspects = unknown

    async def _audit_segment(self, session: Session, segment: "Leases", known: set[int]) -> set[int]:
        """Take back the leases in one segment that were suspect before; return those that are suspect now."""
        unknown: set[int] = set()
        number = segment.number
        for lease in segment.leases:
            if lease_session(lease) != session.number or lease in known:
                continue
            if lease not in self._suspects:
                # It may just have been made: the next audit decides.
                unknown.add(lease)
            elif lease not in self._tubes.known_leases():
                forsaken = segment.owner == session.number and not self._tubes.knows_segment(number)
                if forsaken:
                    # If this fails, the segment is found again as long as it has a lease.
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

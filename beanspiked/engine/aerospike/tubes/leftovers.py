"""What nobody else comes to: one front-end slowly looks through all tubes and all old bodies, and finishes what others have left behind.

Whoever works on a segment may die between any two steps. While it has a lease there its session's end finds the segment. A segment
without one is found here while it is listed, and a body whatever became of its segment: it may have been removed long ago, for a node that
restarts brings removed records back, and no key of a body is ever used again.
"""

import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.session import Sessions
from beanspiked.engine.aerospike.segment.codec import unpack
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import CLOSED, DEAD, PARTS, Head, StoreError
from beanspiked.engine.aerospike.tubes.forgetting import Forgetting
from beanspiked.engine.aerospike.tubes.pair_ends import PairEnds
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.errors import DamagedEntry

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.directory import Directory

__all__ = ["Leftovers"]

logger = logging.getLogger(__name__)

# How much is looked at each minute: of all tubes so many parts, which is all of them in eight minutes.
PARTS_AT_ONCE: Final = 8
SEGMENTS_AT_ONCE: Final = 1000
BODIES_AT_ONCE: Final = 1000
# A body that is to be referred to is by then, in ms: a put lasts for seconds, and a front-end that is frozen for longer is dead.
OLD_MS: Final = 3_600_000


class Leftovers:
    """Looks through tubes and bodies, a part at a time.

    Args:
        store: The store.
        sessions: What is known of the sessions.
        lister: What tells which segments a tube has.
        retirement: What lets segments die.
        forgetting: What lets tubes begin anew.
        pair_ends: What finishes moves of jobs.

    Attributes:
        old_ms: From what age on a body is judged, in ms.
    """

    def __init__(
        self,
        store: "SegmentStore",
        sessions: Sessions,
        lister: Lister,
        retirement: Retirement,
        forgetting: Forgetting,
        pair_ends: PairEnds,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._lister = lister
        self._retirement = retirement
        self._forgetting = forgetting
        self._pair_ends = pair_ends
        self.old_ms: int = OLD_MS
        # Which part of all tubes is looked at next, and the segments of earlier ones that were not.
        self._part: int = 0
        self._segments: list[tuple[str, int]] = []

    async def look_through(self) -> None:
        """Look at the next part, once a minute, if that is for this front-end to do. Raises StoreError; the rest is looked at next time."""
        session = self._sessions.session
        if session.over or any(other < session.number for other in self._sessions.others):
            self._segments = []
            return
        await self._look_at_tubes()
        await self._look_at_segments()
        await self._look_at_bodies()

    async def _look_at_tubes(self) -> None:
        """Find the segments of the next tubes, and let those begin anew that are over."""
        for _ in range(PARTS_AT_ONCE):
            if len(self._segments) >= SEGMENTS_AT_ONCE:
                return
            for name, record in (await self._store.tubes(self._part)).items():
                try:
                    await self._look_at_tube(name, record)
                except StoreError as error:
                    # It must not keep the others.
                    logger.info("tube %s is not looked at: %s", name, error)
            self._part = (self._part + 1) % PARTS

    async def _look_at_tube(self, name: str, record: "Directory") -> None:
        if record.segments or record.pages:
            numbers = await self._lister.everywhere({name: record})
            self._segments += [(name, number) for number in numbers[name]]
        else:
            await self._forgetting.let_begin_anew(name, record)

    async def _look_at_segments(self) -> None:
        """Let segments end that are over, and finish moves whose makers are dead."""
        part = self._segments[-SEGMENTS_AT_ONCE:]
        del self._segments[-SEGMENTS_AT_ONCE:]
        heads = await self._store.heads([number for _, number in part])
        for (name, number), head in zip(part, heads, strict=True):
            if head is not None and _is_over(head):
                await self._retirement.end(name, number)
        held = [number for (_, number), head in zip(part, heads, strict=True) if head is not None and head.held]
        for leases in await self._store.leases(held):
            if leases is not None:
                try:
                    await self._pair_ends.finish_for(leases.number, leases.leases)
                except StoreError as error:
                    # It must not keep the others, nor the bodies.
                    logger.info("the moves of segment %d are not finished: %s", leases.number, error)

    async def _look_at_bodies(self) -> None:
        """Remove old bodies that nothing refers to."""
        bodies: dict[int, list[int]] = {}
        for number, body in await self._store.old_bodies(BODIES_AT_ONCE, self.old_ms):
            bodies.setdefault(number, []).append(body)
        heads = await self._store.heads(list(bodies))
        for (number, some), head in zip(bodies.items(), heads, strict=True):
            needed = await self._needed(number, head)
            if needed is None:
                continue
            orphans = [(number, body) for body in some if body not in needed]
            if orphans:
                logger.info("segment %d: %d bodies that nothing refers to are removed", number, len(orphans))
                await self._store.drop_bodies(orphans)

    async def _needed(self, number: int, head: Head | None) -> set[int] | None:
        """Return the bodies that jobs of a segment refer to; None if that is not known."""
        if head is None:
            return None
        if head.state == DEAD:
            return set()
        try:
            segment = await self._store.read(number)
            if segment is None:
                return None
            queues = (segment.ready, segment.delayed, segment.buried, *segment.leases.values())
            return {unpack(packed).body_number for queue in queues for packed in queue.values()}
        except (StoreError, DamagedEntry) as error:
            logger.info("the bodies of segment %d are left alone: %s", number, error)
            return None


def _is_over(head: Head) -> bool:
    return head.state == DEAD or (head.state == CLOSED and head.ready + head.delayed + head.buried + head.held == 0)

"""What nobody else comes to: one front-end slowly looks through all tubes and all old bodies, and finishes what others have left behind.

Whoever works on a segment may die between any two steps. While it has a lease there its session's end finds the segment. A segment
without one is found here while it is listed, and a body whatever became of its segment: it may have been removed long ago, for a node that
restarts brings removed records back, and no key of a body is ever used again.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.segment.codec import unpack
from beanspiked.engine.aerospike.store.seam import CLOSED, DEAD, Head, StoreError
from beanspiked.engine.errors import DamagedEntry

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.store.seam import SegmentStore

__all__ = ["Leftovers"]

logger = logging.getLogger(__name__)

# How much is looked at each minute.
TUBES_AT_ONCE: Final = 100
SEGMENTS_AT_ONCE: Final = 1000
BODIES_AT_ONCE: Final = 1000
# Where there are few tubes, how long it takes at least until all are looked at anew, in seconds.
ROUND_EVERY: Final = 600.0
# A body that is to be referred to is by then, in ms: a put lasts for seconds, and a front-end that is frozen for longer is dead.
OLD_MS: Final = 3_600_000


class Leftovers:
    """Looks through tubes and bodies, a part at a time.

    Args:
        engine: Whose it is.
        store: The store.
        monotonic: A clock in seconds that goes on while the machine sleeps.

    Attributes:
        old_ms: From what age on a body is judged, in ms.
    """

    def __init__(self, engine: "SharedEngine", store: "SegmentStore", monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._store = store
        self._monotonic = monotonic
        self.old_ms: int = OLD_MS
        # What is left of this round.
        self._names: list[str] = []
        self._segments: list[tuple[str, int]] = []
        self._next_round: float = 0.0

    async def look_through(self) -> None:
        """Look at the next part, once a minute, if that is for this front-end to do. Raises StoreError; the rest is looked at next time."""
        session = self._engine.membership.session
        if session.over or any(other < session.number for other in self._engine.membership.others):
            self._names = []
            self._segments = []
            return
        await self._look_at_tubes()
        await self._look_at_bodies()

    async def _look_at_tubes(self) -> None:
        if not self._segments:
            await self._look_at_names()
        part = self._segments[-SEGMENTS_AT_ONCE:]
        del self._segments[-SEGMENTS_AT_ONCE:]
        heads = await self._store.heads([number for _, number in part])
        for (name, number), head in zip(part, heads, strict=True):
            if head is not None and _is_over(head):
                await self._engine.retirement.end(name, number)

    async def _look_at_names(self) -> None:
        """Find the segments of the next tubes."""
        if not self._names and self._monotonic() >= self._next_round:
            self._next_round = self._monotonic() + ROUND_EVERY
            self._names = list(await self._store.tubes())
        part = self._names[-TUBES_AT_ONCE:]
        del self._names[-TUBES_AT_ONCE:]
        for name, record in zip(part, await self._store.directories(part), strict=True):
            numbers = await self._engine.lister.everywhere(name, record)
            self._segments += [(name, number) for number in numbers]

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

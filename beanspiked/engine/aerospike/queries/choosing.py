"""Which jobs of a tube's segments a filter wants."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.queries.finder import QUEUES
from beanspiked.engine.aerospike.segment.bodies import fetch_bodies
from beanspiked.engine.aerospike.segment.jobs import SharedJob
from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Damaged, Segment
from beanspiked.engine.contract import RESERVED, Filter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from beanspiked.engine.aerospike.queries.census import Census
    from beanspiked.engine.aerospike.queries.finder import Finder
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.timers import Clock

__all__ = ["JOBS_AT_ONCE", "Choice", "Chooser"]

logger = logging.getLogger(__name__)

# So many bodies that lie outside are fetched at once: they may be large.
BODIES_AT_ONCE: Final = 32
# After so many jobs others have their turn.
JOBS_AT_ONCE: Final = 128
SLOT_MAX: Final = (1 << SLOT_BITS) - 1


class Chooser:
    """Makes choices.

    Args:
        store: The store.
        tasks: What tries again.
        census: What lists a tube's segments.
        finder: What reads jobs.
        clock: What ages are told by.
    """

    def __init__(
        self, store: "SegmentStore", tasks: "Tasks", census: "Census", finder: "Finder", clock: "Clock"
    ) -> None:
        self.store = store
        self.tasks = tasks
        self.census = census
        self.finder = finder
        self.clock = clock

    def choose(self, name: str, wanted: Filter) -> "Choice":
        """Choose jobs of a tube."""
        return Choice(self, name, wanted)

    async def unfold(self, jobs: list[SharedJob]) -> None:
        """Make the bodies of jobs what was put; one that is lost or damaged, which is logged, is empty."""
        _, broken = await self.tasks.try_for_a_while(lambda: fetch_bodies(self.store, jobs))
        for job, _ in broken:
            job.body = b""


class Choice:
    """What a filter wants of a tube's segments; see Chooser.choose."""

    def __init__(self, chooser: Chooser, name: str, wanted: Filter) -> None:
        self._chooser = chooser
        self._name = name
        self._wanted = wanted
        self._ids: set[int] | None = None if wanted.ids is None else set(wanted.ids)
        # Each segment's last slot when the choice began. None includes later puts.
        self._last_slots: dict[int, int] | None = None

    async def segments(self) -> list[int]:
        """List the segments that may have such jobs. Raises StoreFailed."""
        numbers = await self._chooser.census.segments(self._name)
        if self._ids is None:
            return numbers
        named = {job_id >> SLOT_BITS for job_id in self._ids}
        return [number for number in numbers if number in named]

    async def begin(self) -> list[int]:
        """List the segments that have such jobs now; what is put later is left out from now on. Raises StoreFailed."""
        self._last_slots = await self._chooser.census.last_slots(await self.segments())
        return list(self._last_slots)

    async def read(self, number: int) -> Segment | None:
        """Read a segment; None where it is gone, or cannot be read, which is logged. Raises StoreFailed."""
        # Of many segments each takes a millisecond to be understood.
        await asyncio.sleep(0)
        try:
            return await self._chooser.finder.read(number)
        except Damaged as error:
            logger.warning("segment %d is left out: %s", number, error)
        return None

    async def read_together(self, numbers: list[int]) -> list[Segment]:
        """Read a few segments; those that are gone or cannot be read are left out. Raises StoreFailed."""
        segments = await asyncio.gather(*[self.read(number) for number in numbers])
        return [segment for segment in segments if segment is not None]

    async def jobs(self, segment: Segment, state: int) -> list[SharedJob]:
        """List the jobs of a segment in a state that the filter wants, in the order of their queue; those that cannot be read are not."""
        if state not in self._wanted.states:
            return []
        found: list[SharedJob] = []
        if state == RESERVED:
            for held in segment.leases.values():
                found += await self._admitted(segment, "", held)
        else:
            found = await self._admitted(segment, QUEUES[state], segment.queue(QUEUES[state]))
        if not self._wanted.text:
            return found
        with_text: list[SharedJob] = []
        for start in range(0, len(found), BODIES_AT_ONCE):
            await self._chooser.unfold(found[start : start + BODIES_AT_ONCE])
            with_text += [job for job in found[start : start + BODIES_AT_ONCE] if self._wanted.text in job.body]
        return with_text

    async def _admitted(self, segment: Segment, queue: str, entries: "Mapping[bytes, bytes]") -> list[SharedJob]:
        now = self._chooser.clock.now()
        last_slot = SLOT_MAX if self._last_slots is None else self._last_slots[segment.number]
        found: list[SharedJob] = []
        for number, (key, packed) in enumerate(entries.items(), 1):
            if number % JOBS_AT_ONCE == 0:
                await asyncio.sleep(0)
            job = self._chooser.finder.seen(segment, queue, key, packed)
            if job is None or job.id & SLOT_MAX > last_slot or (self._ids is not None and job.id not in self._ids):
                continue
            if self._wanted.admits(job, now):
                found.append(job)
        return found

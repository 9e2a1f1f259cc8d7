"""Which jobs of a tube's segments a filter wants."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.queries.looks import QUEUES, seen, segments
from beanspiked.engine.aerospike.segment.bodies import fetch_bodies
from beanspiked.engine.aerospike.segment.jobs import SharedJob
from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Damaged, Segment
from beanspiked.engine.contract import RESERVED, Filter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.tubes.tube import SharedTube

__all__ = ["Choice"]

logger = logging.getLogger(__name__)

# So many bodies that lie outside are fetched at once: they may be large.
BODIES_AT_ONCE: Final = 32
NEVER_US: Final = 1 << 62


class Choice:
    """What a filter wants of a tube's segments.

    Args:
        engine: Whose it is.
        home: The tube.
        wanted: The filter.
        until_us: Jobs that were put later, in microseconds by the server's clock, are left out.
    """

    def __init__(self, engine: "SharedEngine", home: "SharedTube", wanted: Filter, until_us: int = NEVER_US) -> None:
        self._engine = engine
        self._home = home
        self._wanted = wanted
        self._ids: set[int] | None = None if wanted.ids is None else set(wanted.ids)
        self._until_us: int = until_us

    async def segments(self) -> list[int]:
        """List the segments that may have such jobs."""
        numbers = await segments(self._engine, self._home)
        if self._ids is None:
            return numbers
        named = {job_id >> SLOT_BITS for job_id in self._ids}
        return [number for number in numbers if number in named]

    async def read(self, number: int) -> Segment | None:
        """Read a segment; None where it is gone, or cannot be read, which is logged."""
        engine = self._engine
        # Of many segments each takes a millisecond to be understood.
        await asyncio.sleep(0)
        try:
            segment: Segment | None = await engine.try_for_a_while(lambda: engine.store.read(number))
        except Damaged as error:
            logger.warning("segment %d is left out: %s", number, error)
            return None
        return segment

    async def jobs(self, segment: Segment, state: int) -> list[SharedJob]:
        """List the jobs of a segment in a state that the filter wants, in the order of their queue; those that cannot be read are not."""
        if state not in self._wanted.states:
            return []
        found: list[SharedJob] = []
        if state == RESERVED:
            for held in segment.leases.values():
                found += self._admitted(segment, "", held)
        else:
            found = self._admitted(segment, QUEUES[state], segment.queue(QUEUES[state]))
        if not self._wanted.text:
            return found
        with_text: list[SharedJob] = []
        for start in range(0, len(found), BODIES_AT_ONCE):
            await self.unfold(found[start : start + BODIES_AT_ONCE])
            with_text += [job for job in found[start : start + BODIES_AT_ONCE] if self._wanted.text in job.body]
        return with_text

    def _admitted(self, segment: Segment, queue: str, entries: "Mapping[bytes, bytes]") -> list[SharedJob]:
        now = self._engine.now()
        found: list[SharedJob] = []
        for key, packed in entries.items():
            job = seen(self._engine, segment, queue, key, packed)
            if job is None or job.put_us > self._until_us or (self._ids is not None and job.id not in self._ids):
                continue
            if self._wanted.admits(job, now):
                found.append(job)
        return found

    async def unfold(self, jobs: list[SharedJob]) -> None:
        """Make the bodies of jobs what was put; one that is lost or damaged, which is logged, is empty."""
        engine = self._engine
        _, broken = await engine.try_for_a_while(lambda: fetch_bodies(engine.store, jobs))
        for job, _ in broken:
            job.body = b""

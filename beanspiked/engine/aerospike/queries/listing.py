"""Pages of jobs over all segments of a tube, and how many there are."""

import heapq
from typing import TYPE_CHECKING

from beanspiked.engine.aerospike.segment.jobs import SharedJob
from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.aerospike.store.tasks import LANES
from beanspiked.engine.contract import BURIED, DELAYED, READY, RESERVED, Counts, Filter, Listing
from beanspiked.engine.filters import LIMIT_MAX
from beanspiked.engine.later import Later

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.queries.census import Census
    from beanspiked.engine.aerospike.queries.choosing import Chooser
    from beanspiked.engine.aerospike.store.seam import Sizes

__all__ = ["Lists", "parse_place"]

# Where a job stands among those of all segments: its key without its slot, its segment and its slot.
Place = tuple[bytes, int, int]
BEFORE_ALL: Place = (b"", 0, 0)


def parse_place(after: str, limit: int) -> Place:
    """Return the place that a page ended at. Raises ValueError for a place that is none, or a limit that no page has."""
    if not 0 < limit <= LIMIT_MAX:
        raise ValueError(f"a page has 1 to {LIMIT_MAX} jobs, not {limit}")
    if not after:
        return BEFORE_ALL
    key, _, rest = after.partition(":")
    number, _, slot = rest.partition(":")
    return bytes.fromhex(key), int(number), int(slot)


def place_of(job: SharedJob) -> Place:
    """Return where a job stands; reserved ones stand in the order of their ids."""
    return (b"" if job.state == RESERVED else job.place[:-2], job.number, job_slot(job.place))


def first_key(size: "Sizes", state: int) -> bytes | None:
    """Return what the first job of a state in a segment may have for its place, or None where there is none."""
    if state == READY:
        return size.ready_key
    if state == DELAYED:
        return size.due_key
    if state == BURIED:
        return size.buried_key
    return b"\0\0" if size.held else None


class Lists:
    """Lists and counts jobs.

    Args:
        census: What counts segments.
        chooser: What chooses jobs.
    """

    def __init__(self, census: "Census", chooser: "Chooser") -> None:
        self._census = census
        self._chooser = chooser

    async def page(self, listing: Listing, name: str, state: int, wanted: Filter, after: Place, limit: int) -> None:
        """See TubeEngine.list_jobs: a segment is read once its first job may be next."""
        choice = self._chooser.choose(name, wanted.of_states([state]))
        order: list[tuple[bytes, int]] = []

        def see(number: int, size: "Sizes") -> None:
            key = first_key(size, state)
            if key is not None:
                order.append((key[:-2], number))

        await self._census.each(name, await choice.segments(), see)
        heapq.heapify(order)
        found: list[tuple[Place, SharedJob]] = []
        # One more than are listed tells whether there are more.
        while order and (len(found) <= limit or order[0] <= found[limit][0][:2]):
            some: list[int] = []
            while order and len(some) < LANES and (len(found) <= limit or order[0] <= found[limit][0][:2]):
                some.append(heapq.heappop(order)[1])
            for segment in await choice.read_together(some):
                for job in await choice.jobs(segment, state):
                    place = place_of(job)
                    if place > after:
                        found.append((place, job))
                found.sort()
                del found[limit + 1 :]
        listing.jobs = [job for _, job in found[:limit]]
        if len(found) > limit:
            key, number, slot = found[limit - 1][0]
            listing.after = f"{key.hex()}:{number}:{slot}"
        await self._chooser.unfold([job for _, job in found[:limit]])

    async def count(self, counted: Later, name: str, wanted: Filter) -> None:
        """See TubeEngine.count_jobs."""
        choice = self._chooser.choose(name, wanted)
        numbers = await choice.segments()
        if wanted.only_states():
            counts = Counts()

            def see(_: int, size: "Sizes") -> None:
                counts.ready += size.ready
                counts.delayed += size.delayed
                counts.buried += size.buried
                counts.reserved += size.held

            await self._census.each(name, numbers, see)
            counted.value = sum([counts.of_state(state) for state in set(wanted.states)])
            return
        for start in range(0, len(numbers), LANES):
            for segment in await choice.read_together(numbers[start : start + LANES]):
                for state in set(wanted.states):
                    found = await choice.jobs(segment, state)
                    counted.value += len(found)

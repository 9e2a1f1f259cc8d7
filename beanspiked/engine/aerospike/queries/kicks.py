"""Kicks: buried and delayed jobs are made ready, each by an operation that is guarded by what was seen."""

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.queries.choosing import JOBS_AT_ONCE
from beanspiked.engine.aerospike.queries.finder import QUEUES
from beanspiked.engine.aerospike.queries.shifting import shift
from beanspiked.engine.aerospike.segment.codec import Formats, Packed
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, SharedJob
from beanspiked.engine.aerospike.store.keys import job_slot, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Damaged, Sizes
from beanspiked.engine.aerospike.store.tasks import LANES, side_by_side
from beanspiked.engine.errors import JobGone, OutcomeUnknown, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from beanspiked.engine.aerospike.cluster.news import News
    from beanspiked.engine.aerospike.queries.census import Census
    from beanspiked.engine.aerospike.queries.finder import Finder
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.aerospike.tubes.tube import SharedTube
    from beanspiked.engine.aerospike.tubes.view import Scout
    from beanspiked.engine.contract import Answer

__all__ = ["Kicks"]

logger = logging.getLogger(__name__)

# How many jobs are chosen at a time. Their segments are read anew for the next ones.
CHOSEN_MAX: Final = 4096


class Kicks:
    """Makes buried and delayed jobs ready.

    Args:
        store: The store.
        tasks: What tries again.
        formats: How jobs are packed.
        census: What counts segments.
        finder: What reads segments.
        scout: Whom to tell of segments that were changed.
        news: What tells the others.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: "Tasks",
        formats: Formats,
        census: "Census",
        finder: "Finder",
        scout: "Scout",
        news: "News",
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._formats = formats
        self._census = census
        self._finder = finder
        self._scout = scout
        self._news = news

    async def kick_job(self, found: SharedJob) -> None:
        """Make a buried or delayed job that was looked at ready.

        Raises JobGone if it is not where it was seen any more, OutcomeUnknown or StoreFailed.
        """
        tube = cast("SharedTube", found.tube)
        if not await self.make_ready(tube, found.number, QUEUES[found.state], {found.place: found.packed()}):
            raise JobGone("somebody else was faster")

    async def kick(self, answer: "Answer", tube: "SharedTube", bound: int) -> None:
        """Make up to `bound` buried jobs of a tube ready, oldest first; if none is buried, delayed ones, soonest first.

        Jobs that cannot be read stay where they are. The answer's value is the number of those that were made ready. Raises StoreFailed.
        """
        buried: list[tuple[bytes, int]] = []
        delayed: list[tuple[bytes, int]] = []

        def see(number: int, size: Sizes) -> None:
            if size.buried_key is not None:
                buried.append((size.buried_key, number))
            if size.due_key is not None:
                delayed.append((size.due_key, number))

        await self._census.each(tube.name, await self._census.segments(tube.name), see)
        answer.value = await self._kick(tube, BURIED, buried, bound) or await self._kick(tube, DELAYED, delayed, bound)

    async def _kick(self, tube: "SharedTube", queue: str, first: list[tuple[bytes, int]], bound: int) -> int:
        """Kick jobs of one queue over segments, in the order of their keys; return their number."""
        order = [(key[:-2], number) for key, number in first]
        heapq.heapify(order)
        done = 0

        async def kick(segment: tuple[int, dict[bytes, Packed]]) -> None:
            nonlocal done
            number, jobs = segment
            keys = list(jobs)
            for start in range(0, len(keys), BATCH_MAX):
                some = keys[start : start + BATCH_MAX]
                if not await self.make_ready(tube, number, queue, {key: jobs[key] for key in some}):
                    # Somebody changed it: look again.
                    next_keys[number] = some[0]
                    return
                done += len(some)

        while order and done < bound:
            chosen, next_keys = await self._choose(queue, order, min(bound - done, CHOSEN_MAX))
            await side_by_side(list(chosen.items()), kick)
            for number, key in next_keys.items():
                heapq.heappush(order, (key[:-2], number))
        return done

    async def _choose(
        self, queue: str, order: list[tuple[bytes, int]], most: int
    ) -> tuple[dict[int, dict[bytes, Packed]], dict[int, bytes]]:
        """Read the segments that are next in the order; return their first jobs, by segment, and where those go on that have more."""
        found: list[tuple[bytes, int, bytes, Packed]] = []
        next_keys: dict[int, bytes] = {}

        async def read(number: int) -> None:
            count = 0
            for key, packed in (await self._readable_entries(number, queue)).items():
                job = self._finder.unpack(number, key, packed)
                if job is not None:
                    found.append((key[:-2], number, key, job))
                    count += 1
                if count > most:
                    # So many are chosen at most, and the next one's place is known.
                    break
                if count % JOBS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            found.sort()
            for _, other, key, _ in found[most:]:
                next_keys[other] = min(key, next_keys.get(other, key))
            del found[most:]

        while order and (len(found) < most or order[0] < found[-1][:2]):
            some: list[int] = []
            while order and len(some) < LANES and (len(found) < most or order[0] < found[-1][:2]):
                some.append(heapq.heappop(order)[1])
            await side_by_side(some, read)
        chosen: dict[int, dict[bytes, Packed]] = {}
        for _, number, key, job in found:
            chosen.setdefault(number, {})[key] = job
        return chosen, next_keys

    async def _readable_entries(self, number: int, queue: str) -> "Mapping[bytes, bytes]":
        try:
            segment = await self._finder.read(number)
        except Damaged as error:
            logger.info("jobs of segment %d are not kicked: %s", number, error)
            return {}
        return {} if segment is None else segment.queue(queue)

    async def make_ready(self, tube: "SharedTube", number: int, queue: str, jobs: dict[bytes, Packed]) -> bool:
        """Kick jobs of one segment, all or none; tell whether it was done.

        Raises OutcomeUnknown or StoreFailed if that cannot be done in time, TooBig if the segment has no room.
        """
        try:
            done = await self._make_ready(number, queue, jobs)
        except StoreFailed:
            # It may be done: who waits is to look.
            self._changed(tube, number)
            raise
        if done:
            self._changed(tube, number)
        return done

    async def _make_ready(self, number: int, queue: str, jobs: dict[bytes, Packed]) -> bool:
        entries: dict[bytes, bytes] = {}
        for key, found in jobs.items():
            found.kicks += 1
            found.reason = ""
            entries[ready_key(found.pri, found.put_us, job_slot(key))] = self._formats.pack(found)
        done = await shift(self._store, self._tasks, number, queue, list(jobs), READY, entries)
        if done is not None:
            return done
        segment = await self._finder.read(number)
        if segment is not None:
            left = segment.queue(queue)
            if any(key in left for key in jobs):
                return False
            if segment.has_any({job_slot(key) for key in jobs}):
                return True
        # They may have been kicked, run and deleted, or have been deleted or moved to another tube before.
        raise OutcomeUnknown("whether jobs were kicked is not known")

    def _changed(self, tube: "SharedTube", number: int) -> None:
        tube.doubt()
        self._scout.refresh_segment(tube.committer_of(number))
        self._news.tell(tube.name, number, CHANGED)

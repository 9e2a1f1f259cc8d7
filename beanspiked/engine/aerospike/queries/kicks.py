"""Kicks: buried and delayed jobs are made ready, each by an operation that is guarded by what was seen."""

import heapq
import logging
from typing import TYPE_CHECKING, cast

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.queries.finder import QUEUES
from beanspiked.engine.aerospike.segment.codec import Formats, Packed
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, SharedJob
from beanspiked.engine.aerospike.store.keys import job_slot, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Damaged, Fenced, Refused, Sizes, Unknown
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
        """Make a buried or delayed job that was looked at ready. Raises JobGone if it is not where it was seen any more."""
        if not await self.make_ready(found.number, QUEUES[found.state], {found.place: found.packed()}):
            raise JobGone("somebody else was faster")
        self.changed(cast("SharedTube", found.tube), found.number)

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
        left = bound
        while order and left:
            number = heapq.heappop(order)[1]
            at_once = min(left, BATCH_MAX)
            jobs: dict[bytes, Packed] = {}
            try:
                entries = await self._entries(number, queue)
            except Damaged as error:
                logger.info("jobs of segment %d are not kicked: %s", number, error)
                continue
            for key, packed in entries.items():
                if len(jobs) > at_once:
                    # So many are moved, and the next one's place is known.
                    break
                job = self._finder.unpack(number, key, packed)
                if job is not None:
                    jobs[key] = job
            # This segment's jobs up to the first one of the next segment.
            limit = order[0] if order else None
            rest = list(jobs)
            some = [key for key in rest[:at_once] if limit is None or (key[:-2], number) <= limit]
            if some:
                kicked = await self.make_ready(number, queue, {key: jobs[key] for key in some})
                if kicked:
                    left -= kicked
                    self.changed(tube, number)
                if kicked == len(some):
                    rest = rest[kicked:]
                # Otherwise somebody changed it: look again.
            if rest:
                heapq.heappush(order, (rest[0][:-2], number))
        return bound - left

    async def _entries(self, number: int, queue: str) -> "Mapping[bytes, bytes]":
        segment = await self._finder.read(number)
        return {} if segment is None else segment.queue(queue)

    async def make_ready(self, number: int, queue: str, jobs: dict[bytes, Packed]) -> int:
        """Kick jobs of one segment, all or none; return how many of them are not in their queue any more.

        Raises OutcomeUnknown or StoreFailed if that cannot be done in time.
        """
        entries: dict[bytes, bytes] = {}
        for key, found in jobs.items():
            found.kicks += 1
            found.reason = ""
            entries[ready_key(found.pri, found.put_us, job_slot(key))] = self._formats.pack(found)
        doubt = False

        async def shift() -> None:
            nonlocal doubt
            try:
                await self._store.shift(number, queue, list(jobs), READY, entries)
            except Unknown:
                doubt = True
                raise

        try:
            await self._tasks.try_for_a_while(shift)
        except (Refused, Fenced):
            if not doubt:
                return 0
        except StoreFailed as error:
            if doubt:
                raise OutcomeUnknown("whether jobs were kicked is not known") from error
            raise
        else:
            return len(jobs)
        # Whoever moved those that are not there: they were kicked (segment-protocol H10). The others cannot be by this any more.
        left = await self._entries(number, queue)
        return sum(key not in left for key in jobs)

    def changed(self, tube: "SharedTube", number: int) -> None:
        """Jobs of a segment were made ready."""
        tube.doubt()
        self._scout.refresh_segment(tube.committer_of(number))
        self._news.tell(tube.name, number, CHANGED)

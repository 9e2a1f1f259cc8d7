"""Changes of what nobody here holds: a job is deleted, or a tube is deleted or paused."""

import logging
from typing import TYPE_CHECKING, cast

from beanspiked.engine.aerospike.queries.finder import QUEUES, place_of
from beanspiked.engine.aerospike.store.seam import Busy, Damaged, Fenced, Refused, StoreError, Unknown
from beanspiked.engine.aerospike.store.tasks import side_by_side
from beanspiked.engine.errors import JobGone, OutcomeUnknown, StoreFailed

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.cluster.membership import Membership
    from beanspiked.engine.aerospike.cluster.news import News
    from beanspiked.engine.aerospike.queries.census import Census
    from beanspiked.engine.aerospike.segment.jobs import SharedJob
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.aerospike.tubes.due import Timetable
    from beanspiked.engine.aerospike.tubes.registry import Registry
    from beanspiked.engine.aerospike.tubes.retirement import Retirement
    from beanspiked.engine.aerospike.tubes.tube import SharedTube
    from beanspiked.engine.aerospike.tubes.view import Scout

__all__ = ["Changes"]

logger = logging.getLogger(__name__)


class Changes:
    """Deletes jobs that nobody holds, deletes tubes and pauses them.

    Args:
        store: The store.
        tasks: What tries again.
        census: What lists a tube's segments.
        registry: What forgets tubes.
        membership: What knows the server's time.
        timetable: What keeps pauses.
        scout: Whom to tell of segments that were changed.
        retirement: What ends segments that are empty.
        news: What tells the others.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: "Tasks",
        census: "Census",
        registry: "Registry",
        membership: "Membership",
        timetable: "Timetable",
        scout: "Scout",
        retirement: "Retirement",
        news: "News",
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._census = census
        self._registry = registry
        self._membership = membership
        self._timetable = timetable
        self._scout = scout
        self._retirement = retirement
        self._news = news

    async def delete(self, found: "SharedJob") -> None:
        """Delete a job that was looked at.

        Raises JobGone if it is not where it was seen any more (segment-protocol H7), OutcomeUnknown or StoreFailed.
        """
        failure: StoreError | None = None
        try:
            if not await self._store.remove(found.number, QUEUES[found.state], found.place):
                raise JobGone("somebody else was faster")
        except Fenced as error:
            raise JobGone("somebody else was faster") from error
        except StoreError as error:
            failure = error
        try:
            if failure is not None:
                await self._delete_again(found, isinstance(failure, Unknown))
            self._deleted(found)
        finally:
            self._look_after(found)

    async def _delete_again(self, found: "SharedJob", doubt: bool) -> None:
        """Delete a job wherever it stands by now. In doubt it may be deleted, or still be: then only a certain success may be told of."""

        async def delete() -> None:
            nonlocal doubt
            segment = await self._store.read(found.number)
            place = None if segment is None else place_of(segment, found.slot())
            if place is None:
                # It was deleted by this or by others, or moved to another tube, where it has another id.
                raise Fenced("the job is not there any more")
            queue, key, _ = place
            try:
                if queue and await self._store.remove(found.number, queue, key):
                    return
            except Unknown:
                doubt = True
                raise
            raise (Busy if doubt else Fenced)("somebody else has the job")

        try:
            await self._tasks.try_for_a_while(delete)
        except (StoreFailed, Fenced, Refused) as error:
            if doubt:
                raise OutcomeUnknown("whether the job is deleted is not known") from error
            if isinstance(error, StoreFailed):
                raise
            raise JobGone("somebody else was faster") from error

    def _deleted(self, found: "SharedJob") -> None:
        tube = cast("SharedTube", found.tube)
        tube.deletes += 1
        tube.doubt()
        if found.body_number:
            self._retirement.drop_body(found, found.body_number)

    def _look_after(self, found: "SharedJob") -> None:
        tube = cast("SharedTube", found.tube)
        if found.number in tube.committers or found.number in tube.notes:
            self._scout.refresh_segment(tube.committer_of(found.number))
        else:
            # It may have been the last job of a segment that nobody looks at.
            self._retirement.come_back_to(tube.name, found.number)

    async def delete_tube(self, tube: "SharedTube") -> None:
        """Delete all jobs of a tube: of each segment at once, with all leases, so that their holders are fenced. Raises StoreFailed."""
        left: Damaged | None = None

        async def wipe(number: int) -> None:
            nonlocal left
            try:
                deleted = await self._tasks.try_for_a_while(lambda: self._store.wipe(number))
            except Fenced:
                return
            except Damaged as error:
                logger.warning("segment %d is not deleted: %s", number, error)
                left = error
                return
            tube.deletes += deleted
            committer = tube.committers.get(number)
            if committer is not None:
                committer.abandon(JobGone("the tube was deleted"))
            tube.notes.pop(number, None)
            await self._retirement.end(tube.name, number)

        await side_by_side(await self._census.segments(tube.name), wipe)
        if left is not None:
            raise left

    async def pause(self, tube: "SharedTube", seconds: float) -> None:
        """Pause a tube everywhere. Raises StoreFailed."""
        await self._registry.forgotten(tube.name)
        pause_ms = round(seconds * 1000)
        until_ms = self._membership.clock.server_ms() + pause_ms if pause_ms else 0
        failure: StoreFailed | None = None
        try:
            await self._tasks.try_for_a_while(lambda: self._store.pause(tube.name, pause_ms, until_ms))
            self._timetable.apply_pause(tube, pause_ms, until_ms, self._timetable.step())
        except StoreFailed as error:
            failure = error
        # Others may have changed it since it was stored, and a look here have seen that already. Or it is not known whether it was.
        self._scout.look_again(tube)
        self._news.tell(tube.name)
        if failure is not None:
            raise failure

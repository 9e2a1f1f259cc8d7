"""How segments end: a closed one that is empty dies, its bodies with it, and is taken out of its tube's directory.

Whoever finds one may do any part of it, once more than needed, too (segment-protocol H6).
"""

import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.listener import SegmentEnder
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import SharedJob
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import OPEN, Fenced, StoreError
from beanspiked.engine.aerospike.store.tasks import Tasks, side_by_side
from beanspiked.engine.errors import JobGone

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Retirement"]

logger = logging.getLogger(__name__)

# In so many parts, side by side, the bodies of a dead segment are removed.
PARTS: Final = 8


class Retirement(SegmentEnder):
    """Lets segments die that are closed and empty, and removes bodies that nothing refers to.

    Args:
        store: The store.
        lister: What takes segments out of directories.
        tasks: What runs coroutines.
    """

    def __init__(self, store: "SegmentStore", lister: Lister, tasks: Tasks) -> None:
        self._store = store
        self._lister = lister
        self._tasks = tasks
        self._retiring: set[int] = set()
        # Segments that may have to be seen to their end, and their tubes: the next sweep does, and then they stand here no more.
        self._left: dict[int, str] = {}
        # Pages in which nothing was, and their tubes: likewise. Whoever has just made one enters something in it by then.
        self._idle_pages: dict[int, str] = {}

    def consider(self, committer: Committer) -> None:
        """Let a closed, empty segment die."""
        if committer.idle_and_empty() and not committer.gone and committer.number not in self._retiring:
            if committer.head is None or committer.head.state == OPEN:
                # Whoever puts into it closes it first.
                return
            self._retiring.add(committer.number)
            self._tasks.spawn(self._retire(committer))

    async def _retire(self, committer: Committer) -> None:
        number = committer.number
        try:
            if await self._die(number):
                if committer.inbox.waited_for():
                    # Late news had jobs asked of it. Other segments may have some.
                    committer.abandon(JobGone("the segment is over"))
                committer.gone = True
                committer.tube.drop(committer)
                await self._clear(committer.tube.name, number)
        except StoreError as error:
            # Once it is dead nobody may ever look at it again.
            self._left[number] = committer.tube.name
            logger.info("segment %d is not retired yet: %s", number, error)
        finally:
            self._retiring.discard(number)

    async def _die(self, number: int) -> bool:
        """Let a segment die if it is closed and empty; tell whether it is dead."""
        try:
            return await self._store.retire(number)
        except Fenced:
            return True

    async def _clear(self, name: str, number: int) -> None:
        """Remove the bodies of a dead segment, several at once, then take it out of its tube's directory."""
        segment = await self._store.read(number)
        if segment is not None and segment.bodies:
            bodies = [(number, body) for body in range(1, segment.bodies + 1)]
            await side_by_side(
                [bodies[part::PARTS] for part in range(min(PARTS, len(bodies)))], self._store.drop_bodies
            )
        page = 0 if segment is None else segment.page
        await self._lister.unlist(name, number, page)

    def unlist(self, name: str, number: int) -> None:
        """Take a segment that was found dead out of its tube's directory."""
        self._tasks.spawn(self.end(name, number))

    async def end(self, name: str, number: int) -> None:
        """See a dead segment, or a closed and empty one, to its end."""
        try:
            # Somebody may have died between the segment's death and the end of its bodies.
            await self.end_now(name, number)
        except StoreError as error:
            self._left[number] = name
            logger.info("segment %d is not retired yet: %s", number, error)

    async def end_now(self, name: str, number: int) -> bool:
        """See a segment to its end, if it is closed and empty; tell whether it is dead. Raises StoreError if it may live."""
        if not await self._die(number):
            return False
        try:
            await self._clear(name, number)
        except StoreError as error:
            self._left[number] = name
            logger.info("segment %d is not unlisted yet: %s", number, error)
        return True

    def come_back_to(self, name: str, number: int) -> None:
        """See a segment to its end with the next sweep, if it is closed and empty by then."""
        self._left[number] = name

    def come_back_to_page(self, name: str, page: int) -> None:
        """See a page to its end with the next sweep, if nothing is in it by then."""
        self._idle_pages[page] = name

    async def go_on(self) -> None:
        """See those segments and pages to their end that were left behind."""
        pages, self._idle_pages = self._idle_pages, {}
        for page, name in pages.items():
            try:
                await self._lister.end_page(name, page)
            except StoreError as error:
                # The next look finds it again.
                logger.info("page %d is not unlisted yet: %s", page, error)
        left, self._left = self._left, {}
        for number, name in left.items():
            await self.end(name, number)

    async def give_up(self, given: tuple[int, int]) -> None:
        """Give up a lease on a segment, under which nothing is held; what stays of it the audit finds."""
        number, lease = given
        try:
            await self._store.reclaim(number, lease)
        except StoreError as error:
            logger.info("a lease on segment %d is not given up yet: %s", number, error)

    def drop_body(self, job: SharedJob, body_number: int) -> None:
        """Remove a body that a job, which may be gone, refers to no more; one that stays behind goes with its segment."""
        self.drop_bodies([(job.number, body_number)])

    def drop_bodies(self, names: list[tuple[int, int]]) -> None:
        """Remove bodies, by segment and number, that nothing refers to any more; what stays behind goes with its segment."""
        self._tasks.spawn(self._drop_bodies(names))

    async def _drop_bodies(self, names: list[tuple[int, int]]) -> None:
        try:
            await self._store.drop_bodies(names)
        except StoreError as error:
            logger.info("bodies stay until their segments are dead: %s", error)

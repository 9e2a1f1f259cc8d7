"""Lists, counts and changes the jobs of a tube that match a filter."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beanspiked.admin.errors import Conflict, Missing, Problem, Unusable
from beanspiked.engine.contract import Bulk
from beanspiked.engine.errors import EngineError, JobGone, StoreFailed
from beanspiked.engine.filters import LIMIT_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from beanspiked.admin.jobs import Jobs
    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.admin.requests import Wanted
    from beanspiked.engine.contract import Filter, Tube

__all__ = ["LISTED_MAX", "Matching", "progress"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")

# How many jobs a page has at most, and how much of each body it shows, in bytes.
LISTED_MAX: Final = 100
LISTED_BYTES: Final = 1024
# How many jobs are changed at a time where each has a change of its own.
SIDE_BY_SIDE: Final = 50
# How often a change reports its progress, in seconds.
PROGRESS_EVERY: Final = 0.25


class Matching:
    """Looks at the jobs that match and changes them. Every method raises Missing and EngineError.

    Args:
        outcomes: Sends requests to the engine.
        jobs: Shows a job.
    """

    def __init__(self, outcomes: Outcomes, jobs: Jobs) -> None:
        self._outcomes = outcomes
        self._jobs = jobs
        self._working: set[asyncio.Task[None]] = set()

    async def page(self, tube: str, state: int, wanted: Filter, after: str, limit: int) -> dict[str, object]:
        """Show a page of the jobs in a state. Raises Unusable if `after` comes from no page, or if no page can have this limit."""
        engine = self._outcomes.broker.engine
        try:
            listing = await self._of_tube(tube, lambda found: engine.list_jobs(found, state, wanted, after, limit))
        except ValueError as error:
            raise Unusable(str(error)) from error
        return await self._outcomes.look(
            listing,
            lambda _: {"jobs": [self._jobs.shown(job, LISTED_BYTES) for job in listing.jobs], "after": listing.after},
        )

    async def count(self, tube: str, wanted: Filter) -> int:
        """Count them."""
        engine = self._outcomes.broker.engine
        return await self._outcomes.done(await self._of_tube(tube, lambda found: engine.count_jobs(found, wanted)))

    async def clear(self, tube: str, wanted: Wanted) -> Bulk:
        """Begin to delete the jobs that nobody holds."""
        return await self._change(tube, wanted, self._outcomes.broker.engine.clear)

    async def kick(self, tube: str, wanted: Wanted) -> Bulk:
        """Begin to make the buried and delayed jobs ready."""
        return await self._change(tube, wanted, self._outcomes.broker.engine.kick_jobs)

    async def move(self, tube: str, target: str, wanted: Wanted) -> Bulk:
        """Begin to move the jobs that nobody holds to another tube. Raises Unusable if it is the same tube."""
        if target == tube:
            raise Unusable("target: the tube that the jobs are in")
        engine = self._outcomes.broker.engine
        return await self._change(tube, wanted, lambda found, some: engine.move(found, engine.tube(target), some))

    async def _change(self, tube: str, wanted: Wanted, change: Callable[[Tube, Filter], Bulk]) -> Bulk:
        """Begin a change of all jobs that match, or of the first ones in the order of their queues, page by page."""
        most = wanted.most
        if most is None:
            return await self._of_tube(tube, lambda found: change(found, wanted))
        await self._of_tube(tube, lambda found: found)
        bulk = Bulk()

        async def part(ids: list[int]) -> None:
            begun = await self._of_tube(tube, lambda found: change(found, wanted.of_ids(ids)))
            try:
                await self._outcomes.done(begun)
            finally:
                bulk.value += begun.value

        async def work() -> None:
            async for ids in self._pages(tube, wanted, bulk, lambda: most - bulk.value):
                await part(ids)

        return self._begun(bulk, work())

    async def each(self, tube: str, wanted: Wanted, change: Callable[[int], Awaitable[object]]) -> Bulk:
        """Begin to change the jobs that match now, one by one. Leave out jobs that cannot be changed any more."""
        most = wanted.most
        await self._of_tube(tube, lambda found: found)
        bulk = Bulk()
        # This reads all ids first, since a change may put a job where later pages would find it.
        numbers: list[int] = []

        def left() -> int:
            return LIMIT_MAX if most is None else most - len(numbers)

        async def work() -> None:
            async for ids in self._pages(tube, wanted, bulk, left):
                numbers.extend(ids)
            await _side_by_side(bulk, numbers, change)

        return self._begun(bulk, work())

    def each_of(self, items: Sequence[Item], change: Callable[[Item], Awaitable[object]]) -> Bulk:
        """Begin to do the same for each of these."""
        bulk = Bulk()
        return self._begun(bulk, _side_by_side(bulk, items, change))

    def _begun(self, bulk: Bulk, work: Coroutine[Any, Any, None]) -> Bulk:
        """Start a task that settles a change when it ends."""

        def ended(task: asyncio.Task[None]) -> None:
            self._working.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is None or isinstance(error, EngineError):
                bulk.settle(error)
            elif isinstance(error, Missing):
                # The tube went with its last job.
                bulk.settle(None)
            else:
                if not isinstance(error, Problem):
                    logger.error("internal error", exc_info=error)
                bulk.settle(StoreFailed(str(error)))

        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(ended)
        return bulk

    async def _pages(self, tube: str, wanted: Filter, bulk: Bulk, left: Callable[[], int]) -> AsyncIterator[list[int]]:
        """Yield the ids of the jobs that match, in the order of their queues, until none is left or enough were found."""
        for state in wanted.states:
            after: str | None = ""
            while after is not None and not bulk.stopped and (limit := min(LIMIT_MAX, left())) > 0:
                ids, after = await self._page(tube, state, wanted, after, limit)
                yield ids

    async def _page(
        self, tube: str, state: int, wanted: Filter, after: str, limit: int
    ) -> tuple[list[int], str | None]:
        """Return the ids of the next jobs of a state that match, and the argument for the next page, if there is one."""
        engine = self._outcomes.broker.engine
        listing = await self._of_tube(tube, lambda found: engine.list_jobs(found, state, wanted, after, limit))
        return await self._outcomes.look(listing, lambda _: ([job.id for job in listing.jobs], listing.after or None))

    async def _of_tube(self, tube: str, begin: Callable[[Tube], Result]) -> Result:
        def found(there: Tube | None) -> Result:
            if there is None:
                raise Missing(f"there is no tube {tube}")
            return begin(there)

        return await self._outcomes.tube(tube, found)


async def _side_by_side(bulk: Bulk, items: Sequence[Item], change: Callable[[Item], Awaitable[object]]) -> None:
    """Make a change for each item, several at a time, and count those that were made. After an error it begins no more, and raises it."""

    async def one(item: Item) -> None:
        try:
            await change(item)
        except (Missing, Conflict, JobGone):
            return
        bulk.value += 1

    for first in range(0, len(items), SIDE_BY_SIDE):
        if bulk.stopped:
            break
        begun = [one(item) for item in items[first : first + SIDE_BY_SIDE]]
        for error in await asyncio.gather(*begun, return_exceptions=True):
            if error is not None:
                raise error
        # Clients' jobs come first.
        await asyncio.sleep(0)


async def progress(outcomes: Outcomes, counted: str, bulk: Bulk) -> AsyncIterator[str]:
    """Yield a line from time to time with the number of changed jobs, until the change has ended. It stops when its client hangs up."""

    def line(**more: object) -> str:
        return f"{json.dumps({counted: bulk.value, **more})}\n"

    ended = asyncio.ensure_future(outcomes.done(bulk))
    try:
        while not (await asyncio.wait([ended], timeout=PROGRESS_EVERY))[0]:
            yield line()
        error = ended.exception()
        if isinstance(error, EngineError):
            yield line(error=str(error))
        elif error is not None:
            raise error
        else:
            yield line(ended=True)
    finally:
        bulk.stop()
        ended.cancel()

"""The jobs of a tube that match a filter: listed, counted, and changed all together."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, TypeVar

from beanspiked.admin.errors import Missing, Unusable
from beanspiked.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from beanspiked.admin.jobs import Jobs
    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.engine.contract import Bulk, Filter, Tube

__all__ = ["LISTED_MAX", "Matching", "progress"]

Result = TypeVar("Result")

# How many jobs a page has at most, and how much of each body it shows, in bytes.
LISTED_MAX: Final = 100
LISTED_BYTES: Final = 1024
# How often the progress of a change is told, in seconds.
PROGRESS_EVERY: Final = 0.25


class Matching:
    """Looks at the jobs that match and changes them. Every method raises Missing and EngineError.

    Args:
        outcomes: What is asked.
        jobs: What shows a job.
    """

    def __init__(self, outcomes: Outcomes, jobs: Jobs) -> None:
        self._outcomes = outcomes
        self._jobs = jobs

    async def page(self, tube: str, state: int, wanted: Filter, after: str, limit: int) -> dict[str, object]:
        """Show a page of the jobs in a state. Raises Unusable if no page said this `after`, or none has this limit."""
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

    async def clear(self, tube: str, wanted: Filter) -> Bulk:
        """Begin to delete those that nobody holds."""
        engine = self._outcomes.broker.engine
        return await self._of_tube(tube, lambda found: engine.clear(found, wanted))

    async def kick(self, tube: str, wanted: Filter) -> Bulk:
        """Begin to make the buried and delayed ones ready."""
        engine = self._outcomes.broker.engine
        return await self._of_tube(tube, lambda found: engine.kick_jobs(found, wanted))

    async def move(self, tube: str, target: str, wanted: Filter) -> Bulk:
        """Begin to move those that nobody holds to another tube. Raises Unusable if it is the same one."""
        if target == tube:
            raise Unusable("target: the tube that the jobs are in")
        engine = self._outcomes.broker.engine
        return await self._of_tube(tube, lambda found: engine.move(found, engine.tube(target), wanted))

    async def _of_tube(self, tube: str, begin: Callable[[Tube], Result]) -> Result:
        def found(there: Tube | None) -> Result:
            if there is None:
                raise Missing(f"there is no tube {tube}")
            return begin(there)

        return await self._outcomes.tube(tube, found)


async def progress(outcomes: Outcomes, counted: str, bulk: Bulk) -> AsyncIterator[str]:
    """Tell how many jobs a change has changed, a line from time to time until it has ended. It stops when nobody listens any more."""

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

"""Changes of all jobs of a tube that match, segment by segment."""

from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.queries.finder import QUEUES
from beanspiked.engine.aerospike.queries.shifting import shift
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, SharedJob
from beanspiked.engine.aerospike.store.seam import Segment
from beanspiked.engine.aerospike.store.tasks import LANES, side_by_side
from beanspiked.engine.contract import BURIED, DELAYED, Bulk, Filter
from beanspiked.engine.errors import StoreFailed
from beanspiked.engine.filters import UNHELD

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from beanspiked.engine.aerospike.queries.choosing import Choice, Chooser
    from beanspiked.engine.aerospike.queries.kicks import Kicks
    from beanspiked.engine.aerospike.queries.moving import Moving
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.aerospike.tubes.retirement import Retirement
    from beanspiked.engine.aerospike.tubes.tube import SharedTube
    from beanspiked.engine.aerospike.tubes.view import Scout

    # Changes jobs of one segment and state; returns how many were changed, since others may be faster.
    Change = Callable[[Segment, int, list[SharedJob]], Coroutine[Any, Any, int]]

__all__ = ["BulkChanges"]

# How often in a row a segment is looked at anew whose jobs others take first.
LOOKS_MAX: Final = 20


class BulkChanges:
    """Deletes, moves and kicks any number of jobs.

    Args:
        store: The store.
        tasks: What tries again.
        chooser: What chooses jobs.
        kicks: What kicks some.
        moving: What moves some.
        retirement: What ends segments that are empty.
        scout: Whom to tell of segments that were changed.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: "Tasks",
        chooser: "Chooser",
        kicks: "Kicks",
        moving: "Moving",
        retirement: "Retirement",
        scout: "Scout",
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._chooser = chooser
        self._kicks = kicks
        self._moving = moving
        self._retirement = retirement
        self._scout = scout

    async def clear(self, bulk: Bulk, tube: "SharedTube", wanted: Filter) -> None:
        """See TubeEngine.clear."""
        await self._change(bulk, tube, wanted.within(UNHELD), partial(self._delete, tube))

    async def move(self, bulk: Bulk, tube: "SharedTube", target: "SharedTube", wanted: Filter) -> None:
        """See TubeEngine.move."""

        async def move(segment: Segment, state: int, jobs: list[SharedJob]) -> int:
            return await self._moving.move(segment, state, jobs, target)

        await self._change(bulk, tube, wanted.within(UNHELD), move)

    async def kick_jobs(self, bulk: Bulk, tube: "SharedTube", wanted: Filter) -> None:
        """See TubeEngine.kick_jobs."""

        async def kick(segment: Segment, state: int, jobs: list[SharedJob]) -> int:
            entries = {job.place: job.packed() for job in jobs}
            return len(jobs) if await self._kicks.make_ready(tube, segment.number, QUEUES[state], entries) else 0

        await self._change(bulk, tube, wanted.within((DELAYED, BURIED)), kick)

    async def _change(self, bulk: Bulk, tube: "SharedTube", wanted: Filter, change: "Change") -> None:
        choice = self._chooser.choose(tube.name, wanted)
        numbers = await choice.begin()
        # The bodies that lie outside of a segment take room while they are searched.
        await side_by_side(numbers, partial(self._change_in, bulk, choice, wanted, change), 1 if wanted.text else LANES)

    async def _change_in(self, bulk: Bulk, choice: "Choice", wanted: Filter, change: "Change", number: int) -> None:
        """Change the jobs of one segment."""
        for state in wanted.states:
            missed, size = 0, BATCH_MAX
            while not bulk.stopped:
                segment = await choice.read(number)
                jobs = [] if segment is None else await choice.jobs(segment, state)
                if segment is None or not jobs:
                    break
                done = await change(segment, state, jobs[:size])
                bulk.value += done
                missed = 0 if done else missed + 1
                # Where others take jobs meanwhile, few may still be there when many are not.
                size = min(2 * size, BATCH_MAX) if done else max(1, size // 2)
                if missed == LOOKS_MAX:
                    raise StoreFailed(f"jobs of segment {number} are changed by others all the time")

    async def _delete(self, tube: "SharedTube", segment: Segment, state: int, jobs: list[SharedJob]) -> int:
        """Delete jobs, all of them or none. Raises OutcomeUnknown or StoreFailed."""
        number = segment.number
        keys = [job.place for job in jobs]
        done = await shift(self._store, self._tasks, number, QUEUES[state], keys, None, None)
        if done:
            bodies = [(number, job.body_number) for job in jobs if job.body_number]
            if bodies:
                self._retirement.drop_bodies(bodies)
        elif done is not None:
            return 0
        else:
            # Perhaps it was done. If not, some of them are still there, whatever others did to them.
            left = await self._tasks.try_for_a_while(lambda: self._store.read(number))
            if left is not None and left.has_any({job.slot() for job in jobs}):
                return 0
        tube.deletes += len(jobs)
        self._retirement.come_back_to(tube.name, number)
        self._scout.segment_changed(tube.name, number)
        return len(jobs)

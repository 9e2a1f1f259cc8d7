"""Changes of all jobs of a tube that match, segment by segment."""

from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.queries.choosing import Choice
from beanspiked.engine.aerospike.queries.looks import QUEUES, changed, make_ready
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, SharedJob
from beanspiked.engine.aerospike.store.seam import Fenced, Refused, Segment, StoreError, Unknown
from beanspiked.engine.contract import BURIED, DELAYED, Bulk, Filter
from beanspiked.engine.errors import StoreFailed
from beanspiked.engine.filters import UNHELD

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.tubes.tube import SharedTube

    # Changes jobs of one segment and state; returns how many were changed, since others may be faster.
    Change = Callable[[Segment, int, list[SharedJob]], Coroutine[Any, Any, int]]

__all__ = ["clear", "kick_jobs", "move"]

# How often in a row a segment is looked at anew whose jobs others take first.
LOOKS_MAX: Final = 20
# By how much the clocks of front-ends may differ, in microseconds: what was put later than this after the beginning is left alone.
CLOCKS_DIFFER_US: Final = 1_000_000


async def clear(engine: "SharedEngine", home: "SharedTube", wanted: Filter, bulk: Bulk) -> None:
    """See TubeEngine.clear."""
    await _change(engine, home, wanted.within(UNHELD), bulk, partial(_delete, engine, home))


async def move(engine: "SharedEngine", home: "SharedTube", target: "SharedTube", wanted: Filter, bulk: Bulk) -> None:
    """See TubeEngine.move."""

    async def to_target(segment: Segment, state: int, jobs: list[SharedJob]) -> int:
        return await engine.moving.move(segment, state, jobs, target)

    await _change(engine, home, wanted.within(UNHELD), bulk, to_target)


async def kick_jobs(engine: "SharedEngine", home: "SharedTube", wanted: Filter, bulk: Bulk) -> None:
    """See TubeEngine.kick_jobs."""

    async def kick(segment: Segment, state: int, jobs: list[SharedJob]) -> int:
        kicked = await make_ready(engine, segment.number, QUEUES[state], {job.place: job.packed() for job in jobs})
        if kicked:
            changed(engine, home, segment.number)
        return kicked

    await _change(engine, home, wanted.within((DELAYED, BURIED)), bulk, kick)


async def _change(engine: "SharedEngine", home: "SharedTube", wanted: Filter, bulk: Bulk, change: "Change") -> None:
    choice = Choice(engine, home, wanted, engine.membership.clock.ticket() + CLOCKS_DIFFER_US)
    for number in await choice.segments():
        for state in wanted.states:
            missed = 0
            while not bulk.stopped:
                segment = await choice.read(number)
                jobs = [] if segment is None else await choice.jobs(segment, state)
                if segment is None or not jobs:
                    break
                done = await change(segment, state, jobs[:BATCH_MAX])
                bulk.value += done
                missed = 0 if done else missed + 1
                if missed == LOOKS_MAX:
                    raise StoreFailed(f"jobs of segment {number} are changed by others all the time")


async def _delete(
    engine: "SharedEngine", home: "SharedTube", segment: Segment, state: int, jobs: list[SharedJob]
) -> int:
    """Delete jobs, all of them or none. Raises StoreFailed."""
    number, queue = segment.number, QUEUES[state]
    keys = [job.place for job in jobs]
    failure: StoreError | None = None
    try:
        await engine.tasks.try_for_a_while(lambda: engine.store.shift(number, queue, keys, None, None), Unknown)
    except (Refused, Fenced, Unknown) as error:
        failure = error
    if failure is None:
        bodies = [(number, job.body_number) for job in jobs if job.body_number]
        if bodies:
            engine.retirement.drop_bodies(bodies)
    elif not isinstance(failure, Unknown):
        return 0
    else:
        # Perhaps it was done. Who else would have taken all of them?
        left = await engine.try_for_a_while(lambda: engine.store.read(number))
        if left is not None and any(key in left.queue(queue) for key in keys):
            return 0
    home.deletes += len(jobs)
    home.live = False
    engine.retirement.come_back_to(home.name, number)
    engine.scout.segment_changed(home.name, number)
    return len(jobs)

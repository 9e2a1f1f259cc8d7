"""Looks at every job, for `find` and for sums of sizes, and at the oldest one."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, cast

from beanspiked.engine.contract import BURIED, GIVEN_UP, PLAIN, READY, Answer, Job, Tube
from beanspiked.engine.embedded.slices import sweep
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import MIXED, EmbeddedTube
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timers

__all__ = ["add_up", "find", "oldest_ready"]

# So many ids of jobs that are not ready any more may stand among those of ready ones, besides one for each of these.
STALE_MAX: Final = 1000
# The ids of so many ready jobs are gathered in one turn.
GATHERED_AT_ONCE: Final = 10_000


def find(timers: Timers, jobs: JobTable, last_id: int, tube: Tube, metadata: str) -> Answer:
    """Look for the jobs, up to an id, that were put with this metadata and are not buried."""
    answer = Answer()

    def visit(some: list[Job]) -> None:
        for job in some:
            details = job.details
            if job.tube is tube and job.state != BURIED and details is not None and details.metadata == metadata:
                answer.ids.append(job.id)

    return _visit_all(answer, timers, jobs, last_id, visit)


def add_up(timers: Timers, jobs: JobTable, last_id: int, tube: Tube) -> Answer:
    """Add up the sizes of a tube's bodies, of jobs up to an id."""
    answer = Answer()
    sizes = answer.sizes

    def visit(some: list[Job]) -> None:
        for job in some:
            if job.tube is tube:
                raw_size = PLAIN if job.details is None else job.details.raw_size
                stored = len(job.body)
                sizes.stored += stored
                sizes.raw += raw_size if raw_size >= 0 else stored
                if raw_size == GIVEN_UP:
                    sizes.skipped += stored

    return _visit_all(answer, timers, jobs, last_id, visit)


def _visit_all(
    answer: Answer, timers: Timers, jobs: JobTable, last_id: int, visit: Callable[[list[Job]], None]
) -> Answer:
    """Visit all jobs up to an id; the answer is done with the last of them."""
    later = sweep(timers, jobs, last_id, visit)
    if later is None:
        answer.settle()
    else:
        later.then(lambda outcome: answer.settle(outcome.error))
    return answer


def oldest_ready(timers: Timers, jobs: JobTable, last_id: int, tube: EmbeddedTube) -> Job | None:
    """Find the ready job that was put first.

    Only jobs of several priorities are sorted for that, when somebody first asks. While very many are gathered, the answer is None.
    """
    count = len(tube.ready)
    if tube.ready_pri != MIXED or not count:
        tube.ready_ids = None
        return cast("Job | None", tube.ready.first())
    ids = tube.ready_ids
    if ids is None or len(ids) > 2 * count + STALE_MAX:
        ids = _gather(timers, jobs, last_id, tube)
    if not tube.gathered:
        return None
    while ids:
        job = jobs.get(ids[0])
        if job is not None and job.tube is tube and job.state == READY and job.queued():
            return job
        heappop(ids)
    return None


def _gather(timers: Timers, jobs: JobTable, last_id: int, tube: EmbeddedTube) -> list[int]:
    """Gather the ids of a tube's ready jobs; of very many in slices."""
    ids: list[int] = []
    tube.ready_ids = ids
    tube.gathered = len(tube.ready) <= GATHERED_AT_ONCE
    if tube.gathered:
        ids += [entry.id for entry in tube.ready.entries()]
        heapify(ids)
        return ids

    def visit(some: list[Job]) -> None:
        for job in some:
            if job.tube is tube and job.state == READY:
                heappush(ids, job.id)

    def end(_: Later) -> None:
        if tube.ready_ids is ids:
            tube.gathered = True

    # Jobs that become ready meanwhile are noted as they come.
    later = sweep(timers, jobs, last_id, visit)
    if later is None:
        tube.gathered = True
    else:
        later.then(end)
    return ids

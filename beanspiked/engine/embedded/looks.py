"""Looks at every job, for `find` and for sums of sizes."""

from collections.abc import Callable

from beanspiked.engine.contract import BURIED, GIVEN_UP, PLAIN, Answer, Job, Tube
from beanspiked.engine.embedded.slices import sweep
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.timers import Timers

__all__ = ["add_up", "find"]


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

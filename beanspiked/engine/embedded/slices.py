"""Work on up to a million jobs, done in slices between everything else that this process does."""

from collections.abc import Callable

from beanspiked.engine.contract import Bulk, Job
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.errors import StoreFailed
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timed, Timers

__all__ = ["Slices", "sweep"]


class Slices(Timed):
    """Work that is done a slice at a time.

    Args:
        timers: The timer queue, which calls for the next slice.
        step: Does a slice. It returns an outcome that the next slice has to wait for, if any, and calls `end` in the last slice.
        outcome: The outcome to make known; None to make one.

    Attributes:
        outcome: Known when all is done. Its value is the sum of the values that slices waited for. An error ends the work; unless the
            outcome is a Bulk, it is reported only if no work was done and counted.
    """

    def __init__(self, timers: Timers, step: "Callable[[Slices], Later | None]", outcome: Later | None = None) -> None:
        super().__init__(timers.new_id())
        self.outcome: Later = outcome or Later()
        self._timers = timers
        self._step = step
        self._ended = False

    def begin(self) -> Later:
        """Do the first slice; return the outcome."""
        self.on_time(0.0)
        return self.outcome

    def end(self) -> None:
        """Let this slice be the last one."""
        self._ended = True

    def on_time(self, now: float) -> None:  # noqa: ARG002 - it is due whenever it is called
        """Do the next slice."""
        later = self._step(self)
        if later is None:
            self._go_on()
        else:
            later.then(self._answered)

    def on_failure(self, error: Exception) -> bool:
        """End the work after a bug."""
        self.outcome.settle(StoreFailed(f"internal error: {error}"))
        return False

    def _answered(self, later: Later) -> None:
        if later.error is None:
            self.outcome.value += later.value
            self._go_on()
        else:
            hushed = self.outcome.value > 0 and not isinstance(self.outcome, Bulk)
            self.outcome.settle(None if hushed else later.error)

    def _go_on(self) -> None:
        if self._ended:
            self.outcome.settle()
        else:
            self._timers.schedule(self, self._timers.clock.now())


def sweep(timers: Timers, table: JobTable, last_id: int, visit: Callable[[list[Job]], Later | None]) -> Later | None:
    """Visit all jobs up to an id, about a thousand at a time.

    Args:
        timers: The timer queue, which calls for the next slice.
        table: The jobs.
        last_id: The id of the last job that there is now.
        visit: Visits some jobs; it returns an outcome that the next ones have to wait for, if any.

    Returns:
        An outcome that is known when all are visited; None when they were few and are visited already.
    """
    shards = table.shards()
    if len(shards) == 1:
        return visit(table.shard(shards[0]))

    def step(work: Slices) -> Later | None:
        jobs = [job for job in table.shard(shards.pop()) if job.id <= last_id]
        if not shards:
            work.end()
        return visit(jobs)

    return Slices(timers, step).begin() if shards else None

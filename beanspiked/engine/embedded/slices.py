"""What may concern a million jobs goes on in slices, between everything else that this process does."""

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
        timers: What calls for the next slice.
        step: Does a slice. It returns what the next one has to wait for, if anything, and calls `end` with the last one.
        outcome: What becomes known when all is done, or None to have it made.

    Attributes:
        outcome: Known when all is done. Its value adds up those of what slices waited for. An error ends the work; unless it is a Bulk, it
            is not told when some of the work was done and counted.
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
        """This slice is the last one."""
        self._ended = True

    def on_time(self, now: float) -> None:  # noqa: ARG002 - it is due whenever it is called
        """Do the next slice."""
        later = self._step(self)
        if later is None:
            self._go_on()
        else:
            later.then(self._answered)

    def on_failure(self, error: Exception) -> bool:
        """A bug ends the work."""
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
    """Visit all jobs up to an id, some thousand at a time.

    Args:
        timers: What calls for the next slice.
        table: The jobs.
        last_id: That of the last job that there is now.
        visit: What is done with some of them; it returns what the next ones have to wait for, if anything.

    Returns:
        What is known when all were visited; None when they are few and were.
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

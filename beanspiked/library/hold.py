"""A job in the hands of this program, as its engine knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.engine.contract import Waiter
from beanspiked.engine.errors import JobGone, OutcomeUnknown
from beanspiked.engine.timers import NEVER
from beanspiked.library.errors import JobLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.later import Later
    from beanspiked.library.core import Core

__all__ = ["Hold"]


class Hold(Waiter):
    """Who holds a job towards its engine, and when its time to run is over.

    Attributes:
        job: The job.
        held: Whether it still is this program's.
    """

    def __init__(self, core: Core, job: EngineJob) -> None:
        super().__init__(core.broker.timers.new_id())
        self.job: EngineJob = job
        self.held: bool = False
        self._core = core
        self._when_lost: list[Callable[[], None]] = []
        self._take(core.broker.now() + job.ttr if job.ttr else NEVER)

    def _take(self, deadline: float) -> None:
        self.held = True
        self.job.holder = self
        self.job.key = deadline
        self._core.held[self] = None
        if deadline < NEVER:
            self._core.broker.timers.schedule(self, deadline)

    def _drop(self) -> None:
        self.held = False
        self.job.holder = None
        self._core.held.pop(self, None)
        self._core.broker.timers.cancel(self)

    def check(self) -> None:
        """Raise JobLost unless it is held, and ConnClosed where nothing is any more."""
        self._core.check_open()
        if not self.held:
            raise JobLost(f"job {self.job.id} of {self.job.tube.name} is not held any more")

    def touch(self) -> None:
        """Let its time to run begin anew. Raises JobLost."""
        self.check()
        if self.job.ttr:
            self.job.key = self._core.broker.now() + self.job.ttr
            self._core.broker.timers.schedule(self, self.job.key)

    async def change(self, change: Callable[[], Later | None], event: str, *, stays: bool = False) -> None:
        """Have a change made that takes it away, or that it `stays` held after. When that fails it is held again.

        Raises:
            JobLost: It was gone already.
            EngineError: It is held as before, but after OutcomeUnknown.
        """
        self.check()
        self._drop()
        later = change()
        if later is not None:
            later.then(lambda outcome: self._changed(outcome, stays))
        elif stays:
            self._take(self.job.key)
        try:
            await self._core.done(later, event, self.job.tube.name)
        except JobGone as error:
            raise JobLost(str(error)) from error

    def _changed(self, outcome: Later, stays: bool) -> None:
        if isinstance(outcome.error, (JobGone, OutcomeUnknown)):
            self.tell_lost()
        elif outcome.error is not None or stays:
            if self._core.closed:
                self._core.broker.engine.give_back(self.job, timed_out=False)
            else:
                self._take(self.job.key)

    def give_back(self) -> None:
        """Make it ready as it was, at once and without an outcome."""
        if self.held:
            self._drop()
            self._core.broker.engine.give_back(self.job, timed_out=False)
            self._core.turn()

    def bury(self, reason: str) -> None:
        """Set it aside, without an outcome."""
        self._drop()
        self._core.broker.engine.bury(self.job, self.job.pri, reason)
        self._core.turn()

    # --- what others do to it

    def on_time(self, now: float) -> None:
        """Give it up, unless it was touched."""
        if not self.held:
            return
        if self.job.key > now:
            self._core.broker.timers.schedule(self, self.job.key)
            return
        self._core.broker.job_timeouts += 1
        self._lose()
        self._core.broker.engine.give_back(self.job, timed_out=True)

    def lost(self, job: EngineJob) -> None:  # noqa: ARG002 - it holds only one
        """The job was deleted with its tube, or this process lost it."""
        self._lose()

    def _lose(self) -> None:
        self._drop()
        self._core.metrics.count("lost", self.job.tube.name, 1)
        self.tell_lost()

    def tell_lost(self) -> None:
        """Tell those who asked that this program does not hold it any more."""
        told, self._when_lost = self._when_lost, []
        for callback in told:
            callback()

    def when_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when it turns out that it is held no more; return what ends that."""
        self._when_lost.append(callback)

        def forget() -> None:
            if callback in self._when_lost:
                self._when_lost.remove(callback)

        return forget

"""A job that this program holds, as its engine knows it."""

from __future__ import annotations

import asyncio
import logging
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

logger = logging.getLogger(__name__)


class Hold(Waiter):
    """The engine's holder of one job, with the timer of the job's time to run.

    While a change of the job is on its way, the engine has no holder for it, so no timer can make the job ready.

    Attributes:
        job: The job.
    """

    def __init__(self, core: Core, job: EngineJob) -> None:
        super().__init__(core.broker.timers.new_id())
        self.job: EngineJob = job
        self._core = core
        self._held = False
        # Whether a change is on its way; whether the job stays held after it; whether the program gives the job up if it fails;
        # and whether no call waits for its outcome any more.
        self._changing = False
        self._stays = False
        self._abandoned = False
        self._unheard = False
        self._gone = False
        self._later: Later | None = None
        self._when_lost: list[Callable[[], None]] = []
        self._take(core.broker.now() + job.ttr if job.ttr else NEVER)

    @property
    def held(self) -> bool:
        """Whether this program holds the job."""
        return self._held or (self._changing and self._stays and not self._abandoned)

    def _take(self, deadline: float) -> None:
        self._held = True
        self.job.holder = self
        self.job.key = deadline
        self._core.held[self] = None
        if deadline < NEVER:
            self._core.broker.timers.schedule(self, deadline)

    def _drop(self) -> None:
        self._held = False
        self.job.holder = None
        self._core.held.pop(self, None)
        self._core.broker.timers.cancel(self)

    def check(self) -> None:
        """Raise JobLost unless the job is held, and ConnClosed if the connection is closed."""
        self._core.check_open()
        if not self.held:
            raise JobLost(f"job {self.job.id} of {self.job.tube.name} is not held any more")

    def touch(self) -> None:
        """Start the job's time to run again. Raises JobLost."""
        if self._changing and not self._gone:
            # If the change fails, the job has the new deadline.
            self._core.check_open()
        else:
            self.check()
        if self.job.ttr:
            self.job.key = self._core.broker.now() + self.job.ttr
            if self._held:
                self._core.broker.timers.schedule(self, self.job.key)

    # --- changes

    async def change(self, change: Callable[[], Later | None], event: str, *, stays: bool = False) -> None:
        """Change the job, which ends the hold unless the job `stays` held. If the change fails, the job is held again.

        Raises:
            JobLost: The job was lost already.
            EngineError: The job is held as before, except after OutcomeUnknown.
        """
        self.check()
        while self.job.moving is not None:
            # An earlier change of this job, or of its whole tube, is on its way.
            await self._core.ended(self.job.moving)
            self.check()
        self._begin(change, stays=stays)
        try:
            await self._core.done(self._later, event, self.job.tube.name)
        except JobGone as error:
            self._lose_to_others()
            raise JobLost(str(error)) from error
        except OutcomeUnknown:
            self._lose_to_others()
            raise
        except asyncio.CancelledError:
            self._unheard = True
            raise

    def _begin(self, change: Callable[[], Later | None], *, stays: bool) -> None:
        self._drop()
        try:
            later = change()
        except BaseException:
            self._take(self.job.key)
            raise
        self._later = later
        self._stays = stays
        self._unheard = False
        if later is not None:
            self._changing = True
            later.then(self._changed)
        elif stays:
            self._take(self.job.key)

    def _changed(self, outcome: Later) -> None:
        self._changing = False
        if isinstance(outcome.error, (JobGone, OutcomeUnknown)):
            if self._unheard:
                self._lose_to_others()
        elif outcome.error is not None or self._stays:
            if self._core.closed or self._abandoned:
                self._core.broker.engine.give_back(self.job, timed_out=False)
                self._core.turn()
            else:
                self._take(self.job.key)

    def give_back(self) -> None:
        """Make the job ready as it was, without an outcome. If a change is on its way, do so after it if the job is still held."""
        if self._changing:
            self._abandoned = True
        elif self._held:
            self._drop()
            self._core.broker.engine.give_back(self.job, timed_out=False)
            self._core.turn()

    def bury(self, reason: str) -> None:
        """Bury the job without an outcome; if that fails, make it ready."""
        self._abandoned = True
        self._begin(lambda: self._core.broker.engine.bury(self.job, self.job.pri, reason), stays=False)
        self._core.turn()

    # --- calls by the engine and the connection

    def forked(self) -> None:
        """Learn that the job belongs to the parent, which this process was forked from."""
        self._held = False
        self._abandoned = True

    def on_time(self, now: float) -> None:
        """Give the job back, unless it was touched."""
        if not self._held:
            return
        if self.job.key > now:
            self._core.broker.timers.schedule(self, self.job.key)
            return
        self._core.broker.job_timeouts += 1
        self._drop()
        self._core.broker.engine.give_back(self.job, timed_out=True)
        self._lose_to_others()

    def lost(self, job: EngineJob) -> None:  # noqa: ARG002 - it holds only one
        """Learn that the job was deleted with its tube, or that this process lost it."""
        self._drop()
        self._lose_to_others()

    def _lose_to_others(self) -> None:
        self._core.metrics.count("lost", self.job.tube.name, 1)
        self.tell_lost()

    def tell_lost(self) -> None:
        """Call the callbacks that `when_lost` registered."""
        self._gone = True
        told, self._when_lost = self._when_lost, []
        for callback in told:
            try:
                callback()
            except Exception:
                logger.exception(
                    "a callback about the loss of job %d of tube %s failed", self.job.id, self.job.tube.name
                )

    def when_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the program learns that the job is lost; return a function that undoes this."""
        if self._gone:
            handle = self._core.loop.call_soon(callback)
            return handle.cancel
        self._when_lost.append(callback)

        def forget() -> None:
            if callback in self._when_lost:
                self._when_lost.remove(callback)

        return forget

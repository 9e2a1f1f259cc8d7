"""One call that waits for jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.engine.contract import Waiter
from beanspiked.engine.timers import NEVER
from beanspiked.library.hold import Hold

if TYPE_CHECKING:
    import asyncio

    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.contract import Tube
    from beanspiked.engine.later import Later
    from beanspiked.library.core import Core

__all__ = ["Reservation"]


class Reservation(Waiter):
    """Takes several jobs of a tube at once, and waits for the first.

    Args:
        core: The connection.
        tube: The tube.
        number: How many jobs it takes at most.

    Attributes:
        held: The jobs that it has taken.
    """

    def __init__(self, core: Core, tube: Tube, number: int) -> None:
        super().__init__(core.broker.timers.new_id())
        self.wants = number
        self.held: list[Hold] = []
        self._core = core
        self._tube = tube
        self._number = number
        self._future: asyncio.Future[None] | None = None
        self._seek: Later | None = None
        self._until = NEVER

    async def get(self, timeout: float | None) -> list[Hold]:
        """Return the jobs; none when the time is up. Raises StoreFailed.

        Args:
            timeout: How long to wait, in seconds; None for no limit.
        """
        engine = self._core.broker.engine
        self._take_more()
        if self.held:
            self._core.turn()
            return self.held
        if timeout == 0 and not engine.shared:
            return []
        self._until = NEVER if timeout is None else self._core.broker.now() + timeout
        self._enter()
        if engine.shared:
            self._look(patient=timeout != 0)
        self._core.turn()
        future = self._future
        if future is not None:
            try:
                await self._core.wait(future)
            except BaseException:
                # The caller does not take the jobs that have come meanwhile.
                self._leave()
                for hold in self.held:
                    hold.give_back()
                raise
        return self.held

    def _look(self, *, patient: bool) -> None:
        """Ask a shared store for a job. A patient look may leave it to the wait."""
        seek = self._core.broker.engine.seek(self, [self._tube], patient)
        if seek is not None and self._future is not None:
            self._seek = seek
            seek.then(self._answered)
        elif seek is None and not patient:
            self._end()

    def _take_more(self) -> None:
        """Take the jobs that are ready now."""
        engine = self._core.broker.engine
        tubes = [self._tube]
        while len(self.held) < self._number:
            job = engine.take(tubes)
            if job is None:
                return
            self._hold(job)

    def _hold(self, job: EngineJob) -> None:
        self.held.append(Hold(self._core, job))

    def _enter(self) -> None:
        self._future = self._core.loop.create_future()
        self._core.waiting[self] = None
        self._core.broker.waiting += 1
        self._tube.enter(self)
        if self._until < NEVER:
            self._core.broker.timers.schedule(self, self._until)

    def _leave(self) -> None:
        if self._core.waiting.pop(self, self) is None:
            self._core.broker.waiting -= 1
            self._seek = None
            self._tube.leave(self)
            self._core.broker.timers.cancel(self)

    def _end(self, error: Exception | None = None) -> None:
        """Stop waiting."""
        self._leave()
        future = self._future
        if future is not None and not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def serve(self, job: EngineJob) -> None:
        """Take a job that was reserved for this call, and others that are ready now."""
        self._leave()
        self._hold(job)
        self._take_more()
        self._end()

    def lost(self, job: EngineJob) -> None:
        """Do nothing: each job has a holder of its own."""
        raise NotImplementedError

    def on_time(self, now: float) -> None:
        """End the wait when its time is up, unless the store is still looking for a job."""
        if self._until > now:
            if self._until < NEVER:
                self._core.broker.timers.schedule(self, self._until)
        elif self._seek is None:
            if self._core.broker.engine.expects(self, [self._tube]):
                # A job that came in time is on its way.
                self._look(patient=False)
            else:
                self._end()

    def _answered(self, seek: Later) -> None:
        """Learn that the store has no job, or did not answer."""
        if self._seek is not seek:
            return
        self._seek = None
        if seek.error is not None:
            self._end(seek.error)
        else:
            self.on_time(self._core.broker.now())

    def stop(self, error: Exception) -> None:
        """Learn that the connection is closed."""
        self._end(error)

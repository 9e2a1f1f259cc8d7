"""One call that waits for jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.engine.contract import Waiter
from beanspiked.engine.timers import NEVER
from beanspiked.library.job import Job

if TYPE_CHECKING:
    import asyncio

    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.later import Later
    from beanspiked.library.tube import Tube

__all__ = ["Reservation"]


class Reservation(Waiter):
    """Takes up to so many jobs of a tube at once, and waits for the first.

    Args:
        tube: The tube.
        number: How many jobs it takes at most.

    Attributes:
        jobs: What it has got.
    """

    def __init__(self, tube: Tube, number: int) -> None:
        self._conn = tube.conn
        super().__init__(self._conn.broker.timers.new_id())
        self.wants = number
        self.jobs: list[Job] = []
        self._tube = tube
        self._number = number
        self._future: asyncio.Future[None] | None = None
        self._seek: Later | None = None
        self._until = NEVER

    async def get(self, timeout: float | None) -> list[Job]:
        """Return the jobs; none when the time is up. Raises StoreFailed.

        Args:
            timeout: How long to wait, in seconds; None for as long as it takes.
        """
        engine = self._conn.broker.engine
        self._take_more()
        if self.jobs:
            self._conn.turn()
            return self.jobs
        if timeout == 0 and not engine.shared:
            return []
        self._until = NEVER if timeout is None else self._conn.broker.now() + timeout
        self._enter()
        if engine.shared:
            seek = engine.seek(self, [self._tube.state], patient=timeout != 0)
            if seek is not None and self._future is not None:
                self._seek = seek
                seek.then(self._sought)
            elif seek is None and timeout == 0:
                self._end()
        self._conn.turn()
        future = self._future
        if future is not None:
            try:
                await future
            except BaseException:
                # Nobody takes what has come meanwhile.
                self._leave()
                for job in self.jobs:
                    job.give_back()
                raise
        return self.jobs

    def _take_more(self) -> None:
        """Take what is ready now."""
        engine = self._conn.broker.engine
        tubes = [self._tube.state]
        while len(self.jobs) < self._number:
            job = engine.take(tubes)
            if job is None:
                return
            self._tube.got(self.jobs, job)

    def _enter(self) -> None:
        self._future = self._conn.loop.create_future()
        self._conn.waiting[self] = None
        self._conn.broker.waiting += 1
        self._tube.state.waiters[self] = None
        if self._until < NEVER:
            self._conn.broker.timers.schedule(self, self._until)

    def _leave(self) -> None:
        if self._conn.waiting.pop(self, self) is None:
            self._conn.broker.waiting -= 1
            self._seek = None
            del self._tube.state.waiters[self]
            self._conn.broker.timers.cancel(self)

    def _end(self, error: Exception | None = None) -> None:
        """Wait no more."""
        self._leave()
        future = self._future
        if future is not None and not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def serve(self, job: EngineJob) -> None:
        """Take a job that was reserved for it, and what else is ready now."""
        self._leave()
        self._tube.got(self.jobs, job)
        self._take_more()
        self._end()

    def lost(self, job: EngineJob) -> None:
        """Jobs are held each by its own holder."""
        raise NotImplementedError

    def on_time(self, now: float) -> None:
        """End when the time is up, unless it is not known yet whether a job is there."""
        if self._until > now:
            self._conn.broker.timers.schedule(self, self._until)
        elif self._seek is None:
            self._end()

    def _sought(self, seek: Later) -> None:
        """The store has no job, or did not answer."""
        if self._seek is not seek:
            return
        self._seek = None
        if seek.error is not None:
            self._end(seek.error)
        elif self._until <= self._conn.broker.now():
            self._end()
        elif self._until < NEVER:
            self._conn.broker.timers.schedule(self, self._until)

    def stop(self, error: Exception) -> None:
        """The connection is closed."""
        self._end(error)

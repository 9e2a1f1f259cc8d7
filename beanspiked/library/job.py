"""A job that this program has reserved."""

from __future__ import annotations

import asyncio
import contextlib
from copy import copy
from typing import TYPE_CHECKING, Final

from beanspiked.engine.contract import Details
from beanspiked.library.core import OfOneProcess
from beanspiked.library.errors import ConnClosed, JobLost
from beanspiked.library.job_info import NO_DETAILS, Seconds, checked_priority, checked_text, retries_of, seconds_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from beanspiked.engine.later import Later
    from beanspiked.library.core import Core
    from beanspiked.library.hold import Hold
    from beanspiked.library.tube_base import TubeBase

__all__ = ["Job", "touch_on"]

# The shortest pause before a touch, in seconds. A job with a shorter time to run times out before it.
SHORTEST_TOUCH: Final = 0.001


class Job(OfOneProcess):
    """A job that this program has reserved, until one of its methods gives it away or its time to run is over.

    Attributes:
        id: Its id.
        body: Its body.
        tube: Its tube.
    """

    def __init__(self, tube: TubeBase, hold: Hold, core: Core) -> None:
        self.id: int = hold.job.id
        self.body: bytes = hold.job.raw_body()
        self.tube: TubeBase = tube
        self._hold = hold
        self._core = core

    def __repr__(self) -> str:
        return (
            f"<Job {self.id} of {self.tube.name}, {len(self.body)} bytes{'' if self.held else ', not held any more'}>"
        )

    # --- looking

    @property
    def held(self) -> bool:
        """Whether this program still holds it."""
        return self._hold.held

    @property
    def priority(self) -> int:
        """0 (most urgent) to 2**32 - 1."""
        return self._hold.job.pri

    @property
    def ttr(self) -> float:
        """Time to run, in seconds; 0 means that it never times out."""
        return self._hold.job.ttr

    @property
    def born(self) -> float:
        """When it was made, in seconds since the epoch: the time that its producer gave, or the time of its put."""
        return self._hold.job.born

    @property
    def retries(self) -> int:
        """How often a holder released it for another try; 1 when the job only says that its last try failed."""
        return retries_of(self._hold.job.details or NO_DETAILS)

    @property
    def timeouts(self) -> int:
        """How often it timed out."""
        return self._hold.job.timeouts

    @property
    def failed(self) -> bool:
        """Whether its last try failed."""
        return (self._hold.job.details or NO_DETAILS).failed

    @property
    def metadata(self) -> str:
        """The text by which `find` finds it."""
        return (self._hold.job.details or NO_DETAILS).metadata

    @property
    def time_left(self) -> float:
        """How long until its time to run is over, in seconds; infinite without a time to run."""
        return self._hold.job.key - self._core.broker.now()

    # --- changing

    async def touch(self) -> None:
        """Start its time to run again; without a time to run do nothing. Raises JobLost."""
        self._hold.touch()
        self._core.metrics.count("touch", self.tube.name, 1)

    async def delete(self) -> bool:
        """Delete it: the work is done. Returns whether this call deleted it.

        Raises:
            StoreFull, StoreFailed: It is still held, except after OutcomeUnknown.
        """
        try:
            await self._hold.change(lambda: self._core.broker.engine.delete(self._hold.job), "delete")
        except JobLost:
            return False
        return True

    async def release(
        self,
        delay: Seconds = 0,
        *,
        priority: int | None = None,
        count_retry: bool = False,
        failed: bool = False,
    ) -> None:
        """Make it ready or delayed again.

        Args:
            delay: How long nobody can reserve it, in seconds or as a timedelta.
            priority: Its new priority; None keeps it.
            count_retry: Whether this counts as a retry.
            failed: Whether this try failed.

        Raises:
            JobLost: Another worker may have it.
            StoreFull, StoreFailed: It is still held, except after OutcomeUnknown.
        """
        seconds = seconds_of(delay, "delay")
        job = self._hold.job
        pri = job.pri if priority is None else checked_priority(priority)
        before = job.details

        def release() -> Later | None:
            if count_retry or failed or (before is not None and before.failed):
                now = Details() if before is None else copy(before)
                now.retries += count_retry
                now.failed = failed
                job.details = now
            return self._core.broker.engine.release(job, pri, seconds)

        try:
            await self._hold.change(release, "release")
        except BaseException:
            # If the call is cancelled, the outcome is unknown. Only a job that is held again has its old details.
            if self.held:
                job.details = before
            raise

    async def bury(self, reason: str = "", *, priority: int | None = None) -> None:
        """Bury it until somebody kicks it; `find` does not list it meanwhile.

        Args:
            reason: Why; at most 65,535 bytes.
            priority: Its new priority; None keeps it.

        Raises:
            JobLost: Another worker may have it.
            StoreFull, StoreFailed: It is still held, except after OutcomeUnknown.
        """
        text = checked_text(reason, "reason")
        job = self._hold.job
        pri = job.pri if priority is None else checked_priority(priority)
        await self._hold.change(lambda: self._core.broker.engine.bury(job, pri, text), "bury")

    async def update(self, body: bytes, *, compress: bool = True) -> None:
        """Replace its body, for example to renew a token in it; it stays held.

        Raises:
            JobLost: Another worker may have it.
            StoreFull, StoreFailed: It is unchanged and still held, except after OutcomeUnknown.
        """
        stored, raw_size = self._core.stored(body, compress)
        job = self._hold.job
        await self._hold.change(lambda: self._core.broker.engine.update(job, stored, raw_size), "update", stays=True)
        self.body = body

    def give_back(self) -> None:
        """Make it ready as it was, at once and without an outcome, for programs that end. Does nothing if it is not held."""
        self._hold.give_back()

    def when_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when the program learns that it is lost; return a function that undoes this."""
        return self._hold.when_lost(callback)

    @contextlib.asynccontextmanager
    async def keep_alive(self) -> AsyncIterator[Job]:
        """Touch it at once, and at half of its time to run for as long as the block lasts.

        If the job is lost meanwhile, this cancels the block and raises JobLost. If a call in the block learns of the loss first, that
        call raises JobLost.
        """
        await self.touch()
        task = asyncio.current_task()
        assert task is not None
        asked_before = task.cancelling()
        lost = False

        def stop() -> None:
            nonlocal lost
            if asyncio.current_task(self._core.loop) is not task:
                lost = True
                task.cancel()

        forget = self.when_lost(stop)
        touching = asyncio.create_task(touch_on(self))
        try:
            yield self
        except asyncio.CancelledError:
            if lost and task.uncancel() <= asked_before:
                raise self._lost() from None
            raise
        except BaseException:
            if lost:
                task.uncancel()
            raise
        else:
            # The block has suppressed the cancellation.
            if lost and task.uncancel() <= asked_before:
                raise self._lost()
        finally:
            forget()
            touching.cancel()

    def _lost(self) -> JobLost:
        return JobLost(f"job {self.id} of {self.tube.name} is not held any more")


async def touch_on(job: Job) -> None:
    """Touch a job at half of its time to run until it is not held any more; a job without one needs no touch."""
    with contextlib.suppress(JobLost, ConnClosed):
        while job.ttr:
            await asyncio.sleep(max(SHORTEST_TOUCH, job.ttr / 2))
            await job.touch()

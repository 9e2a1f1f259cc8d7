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

# A time to run that is shorter than this is not worth keeping alive: the touch would come too late.
SHORTEST_TOUCH: Final = 0.001


class Job(OfOneProcess):
    """A job that this program has reserved: its own until one of its methods, or time, takes it away.

    Attributes:
        id: Its number.
        body: Its body.
        tube: Where it lives.
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

    # --- what is known of it

    @property
    def held(self) -> bool:
        """Whether it still is this program's."""
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
        """When it was made, in seconds since the epoch: as its producer said, or when it was put."""
        return self._hold.job.born

    @property
    def retries(self) -> int:
        """How often it was released to be tried again; 1 when it is only known that its last try failed."""
        return retries_of(self._hold.job.details or NO_DETAILS)

    @property
    def timeouts(self) -> int:
        """How often the time to run of a holder was over."""
        return self._hold.job.timeouts

    @property
    def failed(self) -> bool:
        """Whether its last try failed."""
        return (self._hold.job.details or NO_DETAILS).failed

    @property
    def metadata(self) -> str:
        """What its producer wrote to find it by."""
        return (self._hold.job.details or NO_DETAILS).metadata

    @property
    def time_left(self) -> float:
        """How long until its time to run is over, in seconds; infinite when that never is."""
        return self._hold.job.key - self._core.broker.now()

    # --- what may be done with it

    async def touch(self) -> None:
        """Let its time to run begin anew; one without never ends. Raises JobLost."""
        self._hold.touch()
        self._core.metrics.count("touch", self.tube.name, 1)

    async def delete(self) -> bool:
        """Remove it: the work is done. Returns whether that was this call's doing.

        Raises:
            StoreFull, StoreFailed: It is still held, but after OutcomeUnknown.
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
        """Put it back for others.

        Args:
            delay: How long nobody gets it, in seconds or as a timedelta.
            priority: Its new priority; None leaves it as it is.
            count_retry: Whether that counts among its retries.
            failed: Whether this try failed.

        Raises:
            JobLost: Somebody else may have it.
            StoreFull, StoreFailed: It is still held, but after OutcomeUnknown.
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
            # Cancelled, the outcome is not known yet: only a job that is here again has its old details.
            if self.held:
                job.details = before
            raise

    async def bury(self, reason: str = "", *, priority: int | None = None) -> None:
        """Set it aside until somebody kicks it; `find` passes it over meanwhile.

        Args:
            reason: Why; at most 65,535 bytes.
            priority: Its new priority; None leaves it as it is.

        Raises:
            JobLost: Somebody else may have it.
            StoreFull, StoreFailed: It is still held, but after OutcomeUnknown.
        """
        text = checked_text(reason, "reason")
        job = self._hold.job
        pri = job.pri if priority is None else checked_priority(priority)
        await self._hold.change(lambda: self._core.broker.engine.bury(job, pri, text), "bury")

    async def update(self, body: bytes, *, compress: bool = True) -> None:
        """Replace its body, for instance with a fresh token in it; it stays held.

        Raises:
            JobLost: Somebody else may have it.
            StoreFull, StoreFailed: It is unchanged, and still held, but after OutcomeUnknown.
        """
        stored, raw_size = self._core.stored(body, compress)
        job = self._hold.job
        await self._hold.change(lambda: self._core.broker.engine.update(job, stored, raw_size), "update", stays=True)
        self.body = body

    def give_back(self) -> None:
        """Make it ready as it was, at once and without an outcome: for programs that end. Does nothing once it is not held."""
        self._hold.give_back()

    def when_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, once, when it turns out that this program does not hold it any more; return what ends that."""
        return self._hold.when_lost(callback)

    @contextlib.asynccontextmanager
    async def keep_alive(self) -> AsyncIterator[Job]:
        """Touch it at half of its time to run for as long as the block lasts.

        It is touched at once, too. When it is lost meanwhile the block is cancelled, and JobLost raised in its place; but who learns of
        the loss from a call of its own is told by that call.
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
            # The block has swallowed it.
            if lost and task.uncancel() <= asked_before:
                raise self._lost()
        finally:
            forget()
            touching.cancel()

    def _lost(self) -> JobLost:
        return JobLost(f"job {self.id} of {self.tube.name} is not held any more")


async def touch_on(job: Job) -> None:
    """Touch a job at half of its time to run until it is not held any more; one without a time to run needs none."""
    with contextlib.suppress(JobLost, ConnClosed):
        while job.ttr:
            await asyncio.sleep(max(SHORTEST_TOUCH, job.ttr / 2))
            await job.touch()

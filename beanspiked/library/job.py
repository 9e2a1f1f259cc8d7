"""A job that this program has reserved, and jobs as they are looked at."""

from __future__ import annotations

import asyncio
import contextlib
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from beanspiked.engine.contract import DELAYED, RESERVED, STATE_NAMES, Details, Waiter
from beanspiked.engine.errors import BeanspikeError, JobGone, OutcomeUnknown
from beanspiked.engine.timers import NEVER
from beanspiked.library.errors import ConnClosed, JobLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.later import Later
    from beanspiked.library.tube import Tube

__all__ = ["Hold", "Job", "JobInfo", "Seconds", "checked_priority", "checked_text", "seconds_of"]

Seconds = float | timedelta

# A time to run that is shorter than this is not worth keeping alive: the touch would come too late.
SHORTEST_TOUCH: Final = 0.001
MAX_SECONDS: Final = 2**32 - 1
MAX_PRIORITY: Final = 2**32 - 1
# Metadata and reasons, in bytes of UTF-8.
MAX_TEXT: Final = 65535


def seconds_of(value: Seconds | None, name: str) -> float:
    """Return a duration in seconds; None is 0. Raises ValueError for one that is negative or of more than 136 years."""
    seconds = 0.0 if value is None else value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name}: from 0 to {MAX_SECONDS} seconds, not {value}")
    return seconds


NO_DETAILS: Final = Details()


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it was looked at; it may have changed since.

    Attributes:
        id: Its number.
        tube: The name of its tube.
        body: Its body.
        state: `ready`, `delayed`, `reserved` or `buried`.
        priority: 0 (most urgent) to 2**32 - 1.
        delay: The delay of its last put or release, in seconds.
        ttr: Time to run, in seconds; 0 means that it never times out.
        born: When it was made, in seconds since the epoch: as its producer said, or when it was put.
        time_left: How long until it is due or times out, in seconds; 0 when neither is to come.
        reserves, timeouts, releases, buries, kicks: How often each happened to it.
        retries: How often it was released to be tried again.
        failed: Whether its last try failed.
        reason: Why it was buried.
        metadata: What its producer wrote to find it by.
    """

    id: int
    tube: str
    body: bytes
    state: str
    priority: int
    delay: float
    ttr: float
    born: float
    time_left: float
    reserves: int
    timeouts: int
    releases: int
    buries: int
    kicks: int
    retries: int
    failed: bool
    reason: str
    metadata: str

    @classmethod
    def of(cls, job: EngineJob, now: float) -> JobInfo:
        """Copy what an engine knows of a job. Raises DamagedEntry."""
        details = job.details or NO_DETAILS
        timed = job.state in (RESERVED, DELAYED) and 0 < job.key < NEVER
        return cls(
            job.id,
            job.tube.name,
            job.raw_body(),
            STATE_NAMES[job.state],
            job.pri,
            job.delay,
            job.ttr,
            job.born,
            max(0.0, job.key - now) if timed else 0.0,
            job.reserves,
            job.timeouts,
            job.releases,
            job.buries,
            job.kicks,
            _retries(details),
            details.failed,
            details.reason,
            details.metadata,
        )


class Job:
    """A job that this program has reserved: its own until one of its methods, or time, takes it away.

    Attributes:
        id: Its number.
        body: Its body.
        tube: Where it lives.
    """

    def __init__(self, tube: Tube, job: EngineJob) -> None:
        self.id: int = job.id
        self.body: bytes = job.raw_body()
        self.tube: Tube = tube
        self._conn = tube.conn
        self._job = job
        self._hold = Hold(self, tube.conn.broker.timers.new_id())
        self._when_lost: list[Callable[[], None]] = []
        self.held: bool = False
        self._take(self._conn.broker.now() + job.ttr if job.ttr else NEVER)

    def __repr__(self) -> str:
        return (
            f"<Job {self.id} of {self.tube.name}, {len(self.body)} bytes{'' if self.held else ', not held any more'}>"
        )

    # --- what is known of it

    @property
    def priority(self) -> int:
        """0 (most urgent) to 2**32 - 1."""
        return self._job.pri

    @property
    def ttr(self) -> float:
        """Time to run, in seconds; 0 means that it never times out."""
        return self._job.ttr

    @property
    def born(self) -> float:
        """When it was made, in seconds since the epoch: as its producer said, or when it was put."""
        return self._job.born

    @property
    def retries(self) -> int:
        """How often it was released to be tried again; 1 when it is only known that its last try failed."""
        return _retries(self._job.details)

    @property
    def failed(self) -> bool:
        """Whether its last try failed."""
        return self._job.details is not None and self._job.details.failed

    @property
    def metadata(self) -> str:
        """What its producer wrote to find it by."""
        return "" if self._job.details is None else self._job.details.metadata

    @property
    def time_left(self) -> float:
        """How long until its time to run is over, in seconds; infinite when that never is."""
        return self._job.key - self._conn.broker.now()

    # --- holding

    def _take(self, deadline: float) -> None:
        self.held = True
        self._job.holder = self._hold
        self._job.key = deadline
        self._conn.held[self] = None
        if deadline < NEVER:
            self._conn.broker.timers.schedule(self._hold, deadline)

    def _drop(self) -> None:
        self.held = False
        self._job.holder = None
        self._conn.held.pop(self, None)
        self._conn.broker.timers.cancel(self._hold)

    def _let_go(self) -> None:
        """Take it out of the hands of everybody but the change that is to come. Raises JobLost and ConnClosed."""
        self._must_hold()
        self._drop()

    def _must_hold(self) -> None:
        self._conn.check_open()
        if not self.held:
            raise self._lost_error()

    def _lost_error(self) -> JobLost:
        return JobLost(f"job {self.id} of {self.tube.name} is not held any more")

    async def _changed(self, later: Later | None, event: str) -> None:
        """Wait for a change of this job, which was let go; when it fails the job is still held."""
        if later is not None:
            later.then(self._undo)
        try:
            await self._conn.done(later, event, self.tube.name)
        except JobGone as error:
            self.told_lost()
            raise JobLost(str(error)) from error

    def _undo(self, later: Later) -> None:
        if isinstance(later.error, OutcomeUnknown):
            # It went with the session.
            self.told_lost()
        elif later.error is not None and not isinstance(later.error, JobGone):
            self._take_again()

    def _take_again(self) -> None:
        if self._conn.closed:
            self._conn.broker.engine.give_back(self._job, timed_out=False)
        else:
            self._take(self._job.key)

    def lose(self) -> None:
        """It is this program's no more."""
        self._drop()
        self._conn.metrics.count("lost", self.tube.name, 1)
        self.told_lost()

    def told_lost(self) -> None:
        """Tell those who asked that this program does not hold it any more."""
        told, self._when_lost = self._when_lost, []
        for callback in told:
            callback()

    def time_is_up(self, now: float) -> None:
        """Give it up, unless it was touched."""
        broker = self._conn.broker
        if not self.held:
            return
        if self._job.key > now:
            broker.timers.schedule(self._hold, self._job.key)
            return
        broker.job_timeouts += 1
        self.lose()
        broker.engine.give_back(self._job, timed_out=True)

    def give_back(self) -> None:
        """Make it ready as it was, at once and without an outcome: for programs that end."""
        if self.held:
            self._drop()
            self._conn.broker.engine.give_back(self._job, timed_out=False)
            self._conn.turn()

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call back once when it turns out that this program does not hold it any more."""
        self._when_lost.append(callback)

    # --- what may be done with it

    async def touch(self) -> None:
        """Let its time to run begin anew; one without never ends. Raises JobLost."""
        self._must_hold()
        if self._job.ttr:
            self._job.key = self._conn.broker.now() + self._job.ttr
            self._conn.broker.timers.schedule(self._hold, self._job.key)
        self._conn.metrics.count("touch", self.tube.name, 1)

    async def delete(self) -> bool:
        """Remove it: the work is done. Returns whether that was this call's doing.

        Raises:
            StoreFull, StoreFailed: It is still held, but after OutcomeUnknown.
        """
        self._conn.check_open()
        if not self.held:
            return False
        self._drop()
        try:
            await self._changed(self._conn.broker.engine.delete(self._job), "delete")
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
            delay: How long nobody gets it.
            priority: Its new priority; None leaves it as it is.
            count_retry: Whether that counts among its retries.
            failed: Whether this try failed.

        Raises:
            JobLost: Somebody else may have it.
            StoreFull, StoreFailed: It is still held, but after OutcomeUnknown.
        """
        seconds = seconds_of(delay, "delay")
        pri = self._job.pri if priority is None else checked_priority(priority)
        self._let_go()
        job = self._job
        before = job.details
        if count_retry or failed or (before is not None and before.failed):
            now = Details() if before is None else copy(before)
            now.retries += count_retry
            now.failed = failed
            job.details = now
        try:
            await self._changed(self._conn.broker.engine.release(job, pri, seconds), "release")
        except BeanspikeError:
            if self.held:
                job.details = before
            raise

    async def bury(self, reason: str = "", *, priority: int | None = None) -> None:
        """Set it aside until somebody kicks it; `find` passes it over meanwhile.

        Raises:
            JobLost: Somebody else may have it.
            StoreFull, StoreFailed: It is still held, but after OutcomeUnknown.
        """
        text = checked_text(reason, "reason")
        pri = self._job.pri if priority is None else checked_priority(priority)
        self._let_go()
        await self._changed(self._conn.broker.engine.bury(self._job, pri, text), "bury")

    async def update(self, body: bytes, *, compress: bool = True) -> None:
        """Replace its body; it stays held.

        Raises:
            JobLost: Somebody else may have it.
            StoreFull, StoreFailed: It is unchanged, and still held, but after OutcomeUnknown.
        """
        stored, raw_size = self._conn.stored(body, compress)
        self._let_go()
        later = self._conn.broker.engine.update(self._job, stored, raw_size)
        if later is None:
            self._take(self._job.key)
        else:
            later.then(self._updated)
        await self._changed(later, "update")
        self.body = body

    def _updated(self, later: Later) -> None:
        if later.error is None:
            self._take_again()

    @contextlib.asynccontextmanager
    async def keep_alive(self) -> AsyncIterator[Job]:
        """Touch it at half of its time to run for as long as the block lasts.

        When the job is lost meanwhile the block is cancelled, and JobLost raised in its place.
        """
        task = asyncio.current_task()
        assert task is not None
        lost = False

        def stop() -> None:
            nonlocal lost
            # Whose own call found out learns it from that call.
            if asyncio.current_task() is not task:
                lost = True
                task.cancel()

        self._must_hold()
        self.when_lost(stop)
        toucher = asyncio.create_task(self.touch_on())
        try:
            yield self
        except asyncio.CancelledError:
            if lost and task.uncancel() == 0:
                raise self._lost_error() from None
            raise
        finally:
            if stop in self._when_lost:
                self._when_lost.remove(stop)
            toucher.cancel()

    async def check_held(self) -> None:
        """Raise JobLost unless it is this program's still."""
        self._must_hold()

    async def touch_on(self) -> None:
        """Touch it at half of its time to run, until it is lost; one without a time to run needs none."""
        with contextlib.suppress(JobLost, ConnClosed):
            while self._job.ttr:
                await asyncio.sleep(max(SHORTEST_TOUCH, self._job.ttr / 2))
                await self.touch()


class Hold(Waiter):
    """A job's place among those whose time is over some day, and what an engine knows its holder by.

    Attributes:
        job: The job.
    """

    def __init__(self, job: Job, number: int) -> None:
        super().__init__(number)
        self.job: Job = job

    def on_time(self, now: float) -> None:
        """Give the job up, unless it was touched."""
        self.job.time_is_up(now)

    def lost(self, job: EngineJob) -> None:  # noqa: ARG002 - it holds only one
        """The job was deleted with its tube, or this process lost it."""
        self.job.lose()


def _retries(details: Details | None) -> int:
    return 0 if details is None else details.retries or int(details.failed)


def checked_priority(priority: int) -> int:
    """Return a priority. Raises ValueError for one that is out of range."""
    if not 0 <= priority <= MAX_PRIORITY:
        raise ValueError(f"priority: from 0 to {MAX_PRIORITY}, not {priority}")
    return priority


def checked_text(text: str, name: str) -> str:
    """Return a text. Raises ValueError for one that is too long to be kept."""
    size = len(text.encode())
    if size > MAX_TEXT:
        raise ValueError(f"{name}: at most {MAX_TEXT} bytes, not {size}")
    return text

"""The jobs that one connection holds, and until when."""

from typing import Final, cast

from beanspiked.engine.contract import Job, Waiter
from beanspiked.engine.queue import Queue
from beanspiked.engine.timers import NEVER, SLICE
from beanspiked.server.gate import CLOSED, Gate

__all__ = ["Holds"]

# prot.c: SAFETY_MARGIN, how long before a deadline a reserve ends with DEADLINE_SOON, in seconds.
SAFETY_MARGIN: Final = 1.0


class Holds(Waiter):
    """The jobs reserved by one connection, ordered by deadline. This is their holder for the engine."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.broker.timers.new_id())
        self._gate = gate
        self._broker = gate.broker
        self._jobs = Queue()
        self._last_us: int = 0
        self._leaving: bool = False

    def __len__(self) -> int:
        return len(self._jobs)

    def jobs(self, most: int) -> list[Job]:
        """List this many of them, those with the nearest deadlines first."""
        entries = self._jobs.following(float("-inf"), 0, None, most, 4 * most)
        return [] if entries is None else [cast(Job, entry) for entry in entries]

    def soon_at(self) -> float:
        """Return the time from which a reserve does not wait, because the first deadline is near (seconds since the epoch)."""
        first = self._jobs.first()
        return NEVER if first is None else first.key - SAFETY_MARGIN

    def add(self, job: Job) -> None:
        """Hold a job that was just reserved."""
        now = self._broker.now()
        self._last_us = max(self._last_us + 1, int(now * 1e6))
        job.reserved_us = self._last_us
        times = self._broker.times
        if times is not None and times.queue.wanted():
            times.reserved(job, now)
        self._hold(job, now + job.ttr if job.ttr else NEVER)

    def _hold(self, job: Job, deadline: float) -> None:
        job.holder = self
        self._jobs.push(job, deadline)
        if deadline < NEVER:
            self._broker.timers.schedule(self, deadline)

    def touch(self, job: Job) -> None:
        """Start a job's time to run again."""
        self._jobs.remove(job)
        self._hold(job, self._broker.now() + job.ttr if job.ttr else NEVER)

    def let_go(self, job: Job) -> None:
        """Stop holding a job because a change of it begins."""
        times = self._broker.times
        if times is not None and times.work.wanted():
            times.worked(job, self._broker.now())
        self._drop(job)

    def _drop(self, job: Job) -> None:
        job.holder = None
        self._jobs.remove(job)

    def take_back(self, job: Job) -> None:
        """Hold a job again after its change failed. If the connection is gone, make the job ready."""
        if self._gate.why == CLOSED:
            self._broker.engine.give_back(job, timed_out=False)
        else:
            self._hold(job, job.key)

    def lost(self, job: Job) -> None:
        """Learn that a held job was deleted with its tube, or that this process lost it."""
        if job.queued():
            self._jobs.remove(job)
        job.holder = None
        self._gate.wake()

    def on_time(self, now: float) -> None:
        """Give back jobs whose time to run is over."""
        if self._leaving:
            self._give_back_slice()
            return
        first = self._jobs.first()
        if first is not None and first.key <= now and self._gate.queued and self._gate.owner is not None:
            # Commands that the client sent in time come first.
            self._gate.owner.run()
            first = self._jobs.first()
        room = SLICE
        while first is not None and first.key <= now and room:
            job = cast(Job, first)
            self._drop(job)
            self._broker.job_timeouts += 1
            self._broker.engine.give_back(job, timed_out=True)
            room -= 1
            first = self._jobs.first()
        if room < SLICE:
            self._gate.wake()
        if first is not None and first.key < NEVER:
            self._broker.timers.schedule(self, max(now, first.key))

    def on_failure(self, error: Exception) -> bool:
        """End the connection after a bug."""
        self._gate.fail(error)
        return self._leaving

    def give_back(self) -> None:
        """Make all of them ready again, in slices."""
        if not self._leaving:
            self._leaving = True
            self._broker.leaving += 1
            self._give_back_slice()

    def _give_back_slice(self) -> None:
        """Give some back in the order in which they were reserved (prot.c: enqueue_reserved_jobs).

        If there are more jobs than a slice, those with the nearest deadlines come first. Only waiters can see this order.
        """
        jobs: list[Job] = []
        first = self._jobs.first()
        while first is not None and len(jobs) < SLICE:
            self._jobs.remove(first)
            jobs.append(cast(Job, first))
            first = self._jobs.first()
        jobs.sort(key=_reserved_us)
        for job in jobs:
            job.holder = None
            self._broker.engine.give_back(job, timed_out=False)
        if len(self._jobs):
            self._broker.timers.schedule(self, self._broker.now())
        else:
            self._leaving = False
            self._broker.timers.cancel(self)
            self._broker.left()


def _reserved_us(job: Job) -> int:
    return job.reserved_us

"""Things that want to be called at a time: one queue of them, whatever their number."""

from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.queue import Entry, Queue

__all__ = ["NEVER", "Clock", "Timed", "Timers"]

NEVER: Final = float("inf")


@mypyc_attr(allow_interpreted_subclasses=True)
class Clock:
    """Tells the time in seconds since the epoch, never backwards."""

    def now(self) -> float:
        """Return the time."""
        raise NotImplementedError

    def ahead(self) -> float:
        """Return by how many seconds the wall clock is ahead of `now` at this moment: what outlasts this process is told by that one."""
        return 0.0


@mypyc_attr(allow_interpreted_subclasses=True)
class Timed(Entry):
    """What can be called at a time."""

    __slots__ = ()

    def on_time(self, now: float) -> None:
        """Do what is due at `now`, and schedule what is left for a later time."""
        raise NotImplementedError


class Timers:
    """The next time at which each thing wants to be called.

    A thing stands in it once, at its earliest time. Times are taken as lower bounds: who no longer needs a call leaves
    it standing, looks when it comes and schedules the next, so that a `touch` or a served reserve costs nothing here.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._queue = Queue()
        self._last_id = 0

    def new_id(self) -> int:
        """Number one more thing; of equal times the lower number is called first."""
        self._last_id += 1
        return self._last_id

    def schedule(self, timed: Timed, at: float) -> None:
        """Call at this time, or earlier if it was to be called earlier."""
        if timed.queued():
            if at >= timed.key:
                return
            self._queue.remove(timed)
        self._queue.push(timed, at)

    def cancel(self, timed: Timed) -> None:
        """Do not call any more."""
        if timed.queued():
            self._queue.remove(timed)

    def next_at(self) -> float:
        """Return the time of the first call, or NEVER."""
        first = self._queue.first()
        return NEVER if first is None else first.key

    def run(self) -> None:
        """Call all that is due."""
        now = self.clock.now()
        while True:
            first = self._queue.first()
            if first is None or first.key > now:
                return
            assert isinstance(first, Timed)
            self._queue.remove(first)
            first.on_time(now)

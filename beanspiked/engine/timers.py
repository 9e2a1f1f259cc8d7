"""The timer queue: things that want to be called at a time.

Long work is done in many calls: each does a slice and schedules itself again for `now`, behind everything else that is due.
"""

import logging
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.queue import Entry, Queue

__all__ = ["NEVER", "SLICE", "Clock", "Timed", "Timers"]

logger = logging.getLogger(__name__)

NEVER: Final = float("inf")
# How many jobs of a long change one call moves: well under a millisecond.
SLICE: Final = 200
# How many things are called before the clock is read again.
CALLS_UNWATCHED: Final = 4
# How long after a failed call a thing is called again, in seconds.
AGAIN_AFTER: Final = 1.0


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
    """A thing that can be called at a time."""

    __slots__ = ()

    def on_time(self, now: float) -> None:
        """Do the work that is due at `now`, or a slice of it, and schedule the rest."""
        raise NotImplementedError

    def on_failure(self, error: Exception) -> bool:  # noqa: ARG002 - for those that tell somebody
        """Learn that `on_time` failed because of a bug, which is logged; tell whether to call it again a second later."""
        return True


class Timers:
    """The next time at which each thing wants to be called.

    A thing stands in it once, at its earliest time. Times are lower bounds: a thing that no longer needs a call lets it come, and then
    schedules the next. So a `touch` or a served reserve costs nothing here.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._queue = Queue()
        self._last_id = 0

    def new_id(self) -> int:
        """Return the number of a new thing; of equal times the lower number is called first."""
        self._last_id += 1
        return self._last_id

    def schedule(self, timed: Timed, at: float) -> None:
        """Call at this time, or earlier if an earlier call is scheduled."""
        if timed.queued():
            if at >= timed.key:
                return
            self._queue.remove(timed)
        self._queue.push(timed, at)

    def cancel(self, timed: Timed) -> None:
        """Cancel the call."""
        if timed.queued():
            self._queue.remove(timed)

    def next_at(self) -> float:
        """Return the time of the first call, or NEVER."""
        first = self._queue.first()
        return NEVER if first is None else first.key

    def run(self, until: float = NEVER) -> None:
        """Call the things that are due, at least some of them, and stop when the clock reaches `until`.

        A bug in one call is logged and does not affect others.
        """
        now = self.clock.now()
        unwatched = CALLS_UNWATCHED
        while True:
            first = self._queue.first()
            if first is None or first.key > now:
                return
            assert isinstance(first, Timed)
            self._queue.remove(first)
            try:
                first.on_time(now)
            except Exception as error:
                logger.error("internal error in a timer", exc_info=error)
                if first.on_failure(error):
                    self.schedule(first, now + AGAIN_AFTER)
            unwatched -= 1
            if unwatched == 0:
                unwatched = CALLS_UNWATCHED
                if self.clock.now() >= until:
                    return

"""Things that want to be called at a time: one queue of them, whatever their number.

What takes long is called many times: it does a slice of its work and schedules itself again for `now`, behind everything else that is due.
"""

import logging
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.queue import Entry, Queue

__all__ = ["NEVER", "SLICE", "Clock", "Timed", "Timers"]

logger = logging.getLogger(__name__)

NEVER: Final = float("inf")
# How many jobs one call may move that could move a million: well under a millisecond.
SLICE: Final = 200
# How many things are called before the clock is looked at again.
CALLS_UNWATCHED: Final = 4
# When a thing is called again whose call failed, in seconds.
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
    """What can be called at a time."""

    __slots__ = ()

    def on_time(self, now: float) -> None:
        """Do what is due at `now`, or a slice of it, and schedule what is left."""
        raise NotImplementedError

    def on_failure(self, error: Exception) -> bool:  # noqa: ARG002 - for those that tell somebody
        """A bug ended `on_time`, which is logged. Tell whether to call it again a second later."""
        return True


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

    def run(self, until: float = NEVER) -> None:
        """Call what is due, at least some of it, and no more when the clock has come to `until`.

        A bug in one call is logged and concerns nobody else.
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

"""The server's clock."""

import time

from beanspiked.engine.timers import Clock

__all__ = ["MonotonicClock"]


class MonotonicClock(Clock):
    """The wall clock's time at the start, carried on by the monotonic clock.

    If somebody sets the wall clock, no delay or deadline moves (beanstalkd #166). `ahead` tells how far the two clocks have drifted apart
    since the start, for example by a suspend.
    """

    def __init__(self) -> None:
        self._monotonic = time.monotonic
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._offset + self._monotonic()

    def ahead(self) -> float:
        """Return how many seconds the wall clock is ahead."""
        return time.time() - self.now()

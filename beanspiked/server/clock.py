"""Where the server takes its time from."""

import time

from beanspiked.engine.timers import Clock

__all__ = ["MonotonicClock"]


class MonotonicClock(Clock):
    """The time of the start by the wall clock, carried on by the monotonic one.

    Nothing that waits here is moved when somebody sets the clock (beanstalkd #166). By how much the two differ since, or since a
    suspend, `ahead` tells.
    """

    def __init__(self) -> None:
        self._monotonic = time.monotonic
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._offset + self._monotonic()

    def ahead(self) -> float:
        """Return by how many seconds the wall clock is ahead."""
        return time.time() - self.now()

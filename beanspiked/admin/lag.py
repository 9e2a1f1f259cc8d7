"""How late the event loop is, and how long its turns last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from beanspiked.engine.histogram import Histogram

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["LoopWatch"]

# The interval of the timer that measures lateness, in seconds.
TICK: Final = 0.05
# For how long the longest is remembered, in seconds.
REMEMBER: Final = 60
# Upper bounds of the histogram's buckets, in seconds.
BUCKETS: Final = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]


class Longest:
    """The longest time that was measured within the last minute, in seconds."""

    def __init__(self) -> None:
        self._seconds = [0.0] * REMEMBER
        self._at = 0

    def add(self, length: float, now: float) -> None:
        """Take a length and the time when it was measured, both in seconds."""
        self._forget(int(now))
        place = self._at % REMEMBER
        self._seconds[place] = max(self._seconds[place], length)

    def value(self, now: float) -> float:
        """Return the longest."""
        self._forget(int(now))
        return max(self._seconds)

    def _forget(self, second: int) -> None:
        for old in range(max(self._at + 1, second - REMEMBER + 1), second + 1):
            self._seconds[old % REMEMBER] = 0.0
        self._at = max(self._at, second)


class LoopWatch:
    """Watches an event loop.

    Attributes:
        longest_turn, longest_lag: The longest turn of the sockets, and how late a timer was at most, within the last minute.
        lags: How late timers were.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.longest_turn = Longest()
        self.longest_lag = Longest()
        self.lags = Histogram(BUCKETS)
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the time of its clock, in seconds."""
        return self._clock()

    def timed(self, turn: Callable[[], None]) -> Callable[[], None]:
        """Return a function that runs a turn and notes how long it lasted."""

        def timed() -> None:
            began = self._clock()
            turn()
            ended = self._clock()
            self.longest_turn.add(ended - began, ended)

        return timed

    def begin(self, loop: asyncio.AbstractEventLoop, also: Callable[[], None]) -> None:
        """Start the timers, and call a function each time."""
        due = self._clock() + TICK

        def tick() -> None:
            self.late(max(0.0, self._clock() - due))
            also()
            self.begin(loop, also)

        self._timer = loop.call_later(TICK, tick)

    def late(self, seconds: float) -> None:
        """Note by how much a timer was late."""
        self.longest_lag.add(seconds, self._clock())
        self.lags.add(seconds)

    def end(self) -> None:
        """Stop the timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

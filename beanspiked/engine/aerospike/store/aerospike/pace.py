"""How quickly the store answers, and how many calls it gets. Both decide whether the event loop waits for answers or threads do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lull", "Pace"]

# Threads wait if answers take longer than this on average, in seconds. To wake a thread and then the loop takes a tenth of it.
QUICK: Final = 0.002
# How many answers the average covers.
OVER: Final = 16
# After an answer that took this long, in seconds, threads wait for a while, whatever the average.
TOO_LONG: Final = 0.025
SLOW_FOR: Final = 1.0
# So many calls that change a record each, one after the other, take less time than threads need to make them side by side.
FEW: Final = 4


class Pace:
    """How long the last answers took.

    Args:
        now: A clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._average = 0.0
        self._slow_until = 0.0

    def quick(self) -> bool:
        """Tell whether the next answer will most probably be quick."""
        return self._average <= QUICK and self.now() >= self._slow_until

    def answered(self, asked_at: float) -> None:
        """Note that an answer has come to a call of that time."""
        took = self.now() - asked_at
        self._average += (took - self._average) / OVER
        if took >= TOO_LONG:
            self.slow()

    def slow(self) -> None:
        """Let threads wait for the next answers."""
        self._slow_until = self.now() + SLOW_FOR


class Lull:
    """Whether no more than a few calls are made in a turn of the event loop."""

    def __init__(self) -> None:
        self._asked = 0
        self._asked_before = 0

    def here(self) -> bool:
        """Count a call; tell whether it and the others of this turn are probably few."""
        self._asked += 1
        if self._asked == 1:
            asyncio.get_running_loop().call_soon(self._end)
        return max(self._asked, self._asked_before) <= FEW

    def _end(self) -> None:
        self._asked_before = self._asked
        self._asked = 0

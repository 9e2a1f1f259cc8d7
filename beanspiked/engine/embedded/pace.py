"""How quickly the disk syncs: it decides whether the event loop commits or the writer thread does."""

from collections.abc import Callable
from typing import Final

__all__ = ["Pace"]

# The writer commits while a commit takes longer on average, in seconds: others must not wait longer for it.
QUICK: Final = 0.001
# Over how many commits to take the average.
OVER: Final = 16
# After a commit that took so long the writer commits for a while, whatever the average; in seconds.
TOO_LONG: Final = 0.002
SLOW_FOR: Final = 0.25


class Pace:
    """How long the last commits took.

    Args:
        now: A clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._average = 0.0
        self._slow_until = 0.0

    def quick(self) -> bool:
        """Tell whether the next commit will most probably be quick."""
        return self._average <= QUICK and self._now() >= self._slow_until

    def took(self, began: float) -> None:
        """Learn of a commit that began at a time and has ended now."""
        now = self._now()
        self._average += (now - began - self._average) / OVER
        if now - began >= TOO_LONG:
            self._slow_until = now + SLOW_FOR

"""How quickly the store answers: whether the event loop can wait for it, or threads should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pace"]

# Answers that take longer on average are waited for by threads, in seconds. To wake a thread and be woken by it takes a tenth of it.
QUICK: Final = 0.002
# Over how many answers.
OVER: Final = 16
# After one that took so long threads wait for the next ones whatever the average, for a time, in seconds.
TOO_LONG: Final = 0.025
SLOW_FOR: Final = 1.0


class Pace:
    """What the last answers took.

    Args:
        now: A clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._average = 0.0
        self._slow_until = 0.0

    def quick(self) -> bool:
        """Tell whether the next answer will most probably not take long."""
        return self._average <= QUICK and self.now() >= self._slow_until

    def answered(self, asked_at: float) -> None:
        """There is an answer to what was asked at a time."""
        took = self.now() - asked_at
        self._average += (took - self._average) / OVER
        if took >= TOO_LONG:
            self.slow()

    def slow(self) -> None:
        """Threads should wait for the next answers."""
        self._slow_until = self.now() + SLOW_FOR

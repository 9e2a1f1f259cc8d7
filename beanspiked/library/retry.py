"""When to try again."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass

__all__ = ["Retry"]


_CHANCE = random.Random()  # noqa: S311 - spreads retries
# Without this, children of one process would all wait equally long.
os.register_at_fork(after_in_child=_CHANCE.seed)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often to try, and how long to pause between tries. Pauses grow, and are random so that clients do not try at the same time.

    Attributes:
        attempts: The number of tries, the first included; None for no limit.
        first: The pause after the first try, in seconds.
        multiplier: Each pause is this many times as long as the one before.
        longest: The longest pause, in seconds.
        jitter: The part by which a pause may be shorter or longer: 0.5 means half to one and a half times as long. No pause exceeds
            `longest`.
    """

    attempts: int | None = None
    first: float = 0.1
    multiplier: float = 2.0
    longest: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts: at least 1, not {self.attempts}")
        if self.first < 0 or self.longest < 0 or self.multiplier < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(f"no pauses can be made of {self}")

    def more(self, tries: int) -> bool:
        """Tell whether another try may follow this many."""
        return self.attempts is None or tries < self.attempts

    def pause(self, tries: int, chance: random.Random | None = None) -> float:
        """Return how long to pause after this many tries, in seconds."""
        pause = self.longest
        if self.first == 0 or (tries - 1) * math.log(self.multiplier) < math.log(max(self.longest, 1e-9) / self.first):
            pause = self.first * self.multiplier ** (tries - 1) if self.first else 0.0
        return min(self.longest, pause * (chance or _CHANCE).uniform(1 - self.jitter, 1 + self.jitter))

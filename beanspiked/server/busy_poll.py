"""Waiting awake for clients that will speak in a moment.

The sleep of a processor and its wake-up take longer than most commands, above all on virtual machines. There a client that was alone made
a third of the jobs, for more processor time a job. A server whose clients think for longer sleeps, as one without clients does.
"""

from typing import Final

__all__ = ["BusyPoll"]

# How long to wait awake, in seconds. Clients in C or Python that do nothing between two commands speak after 20 to 50 µs.
AWAKE: Final = 0.0001
# It pays while a greater part of the last waits than this was shorter.
SHORT_PART: Final = 0.7
# The weight of one wait in that part.
WEIGHT: Final = 0.05


class BusyPoll:
    """Learns from the last waits whether it pays to wait awake."""

    def __init__(self) -> None:
        self._short: float = 0.0

    def awake(self) -> float:
        """Return for how many seconds the next wait had better be awake."""
        return AWAKE if self._short > SHORT_PART else 0.0

    def waited(self, seconds: float) -> None:
        """Learn how long a wait took, asleep or awake."""
        self._short += WEIGHT * ((1.0 if seconds < AWAKE else 0.0) - self._short)

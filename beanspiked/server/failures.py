"""Says in the log that commands fail because of the store: once at first, then once a minute with their number."""

import logging
from typing import Final

from beanspiked.engine.timers import Clock

__all__ = ["Failures"]

logger = logging.getLogger(__name__)

SAID_EVERY: Final = 60.0


class Failures:
    """Counts the commands that are answered `INTERNAL_ERROR` because of the store.

    Args:
        clock: Tells when the next line is due.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._unsaid: int = 0
        self._quiet_until: float = 0.0

    def count(self, error: Exception) -> None:
        """Count one, and log it unless that was done within the last minute."""
        self._unsaid += 1
        now = self._clock.now()
        # A clock that was set back must not keep this silent for ever.
        if now < self._quiet_until <= now + SAID_EVERY:
            return
        if self._unsaid == 1:
            logger.warning("a command was answered INTERNAL_ERROR: %s", error)
        else:
            logger.warning("%d more commands were answered INTERNAL_ERROR; the last: %s", self._unsaid, error)
        self._unsaid = 0
        self._quiet_until = now + SAID_EVERY

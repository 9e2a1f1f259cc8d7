"""The server's time as this front-end knows it, from its heartbeats."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.cluster.session import Session

__all__ = ["ServerClock"]

logger = logging.getLogger(__name__)

# A jump of the server's clock by more than this, in ms, counts only after some seconds: clocks jump, and jump back.
JUMP_MS: Final = 1000
BELIEVED_AFTER: Final = 3.0
# If the clock was set back by at most this, in ms, the time here stands still until the clock has caught up: puts keep their order.
WAITED_FOR_MS: Final = 10_000


class ServerClock:
    """Tells the server's time.

    Args:
        now: This process's time, in seconds since the epoch.
        monotonic: A clock in seconds that goes on while the machine sleeps.

    Attributes:
        session: The session in force, which knows how far the server's clock is ahead.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.session: Session = Session(0, 0)
        self._now = now
        self._monotonic = monotonic
        self._last_ms: int = 0
        self._last_ticket: int = 0
        # A new offset that does not count yet, and since when it has been seen.
        self._jump_ms: int = 0
        self._jumped_at: float = 0.0

    def begin(self, session: Session) -> None:
        """Use a new session's offset."""
        self.session = session
        self._jumped_at = 0.0
        self.catch_up()

    def server_ms(self) -> int:
        """Return the server's time in ms, as known here. It goes back only after the clock was far ahead."""
        self._last_ms = max(self._last_ms, round(self._now() * 1000) + self.session.offset_ms)
        return self._last_ms

    def local_time(self, server_ms: int) -> float:
        """Return this process's time in seconds for a time of the server's clock in ms."""
        return (server_ms - self.session.offset_ms) / 1000

    def ticket(self) -> int:
        """Return a put's place: the server's time in microseconds, as known here, never the same twice. See server_ms."""
        now = int(self._now() * 1_000_000) + self.session.offset_ms * 1000
        self._last_ticket = max(self._last_ticket + 1, now)
        return self._last_ticket

    def learn(self, session: Session, offset_ms: int) -> None:
        """Take in the server's time. A jump counts once it has lasted for some seconds."""
        if abs(offset_ms - session.offset_ms) <= JUMP_MS:
            session.offset_ms = offset_ms
            self._jumped_at = 0.0
            return
        now = self._monotonic()
        if not self._jumped_at or abs(offset_ms - self._jump_ms) > JUMP_MS:
            self._jumped_at = now
        self._jump_ms = offset_ms
        if now - self._jumped_at >= BELIEVED_AFTER:
            logger.warning("the cluster's clock has jumped by %.1f s", (offset_ms - session.offset_ms) / 1000)
            self._jumped_at = 0.0
            session.offset_ms = offset_ms
            self.catch_up()

    def catch_up(self) -> None:
        """Go back with the server's clock if it was far ahead: waiting for it would hold delayed jobs for as long."""
        last_ms = max(self._last_ms, self._last_ticket // 1000)
        if last_ms - (self._now() * 1000 + self.session.offset_ms) > WAITED_FOR_MS:
            self._last_ms = 0
            self._last_ticket = 0

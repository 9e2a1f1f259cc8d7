"""The server's time as this front-end knows it, from its heartbeats."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.cluster.session import Session

__all__ = ["ServerClock"]

logger = logging.getLogger(__name__)

# A time of the server's that is off by more than this, in ms, is believed when it has been so for some seconds: clocks jump, and back.
JUMP_MS: Final = 1000
BELIEVED_AFTER: Final = 3.0
# The time as known waits for a clock that was set back by no more than this, in ms, so that puts keep their order.
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
        # A time of the server's that is not believed yet, and since when it has been told.
        self._jump_ms: int = 0
        self._jumped_at: float = 0.0

    def begin(self, session: Session) -> None:
        """There is a new session."""
        self.session = session
        self._jumped_at = 0.0
        self.catch_up()

    def server_ms(self) -> int:
        """Return the server's time in ms as far as known. It goes back only after a clock that was far ahead."""
        self._last_ms = max(self._last_ms, round(self._now() * 1000) + self.session.offset_ms)
        return self._last_ms

    def local_time(self, server_ms: int) -> float:
        """Return this process's time in seconds for a time of the server's clock in ms."""
        return (server_ms - self.session.offset_ms) / 1000

    def ticket(self) -> int:
        """Return the server's time in microseconds as far as known, one more for each: the place of a put. See server_ms."""
        now = int(self._now() * 1_000_000) + self.session.offset_ms * 1000
        self._last_ticket = max(self._last_ticket + 1, now)
        return self._last_ticket

    def learn(self, session: Session, offset_ms: int) -> None:
        """Take note of the server's time. A jump is believed once it has lasted for some seconds."""
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
        """Follow the server's clock back if it was far ahead: to wait for it would keep delayed jobs for as long."""
        now = self._now()
        if self._last_ms - (now * 1000 + self.session.offset_ms) > WAITED_FOR_MS:
            self._last_ms = 0
            self._last_ticket = 0

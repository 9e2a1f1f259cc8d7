"""The sockets of a server: one epoll set, in which all that has something to say is heard in one turn of the broker.

A loop of our own waits in it (`loop.py`); in an asyncio loop its descriptor is watched like any other.
"""

import logging
import select
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.server.broker import Broker

__all__ = ["CLOSED", "GONE", "READABLE", "WRITABLE", "Poller", "Ready"]

logger = logging.getLogger(__name__)

READABLE: Final[int] = select.EPOLLIN
WRITABLE: Final[int] = select.EPOLLOUT
# The other side will send no more.
CLOSED: Final[int] = select.EPOLLRDHUP
# The connection is broken; always told.
GONE: Final[int] = select.EPOLLHUP | select.EPOLLERR
# How many are heard in one turn; the kernel tells of the others first the next time.
EVENTS_AT_ONCE: Final = 256
# Before something is called late, everybody is heard, but not for ever.
ROUNDS: Final = 64


@mypyc_attr(allow_interpreted_subclasses=True)
class Ready:
    """What is called when something can be done with a descriptor."""

    def on_ready(self, events: int) -> None:
        """Do it; `events` are some of READABLE, WRITABLE, CLOSED and GONE."""
        raise NotImplementedError


class Poller:
    """Who waits for which descriptor.

    Args:
        broker: Whose turns these are.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._epoll = select.epoll()
        self._waiting: dict[int, Ready] = {}
        # Descriptors that were added while events are handed out: those may be of an earlier one with the same number.
        self._new: set[int] = set()
        self._in_pass = False

    def fileno(self) -> int:
        """Return a descriptor that is readable when `turn` has something to do."""
        return self._epoll.fileno()

    def add(self, fd: int, ready: Ready, events: int) -> None:
        """Have something called when any of these events comes, again and again."""
        self._epoll.register(fd, events)
        self._waiting[fd] = ready
        if self._in_pass:
            self._new.add(fd)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events than before."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Wait no more; to be called before the descriptor is closed."""
        if self._waiting.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, seconds: float = 0.0) -> None:
        """Wait for so long, -1 for ever, until something comes; hear it, and end the turn."""
        if self._hear(seconds):
            self._broker.end_turn()

    def hear_all(self) -> None:
        """Take in what has come by now."""
        for _ in range(ROUNDS):
            if self._hear(0.0) < EVENTS_AT_ONCE:
                return

    def _hear(self, seconds: float) -> int:
        found: list[tuple[int, int]] = self._epoll.poll(seconds, EVENTS_AT_ONCE)
        if not found:
            return 0
        self._broker.plan(len(found))
        self._in_pass = True
        for fd, events in found:
            ready = self._waiting.get(fd)
            if ready is None or (self._new and fd in self._new):
                continue
            try:
                ready.on_ready(events)
            except Exception as error:
                logger.error("internal error", exc_info=error)
        self._in_pass = False
        if self._new:
            self._new = set()
        return len(found)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._waiting = {}
        self._epoll.close()

"""The sockets of a server: one epoll set, in which all that has something to say is heard in one turn of the broker.

A loop of our own waits in it (`loop.py`); in an asyncio loop its descriptor is watched like any other.
"""

import logging
import select
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.timers import NEVER
from beanspiked.server.broker import TURN, Broker

__all__ = ["CLOSED", "GONE", "READABLE", "WRITABLE", "Poller", "Ready"]

logger = logging.getLogger(__name__)

READABLE: Final[int] = select.EPOLLIN
WRITABLE: Final[int] = select.EPOLLOUT
# The other side will send no more.
CLOSED: Final[int] = select.EPOLLRDHUP
# The connection is broken; always told.
GONE: Final[int] = select.EPOLLHUP | select.EPOLLERR
# How many are asked for at once, and how many are heard before the clock is looked at.
EVENTS_AT_ONCE: Final = 1024
UNWATCHED_EVENTS: Final = 16
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
        # Descriptors that were added since events were found: those may be of an earlier one with the same number.
        self._new: set[int] = set()
        # What was found, and of it what the time was too short for.
        self._found: list[tuple[int, int]] = []
        self._next = 0

    def fileno(self) -> int:
        """Return a descriptor that is readable when `turn` has something to do."""
        return self._epoll.fileno()

    def add(self, fd: int, ready: Ready, events: int) -> None:
        """Have something called when any of these events comes, again and again."""
        self._epoll.register(fd, events)
        self._waiting[fd] = ready
        if self._found:
            self._new.add(fd)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events than before."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Wait no more; to be called before the descriptor is closed."""
        if self._waiting.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, seconds: float = 0.0) -> None:
        """Wait for so long, -1 for ever, until something comes; hear it, or some of it, and end the turn."""
        if self.wait(seconds):
            self.hear()

    def wait(self, seconds: float) -> bool:
        """Wait for so long, -1 for ever; tell whether there is something to hear."""
        return bool(self._found) or self._find(seconds)

    def hear(self) -> None:
        """Hear what there is, or some of it, and end the turn."""
        self._hear(TURN)
        self._broker.end_turn()

    def hear_all(self) -> None:
        """Take in what has come by now."""
        for _ in range(ROUNDS):
            if not self._found and not self._find(0.0):
                return
            all_there = len(self._found) < EVENTS_AT_ONCE
            self._hear(NEVER)
            if all_there:
                return

    def _find(self, seconds: float) -> bool:
        self._found = self._epoll.poll(seconds, EVENTS_AT_ONCE)
        self._next = 0
        return bool(self._found)

    def _hear(self, seconds: float) -> None:
        """Hear what was found, or as much of it as the time allows."""
        broker = self._broker
        found = self._found
        broker.plan(len(found) - self._next)
        until = NEVER
        heard = 0
        while self._next < len(found):
            fd, events = found[self._next]
            self._next += 1
            ready = self._waiting.get(fd)
            if ready is None or (self._new and fd in self._new):
                continue
            try:
                ready.on_ready(events)
            except Exception as error:
                logger.error("internal error", exc_info=error)
            heard += 1
            if heard % UNWATCHED_EVENTS == 0:
                now = broker.now()
                if until == NEVER:
                    until = now + seconds
                elif now >= until:
                    return
        self._found = []
        if self._new:
            self._new = set()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._waiting = {}
        self._epoll.close()

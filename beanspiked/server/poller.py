"""The sockets of a server: one epoll set, whose events are handled in one turn of the broker.

Our own loop waits in it (`loop.py`); an asyncio loop watches its descriptor like any other.
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
# The connection is broken; reported whether it was asked for or not.
GONE: Final[int] = select.EPOLLHUP | select.EPOLLERR
# How many events are fetched at once, and how many are handled before the clock is read.
EVENTS_AT_ONCE: Final = 1024
UNWATCHED_EVENTS: Final = 16
# Before due timers run, the sockets are read until nothing more comes, but only this many times.
ROUNDS: Final = 64


@mypyc_attr(allow_interpreted_subclasses=True)
class Ready:
    """Handles a descriptor's events."""

    def on_ready(self, events: int) -> None:
        """Handle `events`: some of READABLE, WRITABLE, CLOSED and GONE."""
        raise NotImplementedError


class Poller:
    """Waits for descriptors and calls their handlers.

    Args:
        broker: The broker whose turns are run.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._epoll = select.epoll()
        self._waiting: dict[int, Ready] = {}
        # Descriptors that were added since events were found: the events may belong to a closed one with the same number.
        self._new: set[int] = set()
        # Events that were found, and the first one not yet handled.
        self._found: list[tuple[int, int]] = []
        self._next = 0

    def fileno(self) -> int:
        """Return a descriptor that is readable when `turn` has something to do."""
        return self._epoll.fileno()

    def add(self, fd: int, ready: Ready, events: int) -> None:
        """Call `ready` each time that one of these events comes."""
        self._epoll.register(fd, events)
        self._waiting[fd] = ready
        if self._found:
            self._new.add(fd)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events than before."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop waiting for a descriptor; call this before it is closed."""
        if self._waiting.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, seconds: float = 0.0) -> None:
        """Wait this many seconds for events, -1 for ever; handle all or some of them, and end the turn."""
        if self._found or self._find(seconds):
            self._hear(TURN)
            self._broker.end_turn()

    def hear_all(self) -> None:
        """Handle the events that have come by now."""
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
        """Handle the events that were found, as many as the time allows."""
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
                logger.error("internal error at descriptor %d", fd, exc_info=error)
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
        """Close the epoll set."""
        self._waiting = {}
        self._epoll.close()

"""Who waits for which socket: one epoll set, in which all that has something to say is heard in one turn of the broker.

Our own loop waits in it (`loop.py`); an asyncio loop watches its descriptor like any other.
"""

import logging
import os
import select
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.timers import NEVER
from beanspiked.server.broker import TURN, Broker
from beanspiked.server.sockets import EVENTS_AT_ONCE, Sockets, open_sockets

__all__ = ["CLOSED", "GONE", "READABLE", "WRITABLE", "Poller", "Ready"]

logger = logging.getLogger(__name__)

READABLE: Final[int] = select.EPOLLIN
WRITABLE: Final[int] = select.EPOLLOUT
# The other side will send no more.
CLOSED: Final[int] = select.EPOLLRDHUP
# The connection is broken; reported whether it was asked for or not.
GONE: Final[int] = select.EPOLLHUP | select.EPOLLERR
# How many are heard before the clock is looked at.
UNWATCHED_EVENTS: Final = 16
# How many sockets are read in one turn of an embedded server, unless a connection has commands left over, which would be found again and
# again. Of more sockets the memory of a connection leaves the processor's caches between command and reply: 500 x 1 took a tenth more
# processor time. On a shared store more commands share an operation.
EVENTS_A_TURN: Final = 64
# Before due timers run, the sockets are read until nothing more comes, but only this many times.
ROUNDS: Final = 64


@mypyc_attr(allow_interpreted_subclasses=True)
class Ready:
    """Handles a descriptor's events."""

    def on_ready(self, events: int) -> None:
        """Handle `events`: some of READABLE, WRITABLE, CLOSED and GONE."""
        raise NotImplementedError

    def on_data(self, data: bytes) -> None:
        """Take bytes that were received early; only who asked for that is called."""
        raise NotImplementedError


class Bell(Ready):
    """Makes the epoll set readable while events wait that were found already.

    Without it, an asyncio loop would not come back for them: what was received early is not in the kernel any more.
    """

    def __init__(self) -> None:
        self.fd: int = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rung: bool = False

    def ring(self) -> None:
        """Have the poller's turn called again."""
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.fd, 1)

    def on_ready(self, events: int) -> None:  # noqa: ARG002 - as its base
        """Fall silent: what was left over is done."""
        self._rung = False
        os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class Poller:
    """Waits for descriptors and calls their handlers.

    Args:
        broker: Whose turns these are.
        sockets: What waits, receives and sends; the better one that is there if not given.
        shared: Whether the store is shared: all sockets with events are then read in one turn.

    Attributes:
        sockets: What waits, receives and sends.
    """

    def __init__(self, broker: Broker, sockets: Sockets | None = None, *, shared: bool = False) -> None:
        self.sockets: Sockets = open_sockets() if sockets is None else sockets
        broker.io = self.sockets.name
        self._broker = broker
        self._shared = shared
        self._waiting: dict[int, Ready] = {}
        # Descriptors that were added since events were found: the events may belong to a closed one with the same number.
        self._new: set[int] = set()
        # What was found, and of it what the time was too short for.
        self._found: list[tuple[int, int, bytes | None]] = []
        self._next = 0
        self._bell: Bell = Bell()
        self.add(self._bell.fd, self._bell, READABLE)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `turn` has something to do."""
        return self.sockets.fileno()

    def add(self, fd: int, ready: Ready, events: int) -> None:
        """Have something called when any of these events comes, again and again."""
        self.sockets.add(fd, events)
        self._waiting[fd] = ready
        if self._found:
            self._new.add(fd)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events than before."""
        self.sockets.change(fd, events)

    def remove(self, fd: int) -> None:
        """Stop waiting for a descriptor; call this before it is closed."""
        if self._waiting.pop(fd, None) is not None:
            self.sockets.remove(fd)

    def turn(self, seconds: float = 0.0) -> None:
        """Wait this many seconds for events, -1 for ever; handle all or some of them, and end the turn."""
        if self.wait(seconds):
            self.hear()

    def wait(self, seconds: float) -> bool:
        """Wait this many seconds for events, -1 for ever; tell whether there are some."""
        broker = self._broker
        busy = self._shared or broker.next_turn or broker.runnable
        return bool(self._found) or self._find(seconds, EVENTS_AT_ONCE if busy else EVENTS_A_TURN)

    def hear(self) -> None:
        """Handle all or some of the events, and end the turn."""
        self._hear(TURN)
        self._broker.end_turn()

    def hear_all(self) -> None:
        """Handle the events that have come by now."""
        for _ in range(ROUNDS):
            if not self._found and not self._find(0.0, EVENTS_AT_ONCE):
                return
            all_there = len(self._found) < EVENTS_AT_ONCE
            self._hear(NEVER)
            if all_there:
                return

    def _find(self, seconds: float, most: int) -> bool:
        self._found = self.sockets.wait(seconds, most)
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
            fd, events, data = found[self._next]
            self._next += 1
            ready = self._waiting.get(fd)
            if ready is None or (self._new and fd in self._new):
                continue
            try:
                if data is None:
                    ready.on_ready(events)
                else:
                    ready.on_data(data)
            except Exception as error:
                logger.error("internal error at descriptor %d", fd, exc_info=error)
            heard += 1
            if heard % UNWATCHED_EVENTS == 0:
                now = broker.now()
                if until == NEVER:
                    until = now + seconds
                elif now >= until:
                    if self._next < len(found):
                        self._bell.ring()
                        return
                    break
        self._found = []
        if self._new:
            self._new = set()

    def close(self) -> None:
        """Close the epoll set."""
        self._waiting = {}
        self._bell.close()
        self.sockets.close()

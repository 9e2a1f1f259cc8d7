"""Waits for sockets in one epoll set, and handles all their events in one turn of the broker.

Our own loop waits in the set (`loop.py`). An asyncio loop watches its descriptor like any other.
"""

import logging
import os
import select
import time
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.timers import NEVER
from beanspiked.server.broker import TURN, Broker
from beanspiked.server.busy_poll import BusyPoll
from beanspiked.server.sockets import EVENTS_AT_ONCE, Sockets, open_sockets

__all__ = ["CLOSED", "GONE", "READABLE", "WRITABLE", "Poller", "Ready"]

logger = logging.getLogger(__name__)

READABLE: Final[int] = select.EPOLLIN
WRITABLE: Final[int] = select.EPOLLOUT
# The other side will send no more.
CLOSED: Final[int] = select.EPOLLRDHUP
# The connection is broken. The kernel always reports this.
GONE: Final[int] = select.EPOLLHUP | select.EPOLLERR
# How many events are handled before the clock is read.
UNWATCHED_EVENTS: Final = 16
# How many sockets are read in one turn of an embedded server. With more sockets the memory of a connection leaves the processor's caches
# between command and reply: 500 x 1 took a tenth more processor time. There is no limit while a connection has commands left over, since
# the wait would find the same sockets again and again. There is none on a shared store either, where more commands share an operation.
EVENTS_A_TURN: Final = 64
# How long a turn with changes looks for more commands, in seconds; those of its last look still have their TURN. A commit takes longer than
# to hear a few clients: with 50 x 1 a tenth more jobs, with 2 x 1 a quarter. (To look again when none have come gained nothing more.)
GATHER: Final = 0.0005
# Before due timers run, the sockets are read until nothing more comes, but only this many times.
ROUNDS: Final = 64


@mypyc_attr(allow_interpreted_subclasses=True)
class Ready:
    """Handles a descriptor's events."""

    def on_ready(self, events: int) -> None:
        """Handle `events`, which are some of READABLE, WRITABLE, CLOSED and GONE."""
        raise NotImplementedError

    def on_data(self, data: bytes) -> None:
        """Take bytes that were received early. Only handlers that asked for this are called."""
        raise NotImplementedError


class Bell(Ready):
    """Makes the epoll set readable while events that were found already still wait.

    Without it, an asyncio loop would not come back for them: bytes that were received early are not in the kernel any more.
    """

    def __init__(self) -> None:
        self.fd: int = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rung: bool = False

    def ring(self) -> None:
        """Let the loop call the poller's turn again."""
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.fd, 1)

    def on_ready(self, events: int) -> None:  # noqa: ARG002 - as its base
        """Stop this: all events are handled."""
        self._rung = False
        os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class Poller:
    """Waits for descriptors and calls their handlers.

    Args:
        broker: Runs the turns.
        sockets: Waits, receives and sends; by default the better one that is installed.
        shared: Whether the store is shared. All sockets with events are then read in one turn.

    Attributes:
        sockets: Waits, receives and sends.
    """

    def __init__(self, broker: Broker, sockets: Sockets | None = None, *, shared: bool = False) -> None:
        self.sockets: Sockets = open_sockets() if sockets is None else sockets
        broker.io = self.sockets.name
        self._broker = broker
        self._shared = shared
        self._waiting: dict[int, Ready] = {}
        # Descriptors that were added after the last wait. Events under such a number may belong to a closed descriptor.
        self._new: set[int] = set()
        # The events that were found, and those of them for which the time was too short.
        self._found: list[tuple[int, int, bytes | None]] = []
        self._next = 0
        self._busy_poll: BusyPoll = BusyPoll()
        self._bell: Bell = Bell()
        self.add(self._bell.fd, self._bell, READABLE)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `turn` has work."""
        return self.sockets.fileno()

    def add(self, fd: int, ready: Ready, events: int) -> None:
        """Call a handler whenever one of these events comes."""
        self.sockets.add(fd, events)
        self._waiting[fd] = ready
        if self._found:
            self._new.add(fd)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events than before."""
        self.sockets.change(fd, events)

    def remove(self, fd: int) -> None:
        """Stop waiting for a descriptor. Call this before it is closed."""
        if self._waiting.pop(fd, None) is not None:
            self.sockets.remove(fd)

    def turn(self, seconds: float = 0.0) -> None:
        """Wait this many seconds for events, -1 for ever; handle all or some of them, and end the turn."""
        if self.wait(seconds):
            self.hear()

    def wait(self, seconds: float) -> bool:
        """Wait this many seconds for events, -1 for ever; tell whether there are any."""
        if self._found:
            return True
        broker = self._broker
        busy = self._shared or broker.next_turn or broker.runnable
        most = EVENTS_AT_ONCE if busy else EVENTS_A_TURN
        if seconds == 0.0:
            return self._find(0.0, most)
        began = time.monotonic()
        # One commit had better serve all clients that are about to speak, and while the thread sleeps more of them do.
        commits_for_many = broker.engine.durable and not broker.alone()
        found = self._find(seconds, most, 0.0 if commits_for_many else self._busy_poll.awake())
        if found:
            self._busy_poll.waited(time.monotonic() - began)
        return found

    def hear(self) -> None:
        """Handle all or some of the events, and end the turn."""
        self._hear(TURN)
        if self._broker.engine.gathers():
            self._gather()
        self._broker.end_turn()

    def _gather(self) -> None:
        """Hear the clients whose commands have come meanwhile, so that one commit serves them, too."""
        broker = self._broker
        until = broker.now() + GATHER
        while not self._found and broker.now() < until:
            broker.reply_early()
            if not self._find(0.0, EVENTS_A_TURN):
                return
            self._hear(TURN)

    def hear_all(self) -> None:
        """Handle the events that have come by now."""
        for _ in range(ROUNDS):
            if not self._found and not self._find(0.0, EVENTS_AT_ONCE):
                return
            all_there = len(self._found) < EVENTS_AT_ONCE
            self._hear(NEVER)
            if all_there:
                return

    def _find(self, seconds: float, most: int, awake: float = 0.0) -> bool:
        self._found = self.sockets.wait(seconds, most, awake)
        self._next = 0
        return bool(self._found)

    def _hear(self, seconds: float) -> None:
        """Handle found events until the time is up."""
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

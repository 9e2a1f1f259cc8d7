"""Accepts clients, and hands them over to workers."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.server.channel import CLIENT, Channel
from beanspiked.server.descriptors import OUT_OF_DESCRIPTORS, most_clients

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["Door", "Place"]

logger = logging.getLogger("beanspiked")

# How many clients of one socket are accepted in one turn.
ACCEPTS_A_TURN: Final = 64
# How long to wait before the next try to accept, in seconds, if no client leaves meanwhile.
ACCEPT_AGAIN_AFTER: Final = 0.1
# A worker that has not taken a client after this many seconds gets no more until it does: it may be frozen.
TAKES_WITHIN: Final = 0.3


class Place:
    """A worker's place, which stays when the worker dies.

    Attributes:
        number: Its number, from 1.
        pid: Its process, or 0.
        channel: The channel to it, while it has one.
        up: Whether it takes clients.
        ready: Whether it has told that commands succeed.
        handed: How many clients it got.
        taken: How many of these it has taken.
        ended: How many of these have gone.
        waits_since: Since when a client waits to be taken, if one does.
        last_handed: When it got the last one, as a number that rises with each client.
        started_at: When it was started.
        start_at: When its replacement starts, if it has died.
        pause: The last pause before a start, in seconds; 0 if the worker lived long enough.
        awaited_until: Until when new clients wait for it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.channel: Channel | None = None
        self.up = False
        self.ready = False
        self.handed = 0
        self.taken = 0
        self.ended = 0
        self.waits_since = 0.0
        self._silent = False
        self.last_handed = 0
        self.started_at = 0.0
        self.start_at = 0.0
        self.pause = 0.0
        self.awaited_until = math.inf

    def rank(self) -> tuple[int, int]:
        """Return a key that is smallest for the worker that gets the next client: it has the fewest, or has waited longest for one."""
        return self.handed - self.ended, self.last_handed

    def begin(self, channel: Channel) -> None:
        """Begin with a new worker, which has no clients yet."""
        self.channel = channel
        self.handed = self.taken = self.ended = 0
        self.ready = self._silent = False

    def hand(self, client: int, now: float) -> bool:
        """Give it a client; return False if it reads no messages."""
        if self.channel is None or not self.channel.send(CLIENT, (), [client]):
            return False
        if self.taken == self.handed:
            self.waits_since = now
        self.handed += 1
        return True

    def heard(self, taken: int, ended: int) -> None:
        """Learn how many clients it has taken, and how many of these have gone."""
        self.taken, self.ended = taken, ended
        self.waits_since = time.monotonic()
        if self._silent:
            self._silent = False
            logger.warning("worker %d takes clients again", self.number)

    def is_silent(self, now: float) -> bool:
        """Tell whether a client has waited too long for it. Logs that once."""
        silent = self.taken < self.handed and now > self.waits_since + TAKES_WITHIN
        if silent and not self._silent:
            self._silent = True
            logger.warning("worker %d (pid %d) takes no clients; new ones go to the others", self.number, self.pid)
        return silent


class Door:
    """Accepts clients and hands each to the worker that has the fewest.

    Args:
        places: The workers.
        sockets: The listening sockets, which do not block.
        hear: Registers a function to call when a descriptor is readable.
        ignore: Removes such a function.

    Attributes:
        closed: Whether the server accepts no more clients.
        again_at: When it tries to accept again, after a failure.
    """

    def __init__(
        self,
        places: list[Place],
        sockets: list[socket.socket],
        hear: Callable[[int, Callable[[], None]], None],
        ignore: Callable[[int], None],
    ) -> None:
        self.closed = False
        self.again_at = 0.0
        self._places = places
        self._sockets = sockets
        self._hear = hear
        self._ignore = ignore
        # A worker with this many clients gets no more.
        self._most = most_clients()
        self._handed = 0
        # A client that no worker can take now. While there is one, no other is accepted.
        self._held: socket.socket | None = None
        self._open = False
        self._refusing = False

    def move(self, now: float) -> None:
        """Accept clients while the workers can take them; otherwise stop."""
        if self._held is not None and now >= self.again_at and self._hand_over(self._held):
            self._held = None
        self._set_open(self._may_accept(now))
        if self._open and self._refusing:
            # Perhaps no client waits, so that no event would tell that it is over.
            for sock in self._sockets:
                self._accept_from(sock)

    def close(self) -> None:
        """Accept no more clients."""
        self.closed = True
        self._set_open(wanted=False)
        for sock in self._sockets:
            sock.close()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _may_accept(self, now: float) -> bool:
        """Tell whether to accept clients: not while a new worker is about to take its share of them."""
        if self.closed or self._held is not None or now < self.again_at:
            return False
        places = self._places
        return any(place.up for place in places) and all(place.up or now >= place.awaited_until for place in places)

    def _set_open(self, wanted: bool) -> None:
        if wanted != self._open:
            self._open = wanted
            for sock in self._sockets:
                if wanted:
                    self._hear(sock.fileno(), partial(self._accept_from, sock))
                else:
                    self._ignore(sock.fileno())

    def _accept_from(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            # A worker may have died in this turn.
            if not self._may_accept(time.monotonic()):
                return
            try:
                client, _ = sock.accept()
            except BlockingIOError:
                if self._refusing:
                    # No client waits any more.
                    self._refusing = False
                    logger.warning("new connections are accepted again")
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._refuse(str(error.strerror))
                    return
                logger.debug("accept: %s", error)
                continue
            if not self._hand_over(client):
                self._held = client
                return

    def _hand_over(self, client: socket.socket) -> bool:
        """Give a client to a worker; return False if all workers have too many, or are silent."""
        now = time.monotonic()
        for place in sorted((place for place in self._places if place.up), key=Place.rank):
            full = place.handed - place.ended >= self._most
            if not full and not place.is_silent(now) and place.hand(client.fileno(), now):
                client.close()
                self._handed += 1
                place.last_handed = self._handed
                return True
        self._refuse("no worker can take more")
        return False

    def _refuse(self, why: str) -> None:
        """Let clients wait in the backlog. Logs it once."""
        if not self._refusing:
            self._refusing = True
            logger.warning("cannot accept connections: %s; new clients wait until one ends", why)
        self.again_at = time.monotonic() + ACCEPT_AGAIN_AFTER

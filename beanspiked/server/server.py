"""A server: accepts connections and carries them from start to stop."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.later import Later
from beanspiked.engine.memory import FOR_CLIENTS
from beanspiked.server.connection import Acceptor, Connection
from beanspiked.server.descriptors import OUT_OF_DESCRIPTORS
from beanspiked.server.poller import READABLE, Poller, Ready

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from beanspiked.server.alarm import AnyLoop
    from beanspiked.server.broker import Broker

__all__ = ["Server"]

logger = logging.getLogger("beanspiked")

# How many connections are accepted in one turn.
ACCEPTS_PER_TURN: Final = 64
# How long to wait before the next try to accept if no connection ends meanwhile, in seconds.
ACCEPT_AGAIN_AFTER: Final = 1.0
# How long a stop may take after the drain, in seconds: replies leave, and held jobs become ready.
REPLY_WITHIN: Final = 2.0
LEAVE_WITHIN: Final = 1.0


class Listener(Ready):
    """A listening socket."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self.sock = sock

    def on_ready(self, events: int) -> None:  # noqa: ARG002 - the poller's signature
        """Accept the clients that wait."""
        self._server.accept_from(self.sock)


class Server(Acceptor):
    """Accepts connections and carries them from start to stop.

    Args:
        broker: The broker of all connections.
        poller: Tells when bytes can be read or sent, or clients accepted.
        loop: Makes calls later.
        sockets: Listening sockets, not blocking.

    Attributes:
        connections: The open connections.
        most: While so many are open, no client is accepted.
        when_closed: Called when a connection is gone.
    """

    def __init__(self, broker: Broker, poller: Poller, loop: AnyLoop, sockets: list[socket.socket]) -> None:
        self.connections: set[Connection] = set()
        self.most = sys.maxsize
        self.when_closed: Callable[[], None] | None = None
        self._broker = broker
        self._poller = poller
        self._loop = loop
        self._listeners = [Listener(self, sock) for sock in sockets]
        self._accepting = False
        self._refusing = False
        # Whether the next try to accept is planned. Each plan makes a try, and each try that is in vain makes a plan.
        self._trying_again = False
        self._stopped: Later | None = None
        # The next step of the stop, once its wait is over.
        self._next: Callable[[], None] | None = None

    # --- accepting

    def accept(self) -> None:
        """Begin to accept, or begin again."""
        if not self._accepting and self._stopped is None:
            self._accepting = True
            for listener in self._listeners:
                self._poller.add(listener.sock.fileno(), listener, READABLE)
                if self._refusing:
                    # Perhaps no client waits, so that no event would tell that it is over.
                    self._loop.call_soon(partial(self.accept_from, listener.sock))

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._poller.remove(listener.sock.fileno())

    def accept_from(self, listening: socket.socket) -> None:
        """Accept the clients that wait at a socket, or some of them."""
        if not self._accepting:
            return
        room = self.most - len(self.connections)
        if room <= 0:
            self._refuse("the other descriptors are kept back")
            return
        for _ in range(min(ACCEPTS_PER_TURN, room)):
            if not FOR_CLIENTS.stays_free():
                self._refuse("no memory is left")
                return
            try:
                sock, _ = listening.accept()
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
            self.adopt(sock)
        if self._refusing:
            self._loop.call_soon(partial(self.accept_from, listening))

    def adopt(self, sock: socket.socket) -> None:
        """Serve a client."""
        sock.setblocking(False)
        connection = Connection(self._broker, self._poller, self, sock)
        self.connections.add(connection)
        logger.info("accept %d", connection.fd)

    def _refuse(self, why: str) -> None:
        """Let clients wait in the backlog. Another try at once would spin (beanstalkd #361, #628, #651). Logs it once."""
        if not self._refusing:
            self._refusing = True
            logger.warning("cannot accept connections: %s; new clients wait until one ends", why)
        self._stop_accepting()
        if not self._trying_again:
            self._trying_again = True
            self._loop.call_later(ACCEPT_AGAIN_AFTER, self._try_again)

    def _try_again(self) -> None:
        self._trying_again = False
        self.accept()

    def closed(self, connection: Connection) -> None:
        """Note that a connection is gone, and its descriptor with it."""
        self.connections.discard(connection)
        logger.info("close %d", connection.fd)
        if self.when_closed is not None:
            self.when_closed()
        if not self._accepting:
            self.accept()
        if not self.connections and self._next is not None:
            self._go_on()

    # --- stopping

    def stop(self, drain_seconds: float) -> Later:
        """Accept no more clients, let clients finish their held jobs for a time, then give these back.

        May be repeated. A call without a time ends the time that an earlier one gave.
        """
        if self._stopped is None:
            self._stopped = Later()
            self._stop_accepting()
            self._accepting = False
            for listener in self._listeners:
                listener.sock.close()
            for connection in list(self.connections):
                connection.flow.stop()
            self._broker.end_turn()
            self._wait(drain_seconds, self._end_sessions)
        elif drain_seconds <= 0 and self._next == self._end_sessions:
            self._go_on()
        return self._stopped

    def _wait(self, seconds: float, after: Callable[[], None]) -> None:
        """Go to the next step when no connection is left, or after this many seconds."""
        self._next = after
        if self.connections and seconds > 0:
            self._loop.call_later(seconds, lambda: self._go_on() if self._next is after else None)
        else:
            self._go_on()

    def _go_on(self) -> None:
        after, self._next = self._next, None
        if after is not None:
            self._loop.call_soon(after)

    def _end_sessions(self) -> None:
        for connection in list(self.connections):
            connection.flow.end()
        self._broker.end_turn()
        self._wait(REPLY_WITHIN, self._drop)

    def _drop(self) -> None:
        for connection in list(self.connections):
            connection.abort()
        self._broker.end_turn()
        if not self._broker.leaving:
            self._end()
            return
        self._next = self._end
        self._broker.when_left = self._go_on
        self._loop.call_later(LEAVE_WITHIN, self._go_on)

    def _end(self) -> None:
        self._broker.when_left = None
        if self._broker.leaving:
            logger.warning(
                "some held jobs could not be given back within %g s; they are ready after a restart, "
                "on a shared store after ten seconds",
                LEAVE_WITHIN,
            )
        assert self._stopped is not None
        self._stopped.settle()

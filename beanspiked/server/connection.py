"""Moves bytes between a socket and its session."""

import logging
import socket
from collections import deque
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.protocol.commands import PREFIXES
from beanspiked.server.broker import Broker
from beanspiked.server.flow import Flow
from beanspiked.server.poller import CLOSED, GONE, READABLE, WRITABLE, Poller, Ready
from beanspiked.server.reply_queue import Sink

__all__ = ["Acceptor", "Connection"]

logger = logging.getLogger(__name__)

# With this many unsent bytes of replies, a client's commands stop; with this few, they go on.
HIGH_WATER: Final = 65536
LOW_WATER: Final = 16384
# How many bytes a connection reads, reads of a large body, and sends before others run.
READ_AT_ONCE: Final = 16384
READ_OF_LARGE: Final = 65536
SEND_AT_ONCE: Final = 524288

WORDS: Final[dict[int, str]] = {verb: word.decode().strip() for word, verb, _ in PREFIXES}


@mypyc_attr(allow_interpreted_subclasses=True)
class Acceptor:
    """The part of a server that its connections call."""

    def closed(self, connection: "Connection") -> None:
        """Learn that a connection and its descriptor are closed."""
        raise NotImplementedError


class Input(Ready):
    """Passes the poller's events to a connection. A compiled class has one base, and a connection is a Sink already."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def on_ready(self, events: int) -> None:
        """Pass the events on."""
        self._connection.on_ready(events)

    def on_data(self, data: bytes) -> None:
        """Give the connection its bytes."""
        self._connection.on_data(data)


class Connection(Sink):
    """A client's socket and its session.

    Args:
        broker: The broker of all connections.
        poller: Tells when bytes can be read or sent.
        acceptor: Learns when the connection is closed.
        sock: The accepted socket, not blocking.

    Attributes:
        fd: The socket's descriptor.
        since: When it was accepted, in seconds since the epoch.
        flow: Executes its commands in order.
    """

    def __init__(self, broker: Broker, poller: Poller, acceptor: Acceptor, sock: socket.socket) -> None:
        self.broker: Broker = broker
        self.fd: int = sock.fileno()
        self.since: float = broker.now()
        self._poller = poller
        self._acceptor = acceptor
        self._sock = sock
        self._receive = sock.recv
        self._send = poller.sockets.sender(sock)
        # The bytes that the kernel has not taken yet, or None: an empty deque takes 760 bytes.
        self._unsent: deque[memoryview] | None = None
        self._unsent_bytes = 0
        self._reading = True
        self._watching = False
        self._ended = False
        self._closing = False
        self._gone = False
        self._choked = False
        self._early = True
        self.flow: Flow = Flow(broker, self)
        poller.add(self.fd, Input(self), READABLE)
        poller.sockets.set_early(self.fd, early=True)

    def peer(self) -> str:
        """Return its client's address: `host:port`, or `unix` for a unix socket."""
        try:
            name = self._sock.getpeername()
        except OSError:
            return "gone"
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    # --- calls by the poller

    def on_ready(self, events: int) -> None:
        """Send unsent replies, read new commands, or notice that the client is gone."""
        try:
            if events & WRITABLE:
                self._send_on()
            if self._gone or self._closing:
                if events & GONE:
                    self._lose()
                return
            if self._reading and not self._ended:
                if events & ~WRITABLE:
                    self._read()
            elif events & GONE:
                self._lose()
            elif events & CLOSED and self._watching:
                self._watching = False
                self._wait()
                self.flow.end_waiting()
        except Exception as error:
            self._fail(error)

    def _read(self) -> None:
        if self.flow.backlog():
            # The connection has had its share of the turn, and has commands left for the next one.
            return
        try:
            large = self.flow.parser.in_large_body()
            data: bytes = self._receive(READ_OF_LARGE if large else READ_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose()
            return
        if data:
            self._take(data)
        else:
            self._ended = True
            self._wait()
            self.flow.receive_eof()

    def on_data(self, data: bytes) -> None:
        """Take bytes that were received early."""
        if self._gone or self._closing:
            return
        try:
            self._take(data)
        except Exception as error:
            self._fail(error)

    def _take(self, data: bytes) -> None:
        """Handle bytes. Receive none early of a large body, or while there are enough commands to go on with."""
        self.flow.receive(data)
        early = not (self.flow.backlog() or self.flow.parser.in_large_body())
        if early != self._early and not self._gone:
            self._early = early
            self._poller.sockets.set_early(self.fd, early)

    def _send_on(self) -> None:
        """Send what the kernel takes now, up to SEND_AT_ONCE bytes."""
        room = SEND_AT_ONCE
        unsent = self._unsent
        while unsent and room > 0:
            piece = unsent[0]
            try:
                sent: int = self._send(piece[:room])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._lose()
                return
            room -= sent
            self._unsent_bytes -= sent
            if sent == len(piece):
                unsent.popleft()
            else:
                unsent[0] = piece[sent:]
        if self._choked and self._unsent_bytes <= LOW_WATER:
            self._choked = False
            self.flow.unchoke()
        if not unsent:
            self._unsent = None
            if self._closing:
                self._lose()
            else:
                self._wait()

    def _wait(self) -> None:
        """Tell the poller which events matter now."""
        if self._gone:
            return
        events = 0
        if not self._closing:
            if self._reading and not self._ended:
                events = READABLE
            elif self._watching:
                events = CLOSED
        if self._unsent:
            events |= WRITABLE
        self._poller.change(self.fd, events)

    def _lose(self) -> None:
        """Close the socket and give back the jobs that the connection holds."""
        if self._gone:
            return
        self._gone = True
        self._poller.remove(self.fd)
        self._sock.close()
        self._unsent = None
        try:
            self.flow.close()
        except Exception:
            logger.exception("internal error while connection %d was being closed", self.fd)
        self._acceptor.closed(self)

    # --- calls by the session

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._gone or self._closing:
            return
        if self.broker.tracing:
            logger.debug(">%d reply %s", self.fd, data.partition(b"\r\n")[0].decode("ascii", "replace"))
        sent = 0
        unsent = self._unsent
        if unsent is None:
            try:
                sent = self._send(data)
            except OSError:
                # The socket is full or broken. The poller tells which.
                sent = 0
            if sent == len(data):
                return
        self._unsent_bytes += len(data) - sent
        if unsent is None:
            self._unsent = unsent = deque()
        unsent.append(memoryview(data)[sent:])
        if len(unsent) == 1:
            self._wait()
        if self._unsent_bytes > HIGH_WATER and not self._choked:
            self._choked = True
            self.flow.choke()

    def close(self) -> None:
        """Close the connection once everything is sent."""
        if self._gone or self._closing:
            return
        self._closing = True
        if self._unsent:
            self._wait()
        else:
            self._lose()

    def pause_reading(self) -> None:
        """Stop reading, but keep watching for a hang-up."""
        self._reading = False
        self._watching = True
        self._wait()

    def resume_reading(self) -> None:
        """Read again."""
        self._reading = True
        self._watching = False
        self._wait()

    def trace_command(self, verb: int) -> None:
        """Log a command (`-VV`)."""
        word = WORDS.get(verb)
        if word is not None:
            logger.debug("<%d command %s", self.fd, word)

    # --- faults

    def abort(self) -> None:
        """Drop the connection now."""
        self._lose()

    def _fail(self, error: Exception) -> None:
        """Log a bug and close this connection; the others go on."""
        # Its jobs are given back now: a client that does not read may stay for ever.
        self.flow.fail(error)
        self.close()

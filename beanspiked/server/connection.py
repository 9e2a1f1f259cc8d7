"""A connection: moves bytes between a socket and its session."""

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

# Replies waiting for a client that does not read them, in bytes: from how many on its commands are no longer executed, and from how
# few on they are again.
HIGH_WATER: Final = 65536
LOW_WATER: Final = 16384
# How many bytes are read, or of a large body, and how many are sent, before others have their turn.
READ_AT_ONCE: Final = 16384
READ_OF_LARGE: Final = 65536
SEND_AT_ONCE: Final = 524288

WORDS: Final[dict[int, str]] = {verb: word.decode().strip() for word, verb, _ in PREFIXES}


@mypyc_attr(allow_interpreted_subclasses=True)
class Acceptor:
    """What a connection tells the server that accepted it."""

    def closed(self, connection: "Connection") -> None:
        """A connection is gone, and its descriptor with it."""
        raise NotImplementedError


class Input(Ready):
    """What the poller calls: a compiled class has one base, and a connection is its session's sink."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def on_ready(self, events: int) -> None:
        """Let the connection act."""
        self._connection.on_ready(events)


class Connection(Sink):
    """A client's socket and its session.

    Args:
        broker: What it shares with the others.
        poller: What tells when something can be read or sent.
        acceptor: Whom it tells of its end.
        sock: The accepted socket, not blocking.

    Attributes:
        fd: The socket's descriptor.
        since: When it was accepted, in seconds since the epoch.
        flow: What takes its commands to its session.
    """

    def __init__(self, broker: Broker, poller: Poller, acceptor: Acceptor, sock: socket.socket) -> None:
        self.broker: Broker = broker
        self.fd: int = sock.fileno()
        self.since: float = broker.now()
        self._poller = poller
        self._acceptor = acceptor
        self._sock = sock
        self._receive = sock.recv
        self._send = sock.send
        # What the kernel has not taken yet.
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._reading = True
        self._watching = False
        self._ended = False
        self._closing = False
        self._gone = False
        self._choked = False
        self.flow: Flow = Flow(broker, self)
        poller.add(self.fd, Input(self), READABLE)

    def peer(self) -> str:
        """Return where its client is: `host:port`, or `unix` for a unix socket."""
        try:
            name = self._sock.getpeername()
        except OSError:
            return "gone"
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    # --- what the poller calls

    def on_ready(self, events: int) -> None:
        """Send what waits, read what has come, or see that the client is gone."""
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
            # It has had its share of the turn, and more than enough to go on with.
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
            self.flow.receive(data)
        else:
            self._ended = True
            self._wait()
            self.flow.receive_eof()

    def _send_on(self) -> None:
        """Send what the kernel takes now, but no more than others can wait for."""
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
            if self._closing:
                self._lose()
            else:
                self._wait()

    def _wait(self) -> None:
        """Wait for what there is to wait for now."""
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
        """The connection is over: give back what it held."""
        if self._gone:
            return
        self._gone = True
        self._poller.remove(self.fd)
        self._sock.close()
        self._unsent.clear()
        try:
            self.flow.close()
        except Exception:
            logger.exception("connection %d: internal error", self.fd)
        self._acceptor.closed(self)

    # --- what the session calls

    def write(self, data: bytes) -> None:
        """Send bytes, all together."""
        if self._gone or self._closing:
            return
        if self.broker.tracing:
            logger.debug(">%d reply %s", self.fd, data.partition(b"\r\n")[0].decode("ascii", "replace"))
        sent = 0
        if not self._unsent:
            try:
                sent = self._send(data)
            except OSError:
                # No room now, or a broken connection: the poller will tell which.
                sent = 0
            if sent == len(data):
                return
        self._unsent.append(memoryview(data)[sent:])
        self._unsent_bytes += len(data) - sent
        if len(self._unsent) == 1:
            self._wait()
        if self._unsent_bytes > HIGH_WATER and not self._choked:
            self._choked = True
            self.flow.choke()

    def close(self) -> None:
        """Close the connection when all was sent."""
        if self._gone or self._closing:
            return
        self._closing = True
        if self._unsent:
            self._wait()
        else:
            self._lose()

    def pause_reading(self) -> None:
        """Read no more for now, but keep watching for a hang-up."""
        self._reading = False
        self._watching = True
        self._wait()

    def resume_reading(self) -> None:
        """Read on."""
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
        """A bug: say so once, end this connection, and leave the others alone."""
        logger.error("connection %d: internal error", self.fd, exc_info=error)
        self.write(b"INTERNAL_ERROR\r\n")
        self.close()

"""A connection: moves bytes between a socket and its session."""

import asyncio
import logging
import socket
from typing import Final, cast

from mypy_extensions import mypyc_attr

from beanspiked.protocol.commands import PREFIXES
from beanspiked.server.broker import Broker
from beanspiked.server.flow import Sink
from beanspiked.server.session import Session

__all__ = ["Connection", "Registry"]

logger = logging.getLogger(__name__)

# Replies waiting for a client that does not read them, in bytes, before its commands are no longer executed.
HIGH_WATER: Final = 65536

WORDS: Final[dict[int, str]] = {verb: word.decode().strip() for word, verb, _ in PREFIXES}


@mypyc_attr(allow_interpreted_subclasses=True)
class Registry:
    """What a connection tells the server that accepted it."""

    def opened(self, connection: "Connection") -> None:
        """A connection is up."""
        raise NotImplementedError

    def closed(self, connection: "Connection") -> None:
        """A connection is gone, and its descriptor with it."""
        raise NotImplementedError

    def watch_for_hangup(self, fd: int, connection: "Connection") -> None:
        """Call `hung_up` when the client closes, though its bytes are not read."""
        raise NotImplementedError

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        raise NotImplementedError


class Connection(Sink):
    """An asyncio protocol; every call of the event loop is one turn of the broker.

    Args:
        broker: What it shares with the others.
        registry: Whom it tells of its life.
        sock: The accepted socket, which the event loop reads from.

    Attributes:
        fd: The socket's descriptor.
        session: The connection's side of the beanstalkd protocol.
    """

    def __init__(self, broker: Broker, registry: Registry, sock: socket.socket) -> None:
        self.broker: Broker = broker
        self.registry: Registry = registry
        self.fd: int = sock.fileno()
        self._send = sock.send
        self._backlogged = False
        self._transport: asyncio.Transport | None = None
        self.session: Session = Session(broker, self)

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self.registry.opened(self)

    def data_received(self, data: bytes) -> None:
        """Act on bytes from the client."""
        try:
            self.session.receive(data)
            self.broker.end_turn()
        except Exception as error:
            self._fail(error)

    def eof_received(self) -> bool:
        """Act on the client's end of input; the session closes when all is answered."""
        try:
            self.session.receive_eof()
            self.broker.end_turn()
        except Exception as error:
            self._fail(error)
        return True

    def connection_lost(self, error: BaseException | None) -> None:  # noqa: ARG002 - the loop's signature
        """Give back what the connection held."""
        self.registry.unwatch(self.fd)
        self._transport = None
        try:
            self.session.close()
            self.broker.end_turn()
        except Exception:
            logger.exception("connection %d: internal error", self.fd)
        self.registry.closed(self)

    def pause_writing(self) -> None:
        """The client does not read."""
        self.session.choke()

    def resume_writing(self) -> None:
        """The client has read."""
        try:
            self.session.unchoke()
            self.broker.end_turn()
        except Exception as error:
            self._fail(error)

    # --- what the session calls

    def write(self, data: bytes) -> None:
        """Send bytes, all together."""
        if self._transport is not None:
            if self.broker.tracing:
                logger.debug(">%d reply %s", self.fd, data.partition(b"\r\n")[0].decode("ascii", "replace"))
            if not self._backlogged or self._transport.get_write_buffer_size() == 0:
                # Micro-optimization: half a microsecond less than the transport's own way to the same system call.
                try:
                    sent = self._send(data)
                except OSError:
                    # No room now, or a broken connection: the transport finds out which.
                    sent = 0
                if sent == len(data):
                    self._backlogged = False
                    return
                data = data[sent:]
            # The transport keeps what the kernel does not take, and sends it before anything else.
            self._backlogged = True
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection when all was sent."""
        if self._transport is not None:
            self._transport.close()

    def pause_reading(self) -> None:
        """Read no more for now, but keep watching for a hang-up."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self.registry.watch_for_hangup(self.fd, self)

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self.registry.unwatch(self.fd)
            self._transport.resume_reading()

    def trace_command(self, verb: int) -> None:
        """Log a command (`-VV`)."""
        word = WORDS.get(verb)
        if word is not None:
            logger.debug("<%d command %s", self.fd, word)

    # --- faults

    def hung_up(self, reset: bool) -> None:
        """The client closed its side, or the whole connection, while its bytes were not read."""
        if self._transport is None:
            return
        if reset:
            self._transport.abort()
        else:
            self.session.end_waiting()
            self.broker.end_turn()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        """A bug: say so once, end this connection, and leave the others alone."""
        logger.error("connection %d: internal error", self.fd, exc_info=error)
        self.write(b"INTERNAL_ERROR\r\n")
        self.close()

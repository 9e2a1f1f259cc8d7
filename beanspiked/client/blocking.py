"""A connection for programs without an event loop."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from beanspiked.client.core import Core
from beanspiked.client.errors import Refused, ServerGone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.client.address import Address
    from beanspiked.client.requests import Request

__all__ = ["ANSWER_SECONDS", "CONNECT_SECONDS", "Conn"]

CONNECT_SECONDS: Final = 10.0
# In seconds. A front-end may wait ten seconds for its cluster's nodes to agree.
ANSWER_SECONDS: Final = 30.0
READ_SIZE: Final = 1 << 18
# The longest wait of one poll, in seconds, since it takes some weeks at most. A reserve may take years.
LONGEST_WAIT: Final = 86400.0

T = TypeVar("T")


class Conn:
    """A connection to a server; made by `connect`.

    Attributes:
        address: Where the server listens.
    """

    def __init__(self, address: Address, sock: socket.socket, answer_seconds: float) -> None:
        self.address: Address = address
        self._socket = sock
        self._answer_seconds = answer_seconds
        self._core = Core()
        self._poll = select.poll()
        sock.setblocking(False)

    @classmethod
    def connect(
        cls, address: Address, *, connect_seconds: float = CONNECT_SECONDS, answer_seconds: float = ANSWER_SECONDS
    ) -> Self:
        """Connect.

        Args:
            address: Where the server listens.
            connect_seconds: How long the connection may take.
            answer_seconds: How long a reply may take, besides the wait of a reserve.

        Raises:
            ServerGone: No server listens there.
        """
        try:
            if address.path:
                sock = socket.socket(socket.AF_UNIX)
                try:
                    sock.settimeout(connect_seconds)
                    sock.connect(address.path)
                except OSError:
                    sock.close()
                    raise
            else:
                sock = socket.create_connection((address.host, address.port), connect_seconds)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, UnicodeError) as error:
            raise ServerGone(f"cannot connect to {address}: {reason(error)}") from error
        return cls(address, sock, answer_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The server makes the jobs that it holds ready again."""
        self._socket.close()

    def ask(self, request: Request[T]) -> T:
        """Send a request and wait for its result.

        Raises:
            Refused: The server refused the request.
            ServerGone: The connection ended, or the server was silent for too long.
            BrokenReply: The server does not speak the protocol.
        """
        (outcome,) = self.ask_all([request])
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    def ask_all(self, requests: Sequence[Request[T]]) -> list[T | Refused]:
        """Send requests together and wait for all results, in order; the result of a refused request is its error.

        Raises:
            ServerGone: The connection ended, or the server was silent for too long. It may have carried out some requests.
            BrokenReply: The server does not speak the protocol.
        """
        if self._socket.fileno() < 0:
            raise ServerGone(f"{self.address}: the connection is closed")
        try:
            return self._exchange(requests)
        except BaseException as error:
            # Replies may still be on their way, so the connection cannot be used again.
            self.close()
            if isinstance(error, OSError):
                raise ServerGone(f"{self.address}: {reason(error)}") from error
            raise

    def _exchange(self, requests: Sequence[Request[T]]) -> list[T | Refused]:
        outcomes: list[T | Refused] = []
        out = memoryview(b"".join([self._core.send(request) for request in requests]))
        silence = self._patience(requests)
        while len(outcomes) < len(requests):
            answer = self._core.next()
            if answer is None:
                out = self._move(out, silence)
                continue
            request, reply = answer
            try:
                outcomes.append(request.outcome(reply))
            except Refused as error:
                outcomes.append(error)
        return outcomes

    def _patience(self, requests: Sequence[Request[Any]]) -> float | None:
        """Return how many seconds the server may be silent; None for no limit."""
        total = self._answer_seconds
        for request in requests:
            if request.wait is None:
                return None
            total += request.wait
        return total

    def _move(self, out: memoryview, silence: float | None) -> memoryview:
        """Wait until bytes can be read or sent, and move them; return the bytes that are not sent yet."""
        # It does both at once, since a server whose replies are not read may stop reading.
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if out else 0))
        began = time.monotonic()
        left = silence
        while not (events := self._poll.poll(None if left is None else min(left, LONGEST_WAIT) * 1000)):
            if silence is not None:
                left = began + silence - time.monotonic()
                if left <= 0:
                    raise ServerGone(f"{self.address}: no answer for {time.monotonic() - began:.0f} s")
        _, event = events[0]
        if event & ~select.POLLOUT:
            data = self._socket.recv(READ_SIZE)
            if data:
                self._core.feed(data)
            else:
                self._core.feed_eof()
        elif event & select.POLLOUT:
            out = out[self._socket.send(out) :]
        return out


def reason(error: OSError | UnicodeError) -> str:
    """Say in words why there is no connection."""
    if isinstance(error, (socket.gaierror, UnicodeError)):
        # A name with an empty part, or one of more than 63 letters, cannot be encoded.
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer"
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]

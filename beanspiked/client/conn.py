"""A connection for asyncio programs."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from beanspiked.client.blocking import ANSWER_SECONDS, CONNECT_SECONDS, reason
from beanspiked.client.core import Core
from beanspiked.client.errors import ClientError, Refused, ServerGone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.client.address import Address
    from beanspiked.client.requests import Request

__all__ = ["Conn"]

T = TypeVar("T")


class Conn(asyncio.Protocol):
    """A connection to a server; made by `connect`. Many tasks may use it at the same time.

    Attributes:
        address: The server's address.
    """

    def __init__(self, address: Address, answer_seconds: float) -> None:
        self.address: Address = address
        self._answer_seconds = answer_seconds
        self._core = Core()
        self._transport: asyncio.Transport | None = None
        # One for each unanswered request, in order.
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._error: ClientError | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def connect(
        cls, address: Address, *, connect_seconds: float = CONNECT_SECONDS, answer_seconds: float = ANSWER_SECONDS
    ) -> Self:
        """Connect; arguments and errors as with the blocking connection."""
        loop = asyncio.get_running_loop()
        conn = cls(address, answer_seconds)
        try:
            async with asyncio.timeout(connect_seconds):
                if address.path:
                    await loop.create_unix_connection(lambda: conn, address.path)
                else:
                    await loop.create_connection(lambda: conn, address.host, address.port)
        except (OSError, UnicodeError) as error:
            raise ServerGone(f"cannot connect to {address}: {reason(error)}") from error
        return conn

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection at once. The server makes the jobs that it holds ready again."""
        self._fail(ServerGone(f"{self.address}: the connection is closed"))

    async def wait_closed(self) -> None:
        """Wait until either side has closed the connection."""
        await self._closed.wait()

    async def ask(self, request: Request[T]) -> T:
        """Send a request and wait for its result.

        If the task of a reserve is cancelled, this closes the connection. Otherwise the server might give it a job that nobody works on.

        Raises:
            Refused: The server refused the request.
            ServerGone: The connection ended, or the server was silent for too long.
            BrokenReply: The server does not speak the protocol.
        """
        future = self._send([request])[0]
        wait = request.wait
        try:
            async with asyncio.timeout(None if wait is None else self._answer_seconds + wait):
                return cast("T", await future)
        except TimeoutError:
            error = ServerGone(f"{self.address}: no answer for {self._answer_seconds + (wait or 0):.0f} s")
            self._fail(error)
            raise error from None
        except asyncio.CancelledError:
            if request.verb.startswith("reserve"):
                self.close()
            raise

    async def ask_all(self, requests: Sequence[Request[T]]) -> list[T | Refused]:
        """Send requests together and wait for all results, in order; the result of a refused request is its error.

        Raises:
            ServerGone: The connection ended, or the server was silent for too long. It may have carried out some requests.
            BrokenReply: The server does not speak the protocol.
        """
        outcomes = await asyncio.gather(*map(self.ask, requests), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Refused):
                raise outcome
        return cast("list[T | Refused]", outcomes)

    def _send(self, requests: Sequence[Request[Any]]) -> list[asyncio.Future[Any]]:
        if self._error is not None:
            raise self._error
        if self._transport is None:
            raise ServerGone(f"{self.address}: the connection is closed")
        loop = asyncio.get_running_loop()
        self._transport.write(b"".join([self._core.send(request) for request in requests]))
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in requests]
        self._waiting += futures
        return futures

    def _fail(self, error: ClientError) -> None:
        """End the connection. Callers that wait for a reply get this error."""
        self._error = self._error or error
        self._closed.set()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(self._error)

    # --- calls by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Give replies to the callers that wait for them."""
        self._core.feed(data)
        self._answer()

    def eof_received(self) -> None:
        """Tell waiting callers that the connection has ended."""
        self._core.feed_eof()
        self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Likewise."""
        text = reason(exc) if isinstance(exc, OSError) else "the server closed the connection"
        self._transport = None
        self._fail(ServerGone(f"{self.address}: {text}"))

    def _answer(self) -> None:
        try:
            while (answer := self._core.next()) is not None:
                request, reply = answer
                # It stays first while it has no outcome: a reply that cannot be read fails it with all others.
                future = self._waiting[0]
                if not future.done():
                    try:
                        future.set_result(request.outcome(reply))
                    except Refused as error:
                        future.set_exception(error)
                self._waiting.popleft()
        except ClientError as error:
            self._fail(error)

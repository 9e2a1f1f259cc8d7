"""The network below links: sockets in a server, a simulation in tests."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Apart", "Ends", "Network", "Sockets", "Wire"]

logger = logging.getLogger(__name__)

# If a front-end cannot be reached within this time, in seconds, its record is read instead.
DIAL_WITHIN: Final = 2.0


class Wire(Protocol):
    """Sends for an end; asyncio's transports do."""

    def write(self, data: bytes) -> None:
        """Send; never waits."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""

    def abort(self) -> None:
        """Hang up at once."""


class Ends(Protocol):
    """Hears what happens to a connection; asyncio's protocols do."""

    def connection_made(self, transport: Wire) -> None:
        """Begin: the connection is open."""

    def data_received(self, data: bytes) -> None:
        """Take in bytes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the connection is over."""

    def pause_writing(self) -> None:
        """Note that much waits to be sent."""

    def resume_writing(self) -> None:
        """Note that little waits to be sent."""

    def eof_received(self) -> None:
        """End the connection: the other end sends no more."""


class Network(Protocol):
    """Makes the connections of links."""

    async def listen(self, accept: Callable[[], Ends]) -> str:
        """Listen; return the address by which others reach this process, empty if there is none."""

    async def dial(self, address: str, end: Callable[[], Ends]) -> None:
        """Connect. Raises OSError, which TimeoutError is."""

    def close(self) -> None:
        """Stop listening."""


class Apart:
    """No network: each front-end reads what the others write to the store."""

    async def listen(self, accept: Callable[[], Ends]) -> str:  # noqa: ARG002 - nobody comes
        """See Network."""
        return ""

    async def dial(self, address: str, end: Callable[[], Ends]) -> None:  # noqa: ARG002 - nobody answers
        """See Network."""
        raise OSError(f"{address} cannot be reached")

    def close(self) -> None:
        """See Network."""


class Sockets:
    """TCP sockets on the address by which this machine reaches the cluster.

    Args:
        hosts: Nodes of the cluster, as name or address, and port. One that has an address is enough.
    """

    def __init__(self, hosts: Sequence[tuple[str, int]]) -> None:
        self._hosts = hosts
        self._server: asyncio.Server | None = None

    async def listen(self, accept: Callable[[], Ends]) -> str:
        """See Network."""
        try:
            host = await _own_address(self._hosts)
            self._server = await asyncio.get_running_loop().create_server(accept, host, 0)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            logger.warning("other front-ends cannot connect to this one, so waiters here are woken later: %s", error)
            return ""
        port = self._server.sockets[0].getsockname()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def dial(self, address: str, end: Callable[[], Ends]) -> None:
        """See Network."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.create_connection(end, host.strip("[]"), int(port)), DIAL_WITHIN)  # type: ignore[type-var]
        except (ValueError, OverflowError) as error:
            # A port that is no number, or too large; a host name with too long a part.
            raise OSError(f"no address: {address!r:.100}") from error

    def close(self) -> None:
        """See Network."""
        if self._server is not None:
            self._server.close()
            self._server = None


async def _own_address(hosts: Sequence[tuple[str, int]]) -> str:
    """Return the address by which this machine reaches the first of these that it can reach; nothing is sent.

    Raises OSError or UnicodeError: the last failure, if it can reach none.
    """
    failure: OSError | UnicodeError = OSError("no host is named")
    for host, port in hosts:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                own: str = probe.getsockname()[0]
                return own
        except (OSError, UnicodeError) as error:
            # A host name with too long a part raises UnicodeError.
            failure = error
    raise failure

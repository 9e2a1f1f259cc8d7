"""Lets wire clients share the store of a program."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, Self

from beanspiked.config import Settings
from beanspiked.engine import forks
from beanspiked.library.core import OfOneProcess
from beanspiked.server.listeners import ListenError, bind
from beanspiked.server.poller import Poller
from beanspiked.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from beanspiked.library.core import Core

__all__ = ["Serving", "start"]

DEFAULT_ADDRESS: Final = "127.0.0.1:11300"
MAX_PORT: Final = 65535


class Serving(OfOneProcess):
    """A server of beanstalkd's protocol in this process. It ends with `close`, or with the connection to the store.

    Attributes:
        addresses: The addresses that it listens on: `host:port` or `unix:PATH`.
    """

    def __init__(self, core: Core, sockets: list[socket.socket]) -> None:
        self.addresses: list[str] = [_name(sock) for sock in sockets]
        self._core = core
        self._sockets = sockets
        self._poller = Poller(core.broker, shared=core.broker.engine.shared)
        self._server: Server | None = Server(core.broker, self._poller, core.loop, sockets)
        forks.watch(self)
        # The server ends with the connection to the store at the latest.
        self._forget = core.before_close(self.close)
        core.loop.add_reader(self._poller.fileno(), self._poller.turn)
        core.alarm.pollers.append(self._poller)
        self._server.accept()

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Accept no more clients, let the connected ones finish the jobs that they hold for a time, then give these jobs back."""
        if self._server is None:
            return
        await self._core.ended(self._server.stop(drain_seconds))
        # Another call may have waited for the same end.
        if self._server is not None:
            self._server = None
            self._forget()
            self._core.alarm.pollers.remove(self._poller)
            self._core.loop.remove_reader(self._poller.fileno())
            self._poller.close()

    def forked(self, owner: int) -> None:  # noqa: ARG002 - the parent's number does not matter
        """See forks.Watched. Although the child lives on, clients must see the parent hang up, and the address must become free."""
        server, self._server = self._server, None
        if server is not None:
            forks.let_go(sock.fileno() for sock in self._sockets if sock.fileno() >= 0)
            forks.let_go(connection.fd for connection in server.connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def start(core: Core, addresses: Sequence[str]) -> Serving:
    """Start to serve; arguments and errors as with `beanspiked.serve`."""
    sockets: list[socket.socket] = []
    try:
        for address in addresses or (DEFAULT_ADDRESS,):
            sockets += [socket.socket(fileno=fd) for fd in bind(_settings(address))]
    except BaseException as error:
        for sock in sockets:
            sock.close()
        if isinstance(error, ListenError):
            raise OSError(str(error)) from error
        raise
    return Serving(core, sockets)


def _settings(address: str) -> Settings:
    settings = Settings()
    settings.listen = (address,)
    if address.startswith("unix:") and address != "unix:":
        return settings
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > MAX_PORT or not host.strip("[]"):
        raise ValueError(f"not host:port or unix:PATH: {address!r}")
    settings.listen, settings.port = (host.strip("[]"),), port
    return settings


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

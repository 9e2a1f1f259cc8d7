"""The admin port of a server, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import TYPE_CHECKING

from beanspiked.admin.app import Application
from beanspiked.admin.http import HttpServer
from beanspiked.admin.lag import LoopWatch
from beanspiked.server.descriptors import most_clients
from beanspiked.server.main import Companion

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.admin.options import AdminOptions
    from beanspiked.server.broker import Broker
    from beanspiked.server.server import Server

__all__ = ["AdminPort", "listen"]

logger = logging.getLogger(__name__)

BACKLOG = 64


def listen(options: AdminOptions) -> socket.socket:
    """Bind and listen. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. uvicorn sends an answer in two parts: the second would wait until the client acknowledges the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((options.host, options.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class AdminPort(Companion):
    """Serves HTTP beside the jobs.

    Args:
        options: The admin port's options.
        sock: The listening socket.
        journal: The journal's directory, or None.

    Raises:
        OSError: The certificate or the key cannot be used.
    """

    def __init__(self, options: AdminOptions, sock: socket.socket, journal: str | None) -> None:
        self._options = options
        # Read the key now: the user that the server becomes may lack permission.
        self._context: ssl.SSLContext | None = None
        if options.tls_cert:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(options.tls_cert, options.tls_key)
        self._sock = sock
        self._journal = journal
        self._watch = LoopWatch()
        self._application: Application | None = None
        self._http: HttpServer | None = None
        self._history: asyncio.Task[None] | None = None

    def timed(self, turn: Callable[[], None]) -> Callable[[], None]:
        """Measure the turns of the sockets."""
        return self._watch.timed(turn)

    def begin(self, broker: Broker, server: Server) -> None:
        """Serve from now on; the event loop runs."""
        loop = asyncio.get_running_loop()
        broker.measure()
        server.most = most_clients()
        self._application = Application(self._options, broker, server, self._watch, self._journal)
        self._http = HttpServer(self._application.asgi, self._context)
        self._http.begin(self._sock)
        self._watch.begin(loop, broker.tick)
        self._history = loop.create_task(self._application.history.keep(self._application.snapshots.get))
        logger.info("admin port %s", self._sock.getsockname())

    def stopping(self) -> None:
        """Tell clients that ask whether the server is ready that it stops."""
        if self._application is not None:
            self._application.stopping = True

    async def end(self) -> None:
        """Hang up."""
        self._watch.end()
        if self._history is not None:
            self._history.cancel()
            await asyncio.wait([self._history])
        if self._http is not None:
            await self._http.end()

"""HTTP by uvicorn, in an event loop whose first task is the jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from beanspiked.admin.entrance import Entrance

if TYPE_CHECKING:
    import socket
    import ssl

    from starlette.types import Receive, Scope, Send

    from beanspiked.admin.guard import App

__all__ = ["MAX_CONNECTIONS", "HttpServer"]

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
# How long a client may send or read nothing during a request, and how long a request's head may take, in seconds; and how often this
# is checked.
PATIENCE: Final = 10.0
LOOK_EVERY: Final = 1.0
KEEP_ALIVE: Final = 30
# How long the end waits for replies, in seconds.
END_WITHIN: Final = 1.0
MAX_HEADERS: Final = 16384


class HttpServer:
    """Serves an application on one socket.

    Args:
        app: The application.
        context: The TLS settings, or None for plain HTTP.
        patience: How long a client may send or read nothing during a request, in seconds.
    """

    def __init__(self, app: App, context: ssl.SSLContext | None = None, patience: float = PATIENCE) -> None:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            # Only `end` cancels a request, once its client is gone; uvicorn would log that as an error of the application.
            with contextlib.suppress(asyncio.CancelledError):
                await app(scope, receive, send)

        config = uvicorn.Config(
            answer,
            http="h11",
            interface="asgi3",
            loop="none",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=MAX_HEADERS,
        )
        # Clients' faults are not logged.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config.load()
        self._config = config
        self._context = context
        self._server = uvicorn.Server(config)
        # The server handles signals itself.
        vars(self._server)["capture_signals"] = contextlib.nullcontext
        self._patience = patience
        # The point at which each connection waits for its client, and since when.
        self._since: dict[Any, tuple[int, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # Connections that are not uvicorn's yet: with TLS, until the two sides know each other.
        self._arriving: dict[Any, asyncio.Task[None]] = {}
        self._entrance: Entrance | None = None

    def begin(self, sock: socket.socket) -> None:
        """Serve from now on."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._server.serve(sockets=[])), loop.create_task(self._watch())]
        self._entrance = Entrance(sock, self._welcome)
        self._entrance.open()

    def _welcome(self, sock: socket.socket) -> None:
        """Serve a client, or hang up if there are too many."""
        state = self._server.server_state
        if len(state.connections | self._arriving.keys()) >= MAX_CONNECTIONS:
            sock.close()
            return
        protocol = _counting(H11Protocol(config=self._config, server_state=state, app_state={}))
        self._arriving[protocol] = asyncio.get_running_loop().create_task(self._connect(sock, protocol))

    async def _connect(self, sock: socket.socket, protocol: Any) -> None:
        patience = None if self._context is None else self._patience
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, sock, ssl=self._context, ssl_handshake_timeout=patience
            )
        except OSError as error:
            logger.debug("admin port: %s", error)
        finally:
            del self._arriving[protocol]

    async def end(self) -> None:
        """Stop, and close the connections that are left."""
        if self._entrance is not None:
            self._entrance.close()
        self._server.should_exit = True
        self._server.force_exit = True
        for task in self._arriving.values():
            task.cancel()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if self._tasks:
            self._tasks[1].cancel()
            await asyncio.wait(self._tasks, timeout=END_WITHIN)
        tasks = [*self._tasks, *self._arriving.values(), *self._server.server_state.tasks]
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=END_WITHIN)

    async def _watch(self) -> None:
        """Hang up on clients that send or read nothing for too long, since each takes the place of another."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = asyncio.get_running_loop().time()
            before, self._since = self._since, {}
            for connection in list(self._server.server_state.connections):
                stuck = _stuck(connection)
                if stuck is None:
                    continue
                known, since = before.get(connection, (None, now))
                self._since[connection] = (stuck, since if stuck == known else now)
                if now - self._since[connection][1] >= self._patience:
                    connection.transport.abort()


def _counting(protocol: Any) -> Any:
    """Let a protocol count the bytes that its client sends."""
    received = protocol.data_received
    protocol.heard = 0

    def data_received(data: bytes) -> None:
        protocol.heard += len(data)
        received(data)

    protocol.data_received = data_received
    return protocol


def _stuck(connection: Any) -> int | None:
    """Return the point at which a connection waits for its client during a request; None for a connection that does not wait.

    The point is the number of bytes that the client has not read yet, minus the number of bytes that it has sent if it is within the body
    of a request, or 0 if it has to send the head: whoever sends that in drops needs no secret, and would keep the connection for ever.
    """
    if connection.flow.write_paused:
        return int(connection.transport.get_write_buffer_size())
    if connection.timeout_keep_alive_task is not None:
        # The connection is between two requests. uvicorn limits this wait.
        return None
    cycle = connection.cycle
    if cycle is None or cycle.response_complete:
        return 0
    return -connection.heard if cycle.more_body else None

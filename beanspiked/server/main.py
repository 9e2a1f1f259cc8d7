"""The server's life: start, serve, stop."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import select
import signal
import socket
import sys
from typing import Final

import uvloop

from beanspiked import __version__
from beanspiked.config import Settings
from beanspiked.engine.contract import TubeEngine
from beanspiked.engine.embedded.start import start as start_embedded
from beanspiked.engine.timers import Timers
from beanspiked.server.alarm import LoopAlarm
from beanspiked.server.broker import Broker
from beanspiked.server.clock import MonotonicClock
from beanspiked.server.connection import Connection, Registry

__all__ = ["Server", "serve"]

logger = logging.getLogger("beanspiked")

# How many connections are accepted in one turn.
ACCEPTS_PER_TURN: Final = 64
# How long to wait before accepting again when no connection ends meanwhile, in seconds.
ACCEPT_AGAIN_AFTER: Final = 1.0
OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# How long a stop may take after the drain, in seconds: for replies to leave, and for the journal to be closed.
REPLY_WITHIN: Final = 2.0
CLOSE_WITHIN: Final = 2.0
# How much longer systemd is to wait, in seconds, with each sign that the journal is still being read; there is one each second.
LOADING_PATIENCE: Final = 30


class Server(Registry):
    """Accepts connections and carries them from start to stop.

    Args:
        broker: What the connections share.
        sockets: Listening sockets, not blocking.
    """

    def __init__(self, broker: Broker, sockets: list[socket.socket]) -> None:
        self.broker = broker
        self.connections: set[Connection] = set()
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._accepting = False
        self._stopping = False
        self._last_closed = asyncio.Event()
        # Registered with the loop as one descriptor; reports hang-ups of connections that are not read.
        self._hangups = select.epoll()
        self._watched: dict[int, Connection] = {}
        self._loop.add_reader(self._hangups.fileno(), self._on_hangups)

    # --- accepting

    def accept(self) -> None:
        """Begin to accept, or begin again."""
        if not self._accepting and not self._stopping:
            self._accepting = True
            for sock in self._sockets:
                self._loop.add_reader(sock.fileno(), self._on_connections, sock)

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())

    def _on_connections(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    logger.debug("accept: %s", error)
                    continue
                # Clients wait in the backlog; trying again at once would spin (beanstalkd #361, #628, #651).
                logger.warning("cannot accept: %s; waiting for a connection to end", error.strerror)
                self._stop_accepting()
                self._loop.call_later(ACCEPT_AGAIN_AFTER, self.accept)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._connect(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket) -> None:
        connection = Connection(self.broker, self, sock)
        try:
            # It has a protocol's methods; as a compiled class it cannot also inherit from asyncio's.
            await self._loop.connect_accepted_socket(lambda: connection, sock)  # type: ignore[type-var]
        except OSError as error:
            logger.debug("accept: %s", error)
            connection.session.close()
            sock.close()

    # --- what connections tell

    def opened(self, connection: Connection) -> None:
        """A connection is up."""
        self.connections.add(connection)
        logger.info("accept %d", connection.fd)
        if self._stopping:
            connection.session.stop()

    def closed(self, connection: Connection) -> None:
        """A connection is gone, and its descriptor with it."""
        self.connections.discard(connection)
        logger.info("close %d", connection.fd)
        if not self.connections:
            self._last_closed.set()
        if not self._accepting:
            self.accept()

    def watch_for_hangup(self, fd: int, connection: Connection) -> None:
        """Call the connection's `hung_up` when the client closes, though its bytes are not read."""
        if fd not in self._watched:
            self._watched[fd] = connection
            self._hangups.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self._watched.pop(fd, None) is not None:
            # A descriptor that is closed already has left the set by itself.
            with contextlib.suppress(OSError, ValueError):
                self._hangups.unregister(fd)

    def _on_hangups(self) -> None:
        for fd, events in self._hangups.poll(0):
            connection = self._watched.get(fd)
            if connection is not None:
                connection.hung_up(bool(events & (select.EPOLLHUP | select.EPOLLERR)))

    # --- stopping

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more, let clients that hold jobs finish for a while, then give everything back."""
        self._stopping = True
        self._stop_accepting()
        for sock in self._sockets:
            sock.close()
        for connection in list(self.connections):
            connection.session.stop()
        self.broker.end_turn()
        await self._until_closed(drain_seconds)
        for connection in list(self.connections):
            connection.session.end()
        self.broker.end_turn()
        await self._until_closed(REPLY_WITHIN)
        for connection in list(self.connections):
            connection.abort()
        await self._until_closed(0.5)
        self._loop.remove_reader(self._hangups.fileno())
        self._hangups.close()

    async def _until_closed(self, seconds: float) -> None:
        if self.connections:
            self._last_closed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._last_closed.wait(), seconds)


def serve(settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve until a signal says to stop.

    Raises:
        StoreUnusable: The journal cannot be used.
    """
    level = logging.DEBUG if settings.verbose > 1 else logging.INFO if settings.verbose else logging.WARNING
    logging.basicConfig(level=level, format="beanspiked: %(message)s", stream=sys.stderr)
    logger.info("pid %d", os.getpid())
    for sock in sockets:
        logger.info("bind %d %s", sock.fileno(), sock.getsockname())
    uvloop.run(_serve(settings, sockets))


async def _serve(settings: Settings, sockets: list[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    timers = Timers(MonotonicClock())
    broker = Broker(timers, settings.max_job_size, __version__, settings.lenient_eol)
    broker.binlog_max_size = settings.binlog_size
    broker.tracing = settings.verbose > 1
    broker.alarm = LoopAlarm(loop, broker)
    # While jobs are few; what follows makes no garbage.
    gc.collect()
    broker.engine = _engine(settings, timers, broker)
    stopped: asyncio.Event = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            # A second signal: held jobs are ready again after a restart all the same.
            os._exit(1)
        stopped.set()

    def drain() -> None:
        logger.info("draining: puts are refused")
        broker.draining = True

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGUSR1, drain)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    # A full collection visits every job: a million of them would stop the loop for a second. Nothing here relies on it:
    # connections are taken apart when they close. Young garbage is still collected.
    gc.freeze()
    # A middle generation of 20,000 objects takes milliseconds; tests/speed shows the pauses. Of a shared store no job stays here, but a
    # thousand commands on their way are many objects that are about to go: to visit those took a tenth of the time.
    gc.set_threshold(*((2000, 10, 1000000) if settings.shared is None else (20000, 2, 1000000)))
    server = Server(broker, sockets)
    # What came due while no server ran is due before the first command.
    broker.on_alarm()
    server.accept()
    _notify("READY=1")
    await stopped.wait()
    _notify("STOPPING=1")
    await server.stop(settings.drain_timeout)
    await _close(broker.engine, loop)


async def _close(engine: TubeEngine, loop: asyncio.AbstractEventLoop) -> None:
    closed = engine.close()
    if closed is not None:
        done = loop.create_future()
        closed.then(lambda _: None if done.done() else done.set_result(None))
        try:
            await asyncio.wait_for(done, CLOSE_WITHIN)
        except TimeoutError:
            logger.critical("the store did not finish in time; what was acknowledged is in it")


def _engine(settings: Settings, timers: Timers, broker: Broker) -> TubeEngine:
    if settings.shared is not None:
        # The client is only loaded where it is used.
        from beanspiked.engine.aerospike.start import start  # noqa: PLC0415

        return start(settings.shared, timers, broker, broker.end_turn, broker.max_job_size)
    if settings.journal is None:
        logger.warning("jobs live in memory only; -b DIR keeps them")
    return start_embedded(settings.journal, settings.fsync_ms, timers, broker, broker.end_turn, _loading)


def _loading() -> None:
    """Ask systemd for patience, which otherwise ends a start after TimeoutStartSec."""
    _notify(f"EXTEND_TIMEOUT_USEC={LOADING_PATIENCE * 1_000_000}")


def _notify(state: str) -> None:
    """Tell systemd (sd_notify): one datagram to the socket that it named."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("cannot notify the service manager: %s", error)

"""Runs the server: starts it, serves, and stops it."""

from __future__ import annotations

import gc
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

from beanspiked.engine.embedded.start import start as start_embedded
from beanspiked.engine.timers import Timers
from beanspiked.protocol import parser
from beanspiked.server import log
from beanspiked.server.alarm import LoopAlarm
from beanspiked.server.broker import Broker
from beanspiked.server.clock import MonotonicClock
from beanspiked.server.descriptors import most_clients, most_clients_beside_journal
from beanspiked.server.loop import Loop
from beanspiked.server.notify import ask_for_patience, notify
from beanspiked.server.poller import Poller
from beanspiked.server.server import Server
from beanspiked.server.sockets import open_sockets
from beanspiked.version import __version__

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from beanspiked.config import Settings
    from beanspiked.engine.contract import TubeEngine
    from beanspiked.server.worker import Worker

__all__ = ["Companion", "serve"]

logger = logging.getLogger("beanspiked")

# How long a stop waits for the store to close, in seconds. A front-end gives its leases back and stores its counters meanwhile.
CLOSE_WITHIN: Final = 10.0
# How often a start looks for its session with a shared store, in seconds.
LOOK_EVERY: Final = 0.1
NOT_COMPILED: Final = (
    "the core is not compiled, so each command takes about four times the processor time; "
    "install a C compiler and Python's headers, then install beanspiked again (`make fast` or `pip install .`)"
)


class Companion:
    """A part of the server that runs in the same event loop as the jobs, which is then asyncio's."""

    def timed(self, turn: Callable[[], None]) -> Callable[[], None]:
        """Return a turn that replaces this one and measures it."""
        raise NotImplementedError

    def begin(self, broker: Broker, server: Server) -> None:
        """Begin: the server serves, and the event loop runs."""
        raise NotImplementedError

    def stopping(self) -> None:
        """Note that the server is about to end."""
        raise NotImplementedError

    async def end(self) -> None:
        """Release everything. The server has ended."""
        raise NotImplementedError


def serve(
    settings: Settings,
    sockets: list[socket.socket],
    companion: Companion | None = None,
    worker: Worker | None = None,
) -> None:
    """Serve until a signal stops the server.

    Args:
        settings: The server's settings.
        sockets: The listening sockets.
        companion: Runs beside the server; may be None.
        worker: This process as a worker, whose clients its parent accepts; None without workers.

    Raises:
        StoreUnusable: The journal cannot be used.
        NativeMissingError: The settings ask for native sockets, and these are not installed.
    """
    log.start(settings.verbose, "" if worker is None else f"worker {worker.number}: ")
    logger.info("pid %d", os.getpid())
    for sock in sockets:
        logger.info("bind %d %s", sock.fileno(), sock.getsockname())
    timers = Timers(MonotonicClock())
    broker = Broker(timers, settings.max_job_size, __version__, settings.lenient_eol)
    broker.binlog_max_size = settings.binlog_size
    if settings.verbose > 1:
        broker.trace()
    poller = Poller(broker, open_sockets(settings.io), shared=settings.shared is not None)
    logger.info("sockets are heard by: %s", broker.io)
    if settings.shared is None and companion is None:
        loop = Loop(poller)
        Service(settings, sockets, timers, broker, poller, loop).begin()
        loop.run_forever()
        loop.close()
    else:
        _serve_in_asyncio(settings, sockets, timers, broker, poller, companion, worker)
    poller.close()


def _serve_in_asyncio(
    settings: Settings,
    sockets: list[socket.socket],
    timers: Timers,
    broker: Broker,
    poller: Poller,
    companion: Companion | None,
    worker: Worker | None,
) -> None:
    """Serve in an asyncio loop, which a shared store and a companion need."""
    import asyncio  # noqa: PLC0415 - takes longer to load than an embedded server
    import contextlib  # noqa: PLC0415 - likewise

    hear = poller.hear if companion is None else companion.timed(poller.hear)
    failures: list[Exception] = []

    def begin() -> None:
        try:
            Service(settings, sockets, timers, broker, poller, loop, companion, worker).begin()
        except Exception as error:  # noqa: BLE001 - raised again when the loop has ended
            failures.append(error)
            loop.stop()

    with contextlib.closing(_asyncio_loop(poller, hear, own=settings.shared is None)) as loop:
        asyncio.set_event_loop(loop)
        # All of this is in one run of the loop, since uvloop loses signals that come between two runs.
        loop.call_soon(begin)
        loop.run_forever()
        if companion is not None:
            loop.run_until_complete(companion.end())
    if failures:
        raise failures[0]


def _asyncio_loop(poller: Poller, hear: Callable[[], None], *, own: bool) -> asyncio.AbstractEventLoop:
    """Make an event loop that hears the sockets.

    A shared store gets uvloop's loop. An embedded server has its `own`: asyncio's loop with our poller inside. With uvloop 50 x 16 costs
    8 % more, since it first waits with an epoll set of its own.
    """
    if own:
        import asyncio  # noqa: PLC0415 - likewise

        from beanspiked.server.selector import PollerSelector  # noqa: PLC0415 - likewise

        return asyncio.SelectorEventLoop(PollerSelector(poller, hear))
    import uvloop  # noqa: PLC0415 - likewise

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    loop.add_reader(poller.fileno(), lambda: hear() if poller.wait(0.0) else None)
    return loop


class Service:
    """A server, its engine and its signals, in an event loop."""

    def __init__(
        self,
        settings: Settings,
        sockets: list[socket.socket],
        timers: Timers,
        broker: Broker,
        poller: Poller,
        loop: Loop | asyncio.AbstractEventLoop,
        companion: Companion | None = None,
        worker: Worker | None = None,
    ) -> None:
        self._settings = settings
        self._timers = timers
        self._broker = broker
        self._loop = loop
        self._server = Server(broker, poller, loop, sockets)
        if settings.shared is not None:
            # Without descriptors of its own the store's client could not connect, and all commands would fail.
            self._server.most = most_clients()
        elif settings.journal is not None:
            self._server.most = most_clients_beside_journal()
        self._companion = companion
        self._worker = worker
        self._poller = poller
        self._stopping = False
        alarm = LoopAlarm(loop, broker)
        alarm.pollers.append(poller)
        broker.alarm = alarm

    def begin(self) -> None:
        """Make the engine and serve.

        Raises:
            StoreUnusable: The journal cannot be used.
        """
        broker = self._broker
        # Collect garbage now, while jobs are few. Nothing after this makes any.
        gc.collect()
        broker.engine = self._engine()
        # Log this only now: if the store is refused, that is the only line.
        if str(parser.__file__).endswith(".py"):
            logger.warning(NOT_COMPILED)
        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._loop.add_signal_handler(signal.SIGINT, self._stop)
        self._loop.add_signal_handler(signal.SIGUSR1, self._drain)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        # A full collection visits every job: a million jobs stop the loop for a second. Nothing here relies on it, since the server
        # takes connections apart when they close. Young garbage is still collected.
        gc.freeze()
        # A thousand commands in flight are many short-lived objects: to visit them each time takes up to a tenth of the processor. With a
        # shared store most objects stay, a score for each segment, and to visit 10,000 of them takes ten milliseconds.
        young, middle = (8000, 2) if self._settings.shared is None else (5000, 1)
        gc.set_threshold(young, middle, 1000000)
        # Jobs that came due while no server ran become ready before the first command.
        broker.on_alarm()
        self._server.accept()
        if self._companion is not None:
            self._companion.begin(broker, self._server)
        if self._worker is not None:
            as_one = self._settings.stats_of == "all"
            self._worker.begin(broker, self._poller, self._server, self._loop, self._stop, as_one=as_one)
        self._announce()

    def _announce(self) -> None:
        """Tell that the server is ready once changes are accepted: without a session with the store, each command fails."""
        if self._stopping:
            return
        ready = self._settings.shared is None or not self._broker.engine.troubles()
        if self._worker is not None:
            ready = self._worker.announce(ready=ready) and ready
        elif ready:
            notify("READY=1")
        else:
            ask_for_patience()
        if not ready:
            self._loop.call_later(LOOK_EVERY, self._announce)

    def _engine(self) -> TubeEngine:
        settings, broker = self._settings, self._broker
        if settings.shared is not None:
            # Only a shared store needs the Aerospike client.
            from beanspiked.engine.aerospike.start import start  # noqa: PLC0415 - see above

            return start(settings.shared, self._timers, broker, broker.end_turn, broker.max_job_size)
        if settings.journal is None:
            logger.warning("jobs are in memory only, and lost when the server stops; -b DIR keeps them on disk")
        soon: Callable[[Callable[[], None]], object] = self._loop.call_soon_threadsafe
        return start_embedded(
            settings.journal, settings.fsync_ms, self._timers, broker, broker.end_turn, soon, ask_for_patience
        )

    def _drain(self) -> None:
        logger.info("draining: puts are refused until the server is started again")
        self._broker.draining = True

    def _stop(self) -> None:
        if self._stopping:
            if self._worker is not None:
                # A service manager signals all processes, and the parent signals again. So the parent decides when a stop is immediate.
                return
            # A second signal ends the wait: a restart makes held jobs ready anyway.
            os._exit(1)
        self._stopping = True
        notify("STOPPING=1")
        if self._worker is not None:
            self._worker.end()
        if self._companion is not None:
            self._companion.stopping()
        self._server.stop(self._settings.drain_timeout).then(lambda _: self._close())

    def _close(self) -> None:
        # Nobody can put any more. Once Python ends, it handles no signals, and this one would end the process by its default.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        closed = self._broker.engine.close()
        if closed is None:
            self._loop.stop()
        else:
            closed.then(lambda _: self._loop.stop())
            self._loop.call_later(CLOSE_WITHIN, self._give_up)

    def _give_up(self) -> None:
        logger.critical("the store did not close within %g s; acknowledged jobs are safe in it", CLOSE_WITHIN)
        self._loop.stop()

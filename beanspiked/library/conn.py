"""A program's connection to a store, and how it is made."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, Unpack

from beanspiked.engine import forks
from beanspiked.engine.errors import StoreUnusable
from beanspiked.library.conn_base import ConnBase
from beanspiked.library.core import Core
from beanspiked.library.metrics import Metrics, NoMetrics
from beanspiked.library.retry import Retry
from beanspiked.library.tube import Tube
from beanspiked.protocol.lines import valid_tube_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import TracebackType

    from beanspiked.engine.contract import Tube as EngineTube
    from beanspiked.engine.contract import TubeEngine
    from beanspiked.engine.timers import Timers
    from beanspiked.library.serving import Serving
    from beanspiked.ops.url import StoreAddress
    from beanspiked.server.broker import Broker

__all__ = ["Conn", "connect", "dial", "dial_default", "serve"]

logger = logging.getLogger(__name__)

MEMORY: Final = "memory:"
SQLITE: Final = "sqlite:"
# go-beanspike's defaults.
DEFAULT_HOST: Final = "aerospike"
# The largest job of a namespace whose max-record-size is the default of 1 MiB, in bytes.
MAX_JOB_SIZE: Final = 960 * 1024
NO_RETRY: Final = Retry(attempts=1)
# One in this many failed tries to connect is logged.
COMPLAIN_EVERY: Final = 20
_numbers = itertools.count(1)


def connect(
    url: str,
    *,
    client_id: str | None = None,
    retry: Retry | None = None,
    put_retry: Retry | None = None,
    metrics: Metrics | None = None,
    max_job_size: int = MAX_JOB_SIZE,
) -> Conn:
    """Connect to a store. Use the result with `async with`, or await it and close it later.

    Args:
        url: `memory:` (jobs in this process, lost with it), `sqlite:DIR` (a durable journal in a directory, for one process at a time)
            or `aerospike://[USER:PASS@]HOST[:PORT][,HOST...]/NAMESPACE[?prefix=NAME&tls=true]` (shared by any number of processes).
        client_id: The client's name in logs; host, process and a number by default.
        retry: How often to try to connect; once by default. To end the tries, cancel the call.
        put_retry: How often to try a put; once by default. A Retry without `attempts` goes on until the store takes the job.
        metrics: Counts and times the operations.
        max_job_size: The largest body, in bytes.

    Raises:
        ValueError: The URL is malformed.
    """
    return Conn(_store_of(url), client_id, retry, put_retry, metrics, max_job_size)


def dial(host: str, port: int = 3000, namespace: str = "beanspike", **options: Unpack[Options]) -> Conn:
    """Connect to an Aerospike cluster through one of its nodes; options as with `connect`."""
    return connect(f"aerospike://{f'[{host}]' if ':' in host else host}:{port}/{namespace}", **options)


def dial_default(environ: Mapping[str, str] | None = None, **options: Unpack[Options]) -> Conn:
    """Connect as go-beanspike's DialDefault does: to AEROSPIKE_HOST and AEROSPIKE_PORT, by default `aerospike:3000`.

    The port may have the form that Docker sets for a linked container, `tcp://172.17.0.5:3000`. The function logs and ignores the
    variables that Kubernetes sets for a service called `aerospike`. AEROSPIKE_NAMESPACE names the namespace, by default `beanspike`.
    Options as with `connect`.

    Raises:
        ValueError: A variable is malformed; the text names it.
    """
    from beanspiked.ops.url import (  # noqa: PLC0415 - loaded where it is used
        NOT_OURS,
        from_environment,
        set_by_kubernetes,
    )

    variables = os.environ if environ is None else environ
    if set_by_kubernetes(variables):
        logger.warning("%s; trying %s", NOT_OURS, DEFAULT_HOST)
    address = from_environment(variables, DEFAULT_HOST)
    assert address is not None
    return Conn(address, **options)


class Options(TypedDict, total=False):
    """The options of `connect`, `dial` and `dial_default`; see `connect`."""

    client_id: str | None
    retry: Retry | None
    put_retry: Retry | None
    metrics: Metrics | None
    max_job_size: int


class Conn(ConnBase):
    """A connection to a store; made by `connect`, `dial` or `dial_default`.

    It belongs to the event loop in which it was opened. Any number of tasks may use its tubes at once. Requests of one turn go to the
    store together.

    It also belongs to its process. In the child of a fork every call raises ConnForked, and `close` does nothing. The child may make
    a connection of its own, but not to the journal that its parent has open.
    """

    def __init__(
        self,
        store: StoreAddress | str | None,
        client_id: str | None = None,
        retry: Retry | None = None,
        put_retry: Retry | None = None,
        metrics: Metrics | None = None,
        max_job_size: int = MAX_JOB_SIZE,
    ) -> None:
        name = client_id or f"{socket.gethostname()}:{os.getpid()}:{next(_numbers)}"
        super().__init__(Core(name, metrics or NoMetrics(), max_job_size), put_retry)
        self._store = store
        self._retry = retry or NO_RETRY
        self._max_job_size = max_job_size
        self._tubes: weakref.WeakValueDictionary[str, Tube] = weakref.WeakValueDictionary()
        self._opened = False

    # --- opening

    def __await__(self) -> Generator[Any, None, Conn]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Conn:
        """Connect, with as many tries as `retry` says.

        Raises:
            StoreUnusable: The store cannot be reached or used.
            ConnClosed: The connection was closed before this, or meanwhile.
        """
        if self._opened:
            raise ValueError("a connection is opened once")
        self._opened = True
        tries = 0
        while True:
            tries += 1
            try:
                await self._core.open(self._start)
            except StoreUnusable as error:
                if not self._retry.more(tries):
                    await self.close()
                    raise
                if tries % COMPLAIN_EVERY == 1:
                    logger.warning("%s: not connected after %d tries: %s", self.client_id, tries, error)
                await asyncio.sleep(self._retry.pause(tries))
            else:
                return self

    async def _start(self, broker: Broker, timers: Timers, turn: Callable[[], None]) -> TubeEngine:
        """Make the engine. Import only the store that is used."""
        if self._store is None or isinstance(self._store, str):
            from beanspiked.engine.embedded.start import start  # noqa: PLC0415 - see above

            loop = asyncio.get_running_loop()

            def soon(callback: Callable[[], None]) -> None:
                # If the loop is closed, no call waits for an outcome any more.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(callback)

            with forks.undisturbed():
                return start(_made(self._store), 0, timers, broker, turn, soon)
        from beanspiked.engine.aerospike.start import connect  # noqa: PLC0415 - likewise

        return await connect(self._store, timers, broker, turn, self._max_job_size)

    # --- tubes

    def use(self, name: str) -> Tube:
        """Return a tube. It exists while the program keeps the returned object or a job is in it.

        Raises:
            ValueError: The name is not 1 to 200 letters, digits and `-+/;.$_()`, or begins with `-` (protocol.txt).
        """
        self._core.check_usable()
        if not isinstance(name, str):
            raise TypeError(f"a tube's name is a str, not {name!r}")
        tube = self._tubes.get(name)
        if tube is None:
            if not valid_tube_name(name.encode("utf-8", "replace")):
                raise ValueError(f"not a tube's name: {name!r}")
            state = self._core.broker.engine.tube(name)
            state.using += 1
            tube = Tube(self, self._core, state)
            self._tubes[name] = tube
            weakref.finalize(tube, _let_go_soon, self._core, state).atexit = False
        return tube

    async def delete_tube(self, name: str) -> None:
        """Delete all jobs of a tube, reserved ones included. Their holders lose these jobs.

        A job whose change is on its way at that moment may stay.

        Raises:
            StoreFull, StoreFailed: Some jobs may be left.
        """
        # The tube stays until the deletion is over.
        tube = self.use(name)
        engine = self._core.broker.engine
        await self._core.done(engine.delete_tube(engine.tube(name)), "delete_tube", tube.name)

    async def serve(self, *addresses: str) -> Serving:
        """Let wire clients share the store's tubes; see `beanspiked.serve`."""
        self._core.check_open()
        from beanspiked.library.serving import start  # noqa: PLC0415 - most programs serve no wire clients

        return start(self._core, addresses)


def _let_go_soon(core: Core, state: EngineTube) -> None:
    """Stop using a tube that the program has dropped. Any thread may call this."""
    if core.closed or core.owner:
        return
    # If the loop is closed, nothing can use the tube any more.
    with contextlib.suppress(RuntimeError):
        core.loop.call_soon_threadsafe(_let_go, core, state)


def _let_go(core: Core, state: EngineTube) -> None:
    state.using -= 1
    if not core.closed:
        core.broker.engine.forget(state)


async def serve(conn: Conn, *addresses: str) -> Serving:
    """Serve beanstalkd's protocol on the tubes of a connection, so that any client can put and reserve there.

    Args:
        conn: An open connection to a store.
        addresses: The addresses to listen on: `host:port` (port 0 for any) or `unix:PATH`; 127.0.0.1:11300 by default.

    Raises:
        OSError: The server cannot listen on an address.
        ValueError: An address is malformed.
    """
    return await conn.serve(*addresses)


def _made(directory: str | None) -> str | None:
    """Return a journal's directory, or None for memory. Make the directory if it is missing."""
    if directory is not None:
        try:
            Path(directory).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(f"{directory}: {error.strerror}") from error
    return directory


def _store_of(url: str) -> StoreAddress | str | None:
    """Read a store's URL: a cluster, a journal's directory, or None for memory. Raises ValueError."""
    if not isinstance(url, str):
        raise TypeError(f"a store is named by a str, not {url!r}")
    if url == MEMORY:
        return None
    if url.startswith(SQLITE) and url != SQLITE:
        return url.removeprefix(SQLITE)
    from beanspiked.ops.url import SCHEME, parse_address  # noqa: PLC0415 - loaded where it is used

    if not url.startswith(SCHEME):
        raise ValueError("a store is memory:, sqlite:DIR or aerospike://HOST/NAMESPACE")
    return parse_address(url)

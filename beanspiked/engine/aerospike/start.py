"""Begins to serve the tubes of a cluster, also of one that cannot be reached yet."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.cluster.network import Sockets
from beanspiked.engine.aerospike.engine import SharedEngine
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.aerospike.calls import uptime
from beanspiked.engine.aerospike.store.aerospike.udf import ModuleMissing, module_directory
from beanspiked.engine.aerospike.store.seam import StoreError
from beanspiked.engine.errors import StoreFailed, StoreUnusable
from beanspiked.ops.health import inspect
from beanspiked.ops.url import AddressError, client_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from beanspiked.engine.aerospike.cluster.network import Network
    from beanspiked.engine.contract import ReadyListener
    from beanspiked.engine.timers import Timers
    from beanspiked.ops.health import inspect
from beanspiked.ops.url import StoreAddress

__all__ = ["connect", "start"]

logger = logging.getLogger(__name__)

# Between two tries to connect, in seconds.
CONNECT_EVERY: Final = 1.0
# How long a cluster that answers may take until there is a session, in seconds.
JOINED_WITHIN: Final = 5.0


def start(
    address: StoreAddress, timers: Timers, listener: ReadyListener, turn: Callable[[], None], max_job_size: int
) -> SharedEngine:
    """Make an engine that connects on its own, and goes on trying; needs a running event loop.

    Raises:
        StoreUnusable: Trying would be in vain: the client cannot be made here.
    """
    config = _config(address)
    store = AerospikeStore(None, address.namespace, address.prefix)
    engine = SharedEngine(timers, listener, store, turn, uptime, network=_network(address))
    logger.info("jobs live in %s", address)
    engine.tasks.spawn_lasting(_connect(store, config, address, max_job_size))
    engine.start()
    return engine


async def connect(
    address: StoreAddress, timers: Timers, listener: ReadyListener, turn: Callable[[], None], max_job_size: int
) -> SharedEngine:
    """Make an engine that is connected.

    Raises:
        StoreUnusable: The cluster cannot be reached, or is not fit.
    """
    store = AerospikeStore(None, address.namespace, address.prefix)
    try:
        await store.connect(_config(address), _inspection(address, max_job_size))
    except BaseException:
        await store.leave()
        raise
    engine = SharedEngine(timers, listener, store, turn, uptime, network=_network(address))
    engine.tasks.spawn_lasting(_prepare(store))
    engine.start()
    try:
        await engine.membership.have_session(JOINED_WITHIN)
    except BaseException as error:
        done = asyncio.get_running_loop().create_future()
        closed = engine.close()
        if closed is not None:
            closed.then(lambda _: None if done.done() else done.set_result(None))
            await done
        if isinstance(error, StoreFailed):
            raise StoreUnusable(f"no session: {error}") from error
        raise
    return engine


def _network(address: StoreAddress) -> Network:
    """Return what links to other front-ends are made with."""
    return Sockets([(host, port) for host, port, _ in address.hosts])


def _config(address: StoreAddress) -> dict[str, Any]:
    """Make the client's configuration. Raises StoreUnusable where something is missing on this machine."""
    try:
        # It is told at once if it is missing, whatever the nodes do.
        module_directory()
        return client_config(address)
    except (AddressError, ModuleMissing) as error:
        raise StoreUnusable(f"{address}: {error}") from error


def _inspection(address: StoreAddress, max_job_size: int) -> Callable[[Any], None]:
    """Return what inspects a cluster, however often: it logs each warning once, and raises StoreUnusable for an unfit one."""
    warned: set[str] = set()

    def look(client: Any) -> None:
        findings = inspect(client, address.namespace, max_job_size)
        for level, text in findings:
            if level == "warning" and text not in warned:
                warned.add(text)
                logger.warning("%s", text)
        faults = [text for level, text in findings if level == "error"]
        if faults:
            raise StoreUnusable("; ".join(faults))

    return look


async def _connect(store: AerospikeStore, config: Mapping[str, Any], address: StoreAddress, max_job_size: int) -> None:
    """Connect once the cluster can be reached and is fit, and make what is needed there."""
    inspection = _inspection(address, max_job_size)
    failed = partial(logger.error, "%s: %s; nothing is served until this is repaired", address)
    await _try_on(lambda: store.connect(config, inspection), failed)
    logger.info("connected to %s", address)
    await _prepare(store)


async def _prepare(store: AerospikeStore) -> None:
    """Make the index. It takes seconds, and only whoever looks for the leases of the dead needs it."""
    failed = partial(logger.warning, "the index that finds the leases of the dead cannot be made yet: %s")
    await _try_on(store.prepare, failed)


async def _try_on(attempt: Callable[[], Awaitable[None]], failed: Callable[[Exception], None]) -> None:
    """Try something every second until it succeeds; tell each reason for a failure once."""
    told: set[str] = set()
    while True:
        try:
            await attempt()
        except (StoreError, StoreUnusable) as error:
            if str(error) not in told:
                told.add(str(error))
                failed(error)
            await asyncio.sleep(CONNECT_EVERY)
        else:
            return

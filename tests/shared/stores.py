"""Connections of the library to stores of every kind."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

from memory import Cluster, MemoryStore, at_once

from beanspiked.engine.aerospike.engine import SharedEngine
from beanspiked.library.conn import Conn, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from beanspiked import Job, Tube
    from beanspiked.engine.contract import TubeEngine
    from beanspiked.engine.timers import Timers
    from beanspiked.server.broker import Broker

__all__ = ["SimulatedConn", "Stores", "reserved"]


class SimulatedConn(Conn):
    """A connection to a cluster in this process."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        super().__init__(None, **options)
        self._cluster = cluster
        self.transport: Any = at_once

    async def _start(self, broker: Broker, timers: Timers, turn: Callable[[], None]) -> TubeEngine:
        async def transport(name: str, operation: Callable[[], Any]) -> Any:
            # A cluster may take this long.
            await asyncio.sleep(0)
            return await self.transport(name, operation)

        store = MemoryStore(self._cluster, transport)
        engine = SharedEngine(timers, broker, store, turn, time.monotonic)
        engine.start()
        await engine.membership.have_session(2.0)
        return engine


class Stores:
    """Connections to one store.

    Attributes:
        name: The kind of the store.
        tube: The name of a tube that nobody has used.
        shared: Whether several connections may use it at once.
        url: The store's URL; only a simulated one has none.
    """

    def __init__(self, name: str, url: str, cluster: Cluster | None) -> None:
        self.name = name
        self.tube = f"tube-{uuid.uuid4().hex[:8]}"
        self.url = url
        self.shared = name in ("simulated", "aerospike")
        self.cluster = cluster

    def connect(self, **options: Any) -> Conn:
        if self.cluster is not None:
            return SimulatedConn(self.cluster, **options)
        return connect(self.url, **options)

    def run(self, check: Callable[[Conn], Awaitable[None]], **options: Any) -> None:
        """Run a check with a connection."""

        async def connected() -> None:
            async with self.connect(**options) as conn:
                await check(conn)

        asyncio.run(connected())


async def reserved(tube: Tube) -> Job:
    """Reserve a job that is ready or will soon be."""
    job = await tube.reserve(5)
    assert job is not None, "no job came within five seconds"
    return job

"""Every ability on every store: memory, a journal, the shared engine on its store in memory, and a real Aerospike where there is one."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asd import NAMESPACE, connected, forget

from beanspiked.engine.aerospike.engine import SharedEngine
from beanspiked.engine.aerospike.memory import Cluster, MemoryStore, at_once
from beanspiked.engine.aerospike.udf import module_directory
from beanspiked.library.conn import Conn, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from beanspiked.engine.contract import TubeEngine
    from beanspiked.engine.timers import Timers

STORES = ["memory", "sqlite", "simulated", "aerospike"]


class SimulatedConn(Conn):
    """A connection to a cluster in this process."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        super().__init__(None, **options)
        self._cluster = cluster
        self.transport: Any = at_once

    async def _start(self, timers: Timers) -> TubeEngine:
        async def transport(name: str, operation: Callable[[], Any]) -> Any:
            # As long as a cluster may take for it.
            await asyncio.sleep(0)
            return await self.transport(name, operation)

        store = MemoryStore(self._cluster, transport)
        engine = SharedEngine(timers, self.broker, store, self._now, time.monotonic)
        engine.start()
        await engine.membership.have_session(2.0)
        return engine


class Stores:
    """Connections to one store.

    Attributes:
        name: Which kind of store it is.
        tube: The name of a tube that nobody has used.
        shared: Whether several connections may use it at once.
        url: Where it is; only a simulated one has no URL.
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


@pytest.fixture(scope="session")
def prefix(address: tuple[str, int]) -> Iterator[str]:
    """What these tests keep on a real server: their tubes differ, so one index serves them all."""
    mine = f"l{uuid.uuid4().hex[:6]}_"
    yield mine
    client = connected(address, lua={"user_path": module_directory()})
    forget(client, mine)
    client.close()


@pytest.fixture(params=STORES)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    name = request.param
    if name == "memory":
        return Stores(name, "memory:", None)
    if name == "sqlite":
        return Stores(name, f"sqlite:{tmp_path / 'jobs'}", None)
    if name == "simulated":
        return Stores(name, "", Cluster(lambda: int(time.time() * 1000)))
    host, port = request.getfixturevalue("address")
    request.node.user_properties.append(("aerospike", request.getfixturevalue("build")))
    return Stores(name, f"aerospike://{host}:{port}/{NAMESPACE}?prefix={request.getfixturevalue('prefix')}", None)


@pytest.fixture(scope="session")
def build(address: tuple[str, int]) -> str:
    """The version of the real server."""
    client = connected(address, lua={"user_path": module_directory()})
    answer = str(next(iter(client.info_all("build").values()))[1]).strip()
    client.close()
    return answer

"""What a node brings back that is killed and starts cold: bodies that were removed. They are found and removed again."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from asd import NAMESPACE, NO_SERVER, Node, connected

import beanspiked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = """
    replication-factor 1
    nsup-period 0
    default-ttl 0
    storage-engine device {{
        file {work}/data
        filesize 256M
        flush-max-ms 100
        post-write-cache 64M
    }}"""
# More than the longest time that what is written stays in the node's memory.
WRITTEN_S = 1.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    asd = shutil.which("asd")
    if asd is None:
        pytest.skip(NO_SERVER)
    node = Node(asd, tmp_path, SETTINGS.format(work=tmp_path))
    yield node
    node.kill()


def bodies(client: Any) -> int:
    return len(client.query(NAMESPACE, "bsd_body").results())


@pytest.mark.slow
@pytest.mark.real
def test_bodies_that_a_cold_restart_brings_back_are_removed_and_those_of_jobs_are_not(node: Node) -> None:
    host, port = node.address
    url = f"aerospike://{host}:{port}/{NAMESPACE}"
    body = random.Random(1).randbytes(5000)

    async def use() -> int:
        async with beanspiked.connect(url) as conn:
            tube = conn.use("tube")
            ids = [await tube.put(body) for _ in range(10)]
            await asyncio.sleep(WRITTEN_S)
            assert all([await conn.delete(job_id) for job_id in ids[1:]])
            return ids[0]

    async def look(kept: int) -> None:
        async with beanspiked.connect(url, retry=beanspiked.Retry(attempts=20)) as conn:
            engine: Any = conn._core.broker.engine
            engine.leftovers.old_ms = 1
            # Until then the session of before is among the others.
            until = time.monotonic() + 20
            while bodies(client) > 1 and time.monotonic() < until:
                await asyncio.sleep(0.5)
                await engine.leftovers.look_through()
            info = await conn.peek(kept)
            assert info is not None
            assert info.body == body

    client = connected(node.address)
    kept = asyncio.run(use())
    time.sleep(WRITTEN_S)
    assert bodies(client) == 1
    client.close()
    node.kill()
    node.start()
    client = connected(node.address)
    assert bodies(client) == 10
    asyncio.run(look(kept))
    assert bodies(client) == 1
    client.close()

"""The stores under test: one in memory, and a real Aerospike server where there is one.

Where the real one is, tests/conftest.py says.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asd import note_build
from memory import Cluster, MemoryStore
from summed import Segments

from beanspiked.ops.check import main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from beanspiked.engine.aerospike.store.contract import SegmentStore


@pytest.fixture(scope="session")
def client(aerospike_client: Any) -> Any:
    return aerospike_client


@pytest.fixture(scope="session")
def prepared(client: Any) -> Iterator[tuple[SegmentStore, list[str]]]:
    """A store on the real server with its index, and the names of its sets."""
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

    # Sets of its own, so that runs share a namespace with each other and with anything else. They are the same for all tests, and
    # emptied after each: a namespace has room for a limited number of them, and they never go.
    prefix = f"t{uuid.uuid4().hex[:6]}_"
    store = AerospikeStore(client, "test", prefix)
    # As in memory.
    store.rings["page"] = store.rings["segment"]
    for _ in range(2):
        asyncio.run(store.prepare())
    yield store, [prefix + name for name in ("seg", "dir", "page", "ctl", "ses", "news", "body")]
    store.caller.close()
    client.index_remove("test", f"{prefix}held")


@pytest.fixture
def real(
    prepared: tuple[SegmentStore, list[str]], client: Any, request: pytest.FixtureRequest
) -> Iterator[SegmentStore]:
    """An empty store on the real server."""
    store, sets = prepared
    note_build(client, request)
    yield store
    for name in sets:
        for key, _, _ in client.query("test", name).results():
            client.remove(key)
    inside: Any = store
    inside._slots, inside._joined = {}, (0, 0)
    # It was removed, too.
    store._salt = b""


@pytest.fixture(params=["memory", "aerospike"])
def store(request: pytest.FixtureRequest) -> SegmentStore:
    """An empty store."""
    if request.param == "memory":
        return MemoryStore(Cluster(lambda: int(time.time() * 1000)))
    store: SegmentStore = request.getfixturevalue("real")
    return store


class Output:
    """What the command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.lines = out.splitlines()
        self.err = err

    def levels(self) -> set[str]:
        return {line.partition(": ")[0] for line in self.lines}


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command."""

    def run(*words: str) -> Output:
        code = main(words)
        return Output(code, *capsys.readouterr())

    return run


@pytest.fixture
def segments(client: Any, request: pytest.FixtureRequest) -> Segments:
    note_build(client, request)
    return Segments(client)

"""Every ability on every store: memory, a journal, the shared engine on its store in memory, and a real Aerospike where there is one."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asd import NAMESPACE, forget, note_build
from memory import Cluster
from stores import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORES = ["memory", "sqlite", "simulated", "aerospike"]


@pytest.fixture(scope="session")
def prefix(aerospike_client: Any) -> Iterator[str]:
    """What these tests keep on a real server: their tubes differ, so one index serves them all."""
    mine = f"l{uuid.uuid4().hex[:6]}_"
    yield mine
    forget(aerospike_client, mine)


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
    note_build(request.getfixturevalue("aerospike_client"), request)
    return Stores(name, f"aerospike://{host}:{port}/{NAMESPACE}?prefix={request.getfixturevalue('prefix')}", None)

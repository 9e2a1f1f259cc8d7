"""The stores under test: one in memory, and a real Aerospike server where there is one.

`BEANSPIKED_TEST_AEROSPIKE=host:port` names a server with a namespace `test`; else an `asd` on the PATH is started on loopback; else the
tests on it are skipped, which one line says.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ports import free_port

from beanspiked.engine.aerospike.memory import Cluster, MemoryStore
from beanspiked.engine.aerospike.udf import module_directory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from beanspiked.engine.aerospike.store import SegmentStore

CONFIG = """
service {{
    run-as-daemon false
    cluster-name beanspiked-test
    work-directory {work}
    pidfile {work}/pid
    proto-fd-max 1024
}}
logging {{
    console {{
        context any warning
    }}
}}
mod-lua {{
    user-path {work}/udf
}}
network {{
    service {{
        address 127.0.0.1
        access-address 127.0.0.1
        port {ports[0]}
    }}
    fabric {{
        address 127.0.0.1
        port {ports[1]}
    }}
    heartbeat {{
        mode mesh
        address 127.0.0.1
        port {ports[2]}
        interval 150
        timeout 10
    }}
    admin {{
        address 127.0.0.1
        port {ports[3]}
    }}
}}
namespace test {{
    replication-factor 1
    conflict-resolution-policy last-update-time
    transaction-pending-limit 0
    index-stage-size 128M
    storage-engine memory {{
        data-size 512M
    }}
}}
"""

NO_SERVER = "no Aerospike server: neither BEANSPIKED_TEST_AEROSPIKE nor an asd on the PATH"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where a real server listens."""
    named = os.environ.get("BEANSPIKED_TEST_AEROSPIKE")
    asd = shutil.which("asd")
    if named:
        host, _, port = named.rpartition(":")
        yield host, int(port)
    elif asd is None:
        pytest.skip(NO_SERVER)
    else:
        work = tmp_path_factory.mktemp("asd")
        for folder in ("smd", "udf"):
            (work / folder).mkdir()
        ports = [free_port() for _ in range(4)]
        (work / "conf").write_text(CONFIG.format(work=work, ports=ports))
        with (work / "log").open("wb") as log:
            server = subprocess.Popen(
                [asd, "--foreground", "--config-file", str(work / "conf")], stdout=log, stderr=log
            )
        try:
            yield "127.0.0.1", ports[0]
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="session")
def client(address: tuple[str, int]) -> Iterator[Any]:
    """A client of the real server."""
    import aerospike
    from aerospike.exception import AerospikeError

    deadline = time.monotonic() + 30
    while True:
        try:
            client = aerospike.client({"hosts": [address], "lua": {"user_path": module_directory()}}).connect()
            client.put(("test", "probe", 1), {"a": 1})
            break
        except AerospikeError as error:
            if time.monotonic() > deadline:
                pytest.fail(f"the Aerospike server at {address} does not answer: {error}")
            time.sleep(0.2)
    yield client
    client.close()


@pytest.fixture(scope="session")
def prepared(client: Any) -> Iterator[tuple[SegmentStore, list[str]]]:
    """A store on the real server with its index, and the names of its sets."""
    from beanspiked.engine.aerospike.adapter import AerospikeStore

    # Sets of its own, so that runs share a namespace with each other and with anything else. They are the same for all tests, and
    # emptied after each: a namespace has room for a limited number of them, and they never go.
    prefix = f"t{uuid.uuid4().hex[:6]}_"
    store = AerospikeStore(client, "test", prefix)
    for _ in range(2):
        asyncio.run(store.prepare())
    yield store, [prefix + name for name in ("seg", "dir", "ctl", "ses", "news", "body")]
    store.close_pool()
    client.index_remove("test", f"{prefix}held")


@pytest.fixture
def real(
    prepared: tuple[SegmentStore, list[str]], client: Any, request: pytest.FixtureRequest
) -> Iterator[SegmentStore]:
    """An empty store on the real server."""
    store, sets = prepared
    build = str(next(iter(client.info_all("build").values()))[1]).strip()
    request.node.user_properties.append(("aerospike", build))
    yield store
    for name in sets:
        for key, _, _ in client.query("test", name).results():
            client.remove(key)


@pytest.fixture(params=["memory", "aerospike"])
def store(request: pytest.FixtureRequest) -> SegmentStore:
    """An empty store."""
    if request.param == "memory":
        return MemoryStore(Cluster(lambda: int(time.time() * 1000)))
    store: SegmentStore = request.getfixturevalue("real")
    return store


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let all tests that a missing server skips be told of in one line."""
    report = yield
    if report.skipped and NO_SERVER in str(report.longrepr):
        report.longrepr = (str(Path(__file__)), 1, f"Skipped: {NO_SERVER}")
    return report

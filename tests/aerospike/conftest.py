"""The stores under test: one in memory, and a real Aerospike server where there is one.

`BEANSPIKED_TEST_AEROSPIKE=host:port` names a server with a namespace `test`; else an `asd` on the PATH is started on loopback; else the
tests on it are skipped, which one line says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.memory import Cluster, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from beanspiked.engine.aerospike.store import SegmentStore

CONFIG = """
service {{ run-as-daemon false  cluster-name beanspiked-test  work-directory {work}  pidfile {work}/pid  proto-fd-max 1000 }}
logging {{ console {{ context any warning }} }}
network {{
    service {{ address 127.0.0.1  access-address 127.0.0.1  port {ports[0]} }}
    fabric {{ address 127.0.0.1  port {ports[1]} }}
    heartbeat {{ mode mesh  address 127.0.0.1  port {ports[2]}  interval 150  timeout 10 }}
    admin {{ address 127.0.0.1  port {ports[3]} }}
}}
namespace test {{
    replication-factor 1
    conflict-resolution-policy last-update-time
    transaction-pending-limit 0
    storage-engine memory {{ data-size 512M }}
}}
"""

ran_on: dict[str, int] = {}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where a real server listens."""
    named = os.environ.get("BEANSPIKED_TEST_AEROSPIKE")
    asd = shutil.which("asd")
    if named:
        host, _, port = named.rpartition(":")
        yield host, int(port)
    elif asd is None:
        pytest.skip("no Aerospike server: neither BEANSPIKED_TEST_AEROSPIKE nor an asd on the PATH")
    else:
        work = tmp_path_factory.mktemp("asd")
        for folder in ("smd", "udf"):
            (work / folder).mkdir()
        ports = free_ports(4)
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
    import aerospike  # noqa: PLC0415 - not needed where there is no server
    from aerospike.exception import AerospikeError  # noqa: PLC0415 - likewise

    deadline = time.monotonic() + 30
    while True:
        try:
            client = aerospike.client({"hosts": [address]}).connect()
            client.put(("test", "probe", 1), {"a": 1})
            break
        except AerospikeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    version = str(next(iter(client.info_all("build").values()))[1]).strip()
    ran_on.setdefault(version, 0)
    yield client
    client.close()


@pytest.fixture(params=["memory", "aerospike"])
def store(request: pytest.FixtureRequest) -> Iterator[SegmentStore]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryStore(Cluster(lambda: int(time.time() * 1000)))
        return
    client = request.getfixturevalue("client")
    from beanspiked.engine.aerospike.adapter import AerospikeStore  # noqa: PLC0415 - not needed where there is no server

    # Sets of its own, so that runs share a namespace with each other and with anything else.
    store = AerospikeStore(client, "test", f"t{uuid.uuid4().hex[:6]}_")
    for version in ran_on:
        ran_on[version] += 1
    yield store
    store.close_pool()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for version, count in ran_on.items():
        terminalreporter.write_line(f"Aerospike {version} at {Path(__file__).parent.name}: {count} tests ran on it")

"""`beanspiked check` on a cluster with the configuration in deploy/."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aerospike.exception import AerospikeError
from asd import note_build
from launcher import free_port

from beanspiked.engine.aerospike.segment.codec import COUNTERS_SIZE, HEAD_SIZE, INLINE_MAX
from beanspiked.engine.aerospike.segment.view import BYTES_MAX, JOBS_MAX
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.aerospike.client import connect
from beanspiked.engine.aerospike.store.aerospike.pace import Pace
from beanspiked.engine.aerospike.store.aerospike.room import has_room
from beanspiked.engine.aerospike.store.aerospike.udf import module_directory
from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import READY, Busy, Change
from beanspiked.engine.errors import StoreUnusable
from beanspiked.ops.health import BODY_EXTRA, SEGMENT_BYTES, Finding, inspect

if TYPE_CHECKING:
    from collections.abc import Iterator


CONF = Path(__file__).parent.parent.parent / "deploy" / "aerospike" / "aerospike.conf"

NODES = ("aerospike-1", "aerospike-2", "aerospike-3")

# One worker starts the cluster, and only once.
pytestmark = pytest.mark.xdist_group("aerospike-cluster")


class Cluster:
    """Nodes with the configuration in deploy/, but for addresses and paths."""

    def __init__(self, asd: str, folder: Path) -> None:
        self.ports = {name: [free_port() for _ in range(4)] for name in NODES}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        for number, name in enumerate(NODES, 1):
            work = folder / name
            for part in ("smd", "udf", "data"):
                (work / part).mkdir(parents=True)
            (work / "conf").write_text(self._adapted(CONF.read_text(), name, number, work))
            with (work / "log").open("wb") as log:
                command = [asd, "--foreground", "--config-file", str(work / "conf")]
                self.nodes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _adapted(self, conf: str, name: str, number: int, work: Path) -> str:
        """Let three nodes live on one machine, on loopback only, and with little room."""
        own = dict(zip(("3000", "3001", "3002", "3003"), self.ports[name], strict=True))
        here = f"run-as-daemon false\n    node-id a{number}\n    work-directory {work}\n    pidfile {work}/pid"
        conf = conf.replace("service {", f"service {{\n    {here}", 1)
        conf = conf.replace("\nlogging {", f"\nmod-lua {{\n    user-path {work}/udf\n}}\n\nlogging {{")
        conf = conf.replace("address any", "address 127.0.0.1").replace("proto-fd-max 15000", "proto-fd-max 1024")
        conf = conf.replace("/opt/aerospike/data", f"{work}/data").replace("filesize 4G", "filesize 1G")
        # A node does not tell others an address on loopback of itself.
        conf = conf.replace("port 3000", "access-address 127.0.0.1\n        port 3000")
        conf = re.sub(r"\bport (300\d)\b", lambda found: f"port {own[found[1]]}", conf)
        return re.sub(
            r"address-port (\S+) 3002", lambda found: f"address-port 127.0.0.1 {self.ports[found[1]][2]}", conf
        )

    @property
    def names(self) -> list[str]:
        """The nodes, as findings name them."""
        return [f"127.0.0.1:{self.ports[name][0]}" for name in NODES]

    def stop(self) -> None:
        for node in self.nodes.values():
            node.terminate()
        for node in self.nodes.values():
            node.wait(30)

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Let a node fall silent with its connections open."""
        self.nodes[name].send_signal(signal.SIGSTOP)
        # Its threads stop one after the other.
        os.waitpid(self.nodes[name].pid, os.WUNTRACED)
        try:
            yield
        finally:
            self.nodes[name].send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, address: tuple[str, int]) -> Iterator[Cluster]:  # noqa: ARG001
    """Three nodes; an own cluster, because tests change its settings. Without any server, `address` has skipped already."""
    asd = shutil.which("asd")
    if asd is None:
        pytest.skip("a cluster of its own needs an asd on the PATH")
    folder = tmp_path_factory.mktemp("cluster")
    try:
        os.close(os.open(folder / "probe", os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip(f"{folder} is on a file system without direct access, which the configuration asks for")
    cluster = Cluster(asd, folder)
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster_client(cluster: Cluster) -> Iterator[Any]:
    """A client of the cluster."""
    config = {
        "hosts": [("127.0.0.1", ports[0]) for ports in cluster.ports.values()],
        "tend_interval": 250,
        # Which directory of modules the process has, its first client decides.
        "lua": {"user_path": module_directory()},
    }
    deadline = time.monotonic() + 60
    while True:
        try:
            client = connect(config)
            break
        except StoreUnusable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    yield client
    client.close()


@pytest.fixture
def clustered(cluster_client: Any, request: pytest.FixtureRequest) -> Any:
    """A client of the cluster, when this has all its nodes."""
    deadline = time.monotonic() + 60
    while True:
        sizes = []
        with contextlib.suppress(AerospikeError):
            answers = cluster_client.info_all("statistics").values()
            sizes = [re.findall(r"\bcluster_size=(\d+)", answer) for _, answer in answers]
        if sizes == [["3"]] * 3:
            note_build(cluster_client, request)
            return cluster_client
        assert time.monotonic() < deadline, sizes
        time.sleep(0.1)


# All nodes have to agree to a truncation, which may take longer than the second that the client waits.
PATIENTLY = {"timeout": 20_000}


def setting(client: Any, name: str, value: str) -> None:
    for _, answer in client.info_all(f"set-config:context=namespace;namespace=beanspike;{name}={value}").values():
        assert answer.strip().lower() == "ok"


@pytest.mark.usefixtures("clustered")
def test_the_configuration_in_deploy_leaves_nothing_to_warn_of(check: Any, cluster: Cluster) -> None:
    output = check(f"aerospike://{','.join(cluster.names)}/beanspike")
    assert (output.code, output.levels()) == (0, {"ok"}), output.lines
    assert "ok: cluster of 3" in output.lines
    assert "ok: replication-factor 2" in output.lines


def test_has_room_follows_the_servers_limits(cluster: Cluster, clustered: Any) -> None:
    enough, _ = has_room(clustered, "beanspike")
    assert enough
    setting(clustered, "stop-writes-avail-pct", "100")
    try:
        enough, why = has_room(clustered, "beanspike")
    finally:
        setting(clustered, "stop-writes-avail-pct", "5")
    assert not enough
    assert all(name in why for name in cluster.names)
    assert "free to write" in why


def test_a_namespace_that_no_node_has_has_no_room(clustered: Any) -> None:
    assert has_room(clustered, "nope") == (False, "no node has the namespace")


def test_settings_that_can_lose_jobs_are_warned_of(clustered: Any) -> None:
    setting(clustered, "conflict-resolution-policy", "generation")
    setting(clustered, "transaction-pending-limit", "3")
    try:
        findings = inspect(clustered, "beanspike", 65535)
    finally:
        setting(clustered, "conflict-resolution-policy", "last-update-time")
        setting(clustered, "transaction-pending-limit", "0")
    warnings = [text for level, text in findings if level == "warning"]
    assert [text.partition(":")[0] for text in warnings] == [
        "conflict-resolution-policy generation",
        "transaction-pending-limit 3",
    ]


def test_a_node_that_is_silent_is_an_error_and_takes_nobody_elses_room(cluster: Cluster, clustered: Any) -> None:
    with cluster.frozen("aerospike-2"):
        findings = inspect(clustered, "beanspike", 65535)
        enough, _ = has_room(clustered, "beanspike")
    errors = [text for level, text in findings if level == "error"]
    assert len(errors) == 1
    assert errors[0].startswith(f"{cluster.names[1]} does not answer: ")
    assert enough
    assert Finding("ok", "namespace beanspike") in findings


def test_when_no_node_answers_nobody_knows_of_room(cluster: Cluster, clustered: Any) -> None:
    with (
        cluster.frozen("aerospike-1"),
        cluster.frozen("aerospike-2"),
        cluster.frozen("aerospike-3"),
        pytest.raises(Busy, match="does not answer"),
    ):
        has_room(clustered, "beanspike")


@pytest.mark.parametrize(
    ("jobs", "size"),
    [(JOBS_MAX, BYTES_MAX // JOBS_MAX), (BYTES_MAX // (HEAD_SIZE + INLINE_MAX), HEAD_SIZE + INLINE_MAX)],
)
def test_a_record_that_is_called_large_enough_holds_a_full_segment(
    clustered: Any, jobs: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such changes take longer than the event loop waits.
    monkeypatch.setattr(Pace, "quick", lambda _: False)
    store = AerospikeStore(clustered, "beanspike", "full_")
    leases = [lease_key(session, 1) for session in range(1, 65)]

    async def fill() -> None:
        await store.create(1, "t" * 200, leases[0])
        for lease in leases[1:]:
            await store.apply(1, lease, Change(attach=True))
        for first in range(0, jobs, 512):
            slots = range(first, min(first + 512, jobs))
            # Reserved once, each job has counters.
            puts = {ready_key(2**32 - 1, 2**51, slot): b"x" * (size + COUNTERS_SIZE) for slot in slots}
            await store.apply(1, leases[0], Change(last_slot=slots[-1], puts={READY: puts}))
        for number in range(jobs // 16):
            await store.apply(1, leases[number % 64], Change(take=16))

    setting(clustered, "max-record-size", str(SEGMENT_BYTES))
    try:
        assert Finding("ok", f"max-record-size {SEGMENT_BYTES}, for jobs of up to 65535 bytes") in inspect(
            clustered, "beanspike", 65535
        )
        asyncio.run(fill())
        asyncio.run(store.write_body(1, 1, b"x" * (SEGMENT_BYTES - BODY_EXTRA)))
    finally:
        setting(clustered, "max-record-size", "1M")
        store.caller.close()
        clustered.truncate("beanspike", "full_seg", 0, PATIENTLY)
        clustered.truncate("beanspike", "full_body", 0, PATIENTLY)

"""`beanspiked check` on real servers: a single one, and a cluster with the configuration in deploy/."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aerospike.exception import AerospikeError
from launcher import free_port

from beanspiked.engine.aerospike import start as starting
from beanspiked.engine.aerospike.segment.codec import COUNTERS_SIZE, HEAD_SIZE, INLINE_MAX
from beanspiked.engine.aerospike.segment.view import BYTES_MAX, JOBS_MAX
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.aerospike.client import LEARNT, connect, reasons
from beanspiked.engine.aerospike.store.aerospike.pace import Pace
from beanspiked.engine.aerospike.store.aerospike.room import has_room
from beanspiked.engine.aerospike.store.aerospike.udf import module_directory
from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import READY, Busy, Change
from beanspiked.engine.errors import StoreUnusable
from beanspiked.engine.timers import Timers
from beanspiked.ops.check import main
from beanspiked.ops.health import BODY_EXTRA, SEGMENT_BYTES, Finding, inspect
from beanspiked.ops.url import StoreAddress, parse_address
from beanspiked.places import host_port
from beanspiked.server.broker import Broker
from beanspiked.server.clock import MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Iterator

CONF = Path(__file__).parent.parent.parent / "deploy" / "aerospike" / "aerospike.conf"
NODES = ("aerospike-1", "aerospike-2", "aerospike-3")

# One worker starts the cluster, and only once.
pytestmark = pytest.mark.xdist_group("aerospike-cluster")


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


def note_build(client: Any, request: pytest.FixtureRequest) -> None:
    """Let the summary say which server the test ran on."""
    build = str(next(iter(client.info_all("build").values()))[1]).strip()
    request.node.user_properties.append(("aerospike", build))


# --- one server


@pytest.fixture
def server(client: Any, address: tuple[str, int], request: pytest.FixtureRequest) -> str:
    """Where a server is that answers."""
    note_build(client, request)
    return host_port(*address)


def test_a_server_that_can_keep_jobs_is_found_fit(check: Any, server: str) -> None:
    output = check(f"aerospike://{server}/test")
    assert output.code == 0
    assert output.levels() <= {"ok", "warning"}
    assert "ok: namespace test" in output.lines


def test_a_missing_namespace_is_an_error_that_names_those_that_exist(check: Any, server: str) -> None:
    output = check(f"aerospike://{server}/nope")
    assert output.code == 1
    (error,) = [line for line in output.lines if line.startswith("error: ")]
    assert re.fullmatch(r"error: namespace nope is missing; the cluster has (\S+, )*test(, \S+)*", error)


def test_jobs_that_no_record_can_hold_are_an_error(check: Any, server: str) -> None:
    output = check("-z", "10000000", f"aerospike://{server}/test")
    assert output.code == 1
    assert any(line.startswith("error: jobs of up to 10000000 bytes do not fit") for line in output.lines)


def test_without_a_url_the_environment_says_which_cluster(
    check: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEROSPIKE_PORT", f"tcp://{server}")
    monkeypatch.setenv("AEROSPIKE_NAMESPACE", "test")
    monkeypatch.setenv("BEANSPIKED_MAX_JOB_SIZE", "10000000")
    assert any("jobs of up to 10000000 bytes" in line for line in check().lines)
    monkeypatch.setenv("BEANSPIKED_STORE", f"aerospike://{server}/nope")
    assert any("namespace nope is missing" in line for line in check().lines)


def test_a_login_that_the_server_does_not_know_is_explained(check: Any, client: Any, server: str) -> None:
    if not any("Community" in answer for _, answer in client.info_all("edition").values()):
        pytest.skip("the server may have users: it is no Community Edition")
    output = check(f"aerospike://user:secret@{server}/test")
    assert output.code == 1
    (line,) = output.lines
    assert line.startswith(f"error: cannot connect to {server}: knows no users")


@pytest.mark.parametrize("dead", ["127.0.0.1:{port}", "nohost.invalid:3000"])
def test_one_host_that_answers_is_enough(check: Any, server: str, dead: str) -> None:
    other = dead.format(port=free_port())
    for hosts in (f"{server},{other}", f"{other},{server}", f"{other},{server},{other}"):
        output = check(f"aerospike://{hosts}/test")
        assert output.code == 0
        assert "ok: namespace test" in output.lines


# --- no server


def test_where_nothing_listens_one_line_says_so(check: Any) -> None:
    first, second = free_port(), free_port()
    output = check(f"aerospike://127.0.0.1:{first},127.0.0.1:{second}/test")
    assert output.code == 1
    assert output.lines == [
        f"error: cannot connect to 127.0.0.1:{first}: connection refused; 127.0.0.1:{second}: connection refused"
    ]


def test_each_host_is_told_with_its_own_reason(check: Any) -> None:
    port = free_port()
    assert check(f"aerospike://nohost.invalid,127.0.0.1:{port}/test").lines == [
        f"error: cannot connect to nohost.invalid:3000: no such host; 127.0.0.1:{port}: connection refused"
    ]


def test_a_host_that_does_not_answer_is_not_waited_for(check: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        output = check(f"aerospike://127.0.0.1:{port}/test")
    assert time.monotonic() - started < 5
    assert output.code == 1
    assert output.lines == [f"error: cannot connect to 127.0.0.1:{port}: does not answer"]


# As the client logs them, 19.3.
REFUSED = "Failed to connect to seed ::1 3000. AEROSPIKE_ERR_CONNECTION Socket write error: 111, [::1]:3000"
LOGIN = "Failed to connect to seed db1 3000. AEROSPIKE_ERR_CONNECTION Socket write error: 111 from 10.0.0.1:3000"
UNKNOWN = "Failed to lookup db1 3000. AEROSPIKE_ERR_INVALID_HOST Invalid hostname db1: Name or service not known"
ALONE = "Failed to connect to seed db1 3000. AEROSPIKE_ERR_CLIENT Node B1 10.0.0.1:3000 is not yet fully initialized"
TLS = "Failed to connect to seed db1 3000. AEROSPIKE_ERR_CONNECTION Socket connect failed: 10.0.0.1:3000"
UNTRUSTED = "SSL_connect failed: error:0A000086:SSL routines::certificate verify failed"
MISNAMED = "TLS name 'db1' mismatch"
PEER = "Failed to connect to peer 192.0.2.2 3000. AEROSPIKE_ERR_CONNECTION Socket write error: 111, 192.0.2.2:3000"
OTHER = "Failed to refresh seed node peers db1 3000. AEROSPIKE_ERR_CLIENT Invalid peers"


@pytest.mark.parametrize(
    ("logged", "plain"),
    [
        ([REFUSED, UNKNOWN], ["[::1]:3000: connection refused", "db1:3000: no such host"]),
        ([ALONE], ["db1:3000: is in no cluster yet: it is starting, or sees fewer nodes than its min-cluster-size"]),
        ([LOGIN], ["db1:3000: connection refused"]),
        (
            [UNTRUSTED, TLS],
            ["db1:3000: has a certificate from no authority known here: name yours in SSL_CERT_FILE"],
        ),
        (
            [MISNAMED, UNTRUSTED, TLS],
            ["db1:3000: has a certificate with another name: tls=NAME in the URL says which one to expect"],
        ),
        (
            [PEER],
            [f"192.0.2.2:3000: connection refused ({LEARNT.format('db1:3000')})"],
        ),
        ([OTHER], ["db1:3000: AEROSPIKE_ERR_CLIENT Invalid peers"]),
        ([], []),
    ],
)
def test_what_the_client_logs_is_told_in_plain_words(logged: list[str], plain: list[str]) -> None:
    assert list(reasons(logged, ["[::1]:3000", "db1:3000"], "db1:3000")) == plain


def test_only_an_address_that_nobody_named_is_said_to_be_learnt() -> None:
    assert list(reasons([PEER], ["192.0.2.2:3000", "db1:3000"], "db1:3000")) == ["192.0.2.2:3000: connection refused"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["aerospike://db1"], "the namespace is missing"),
        (["sqlite:jobs"], "must be aerospike://"),
        (["aerospike://a/n", "aerospike://b/n"], "unknown argument: aerospike://b/n"),
        (["-q"], "-q"),
        (["-z", "many", "aerospike://a/n"], "must be a number"),
        ([], "AEROSPIKE_HOST"),
    ],
)
def test_what_cannot_be_understood_ends_with_beanstalkds_exit_code(check: Any, words: list[str], said: str) -> None:
    output = check(*words)
    assert output.code == 5
    assert output.lines == []
    assert said in output.err.splitlines()[0]
    assert output.err.splitlines()[1:] == ["beanspiked check -h for help"]


def test_what_kubernetes_sets_for_a_service_is_told_to_name_no_cluster(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEROSPIKE_PORT", "tcp://10.0.0.1:3000")
    monkeypatch.setenv("AEROSPIKE_SERVICE_HOST", "10.0.0.1")
    output = check()
    assert output.code == 5
    assert "Kubernetes" in output.err.splitlines()[0]


def test_a_malformed_variable_is_named(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEANSPIKED_STORE", "sqlite:jobs")
    output = check()
    assert output.code == 5
    assert output.err.startswith("beanspiked: BEANSPIKED_STORE ")


@pytest.mark.parametrize(
    ("store", "kind"), [("memory:", "memory"), ("sqlite:jobs", "sqlite"), ("redis://u:secret@a", "redis")]
)
def test_a_store_of_another_kind_is_told_what_the_command_is_for(
    check: Any, monkeypatch: pytest.MonkeyPatch, store: str, kind: str
) -> None:
    monkeypatch.setenv("BEANSPIKED_STORE", store)
    said = check().err.splitlines()[0]
    assert said.startswith(f"beanspiked: BEANSPIKED_STORE is a {kind}: store, but this command needs aerospike://")
    assert "secret" not in said


def test_help_is_printed(check: Any) -> None:
    output = check("--help")
    assert output.code == 0
    assert output.lines[0].startswith("Usage: beanspiked check")


# --- a cluster


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
            await store.attach(1, lease)
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


# --- a front-end


def parts() -> tuple[Timers, Broker]:
    """What an engine is made with."""
    timers = Timers(MonotonicClock())
    return timers, Broker(timers, 65535, "", False)


async def told(address: StoreAddress, max_job_size: int, caplog: pytest.LogCaptureFixture) -> str:
    """What a front-end says that cannot begin to serve."""
    engine = starting.start(address, *parts(), lambda: None, max_job_size)
    for _ in range(500):
        if any(record.levelno == logging.ERROR for record in caplog.records):
            break
        await asyncio.sleep(0.01)
    closed = engine.close()
    if closed is not None:
        ended = asyncio.Event()
        closed.then(lambda _: ended.set())
        await ended.wait()
    return caplog.text


def test_a_front_end_whose_jobs_do_not_fit_says_that_it_serves_nothing(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = parse_address(f"aerospike://{server}/test")
    said = asyncio.run(told(address, 2_000_000, caplog))
    assert "raise it, or lower max-job-size (-z); nothing is served until this is repaired" in said


@pytest.mark.parametrize("begin", [starting.start, starting.connect])
def test_without_what_the_client_needs_nobody_tries_to_connect(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")

    async def run() -> None:
        made = begin(parse_address("aerospike://db1/jobs?tls=true"), *parts(), lambda: None, 1)
        if asyncio.iscoroutine(made):
            await made

    with pytest.raises(StoreUnusable, match="certificate authorities"):
        asyncio.run(run())

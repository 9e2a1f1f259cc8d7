"""`beanspiked check` on a server, on none, and what it says of words and errors."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from typing import Any

import pytest
from asd import note_build
from launcher import free_port

from beanspiked.engine.aerospike import start as starting
from beanspiked.engine.aerospike.store.aerospike.client import LEARNT, reasons
from beanspiked.engine.errors import StoreUnusable
from beanspiked.engine.timers import Timers
from beanspiked.ops.url import StoreAddress, parse_address
from beanspiked.places import host_port
from beanspiked.server.broker import Broker
from beanspiked.server.clock import MonotonicClock

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

NOBODY = "SSL_connect I/O error: 111"

RESET = "SSL_connect I/O error: 104"

PLAIN = "SSL_connect failed: error:0A00010B:SSL routines::wrong version number"

SILENT = "wait_readable failed: 1"

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
        ([NOBODY, TLS], ["db1:3000: connection refused"]),
        ([RESET, TLS], ["db1:3000: does not speak TLS"]),
        ([PLAIN, TLS], ["db1:3000: does not speak TLS"]),
        ([SILENT, TLS], ["db1:3000: does not answer"]),
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

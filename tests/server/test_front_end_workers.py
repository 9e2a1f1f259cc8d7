"""`--workers`: several front-ends of a real Aerospike server behind one address, as one server."""

from __future__ import annotations

import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asd import NAMESPACE, connected, forget
from lab.client import Client, put
from lab.process import Server, Servers, free_port, server_command, until
from suite import conformance

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

# Becomes the server, with a socket as descriptor 3, as systemd would start it.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
# How long jobs of a worker that died may be held, in seconds, and more on a busy machine.
BACK_WITHIN = 30.0


@pytest.fixture
def store(address: tuple[str, int]) -> Iterator[str]:
    """The URL of a store that nobody else uses."""
    prefix = f"w{uuid.uuid4().hex[:6]}_"
    yield f"aerospike://{address[0]}:{address[1]}/{NAMESPACE}?prefix={prefix}"
    client = connected(address)
    forget(client, prefix)
    client.close()


@pytest.fixture
def two(servers: Servers, store: str) -> Server:
    """A server with two workers."""
    return servers.start("--store", store, "--workers", "2")


def workers_of(server: Server) -> list[int]:
    """List the processes of its workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def connected_to(server: Server) -> Client:
    """Connect to a worker and wait until it has a session: it serves before."""
    client = server.connect()
    assert until(lambda: client.ask(b"peek 1").word == b"NOT_FOUND")
    return client


def one_of_each(server: Server) -> list[Client]:
    """Connect to each of two workers: a client goes to the one that has fewer."""
    return [connected_to(server), connected_to(server)]


def fetched(port: int, path: str) -> bytes:
    """Fetch from an admin port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        body: bytes = answer.read()
        return body


# --- one server


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_manager_learns_that_a_server_is_ready_once_it_has_a_session(
    servers: Servers, store: str, folder: Path, workers: int
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(20)
        server = servers.start(
            "--store", store, "--workers", str(workers), "-V", environ={"NOTIFY_SOCKET": str(folder / "notify")}
        )
        while manager.recv(100) != b"READY=1":
            pass
        assert server.log().count(": session ") == workers


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_whose_store_cannot_be_reached_is_not_ready(servers: Servers, folder: Path, workers: int) -> None:
    nobody = f"aerospike://127.0.0.1:{free_port()}/{NAMESPACE}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(20)
        environ = {"NOTIFY_SOCKET": str(folder / "notify")}
        server = servers.start("--store", nobody, "--workers", str(workers), wait=False, environ=environ)
        assert {manager.recv(100) for _ in range(15)} == {b"EXTEND_TIMEOUT_USEC=30000000"}
        assert server.connect().ask(b"peek 1").line == b"INTERNAL_ERROR"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_conform_as_one_server(two: Server) -> None:
    for client in one_of_each(two):
        client.close()
    assert isinstance(two.address, tuple)
    ended = conformance("--server", "{}:{}".format(*two.address), "--profile", "cluster")
    assert ended["passed"] > 550
    assert "failed" not in ended


def test_a_job_that_one_worker_puts_another_one_gives_out(two: Server) -> None:
    first, second = one_of_each(two)
    second.send(b"reserve\r\n")
    job_id = first.put(b"for whom it concerns")
    assert (second.reply().number, len(workers_of(two))) == (job_id, 2)
    assert second.ask(b"delete %d" % job_id).line == b"DELETED"


def test_stats_tells_of_all_workers_as_of_one_server(two: Server) -> None:
    first, second = one_of_each(two)
    first.put()
    second.put()
    second.ask(b"reserve")
    told = [client.stats() for client in (first, second)]
    for stats in told:
        assert (stats["cmd-put"], stats["cmd-reserve"], stats["total-jobs"]) == ("2", "1", "2")
        assert (stats["current-connections"], stats["current-producers"], stats["current-workers"]) == ("2", "2", "1")
        assert (stats["beanspiked-workers"], stats["beanspiked-workers-counted"]) == ("2", "2")
        assert stats["pid"] == str(two.pid)
    assert told[0]["id"] == told[1]["id"]
    assert [stats["cmd-stats"] for stats in told] == ["1", "2"]


def test_stats_tells_of_the_worker_that_is_asked_where_that_is_wanted(servers: Servers, store: str) -> None:
    server = servers.start("--store", store, "--workers", "2", "--stats-of", "worker")
    first, second = one_of_each(server)
    first.put()
    told = [client.stats() for client in (first, second)]
    assert [stats["cmd-put"] for stats in told] == ["1", "0"]
    assert {int(stats["pid"]) for stats in told} == set(workers_of(server))
    assert "beanspiked-workers" not in told[0]


def test_stats_says_how_many_workers_answered(two: Server) -> None:
    clients = one_of_each(two)
    assert clients[0].stats()["beanspiked-workers-counted"] == "2"
    frozen = workers_of(two)[0]
    os.kill(frozen, signal.SIGSTOP)
    try:
        for client in clients:
            client.send(b"stats\r\n")
        answered = select.select([client.sock for client in clients], [], [], 10)[0]
        (stats,) = [client.reply().fields() for client in clients if client.sock in answered]
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert (stats["beanspiked-workers"], stats["beanspiked-workers-counted"]) == ("2", "1")


# --- its addresses


def test_they_serve_a_unix_socket(servers: Servers, store: str, folder: Path) -> None:
    server = servers.start("--store", store, "--workers", "2", path=folder / "socket")
    first, second = one_of_each(server)
    job_id = first.put(b"seen")
    assert second.ask(b"peek %d" % job_id).data == b"seen"
    assert first.stats()["current-connections"] == "2"


def test_they_serve_sockets_that_a_service_manager_opened(servers: Servers, store: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        words = [
            sys.executable,
            "-c",
            ACTIVATE,
            str(sock.fileno()),
            *server_command(),
            "--store",
            store,
            "--workers",
            "2",
        ]
        server = servers.adopt(Server(words, sock.getsockname(), {}, [sock.fileno()]))
        server.wait_until_serving()
    first, second = one_of_each(server)
    job_id = first.put(b"seen")
    assert second.ask(b"peek %d" % job_id).data == b"seen"


def test_parent_and_workers_become_the_user_of_u(servers: Servers, store: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    nobody = pwd.getpwnam("nobody")
    try:
        subprocess.run([*server_command(), "-v"], check=True, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("the user nobody may not run this Python")
    server = servers.start("--store", store, "--workers", "2", "-u", "nobody")
    for pid in [server.pid, *workers_of(server)]:
        assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
    assert one_of_each(server)[1].put() > 0


def test_clients_that_take_all_descriptors_leave_some_to_the_store(servers: Servers, store: str) -> None:
    server = servers.start("--store", store, within=["sh", "-c", 'ulimit -n 100; exec "$@"', "sh"])
    client = connected_to(server)
    for _ in range(100):
        server.connect()
    assert until(lambda: "cannot accept connections" in server.log())
    # The first large body also loads its compression from a file.
    client.put(b"x" * 5000)
    assert client.ask(b"reserve").word == b"RESERVED"
    assert "Traceback" not in server.log()


def test_the_first_worker_serves_the_admin_port_with_the_counters_of_all(servers: Servers, store: str) -> None:
    pytest.importorskip("starlette", reason="the extra `admin` is not installed")
    port = free_port()
    server = servers.start("--store", store, "--workers", "2", "--admin", str(port))
    for client in one_of_each(server):
        client.put()
    # A snapshot is a second old at most.
    assert until(lambda: b'beanstalkd_commands_total{cmd="put"} 2' in fetched(port, "/metrics"))


# --- a worker dies


def test_the_replacement_of_the_first_worker_serves_the_admin_port(servers: Servers, store: str) -> None:
    pytest.importorskip("starlette", reason="the extra `admin` is not installed")
    port = free_port()
    server = servers.start("--store", store, "--workers", "2", "--admin", str(port))
    first = workers_of(server)[0]
    os.kill(first, signal.SIGKILL)
    assert until(lambda: first not in workers_of(server))
    assert fetched(port, "/healthz")


def test_a_worker_that_is_told_to_stop_gives_its_jobs_back_at_once_and_is_replaced(two: Server) -> None:
    clients = one_of_each(two)
    ids = [client.put(ttr=600) for client in clients]
    assert {client.ask(b"reserve").number for client in clients} == set(ids)
    os.kill(workers_of(two)[0], signal.SIGTERM)
    gone = select.select([client.sock for client in clients], [], [], 10)[0]
    (stayed,) = [client for client in clients if client.sock not in gone]
    assert stayed.ask(b"reserve-with-timeout 5").number in ids
    assert until(lambda: len(workers_of(two)) == 2)


def test_a_killed_worker_is_replaced_its_jobs_come_back_and_others_go_on(two: Server) -> None:
    clients = one_of_each(two)
    ids = [client.put(b"held", ttr=600) for client in clients]
    assert {client.ask(b"reserve").number for client in clients} == set(ids)
    victim, *others = workers_of(two)
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: len(workers_of(two)) == 2 and victim not in workers_of(two))
    gone = select.select([client.sock for client in clients], [], [], 10)[0]
    (cut,) = [client for client in clients if client.sock in gone]
    (stayed,) = [client for client in clients if client is not cut]
    assert cut.is_closed_silently()
    assert others[0] in workers_of(two)
    # The other one holds its job still; that of the dead worker comes back when its session has ended.
    stayed.sock.settimeout(BACK_WITHIN)
    stayed.send(b"reserve\r\n")
    back = stayed.reply().number
    assert back in ids
    assert sorted(stayed.ask(b"delete %d" % job_id).line for job_id in ids) == [b"DELETED", b"DELETED"]
    assert connected_to(two).put() > 0


# --- signals


def test_a_stop_gives_held_jobs_back_at_once_and_exits_with_0(servers: Servers, store: str) -> None:
    server = servers.start("--store", store, "--workers", "2")
    holders = one_of_each(server)
    ids = [client.put(ttr=600) for client in holders]
    assert {client.ask(b"reserve").number for client in holders} == set(ids)
    assert server.terminate() == 0
    after = connected_to(servers.start("--store", store))
    assert {after.ask(b"reserve-with-timeout 5").number for _ in ids} == set(ids)


def test_a_service_manager_that_signals_every_process_stops_them_in_order(two: Server) -> None:
    holder = connected_to(two)
    holder.put(ttr=600)
    holder.ask(b"reserve")
    for pid in [two.pid, *workers_of(two)]:
        os.kill(pid, signal.SIGTERM)
    assert two.wait() == 0


def test_a_drain_reaches_all_workers(two: Server) -> None:
    clients = one_of_each(two)
    clients[0].put()
    two.signal(signal.SIGUSR1)
    for client in clients:
        assert until(lambda client=client: client.stats()["draining"] == "true")  # type: ignore[misc]
        assert client.ask(put(b"x")).line == b"DRAINING"
        assert client.ask(b"peek-ready").word == b"FOUND"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_workers_stop_in_order_when_their_parent_is_gone(two: Server, number: signal.Signals) -> None:
    one_of_each(two)[0].put()
    pids = workers_of(two)
    two.signal(number)
    assert two.wait() == -number
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10)
    assert two.log().count("this worker stops") == 2

"""Clients that do not read, do not end a line, do nothing, or come and go: they cost what they must, and nobody else notices."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import time
from typing import TYPE_CHECKING

import pytest
from lab.client import HANG_SECONDS, Client, put
from lab.process import until
from suite import CHOSEN_IO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.process import Server, Servers

either_way = pytest.mark.parametrize("servers", CHOSEN_IO, indirect=True)

MEGABYTE = 1 << 20
BOUND = 50 * MEGABYTE
# For the test's own files, the server's, and what pytest has open.
OTHER_DESCRIPTORS = 200
AT_A_TIME = 500
# From Linux's <linux/in.h>; Python has no name for it before 3.12.
IP_BIND_ADDRESS_NO_PORT = 24


def flood(client: Client, data: bytes, limit: int, quiet_seconds: float = 0.5) -> int:
    """Send `data` over and over, never reading, until so much was taken or nothing more is for a while."""
    client.sock.setblocking(False)
    sent = 0
    taken_at = time.monotonic()
    while sent < limit and time.monotonic() < taken_at + quiet_seconds:
        try:
            sent += client.sock.send(data[sent % len(data) :][: limit - sent])
            taken_at = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
        except ConnectionError:
            break
    client.sock.settimeout(HANG_SECONDS)
    return sent


def serves_others(server: Server) -> bool:
    """Tell whether another client gets its job through; a hang is an error."""
    other = server.connect()
    tube = b"other-%d" % other.sock.fileno()
    other.ask_all([b"use " + tube, b"watch " + tube, b"ignore default"])
    job_id = other.put(b"served")
    served = other.ask(b"reserve").line == b"RESERVED %d 6" % job_id and other.ask(b"delete %d" % job_id).line
    other.close()
    return served == b"DELETED"


# --- floods


@either_way
def test_a_client_that_never_reads_is_paused(servers: Servers) -> None:
    server = servers.start()
    client = server.connect()
    job_id = client.put(b"x" * 60_000)
    assert serves_others(server)
    before = server.rss_bytes()
    flood(client, b"peek %d\r\n" % job_id * 1000, 100_000 * len(b"peek 1\r\n"))
    assert serves_others(server)
    assert server.rss_bytes() - before < BOUND


@either_way
def test_a_paused_client_gets_every_reply_when_it_reads_again(servers: Servers) -> None:
    server = servers.start()
    client = server.connect()
    body = b"x" * 60_000
    job_id = client.put(body)
    sent = flood(client, b"peek %d\r\n" % job_id * 1000, 1000 * len(b"peek 1\r\n"))
    assert sent == 8000
    assert all(client.reply().data == body for _ in range(1000))


@pytest.mark.slow
@either_way
@pytest.mark.parametrize("journaled", [False, True], ids=["in memory", "journaled"])
def test_a_client_that_puts_without_reading_is_bounded(
    servers: Servers, journaled: bool, request: pytest.FixtureRequest
) -> None:
    server = servers.start(*(["-b", request.getfixturevalue("journal")] if journaled else []))
    client = server.connect()
    before = server.rss_bytes()
    # Bad puts: their replies pile up, their jobs do not.
    flood(client, (put(b"x", pri=2**32) + b"\r\n") * 1000, 60 * MEGABYTE)
    assert serves_others(server)
    assert server.rss_bytes() - before < BOUND


@either_way
@pytest.mark.parametrize("start", [b"", b"put 0 0 60 ", b"peek "], ids=["nothing", "put", "peek"])
def test_bytes_without_an_end_of_line_are_not_kept(servers: Servers, start: bytes) -> None:
    server = servers.start()
    client = server.connect()
    before = server.rss_bytes()
    client.send(start)
    flood(client, b"x" * 65_536, 100 * MEGABYTE)
    assert serves_others(server)
    assert server.rss_bytes() - before < BOUND


@either_way
def test_a_job_that_is_too_big_is_not_kept(servers: Servers) -> None:
    server = servers.start()
    client = server.connect()
    before = server.rss_bytes()
    client.send(b"put 0 0 60 %d\r\n" % (100 * MEGABYTE))
    assert flood(client, b"x" * 65_536, 100 * MEGABYTE) == 100 * MEGABYTE
    assert server.rss_bytes() - before < BOUND
    client.send(b"\r\n")
    assert client.reply().line == b"JOB_TOO_BIG"
    assert client.ask(b"list-tube-used").line == b"USING default"


@either_way
def test_announced_bodies_that_do_not_come_cost_nothing(servers: Servers) -> None:
    server = servers.start("-z", "1073741824")
    before = server.rss_bytes()
    for _ in range(200):
        server.connect().send(b"put 0 0 60 1000000000\r\nx")
    assert serves_others(server)
    assert server.rss_bytes() - before < BOUND


@pytest.mark.slow
@either_way
@pytest.mark.parametrize(
    "data",
    [b"x" * 65_536, b"list-tube-used\r\n" * 4000, put(b"x" * 60_000) + b"\r\n"],
    ids=["no line", "lines", "puts"],
)
def test_what_comes_behind_a_blocked_reserve_is_bounded(servers: Servers, data: bytes) -> None:
    server = servers.start()
    client = server.connect()
    before = server.rss_bytes()
    client.send(b"reserve\r\n")
    sent = flood(client, data, 200 * MEGABYTE)
    assert sent < 50 * MEGABYTE
    assert serves_others(server)
    assert server.rss_bytes() - before < BOUND


@either_way
# An orderly end stands behind all bytes: where these no longer fit into the two kernels' buffers and ours, nobody can see it.
@pytest.mark.parametrize(
    ("ending", "behind"),
    [(ending, behind) for ending in ("close", "shutdown") for behind in (0, 1000, 70_000, 110_000)]
    + [("reset", behind) for behind in (0, 1000, 70_000, 3_000_000)],
)
def test_a_waiter_that_is_gone_gets_no_job_whatever_stands_behind_its_reserve(
    servers: Servers, ending: str, behind: int
) -> None:
    server = servers.start()
    gone = server.connect()
    gone.send(b"reserve\r\n")
    flood(gone, b"list-tube-used\r\n" * 4000, behind, 0.2)
    other = server.connect()
    assert other.stats()["current-waiting"] == "1"
    if ending == "reset":
        gone.reset()
    elif ending == "close":
        gone.close()
    else:
        gone.sock.shutdown(socket.SHUT_RDWR)
        gone.close()
    assert until(lambda: other.stats()["current-waiting"] == "0")
    job_id = other.put(b"for the living")
    stats = other.stats(b"stats-job %d" % job_id)
    assert (stats["state"], stats["reserves"]) == ("ready", "0")
    assert other.ask(b"reserve").number == job_id


@either_way
@pytest.mark.parametrize("behind", [0, 1000, 70_000])
def test_a_waiter_that_half_closes_is_timed_out_and_what_stands_behind_is_answered(
    servers: Servers, behind: int
) -> None:
    server = servers.start()
    client = server.connect()
    client.send(b"reserve\r\n" + b"list-tube-used\r\n" * (behind // 16))
    assert until(lambda: server.connect().stats()["current-waiting"] == "1")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.reply().line == b"TIMED_OUT"
    assert {client.reply().line for _ in range(behind // 16)} <= {b"USING default"}
    assert client.is_closed_silently()


# --- many connections


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Allow this process and the servers that it starts so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_DESCRIPTORS
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError):
            pytest.skip(f"{wanted} open files are not allowed: ulimit -n is {hard}")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect_from(source: str, server: Server) -> socket.socket:
    """Open a connection from one of the loopback addresses, on a port that only this connection between the two has.

    An ordinary bind takes a port that no other connection of the address has, and searches long where thousands are taken.
    """
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    sock.settimeout(HANG_SECONDS)
    sock.connect(server.address)
    return sock


def connect_all(server: Server, client: Client, count: int, source: str) -> list[socket.socket]:
    """Open connections, a part at a time: the kernel tries what exceeds the server's backlog again only after seconds."""
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        sockets.extend(connect_from(source, server) for _ in range(AT_A_TIME))
        assert until(lambda: client.stats()["current-connections"] == str(len(sockets) + 1))
    return sockets


@pytest.mark.slow
@either_way
def test_want_of_descriptors_is_logged_once_and_once_when_it_is_over(servers: Servers) -> None:
    server = servers.start(within=["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"])
    before = server.log()
    sockets = [server.dial() for _ in range(60)]
    assert until(lambda: "cannot accept connections" in server.log())
    # It tries again each second.
    time.sleep(2.2)
    assert server.log().count("cannot accept") == 1
    for sock in sockets:
        sock.close()
    assert serves_others(server)
    assert until(lambda: "accepted again" in server.log())
    assert server.log().removeprefix(before).count("\n") == 2


@either_way
def test_the_end_of_the_want_is_logged_though_nobody_waits_for_it(servers: Servers) -> None:
    server = servers.start(within=["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"])
    clients = []
    # The client that takes the last descriptor is answered after the server has missed the next one.
    while "cannot accept connections" not in server.log():
        clients.append(server.connect())
        clients[-1].ask(b"list-tube-used")
    clients[0].close()
    assert until(lambda: "accepted again" in server.log())


def test_clients_leave_the_journal_the_descriptors_that_it_needs(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal, within=["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"])
    client = server.connect()
    sockets = [server.dial() for _ in range(60)]
    assert until(lambda: "cannot accept connections" in server.log())
    for _ in range(20):
        # Together more than the log holds, so that these deletes reach the database.
        ids = client.put_all([b"x" * 3000] * 200)
        assert {reply.line for reply in client.ask_all(b"delete %d" % job_id for job_id in ids[:150])} == {b"DELETED"}
    assert client.stats()["current-jobs-ready"] == "1000"
    for sock in sockets:
        sock.close()


@either_way
@pytest.mark.slow
def test_ten_thousand_idle_connections_cost_memory_only_and_give_it_back(servers: Servers) -> None:
    count = 10_000
    with descriptors(count):
        server = servers.start()
        client = server.connect()
        after: list[int] = []
        for turn in range(3):
            sockets = connect_all(server, client, count, f"127.0.1.{turn + 1}")
            if turn == 0:
                print(f"{server.rss_bytes() / count / 1024:.1f} KB a connection, all told")
                before = server.cpu_s()
                time.sleep(1)
                idle = server.cpu_s() - before
                print(f"{1000 * idle:.0f} ms of processor time in a second of idleness")
                assert idle < 0.1
            assert serves_others(server)
            for sock in sockets:
                sock.close()
            assert until(lambda: client.stats()["current-connections"] == "1")
            after.append(server.rss_bytes())
        print("resident after each time, in MB:", [size // MEGABYTE for size in after])
        assert after[2] - after[0] < 10 * MEGABYTE
        gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["quit", "reset", "in the middle of a put", "while waiting"])
def test_connections_that_come_and_go_leave_nothing_behind(servers: Servers, ending: str) -> None:
    server = servers.start()
    client = server.connect()
    job_id = client.put(b"held again and again")
    last = {
        "quit": b"quit\r\n",
        "reset": b"list-tubes\r\n",
        "in the middle of a put": b"put 0 0 60 100\r\nonly so much",
        "while waiting": b"watch empty\r\nignore default\r\nreserve\r\n",
    }[ending]

    def come_and_go(count: int) -> None:
        for number in range(count):
            with server.dial() as sock:
                sock.sendall(b"use t%d\r\nwatch t%d\r\nreserve-job %d\r\n" % (number, number, job_id) + last)
                sock.recv(1000)
                if ending == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    come_and_go(1000)
    before = server.rss_bytes()
    come_and_go(5000)
    assert until(lambda: client.stats()["current-connections"] == "1")
    growth = server.rss_bytes() - before
    print(f"{growth // 1024} KB more after 5,000 connections")
    assert growth < 3 * MEGABYTE
    stats = client.stats()
    assert (stats["current-tubes"], stats["current-jobs-ready"], stats["current-waiting"]) == ("1", "1", "0")
    assert (stats["current-producers"], stats["current-workers"]) == ("1", "0")


@pytest.mark.slow
def test_jobs_that_come_and_go_leave_nothing_behind(servers: Servers, journal_or_memory: list[str]) -> None:
    server = servers.start(*journal_or_memory)
    client = server.connect()

    def come_and_go(count: int) -> None:
        for _ in range(count // 500):
            ids = client.put_all([b"x" * 200] * 500)
            client.ask_all([b"reserve"] * 250)
            client.ask_all(b"delete %d" % job_id for job_id in ids)

    come_and_go(10_000)
    before = server.rss_bytes()
    come_and_go(20_000)
    growth = server.rss_bytes() - before
    print(f"{growth // 1024} KB more after 20,000 jobs")
    assert growth < 5 * MEGABYTE
    assert client.stats()["current-jobs-ready"] == "0"


@pytest.fixture(params=["in memory", "journaled"])
def journal_or_memory(request: pytest.FixtureRequest) -> list[str]:
    return [] if request.param == "in memory" else ["-b", str(request.getfixturevalue("journal"))]

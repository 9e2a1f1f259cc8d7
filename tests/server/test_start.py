"""The server listens before it reads its journal, and answers when it has read it; jobs that came due meanwhile are ready."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.client import Client, put
from lab.process import run

if TYPE_CHECKING:
    from lab.process import Server, Servers

MANY = 200_000


@pytest.fixture
def many_jobs(servers: Servers, journal: Path) -> Path:
    """A journal of very many jobs."""
    assert servers.start("-b", journal).terminate() == 0
    with contextlib.closing(sqlite3.connect(journal / "jobs.sqlite")) as database, database:
        database.execute(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO job (id, tube, state, pri, delay, ttr, born, place, body)"
            " SELECT i, 'default', 0, i % 1000, 0, 60, ?, 0, CAST('body ' || i AS BLOB) FROM n",
            (MANY, time.time()),
        )
    return journal


def test_a_client_may_connect_while_the_journal_is_read_and_is_answered_after(
    servers: Servers, many_jobs: Path, folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.setblocking(False)
        environ = {"NOTIFY_SOCKET": str(folder / "notify")}
        server = servers.start("-b", many_jobs, wait=False, environ=environ)
        client = Client(server.dial_when_listening)
        connected_at = time.monotonic()
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        stats = client.stats()
        answered_at = time.monotonic()
        # On a slow machine it asks for patience meanwhile.
        while (told := manager.recv(100)) != b"READY=1":
            assert told == b"EXTEND_TIMEOUT_USEC=30000000"
        client.close()
    assert stats["current-jobs-ready"] == str(MANY)
    print(f"the first reply came {1000 * (answered_at - connected_at):.0f} ms after the connect")


@pytest.mark.slow
def test_what_clients_send_while_the_journal_is_read_is_all_answered(servers: Servers, many_jobs: Path) -> None:
    server = servers.start("-b", many_jobs, wait=False)
    clients = [Client(server.dial_when_listening) for _ in range(20)]
    for client in clients:
        client.send(b"reserve\r\n" + put(b"more") + b"\r\n")
    ids = {client.reply().number for client in clients}
    assert ids == set(range(1000, 21_000, 1000))
    assert {client.reply().number for client in clients} == set(range(MANY + 1, MANY + 21))
    for client in clients:
        client.close()


def test_it_prints_how_soon_it_listens(servers: Servers, journal: Path) -> None:
    def milliseconds(server: Server) -> float:
        server.dial_when_listening().close()
        return 1000 * (time.monotonic() - server.started_at)

    measured = []
    for _ in range(5):
        measured.append(milliseconds(servers.start("-b", journal, wait=False)))
        servers.close()
    print(f"a connect succeeds {statistics.median(measured):.0f} ms after exec (median of {len(measured)})")


def test_a_job_that_came_due_while_no_server_ran_is_ready_for_the_first_command(
    servers: Servers, journal: Path
) -> None:
    server = servers.start("-b", journal)
    job_id = server.connect().put(delay=1)
    server.kill()
    time.sleep(1.1)
    client = Client(servers.start("-b", journal, wait=False).dial_when_listening)
    client.send(b"stats-job %d\r\nreserve-with-timeout 0\r\n" % job_id)
    assert client.reply().fields()["state"] == "ready"
    assert client.reply().line == b"RESERVED %d 1" % job_id
    client.close()


def test_a_pause_survives_with_its_end(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    client = server.connect()
    client.put()
    client.ask(b"pause-tube default 1000")
    server.kill()
    client = servers.start("-b", journal).connect()
    stats = client.stats(b"stats-tube default")
    assert (stats["pause"], stats["cmd-pause-tube"]) == ("1000", "0")
    assert 900 < int(stats["pause-time-left"]) <= 1000
    assert client.ask(b"reserve-with-timeout 0").line == b"TIMED_OUT"


def test_a_pause_that_was_taken_back_stays_so(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    client = server.connect()
    job_id = client.put()
    client.ask_all([b"pause-tube default 1000", b"pause-tube default 0"])
    server.kill()
    assert servers.start("-b", journal).connect().ask(b"reserve-with-timeout 0").number == job_id


def test_a_pause_does_not_come_back_to_a_tube_that_was_found_unpaused(servers: Servers, journal: Path) -> None:
    first = servers.start("-b", journal)
    client = first.connect()
    client.ask_all([b"use paused", b"pause-tube paused 1000"])
    first.kill()
    second = servers.start("-b", journal)
    client = second.connect()
    client.ask(b"use paused")
    client.put()
    before = client.stats(b"stats-tube paused")["pause"]
    second.kill()
    after = servers.start("-b", journal).connect().stats(b"stats-tube paused")["pause"]
    assert after == before


# --- usage errors


@pytest.mark.parametrize(
    "words",
    [["-q"], ["-p", "9" * 5000], ["-z", "two\nlines"], ["--store", "x"], ["stray"], ["backup"], ["backup", "", "x"], ["check", "x"],
     ["check", "-q"], ["cleanup", "x"], ["cleanup", "-q"]],
    ids=lambda words: repr(" ".join(words)[:20]),
)  # fmt: skip
def test_a_usage_error_stays_on_the_screen(words: list[str]) -> None:
    result = run(*words)
    assert result.returncode == 5
    said, where = result.stderr.splitlines()
    assert said.startswith("beanspiked: ")
    assert len(said) < 250
    assert where.startswith("beanspiked ")
    assert where.endswith("-h for help")


@pytest.mark.parametrize("files", [8, 12, 23])
def test_too_small_a_limit_of_open_files_is_one_line(journal: Path, files: int) -> None:
    within = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
    result = run("-l", "127.0.0.1", "-p", "0", "-b", journal, within=within)
    assert result.returncode == 111
    assert result.stderr == f"beanspiked: a server needs 24 open files or more, and the limit (ulimit -n) is {files}\n"


def test_the_smallest_limit_of_open_files_is_enough(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal, within=["sh", "-c", 'ulimit -n 24; exec "$@"', "sh"])
    assert server.connect().put() == 1
    assert server.terminate() == 0


@pytest.mark.parametrize("command", [[], ["check"], ["cleanup"]], ids=" ".join)
def test_help_is_the_whole_usage(command: list[str]) -> None:
    result = run(*command, "-h")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: beanspiked")


# --- the first process of a container


@pytest.fixture
def as_first_process() -> list[str]:
    """The words before a command that become process 1 of a namespace of their own."""
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not make a namespace of processes")
    return words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_first_process_ends_when_it_is_told_before_it_serves(
    servers: Servers, as_first_process: list[str], number: signal.Signals
) -> None:
    server = servers.start(within=as_first_process, wait=False)
    server.dial_when_listening().close()
    child = int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text())
    os.kill(child, number)
    # 0 where the server was quick.
    assert server.wait(2) in {128 + number, 0}


def test_the_service_manager_is_asked_for_patience_while_the_journal_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beanspiked.server import notify

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        notify.ask_for_patience()
        assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=30000000"

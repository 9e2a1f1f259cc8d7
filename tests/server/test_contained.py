"""One job's fault stays with that job, and who spoke in time is heard, on a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from lab.process import Servers


def damage(journal: Path, job_id: int) -> None:
    """Make a body one that was compressed and does not expand."""
    with contextlib.closing(sqlite3.connect(journal / "jobs.sqlite")) as database, database:
        database.execute("UPDATE job SET raw_size = 3, body = x'f0f0f0f0' WHERE id = ?", (job_id,))


@pytest.mark.slow
def test_a_damaged_body_keeps_nobody_waiting(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    ids = [server.connect().put(delay=2) for _ in range(3)]
    assert server.terminate() == 0
    damage(journal, ids[0])
    server = servers.start("-b", journal)
    worker, other = server.connect(), server.connect()
    other.ask(b"watch others")
    other.ask(b"ignore default")
    other.send(b"reserve-with-timeout 3\r\n")
    assert worker.ask(b"reserve-with-timeout 8").number == ids[1]
    assert other.reply().line == b"TIMED_OUT"
    stats = worker.stats(b"stats-job %d" % ids[0])
    assert stats["state"] == "buried"
    assert server.log().count(f"job {ids[0]} of tube default is buried, because its body is damaged") == 1


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-b"]], ids=["in memory", "journaled"])
def test_a_delete_that_lay_in_the_socket_is_in_time_for_a_server_that_was_frozen(
    servers: Servers, journal: Path, flags: list[str]
) -> None:
    server = servers.start(*flags, *([journal] if flags else []))
    holder, worker = server.connect(), server.connect()
    job_id = holder.put(ttr=2)
    assert holder.ask(b"reserve").number == job_id
    worker.send(b"reserve-with-timeout 4\r\n")
    time.sleep(0.1)
    os.kill(server.pid, signal.SIGSTOP)
    holder.send(b"delete %d\r\n" % job_id)
    time.sleep(3)
    os.kill(server.pid, signal.SIGCONT)
    assert holder.reply().line == b"DELETED"
    assert worker.reply().line == b"TIMED_OUT"

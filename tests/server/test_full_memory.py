"""Without memory for more jobs puts are refused, and everything else goes on: nothing ends, workers come, and deletes make room again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab.client import put
from lab.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from lab.client import Client
    from lab.process import Servers

pytestmark = [pytest.mark.real, pytest.mark.slow]


def put_until_full(client: Client, body: bytes) -> list[int]:
    """Put jobs until one is refused, and some more; return the ids of the others."""
    jobs: list[int] = []
    refused = 0
    while not refused:
        replies = client.ask_all([put(body)] * 1000)
        assert {reply.word for reply in replies} <= {b"INSERTED", b"OUT_OF_MEMORY"}
        jobs += [reply.number for reply in replies if reply.word == b"INSERTED"]
        refused = 1000 - sum(reply.word == b"INSERTED" for reply in replies)
    return jobs


def within(megabytes: int) -> list[str]:
    """Start a server with so much memory."""
    return ["sh", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "sh"]


# With a journal most of it is set apart for the stacks and heaps of threads.
@pytest.mark.parametrize(("durable", "megabytes", "size"), [(False, 60, 1), (False, 60, 60_000), (True, 260, 5000)])
def test_full_memory_refuses_puts_only_and_deletes_make_room(
    servers: Servers, journal: Path, durable: bool, megabytes: int, size: int
) -> None:
    server = servers.start(*["-b", str(journal)][: 2 * durable], within=within(megabytes))
    client = server.connect()
    jobs = put_until_full(client, b"x" * size)
    assert server.log().count("memory is used up: puts are refused") == 1
    worker = server.connect()
    assert worker.ask(b"watch another").line == b"WATCHING 2"
    assert worker.ask(b"reserve").number == jobs[0]
    assert worker.ask(b"release %d 1000 0" % jobs[0]).line == b"RELEASED"
    assert client.stats()["current-jobs-ready"] == str(len(jobs))
    assert {reply.line for reply in client.ask_all(b"delete %d" % job_id for job_id in jobs)} == {b"DELETED"}
    # While there is a lack, it looks for memory ten times a second.
    while (reply := client.ask(put(b"x" * size))).word == b"OUT_OF_MEMORY":
        pass
    assert reply.word == b"INSERTED"
    client.put_all([b"x" * size] * 100)
    assert "Traceback" not in server.log()
    assert server.terminate() == 0


def test_full_memory_makes_new_clients_wait_and_refuses_new_tubes(servers: Servers) -> None:
    server = servers.start(within=within(60))
    first, second = server.connect(), server.connect()
    names = (b"watch tube-%d" % number for number in range(1_000_000))
    while (replies := first.ask_all(next(names) for _ in range(1000)))[-1].word == b"WATCHING":
        pass
    assert {reply.word for reply in replies} <= {b"WATCHING", b"OUT_OF_MEMORY"}
    assert second.ask(b"use one-more").line == b"OUT_OF_MEMORY"
    assert second.ask(b"list-tube-used").line == b"USING default"
    assert second.ask(b"use tube-1").line == b"USING tube-1"
    third = server.connect()
    first.close()
    assert third.ask(b"use one-more").line == b"USING one-more"
    assert "Traceback" not in server.log()


def test_too_little_memory_for_the_jobs_of_a_journal_is_one_line(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    server.connect().put_all([b"x" * 50_000] * 1500)
    assert server.terminate() == 0
    result = run("-l", "127.0.0.1", "-p", "0", "-b", journal, within=within(80))
    assert result.returncode == 10
    assert result.stderr == f"beanspiked: {journal}: there is not enough memory for its jobs\n"
    assert servers.start("-b", journal).connect().stats()["current-jobs-ready"] == "1500"


def test_a_command_without_enough_memory_says_so_in_one_line(servers: Servers, journal: Path, tmp_path: Path) -> None:
    server = servers.start("-b", journal, "-z", "40000000")
    server.connect().put(b"x" * 40_000_000)
    result = run("backup", journal, tmp_path / "copy", within=within(60))
    assert (result.returncode, result.stderr) == (1, "beanspiked: there is not enough memory\n")
    assert not (tmp_path / "copy").exists()

"""A quota, a limit of files' sizes and a disk that fails: what was acknowledged is kept, and what cannot be kept is refused."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.client import put
from lab.process import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.client import Client
    from lab.disk import SmallDisk
    from lab.process import Server, Servers

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def faults(compiler: str, tmp_path: Path) -> dict[str, str]:
    """An environment in which the disk fails as the files in `tmp_path/faults` say."""
    library = tmp_path / "faults.so"
    source = Path(__file__).parent / "lab" / "faults.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    (tmp_path / "faults").mkdir()
    return {"LD_PRELOAD": str(library), "FAULTS_IN": str(tmp_path / "faults")}


def put_until_refused(client: Client) -> list[int]:
    ids = []
    refused = 0
    while refused < 5:
        reply = client.ask(put(b"x" * 60_000))
        assert reply.word in (b"INSERTED", b"OUT_OF_MEMORY"), reply.line
        if reply.word == b"INSERTED":
            ids.append(reply.number)
        else:
            refused += 1
    return ids


def puts_work_again(client: Client) -> bool:
    return until(lambda: client.ask(put(b"x" * 30_000)).word == b"INSERTED", 20)


@pytest.mark.parametrize("flags", [[], ["-f", "50"]], ids=["by default", "-f 50"])
def test_an_exceeded_quota_is_a_full_disk(
    servers: Servers, small_disk: Callable[[int], SmallDisk], faults: dict[str, str], flags: list[str]
) -> None:
    disk = small_disk(32)
    environ = {**faults, "FAULTS_QUOTA": "1"}
    server = servers.start("-b", disk.directory, *flags, within=disk.within, environ=environ)
    client = server.connect()
    ids = put_until_refused(client)
    assert len(ids) > 50
    assert {client.ask(b"delete %d" % job_id).line for job_id in ids} == {b"DELETED"}
    assert puts_work_again(client)
    lines = [line for line in server.log().splitlines() if "full" in line]
    assert len(lines) == 1
    assert "quota" in lines[0]
    assert not (disk.seen / "probe").exists()


def fill(client: Client, chance: random.Random, jobs: dict[int, bytes]) -> None:
    refused = 0
    while refused < 5:
        body = chance.randbytes(1) * chance.choice((10, 1000, 1000, 30_000, 60_000))
        for reply in client.ask_all([put(body)] * chance.choice((1, 1, 20))):
            assert reply.word in (b"INSERTED", b"OUT_OF_MEMORY"), reply.line
            if reply.word == b"INSERTED":
                jobs[reply.number] = body
            else:
                refused += 1


@pytest.mark.parametrize("seed", range(8))
def test_a_disk_that_is_filled_and_emptied_again_and_again_stays_usable(
    servers: Servers, small_disk: Callable[[int], SmallDisk], faults: dict[str, str], seed: int
) -> None:
    chance = random.Random(seed)
    disk = small_disk(chance.choice((24, 32, 64)))
    environ = {**faults, "FAULTS_QUOTA": "1"} if seed % 2 else {}
    flags = chance.choice(([], ["-f", "50"]))

    def start() -> Server:
        return servers.start("-b", disk.directory, *flags, within=disk.within, environ=environ)

    server = start()
    client = server.connect()
    jobs: dict[int, bytes] = {}
    for _ in range(4):
        fill(client, chance, jobs)
        gone = [job_id for job_id in jobs if chance.random() < 0.9]
        chance.shuffle(gone)
        at_once = chance.choice((1, 1000))
        for start_at in range(0, len(gone), at_once):
            lines = [b"delete %d" % job_id for job_id in gone[start_at : start_at + at_once]]
            assert {reply.line for reply in client.ask_all(lines)} == {b"DELETED"}
        for job_id in gone:
            del jobs[job_id]
        if chance.random() < 0.4:
            server.kill()
            server = start()
            client = server.connect()
        assert puts_work_again(client)
        replies = client.ask_all([b"peek %d" % job_id for job_id in jobs])
        assert [reply.data for reply in replies] == list(jobs.values())


@pytest.mark.parametrize("megabytes", [12, 40])
def test_a_limit_of_files_sizes_is_a_full_disk(servers: Servers, journal: Path, megabytes: int) -> None:
    limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({megabytes << 20},) * 2)"
    within = [sys.executable, "-c", f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"]
    server = servers.start("-b", journal, within=within)
    client = server.connect()
    ids = put_until_refused(client)
    assert len(ids) > 50
    assert {client.ask(b"delete %d" % job_id).line for job_id in ids} == {b"DELETED"}
    assert puts_work_again(client)
    assert len([line for line in server.log().splitlines() if "full" in line]) == 1


def test_a_log_that_has_reached_the_limit_of_a_files_size_is_a_full_disk(servers: Servers, journal: Path) -> None:
    import sqlite3

    limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({12 << 20},) * 2)"
    within = [sys.executable, "-c", f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"]
    server = servers.start("-b", journal, within=within)
    client = server.connect()
    first = client.put()
    reader = sqlite3.connect(journal / "jobs.sqlite", isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job").fetchone()
        ids = [first, *put_until_refused(client)]
        assert "the disk is full" in server.log()
    finally:
        reader.close()
    assert {client.ask(b"delete %d" % job_id).line for job_id in ids} == {b"DELETED"}
    assert puts_work_again(client)


@pytest.mark.parametrize("fault", ["sync", "write"])
def test_changes_are_refused_while_the_disk_fails_and_nothing_acknowledged_is_lost(
    servers: Servers, journal: Path, tmp_path: Path, faults: dict[str, str], fault: str
) -> None:
    server = servers.start("-b", journal, environ=faults)
    client = server.connect()
    kept = client.put_all([b"kept"] * 20)
    before = server.log()
    (tmp_path / "faults" / fault).touch()
    assert [client.ask(put(b"x")).line for _ in range(5)] == [b"OUT_OF_MEMORY"] * 5
    assert client.ask(b"delete %d" % kept[0]).line == b"INTERNAL_ERROR"
    assert client.ask(b"peek %d" % kept[0]).data == b"kept"
    assert len(server.log().removeprefix(before).splitlines()) == 1
    (tmp_path / "faults" / fault).unlink()
    assert client.ask(b"delete %d" % kept[0]).line == b"DELETED"
    after = client.put(b"after")
    server.kill()
    client = servers.start("-b", journal).connect()
    assert client.ask(b"peek %d" % kept[0]).word == b"NOT_FOUND"
    assert {client.ask(b"peek %d" % job_id).data for job_id in kept[1:]} == {b"kept"}
    assert client.ask(b"peek %d" % after).data == b"after"


def test_with_f_changes_are_refused_from_a_sync_that_failed_until_one_works(
    servers: Servers, journal: Path, tmp_path: Path, faults: dict[str, str]
) -> None:
    server = servers.start("-b", journal, "-f", "10", environ=faults)
    client = server.connect()
    kept = client.put()
    (tmp_path / "faults" / "sync").touch()
    client.ask(put(b"x"))
    assert until(lambda: client.ask(put(b"x")).line == b"OUT_OF_MEMORY", 10)
    assert client.ask(b"delete %d" % kept).line == b"INTERNAL_ERROR"
    (tmp_path / "faults" / "sync").unlink()
    assert until(lambda: client.ask(put(b"x")).word == b"INSERTED", 10)
    assert client.ask(b"delete %d" % kept).line == b"DELETED"
    assert [
        ("cannot sync" in line, "synced again" in line) for line in server.log().splitlines() if "sync" in line
    ] == [
        (True, False),
        (False, True),
    ]

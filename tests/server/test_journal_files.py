"""What a server finds in its journal's directory: nothing is overwritten, and what is wrong is said in one line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.process import refuse, run, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.disk import SmallDisk
    from lab.process import Servers

FILE = "jobs.sqlite"
APPLICATION_ID = 0x6273706B
MEGABYTE = 1 << 20
# What a server may leave in a directory whose journal it refuses; the last is an index that SQLite makes anew.
OWN_FILES = {"lock", "reserve", f"{FILE}-shm"}


def contents(directory: Path) -> dict[str, bytes]:
    """All files of a directory but a server's own; a write-ahead log with nothing in it is none."""
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in OWN_FILES}
    return {name: data for name, data in files.items() if data or not name.endswith("-wal")}


def disk_use(directory: Path) -> int:
    """Bytes on disk, but for the reserve and the log, which have their sizes whatever the jobs."""
    others = {"reserve", "log.0", "log.1"}
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir() if path.name not in others)


def database(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


@pytest.fixture
def filled(servers: Servers, journal: Path) -> list[int]:
    """The ids of 2,000 jobs in a journal that no server uses."""
    server = servers.start("-b", journal)
    ids = server.connect().put_all(b"%d " % number * 30 for number in range(2000))
    assert server.terminate() == 0
    assert not (journal / f"{FILE}-wal").exists()
    return ids


# --- refused


def test_a_text_file_in_the_journals_place_is_refused_and_kept(journal: Path) -> None:
    (journal / FILE).write_text("not a database\n" * 1000)
    before = contents(journal)
    assert FILE in refuse(journal)
    assert contents(journal) == before


def test_somebody_elses_database_is_refused_and_kept(journal: Path) -> None:
    with database(journal / FILE) as foreign:
        foreign.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, title TEXT)")
        foreign.execute("INSERT INTO job (title) VALUES ('precious')")
    before = contents(journal)
    assert "not a journal of beanspiked" in refuse(journal)
    assert contents(journal) == before


def crashed_database(path: Path, *statements: str) -> None:
    """Make a database whose program was killed, so that its last changes stand in its write-ahead log alone."""
    program = "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    program += "for statement in sys.argv[2:]: db.execute(statement)\nos.kill(os.getpid(), 9)\n"
    words = ["PRAGMA journal_mode = WAL", *statements]
    status = subprocess.run([shutil.which("python3") or "python3", "-c", program, path, *words], check=False).returncode
    assert status == -signal.SIGKILL
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


def test_somebody_elses_database_is_kept_though_its_last_changes_are_in_its_log(journal: Path) -> None:
    crashed_database(journal / FILE, "CREATE TABLE note (title TEXT)", "INSERT INTO note VALUES ('precious')")
    before = contents(journal)
    assert "not a journal of beanspiked" in refuse(journal)
    assert contents(journal) == before


def test_a_journal_of_a_newer_version_is_refused_and_kept(journal: Path, filled: list[int]) -> None:
    assert filled
    with database(journal / FILE) as newer:
        newer.execute("PRAGMA user_version = 1000")
    assert not (journal / f"{FILE}-wal").exists()
    before = contents(journal)
    assert "version 1000" in refuse(journal)
    assert contents(journal) == before
    assert (journal / "reserve").stat().st_size > MEGABYTE


def test_a_journal_of_a_newer_version_is_kept_though_its_last_changes_are_in_its_log(journal: Path) -> None:
    crashed_database(
        journal / FILE,
        f"PRAGMA application_id = {APPLICATION_ID}",
        "PRAGMA user_version = 1000",
        "CREATE TABLE job (id INTEGER PRIMARY KEY, what_is_new TEXT)",
    )
    before = contents(journal)
    assert "version 1000" in refuse(journal)
    assert contents(journal) == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_journal_that_was_cut_off_is_refused_and_kept(journal: Path, filled: list[int], share: float) -> None:
    assert filled
    os.truncate(journal / FILE, int((journal / FILE).stat().st_size * share))
    before = contents(journal)
    assert FILE in refuse(journal)
    assert contents(journal) == before


@pytest.mark.parametrize("page", ["first", "in the middle", "last"])
def test_a_journal_with_a_damaged_page_is_refused_and_kept(journal: Path, filled: list[int], page: str) -> None:
    assert filled
    with database(journal / FILE) as ours:
        count = ours.execute("PRAGMA page_count").fetchone()[0]
        size = ours.execute("PRAGMA page_size").fetchone()[0]
    at = {"first": 0, "in the middle": count // 2, "last": count - 1}[page] * size
    with (journal / FILE).open("r+b") as file:
        file.seek(at)
        flipped = bytes(byte ^ 0xFF for byte in file.read(size))
        file.seek(at)
        file.write(flipped)
    before = contents(journal)
    assert FILE in refuse(journal)
    assert contents(journal) == before


def test_a_damaged_journal_is_kept_though_its_last_changes_are_in_its_log(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    server.connect().put_all(b"%d " % number * 30 for number in range(2000))
    assert server.terminate() == 0
    server = servers.start("-b", journal)
    server.connect().put(b"the last")
    server.kill()
    with (journal / FILE).open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xff" * 4096)
    before = contents(journal)
    assert FILE in refuse(journal)
    assert contents(journal) == before


def test_a_directory_that_beanstalkd_has_locked_is_refused(journal: Path) -> None:
    with (journal / "lock").open("wb") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert "in use" in refuse(journal)
    assert contents(journal) == {}


def test_a_directory_in_use_keeps_serving_its_first_server(servers: Servers, journal: Path) -> None:
    client = servers.start("-b", journal).connect()
    first = client.put()
    assert "in use" in refuse(journal)
    assert client.put() > first


@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_what_is_no_directory_is_refused(journal: Path, what: str) -> None:
    path = journal / "there"
    if what == "a file":
        path.write_text("precious")
    assert str(path) in refuse(path)
    assert path.exists() == (what == "a file")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a directory", "a pipe"])
def test_what_is_no_file_in_the_journals_place_is_refused(journal: Path, make: Callable[[Path], None]) -> None:
    make(journal / FILE)
    assert f"{FILE}: not a file" in refuse(journal)


@pytest.mark.real
def test_a_read_only_directory_is_refused_and_kept(servers: Servers, small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(16)
    server = servers.start("-b", disk.directory, within=disk.within)
    server.connect().put(b"precious")
    assert server.terminate() == 0
    before = contents(disk.seen)
    disk.make_read_only()
    assert "ead-only" in refuse(disk.directory, within=disk.within)
    assert contents(disk.seen) == before


@pytest.mark.real
def test_a_journal_that_may_only_be_read_is_refused(servers: Servers, small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(16)
    assert servers.start("-b", disk.directory, within=disk.within).terminate() == 0
    file = str(disk.directory / FILE)
    subprocess.run([*disk.within, "mount", "-o", "bind,ro", file, file], check=True)
    assert "readonly" in refuse(disk.directory, within=disk.within)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root by mode bits")
def test_a_directory_without_permission_is_refused(journal: Path) -> None:
    journal.chmod(0o500)
    try:
        assert "denied" in refuse(journal)
    finally:
        journal.chmod(0o700)


# --- accepted


def test_an_older_journal_is_upgraded(servers: Servers, journal: Path) -> None:
    # Version 0 is a database that was named ours and has got no further.
    with database(journal / FILE) as older:
        older.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    server = servers.start("-b", journal)
    job_id = server.connect().put(b"kept")
    assert server.terminate() == 0
    with database(journal / FILE) as upgraded:
        assert upgraded.execute("PRAGMA user_version").fetchone()[0] >= 1
        assert upgraded.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert servers.start("-b", journal).connect().ask(b"peek %d" % job_id).data == b"kept"


def test_an_empty_file_becomes_a_journal(servers: Servers, journal: Path) -> None:
    (journal / FILE).touch()
    first = servers.start("-b", journal)
    job_id = first.connect().put(b"kept")
    first.kill()
    assert servers.start("-b", journal).connect().ask(b"peek %d" % job_id).data == b"kept"


def test_a_first_start_that_was_killed_is_begun_again(servers: Servers, journal: Path) -> None:
    program = "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    program += "db.executescript('PRAGMA cache_size = 1; BEGIN; CREATE TABLE job AS SELECT zeroblob(100000) AS body')\n"
    program += "os.kill(os.getpid(), 9)\n"
    subprocess.run([shutil.which("python3") or "python3", "-c", program, journal / FILE], check=False)
    assert (journal / FILE).stat().st_size > 0
    assert (journal / f"{FILE}-journal").stat().st_size > 0
    assert servers.start("-b", journal).connect().put() == 1


def test_beanstalkds_own_files_are_left_alone_with_a_warning(servers: Servers, journal: Path) -> None:
    (journal / "binlog.1").write_bytes(b"\7\0\0\0" + b"precious")
    server = servers.start("-b", journal)
    assert "binlog" in server.log()
    server.connect().put()
    assert (journal / "binlog.1").read_bytes() == b"\7\0\0\0" + b"precious"


@pytest.mark.slow
def test_the_directory_shrinks_after_a_backlog_is_drained(servers: Servers, journal: Path) -> None:
    client = servers.start("-b", journal).connect()
    client.ask(b"use kept")
    kept = client.put_all([b"kept"] * 10)
    client.ask(b"use drained")
    ids = client.put_all([b"b" * 2048] * 20_000)
    largest = disk_use(journal)
    assert largest > 40 * MEGABYTE
    assert {reply.line for reply in client.ask_all(b"delete %d" % job_id for job_id in ids)} == {b"DELETED"}
    assert until(lambda: disk_use(journal) < 8 * MEGABYTE), f"{largest} bytes became {disk_use(journal)} only"
    assert [client.ask(b"peek %d" % job_id).data for job_id in kept] == [b"kept"] * 10


@pytest.mark.slow
def test_the_directory_shrinks_also_after_a_restart(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    ids = server.connect().put_all([b"b" * 20_000] * 2000)
    server.connect().ask_all(b"delete %d" % job_id for job_id in ids)
    server.kill()
    servers.start("-b", journal)
    assert until(lambda: disk_use(journal) < 8 * MEGABYTE), f"still {disk_use(journal)} bytes"


# --- backup


@pytest.mark.slow
def test_a_backup_of_a_journal_under_load_holds_every_job_acknowledged_before(
    servers: Servers, journal: Path, tmp_path: Path
) -> None:
    server = servers.start("-b", journal)
    client = server.connect()
    before = client.put_all(b"%d" % number for number in range(500))
    buried = before[:5]
    for job_id in buried:
        client.ask_all([b"reserve-job %d" % job_id, b"bury %d 0" % job_id])
    client.ask_all(b"delete %d" % job_id for job_id in before[5:10])
    enough = threading.Event()

    def load() -> None:
        other = server.connect()
        while not enough.is_set():
            other.put_all([b"while the copy is made" * 50] * 50)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        results = [run("backup", journal, tmp_path / f"copy{number}") for number in range(3)]
    finally:
        enough.set()
        loader.join()
    for number, result in enumerate(results):
        assert (result.returncode, result.stderr) == (0, "")
        directory = tmp_path / f"restored{number}"
        directory.mkdir()
        (tmp_path / f"copy{number}").rename(directory / FILE)
        after = servers.start("-b", directory).connect()
        assert after.found(before) == [True] * 5 + [False] * 5 + [True] * 490
        assert [after.stats(b"stats-job %d" % job_id)["state"] for job_id in buried] == ["buried"] * 5
        count = int(result.stdout.split()[0])
        stats = after.stats()
        assert count == int(stats["current-jobs-ready"]) + int(stats["current-jobs-buried"]) >= 495
    assert client.ask(b"peek %d" % before[-1]).word == b"FOUND"


def test_a_backup_of_a_journal_that_no_server_uses_leaves_it_as_it_was(
    servers: Servers, journal: Path, tmp_path: Path, filled: list[int]
) -> None:
    assert run("backup", journal, tmp_path / "copy").stdout.split()[0] == str(len(filled))
    directory = tmp_path / "restored"
    directory.mkdir()
    shutil.move(tmp_path / "copy", directory / FILE)
    for place in (journal, directory):
        stats = servers.start("-b", place).connect().stats()
        assert int(stats["current-jobs-ready"]) == len(filled)


def test_a_backup_holds_what_a_crash_left_in_the_log(servers: Servers, journal: Path, tmp_path: Path) -> None:
    server = servers.start("-b", journal)
    server.connect().put_all([b"x"] * 7)
    server.kill()
    assert run("backup", journal, tmp_path / "copy").stdout.startswith("7 ")


def test_a_backup_overwrites_nothing(journal: Path, tmp_path: Path, filled: list[int]) -> None:
    assert filled
    target = tmp_path / "copy"
    target.write_text("precious")
    result = run("backup", journal, target)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert str(target) in result.stderr
    assert target.read_text() == "precious"


@pytest.mark.parametrize("what", ["nothing", "a foreign file"])
def test_a_backup_of_what_is_no_journal_fails_and_leaves_no_file(journal: Path, tmp_path: Path, what: str) -> None:
    if what == "a foreign file":
        (journal / FILE).write_text("not a database\n" * 1000)
    result = run("backup", journal, tmp_path / "copy")
    assert (result.returncode, len(result.stderr.splitlines())) == (10, 1)
    assert not (tmp_path / "copy").exists()


def test_a_backup_of_a_journal_of_a_newer_version_fails_and_leaves_no_file(
    journal: Path, tmp_path: Path, filled: list[int]
) -> None:
    assert filled
    with contextlib.closing(sqlite3.connect(journal / FILE)) as newer:
        newer.execute("PRAGMA user_version = 1000")
    result = run("backup", journal, tmp_path / "copy")
    assert (result.returncode, len(result.stderr.splitlines())) == (10, 1)
    assert "version 1000" in result.stderr
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("words", [[], ["one"], ["one", "two", "three"]])
def test_a_backup_needs_a_directory_and_a_file(words: list[str]) -> None:
    result = run("backup", *words)
    assert (result.returncode, result.stdout) == (5, "")
    assert "backup DIR FILE" in result.stderr


@pytest.mark.real
def test_a_backup_for_which_there_is_no_room_fails_and_leaves_no_file(
    servers: Servers, journal: Path, small_disk: Callable[[int], SmallDisk]
) -> None:
    servers.start("-b", journal).connect().put_all([b"x" * 20_000] * 200)
    disk = small_disk(1)
    result = run("backup", journal, disk.directory / "copy", within=disk.within)
    assert result.returncode not in (0, None)
    assert len(result.stderr.splitlines()) == 1
    assert list(disk.seen.iterdir()) == []

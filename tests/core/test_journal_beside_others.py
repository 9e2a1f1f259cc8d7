"""A journal keeps its jobs from other users, and goes on beside other programs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from journals import FILES, Stores

from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.embedded.backup import backup
from beanspiked.engine.embedded.database import FILE_NAME, log_paths
from beanspiked.engine.embedded.log import SIZES
from beanspiked.engine.errors import StoreFailed, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


@pytest.fixture
def lax_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("lax_umask")
def test_nobody_else_may_read_the_files_of_a_journal(stores: Stores, tmp_path: Path) -> None:
    stores.open().put()
    names = [FILE_NAME, f"{FILE_NAME}-shm", f"{FILE_NAME}-wal", "lock", "log.0", "log.1", "reserve"]
    assert modes(tmp_path) == dict.fromkeys(names, 0o600)


@pytest.mark.usefixtures("lax_umask")
def test_files_that_others_could_read_are_closed_to_them(stores: Stores, tmp_path: Path) -> None:
    stores.open().put()
    for path in tmp_path.iterdir():
        shutil.copy(path, tmp_path / f"{path.name}.crashed")
    stores.close()
    for name in (*FILES, f"{FILE_NAME}-shm"):
        shutil.move(tmp_path / f"{name}.crashed", tmp_path / name)
        (tmp_path / name).chmod(0o644)
    assert stores.open().job(1).body == b"x"
    assert {mode for name, mode in modes(tmp_path).items() if not name.endswith(".crashed")} == {0o600}


@pytest.mark.usefixtures("lax_umask")
def test_nobody_else_may_read_a_backup(stores: Stores, tmp_path: Path) -> None:
    stores.open().put()
    backup(tmp_path, tmp_path / "copy")
    assert modes(tmp_path)["copy"] == 0o600


def test_a_database_of_another_program_is_not_backed_up_as_a_journal(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as foreign:
        foreign.execute("CREATE TABLE job (id INTEGER)")
    with pytest.raises(StoreUnusable, match="not a journal of beanspiked"):
        backup(tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backup_of_a_damaged_journal_fails_and_leaves_no_file(stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    for _ in range(300):
        store.put(body=b"x" * 1000)
    stores.close()
    with (tmp_path / FILE_NAME).open("r+b") as file:
        # A page of jobs becomes one that no page may look like.
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises((StoreUnusable, sqlite3.DatabaseError)):
        backup(tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_files_of_somebody_else_are_used_with_a_warning(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stores.open().put()
    stores.close()
    (tmp_path / FILE_NAME).chmod(0o644)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refuse)
    assert stores.open().job(1).body == b"x"
    assert "other users may be able to read" in caplog.text


def test_somebody_elses_database_keeps_its_mode(stores: Stores, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as foreign:
        foreign.execute("CREATE TABLE note (title TEXT)")
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(StoreUnusable):
        stores.open()
    assert modes(tmp_path)[FILE_NAME] == 0o644


def test_a_journal_may_be_a_link_to_a_file_elsewhere(stores: Stores, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stores.open().put()
    stores.close()
    shutil.move(tmp_path / FILE_NAME, elsewhere / FILE_NAME)
    (tmp_path / FILE_NAME).symlink_to(elsewhere / FILE_NAME)
    store = stores.open()
    assert store.put() == 2
    store.journal._sync()
    assert store.journal.stats.syncs == 1


# --- other programs


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the database, once there is one."""
    (tmp_path / FILE_NAME).touch()
    connection = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None, check_same_thread=False, timeout=5)
    yield connection
    connection.close()


@pytest.mark.parametrize("what", ["PRAGMA wal_checkpoint(TRUNCATE)", "BEGIN IMMEDIATE; SELECT 1; ROLLBACK"])
def test_programs_that_lock_the_database_for_moments_refuse_no_change(
    stores: Stores, other: sqlite3.Connection, what: str
) -> None:
    store = stores.open()
    enough = threading.Event()

    def lock() -> None:
        while not enough.is_set():
            for statement in what.split("; "):
                other.execute(statement)
                time.sleep(0.002)

    thread = threading.Thread(target=lock)
    thread.start()
    try:
        laters = []
        for _ in range(50):
            later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x" * 100)
            store.wait(later)
            laters.append(later)
    finally:
        enough.set()
        thread.join()
    assert [later.error for later in laters if later is not None] == [None] * 50


def test_a_journal_that_was_locked_at_a_start_can_be_opened_afterwards(
    stores: Stores, other: sqlite3.Connection
) -> None:
    stores.open()
    stores.close()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnusable, match="locked"):
        stores.open()
    other.execute("ROLLBACK")
    assert stores.open().put() == 1


def test_a_database_that_stays_locked_holds_up_no_change(
    stores: Stores, other: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores.open()
    store.journal._database.execute("PRAGMA busy_timeout = 20")
    other.execute("BEGIN IMMEDIATE")
    assert [store.put() for _ in range(3)] == [1, 2, 3]
    assert not store.fold()
    assert not store.fold()
    assert store.put() == 4
    assert caplog.text.count("the log cannot be folded") == 1
    other.execute("ROLLBACK")
    assert store.fold()
    assert other.execute("SELECT count(*) FROM job").fetchone() == (3,)


def test_a_database_that_stays_locked_is_waited_for_once_and_not_for_each_change_when_the_log_is_full(
    stores: Stores, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SIZES, "first", 1 << 12)
    monkeypatch.setattr(SIZES, "most", 1 << 12)
    store = stores.open()
    first = store.put()
    store.journal._database.execute("PRAGMA busy_timeout = 200")
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    engine = store.engine
    laters = [engine.put(engine.tube("default"), engine.new_id(), 1, 0, 60, b"x" * 1000) for _ in range(30)]
    for later in laters:
        store.wait(later)
    assert any(later is not None and isinstance(later.error, StoreFailed) for later in (*laters, store.another()))
    store.wait(engine.delete(store.job(first)))
    assert engine.find_job(first) is None
    assert time.monotonic() - began < 2
    other.execute("ROLLBACK")
    while store.journal._log.spare is None:
        store.journal._folder.wake()
        time.sleep(0.01)
    assert store.put() > 30


def test_the_log_grows_while_it_cannot_be_folded_and_is_its_size_again_afterwards(
    stores: Stores, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SIZES, "first", 1 << 14)
    monkeypatch.setattr(SIZES, "most", 1 << 14)
    store = stores.open()
    log = store.journal._log
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    while log.current.size <= 2 << 14:
        assert store.put(body=bytes(1000))
    assert time.monotonic() - began < 2
    other.execute("ROLLBACK")
    while log.spare is None:
        time.sleep(0.01)
    assert store.fold()
    assert {path.stat().st_size for path in log_paths(stores.directory)} == {1 << 14}


def test_the_log_grows_though_its_directory_was_moved_away(
    stores: Stores, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SIZES, "first", 1 << 14)
    monkeypatch.setattr(SIZES, "most", 1 << 14)
    store = stores.open()
    other.execute("BEGIN IMMEDIATE")
    away = stores.directory.rename(stores.directory.with_name("away"))
    laters = [store.another() for _ in range(50)]
    assert [later.error for later in laters if later is not None] == [None] * 50
    away.rename(stores.directory)
    other.execute("ROLLBACK")


def test_a_checkpoint_gives_up_at_once_and_changes_wait_again_after_it(
    stores: Stores, other: sqlite3.Connection
) -> None:
    store = stores.open()
    store.put()
    assert store.fold()
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM job").fetchone()
    store.put()
    assert store.fold()
    began = time.monotonic()
    assert store.journal._folder.checkpoint()
    assert time.monotonic() - began < 1
    assert store.journal._database.execute("PRAGMA busy_timeout").fetchone() == (2000,)


def test_one_line_says_that_a_reader_makes_the_log_grow_and_one_that_it_is_over(
    stores: Stores,
    other: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(folder_module, "WAL_BYTES", 100_000)
    store = stores.open()
    log = tmp_path / f"{FILE_NAME}-wal"

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "-wal " in record.getMessage()]

    store.put(body=b"x" * 200_000)
    assert store.fold()
    store.journal._folder.keep_house()
    assert (lines(), log.stat().st_size) == ([], 0)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM job").fetchone()
    for _ in range(3):
        store.put(body=b"x" * 200_000)
        assert store.fold()
        store.journal._folder.keep_house()
    assert len(lines()) == 1
    assert "reads the database" in lines()[0]
    assert "-wal has 0 MB and grows" in lines()[0]
    other.execute("ROLLBACK")
    for _ in range(3):
        store.journal._folder.keep_house()
    assert len(lines()) == 2
    assert log.stat().st_size == 0


@pytest.mark.parametrize("name", [FILE_NAME, "log.0", "log.1"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_removed_or_replaced_while_it_is_in_use_is_told_once(
    stores: Stores, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    folder = stores.open().journal._folder
    folder.keep_house()
    assert "replaced" not in caplog.text
    path = stores.directory / name
    if how == "removed":
        path.unlink()
    else:
        other = tmp_path / "other"
        other.write_bytes(path.read_bytes())
        other.rename(path)
    folder.keep_house()
    folder.keep_house()
    told = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert told == [f"{path} was removed or replaced while it is in use: jobs may be lost when the server ends"]

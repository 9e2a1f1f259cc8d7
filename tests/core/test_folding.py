"""The log is folded into the database, whatever happens meanwhile, and each change is committed once."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
from typing import TYPE_CHECKING

import pytest
from depth import FULL
from journals import Store, Stores, crash, described

from beanspiked.engine.contract import DELAYED, Filter
from beanspiked.engine.embedded import backup as backup_module
from beanspiked.engine.embedded import database as database_module
from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.embedded.backup import backup
from beanspiked.engine.embedded.database import APPLICATION_ID, FILE_NAME, log_paths
from beanspiked.engine.embedded.frames import START
from beanspiked.engine.embedded.log import SIZES, read_log
from beanspiked.engine.errors import StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NAME = b"the same"
BATCHES = [b"one", b"the second batch", b"", b"3" * 100, b"the last batch of all"]


def known(store: Store) -> dict[int, tuple[object, ...]]:
    return {job.id: described(job) for job in store.engine._jobs.all()}


def make_every_change(store: Store) -> None:
    """Make changes of every kind, of jobs that the database has, and of others."""
    engine = store.engine
    for _ in range(2):
        ids = [store.put(tube, delay=delay) for tube in ("a", "b") for delay in (0, 0, 0, 50)]
        store.engine.take_job(store.job(ids[0]))
        store.wait(engine.release(store.job(ids[0]), 7, 60))
        store.engine.take_job(store.job(ids[1]))
        store.wait(engine.bury(store.job(ids[1]), 8, "why"))
        store.wait(engine.delete(store.job(ids[2])))
        store.wait(engine.kick_job(store.job(ids[3])))
        store.engine.take_job(store.job(ids[4]))
        store.wait(engine.update(store.job(ids[4]), b"new", 5))
        store.wait(engine.release(store.job(ids[4]), 1, 0))
        store.wait(engine.move(engine.tube("b"), engine.tube("c"), Filter(states=(DELAYED,))))
        store.wait(engine.pause(engine.tube("a"), 100))
        store.put(body=bytes(2 << 20))
        if not store.journal.reading.folded:
            assert store.fold()
            store.journal.reading.folded = 1


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [150, folder_module.FOLD_BYTES], ids=["in parts", "whole"])
def test_a_kill_at_any_step_of_a_fold_changes_nothing(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(folder_module, "FOLD_BYTES", at_once)
    # All changes fit into one file, and the folder leaves the fold to the test.
    monkeypatch.setattr(SIZES, "first", 1 << 22)
    monkeypatch.setattr(folder_module, "HOUSEKEEPING_SECONDS", 3600.0)
    store = stores.open()
    make_every_change(store)
    wanted = known(store)
    copies: list[Path] = []

    def copy(_: str) -> None:
        copies.append(crash(stores.directory, tmp_path / f"copy{len(copies)}"))

    store.journal._database.set_trace_callback(copy)
    assert store.fold()
    store.journal._database.set_trace_callback(None)
    copy("at the end")
    assert len(copies) > 8
    folded = set()
    for directory in copies:
        again = Stores(directory, stores.wire)
        opened = again.open()
        folded.add(opened.journal.reading.folded)
        assert known(opened) == wanted
        assert opened.engine.tube("a").pause == 100
        # What was replayed is folded like anything else.
        assert opened.fold()
        assert known(again.open()) == wanted
        again.close()
    assert len(folded) >= (2 if at_once > 150 else 4)


def test_what_has_to_be_written_is_committed_in_parts_and_what_has_not_makes_none(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "FOLD_BYTES", 5000)
    store = stores.open()
    statements: list[str] = []
    store.journal._database.set_trace_callback(statements.append)
    for _ in range(20):
        store.wait(store.engine.delete(store.job(store.put(body=bytes(1000)))))
    assert store.fold()
    assert statements.count("COMMIT") == 1
    ids = [store.put(body=bytes(1000)) for _ in range(20)]
    assert store.fold()
    assert statements.count("COMMIT") == 5
    store.journal._database.set_trace_callback(None)
    assert list(known(stores.open())) == ids


def test_new_bodies_are_committed_in_parts_but_those_that_are_not_needed_any_more(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "FOLD_BYTES", 5000)
    store = stores.open()
    jobs = [store.job(store.put()) for _ in range(20)]
    assert store.fold()
    statements: list[str] = []
    store.journal._database.set_trace_callback(statements.append)
    for job in jobs:
        store.engine.take_job(job)
        store.wait(store.engine.update(job, bytes(1000)))
    assert store.fold()
    assert statements.count("COMMIT") == 4
    for job in jobs[:10]:
        for size in (1000, 900, 800):
            store.wait(store.engine.update(job, bytes(size)))
        store.wait(store.engine.delete(job))
    for _ in range(10):
        store.wait(store.engine.update(jobs[10], bytes(1000)))
    assert store.fold()
    assert statements.count("COMMIT") == 5
    store.journal._database.set_trace_callback(None)


def test_a_job_that_was_put_and_deleted_between_two_folds_never_comes_to_the_database(stores: Stores) -> None:
    store = stores.open()
    job_id = store.put(body=b"short-lived")
    store.wait(store.engine.delete(store.job(job_id)))
    statements: list[str] = []
    store.journal._database.set_trace_callback(statements.append)
    assert store.fold()
    store.journal._database.set_trace_callback(None)
    assert [statement for statement in statements if " job " in statement] == []
    assert stores.open().put() == job_id + 1


def test_commits_go_on_while_the_log_is_folded(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores.open()
    store.put()
    steps = folder_module.fold_steps
    put: list[int] = []

    def interrupted(*given: object) -> Iterator[None]:
        put.append(store.put())
        yield from steps(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "fold_steps", interrupted)
        assert store.fold()
    assert put == [2]
    again = Stores(crash(stores.directory, tmp_path / "copy"), stores.wire)
    assert again.open().engine.counts.ready == 2
    again.close()


def test_a_fold_that_failed_amid_its_transaction_is_made_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores.open()
    job_id = store.put()

    def half(*_: object) -> Iterator[None]:
        yield
        raise sqlite3.OperationalError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "fold_steps", half)
        assert not store.fold()
    assert store.fold()
    assert list(known(stores.open())) == [job_id]


def test_a_clean_stop_leaves_all_in_the_database_and_no_log(stores: Stores) -> None:
    store = stores.open()
    store.put()
    stores.close()
    assert not any(path.exists() for path in log_paths(stores.directory))
    with contextlib.closing(sqlite3.connect(stores.directory / FILE_NAME)) as database:
        assert database.execute("SELECT id FROM job").fetchall() == [(1,)]


def test_a_log_that_cannot_be_folded_at_a_stop_is_read_by_the_next_start(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores.open()
    store.put()

    def fail(*_: object) -> Iterator[None]:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "fold_steps", fail)
        stores.close()
    assert "the next start reads it" in caplog.text
    assert stores.open().job(1).body == b"x"


def test_what_is_in_the_log_is_folded_after_some_seconds(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(folder_module.time, "monotonic", lambda: now)
    store = stores.open()
    store.put()
    folder = store.journal._folder
    for seconds, folded in ((0, 0), (4.9, 0), (0.2, 1)):
        now += seconds
        assert folder.fold(folder_module.FOLD_SECONDS)
        assert folder._folded == folded
    monkeypatch.undo()


def test_a_journal_of_the_version_before_the_log_is_upgraded(stores: Stores) -> None:
    with contextlib.closing(sqlite3.connect(stores.directory / FILE_NAME)) as database:
        database.executescript(f"PRAGMA journal_mode = WAL; {database_module.MIGRATIONS[0]}")
        database.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")
        names = "tube, state, pri, delay, ttr, born, place, body"
        database.execute(f"INSERT INTO job ({names}) VALUES ('a', 0, 5, 0.0, 60.0, 1.0, 0.0, x'6f6c64')")
        database.commit()
    assert stores.open().job(1).body == b"old"
    assert stores.open().put() == 2
    stores.close()
    with contextlib.closing(sqlite3.connect(stores.directory / FILE_NAME)) as database:
        # The version before refuses a higher one.
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_backup_reads_again_what_a_server_has_folded_meanwhile(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.open()
    store.put()
    tries = 0

    def folding(*given: object) -> object:
        nonlocal tries
        tries += 1
        if tries == 1:
            # Twice, so that the file is written again.
            for _ in range(2):
                assert store.fold()
                store.put()
        return read_log(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(backup_module, "read_log", folding)
    assert backup(stores.directory, tmp_path / "copy") == 3
    assert tries == 2


def test_a_backup_that_begins_while_a_server_stops_holds_all_jobs(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.open().put()

    def stopped_before(*given: object) -> object:
        # What was in the log is in the database by now, and the log is gone.
        stores.close()
        return read_log(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(backup_module, "read_log", stopped_before)
    assert backup(stores.directory, tmp_path / "copy") == 1


def test_a_backup_does_not_hold_what_a_server_folds_after_the_log_was_read_twice(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.open()
    store.put()

    def folded_after(*given: object) -> object:
        found = read_log(*given)  # type: ignore[arg-type]
        assert store.fold()
        store.put()
        assert store.fold()
        return found

    monkeypatch.setattr(backup_module, "read_log", folded_after)
    assert backup(stores.directory, tmp_path / "copy") == 1


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
def test_sqlites_fault_of_a_quota_or_a_limit_is_a_full_disk(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = stores.open()
    store.put()
    failing = sqlite3.OperationalError("disk I/O error")
    failing.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE

    def fail(*_: object) -> Iterator[None]:
        raise failing

    def no_more(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "fold_steps", fail)
        patch.setattr(os, "write", no_more)
        assert not store.fold()
    assert isinstance(store.journal._folder.error, StoreFull)
    assert str(store.journal._folder.error) == f"the disk is full: {os.strerror(number)}"
    later = store.engine.put(store.engine.tube("a"), store.engine.new_id(), 1, 0, 60, b"x")
    store.wait(later)
    assert later is not None
    assert isinstance(later.error, StoreFull)
    store.wait(store.engine.delete(store.job(1)))
    assert store.fold()
    assert store.put() == 3


# --- crashes at random


@pytest.mark.parametrize("seed", range(20 if FULL else 3))
def test_after_a_crash_at_a_random_moment_what_was_acknowledged_is_there(
    seed: int, stores: Stores, tmp_path: Path
) -> None:
    chooser = random.Random(seed)
    stores.fsync_ms = chooser.choice([0, -1])
    store = stores.open()
    engine = store.engine
    for number in range(30):
        ids = sorted(known(store))
        verb = chooser.choice(["put", "put", "put", "delete", "bury", "release", "kick", "fold", "crash"])
        if verb == "put":
            store.put(
                chooser.choice("ab"),
                delay=chooser.choice([0, 9]),
                body=chooser.randbytes(chooser.choice([0, 9, 70_000])),
            )
        elif verb == "fold":
            assert store.fold()
        elif verb == "kick":
            count, later = engine.kick(engine.tube(chooser.choice("ab")), 3)
            if count:
                store.wait(later)
        elif verb == "crash":
            copy = crash(stores.directory, tmp_path / f"copy{number}")
            file = store.journal._log.current
            with (copy / file.path.name).open("r+b") as torn:
                # The next frame was on its way to the disk.
                frame = (copy / file.path.name).read_bytes()[START : START + 200]
                torn.seek(file.end)
                torn.write(frame[: chooser.randrange(len(frame))])
            again = Stores(copy, stores.wire)
            for _ in range(2):
                assert known(again.open()) == known(store)
            again.close()
        elif ids:
            job = store.job(chooser.choice(ids))
            if verb == "delete":
                store.wait(engine.delete(job))
            else:
                engine.take_job(job)
                store.wait(engine.bury(job, 3) if verb == "bury" else engine.release(job, 4, chooser.choice([0, 5])))

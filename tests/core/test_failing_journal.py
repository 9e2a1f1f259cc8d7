"""What a journal does when its disk is full or fails."""

from __future__ import annotations

import errno
import inspect
import os
import resource
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journals import Stores, failing_fold

from beanspiked.engine.embedded import database as database_module
from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.embedded.backup import backup
from beanspiked.engine.embedded.database import FILE_NAME
from beanspiked.engine.embedded.journal import Journal
from beanspiked.engine.embedded.log import SIZES
from beanspiked.engine.embedded.room import RESERVE_BYTES, Room
from beanspiked.engine.errors import StoreFailed, StoreFull, StoreUnusable

if TYPE_CHECKING:
    from pathlib import Path

    from beanspiked.engine.embedded.write import Write
    from beanspiked.engine.later import Later


def test_when_there_is_no_room_puts_fail_and_deletes_do_not(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SIZES, "first", 1 << 15)
    monkeypatch.setattr(SIZES, "most", 1 << 15)
    store = stores.open()
    first = store.put(body=b"x" * 3000)
    pages = store.journal._database.execute("PRAGMA page_count").fetchone()[0]
    store.journal._database.execute(f"PRAGMA max_page_count = {pages + 20}")
    fails: list[Later] = []
    for _ in range(100):
        later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"y" * 3000)
        store.wait(later)
        assert later is not None
        if later.error is not None:
            fails.append(later)
    assert fails
    assert all(isinstance(later.error, StoreFull) for later in fails)
    acknowledged = store.engine.counts.ready
    assert acknowledged == 101 - len(fails)
    store.wait(store.engine.delete(store.job(first)))
    store = stores.open()
    assert store.engine.counts.ready == acknowledged - 1


def test_a_disk_that_is_full_for_a_put_has_the_reserve_for_the_deletes_beside_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.open()
    first = store.put()
    pwrite = os.pwrite

    def full(fd: int, data: bytes, at: int) -> int:
        if (stores.directory / "reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, at)

    engine = store.engine
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        put = engine.put(engine.tube("default"), engine.new_id(), 1, 0, 60, b"x")
        delete = engine.delete(store.job(first))
        store.wait(delete)
        store.wait(put)
    assert put is not None
    assert delete is not None
    assert isinstance(put.error, StoreFull)
    assert delete.error is None


def test_while_its_reserve_has_no_room_puts_are_refused_and_not_afterwards(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        store = stores.open()
        assert not store.journal._room.restore()
        assert not (stores.directory / "reserve").exists()
        later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x")
        store.wait(later)
        assert later is not None
        assert isinstance(later.error, StoreFull)
    # Housekeeping sees that there is room again.
    store.journal._folder.keep_house()
    assert not store.journal.stats.full
    assert (stores.directory / "reserve").stat().st_size == RESERVE_BYTES
    assert store.put() == 2


def test_a_reserve_that_was_cut_off_is_whole_again_after_a_start(stores: Stores) -> None:
    (stores.directory / "reserve").write_bytes(b"short")
    stores.open()
    assert (stores.directory / "reserve").stat().st_size == RESERVE_BYTES


def test_one_change_that_fails_does_not_fail_the_others_of_its_batch(stores: Stores) -> None:
    store = stores.open()
    engine = store.engine
    doomed = store.put()
    spared = store.put()
    laters = [engine.delete(store.job(doomed)), engine.delete(store.job(spared))]
    # No record can be made of an unknown kind of change.
    store.journal._added[0].op = 99
    laters.append(engine.put(engine.tube("default"), engine.new_id(), 1, 0, 60, b"new"))
    for later in laters:
        store.wait(later)
    errors = [later.error for later in laters if later is not None]
    assert isinstance(errors[0], StoreFailed)
    assert errors[1:] == [None, None]
    assert engine.find_job(doomed) is not None
    assert engine.find_job(spared) is None
    assert engine.take([engine.tube("default")]) is engine.find_job(doomed)


def test_a_journal_of_an_older_version_is_upgraded(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = stores.open().put()
    stores.open().close()
    stores.now = None
    step = "ALTER TABLE job ADD COLUMN colour TEXT NOT NULL DEFAULT 'green'"
    monkeypatch.setattr(database_module, "MIGRATIONS", [*database_module.MIGRATIONS, step])
    monkeypatch.setattr(database_module, "SCHEMA_VERSION", 3)
    store = stores.open()
    assert store.job(job_id).body == b"x"
    assert store.journal._database.execute("SELECT colour FROM job").fetchall() == [("green",)]
    assert store.journal._database.execute("PRAGMA user_version").fetchone() == (3,)


def test_an_upgrade_that_fails_leaves_the_journal_as_it_was(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = stores.open().put()
    stores.open().close()
    stores.now = None
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", [*database_module.MIGRATIONS, "UPDATE job SET pri = 5; nonsense"])
        patch.setattr(database_module, "SCHEMA_VERSION", 3)
        with pytest.raises(StoreUnusable, match="nonsense"):
            stores.open()
    assert stores.open().job(job_id).pri == 1


def test_a_copy_of_a_live_journal_is_whole_and_nothing_is_overwritten(stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    ids = [store.put(body=b"%d" % number) for number in range(50)]
    target = tmp_path / "copy.sqlite"
    assert backup(tmp_path, target) == 50
    with pytest.raises(FileExistsError):
        backup(tmp_path, target)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(target, elsewhere / FILE_NAME)
    assert not (elsewhere / "log.0").exists()
    copies = Stores(elsewhere, stores.wire)
    copy = copies.open()
    assert [copy.job(job_id).body for job_id in ids] == [b"%d" % number for number in range(50)]
    copy.close()


def test_a_first_start_that_ended_too_early_does_not_spoil_the_directory(stores: Stores, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA journal_mode = WAL")
    database.close()
    assert (tmp_path / FILE_NAME).stat().st_size > 0
    assert stores.open().put() == 1


def test_a_backup_for_which_there_is_no_room_blames_its_file_and_leaves_none(stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    for _ in range(20):
        store.put(body=b"x" * 20_000)
    stores.close()
    target = tmp_path / "copy"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*copy"):
            backup(stores.directory, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not target.exists()


def test_a_backup_of_a_directory_that_cannot_be_looked_at_blames_the_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="File name too long"):
        backup(tmp_path / ("x" * 300), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backup_that_reads_does_not_hold_up_the_writer(stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    reader = sqlite3.connect(f"file:{tmp_path / FILE_NAME}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM job").fetchone()
    store.put()
    assert store.fold()
    assert store.journal._folder.checkpoint()
    reader.close()


def test_a_writer_that_fails_refuses_its_batch_and_goes_on(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    if not inspect.isfunction(Journal.close):
        pytest.skip("a compiled journal takes no bug from a test")
    store = stores.open()
    with monkeypatch.context() as patch:
        patch.setattr(store.journal, "_succeed", None)
        later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x")
        store.wait(later)
        assert later is not None
        assert isinstance(later.error, StoreFailed)
    assert store.put() == 2


def test_what_a_writer_settled_before_it_failed_stays_as_it_was_told(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not inspect.isfunction(Journal.close):
        pytest.skip("a compiled journal takes no bug from a test")
    store = stores.open()
    commit_all = store.journal._commit_all

    def fail_afterwards(batch: list[Write]) -> None:
        commit_all(batch)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(store.journal, "_commit_all", fail_afterwards)
        assert store.put() == 1
    assert store.put() == 2
    assert stores.open().engine.counts.ready == 2


def test_pauses_of_tubes_that_went_are_swept(stores: Stores) -> None:
    store = stores.open()
    tube = store.engine.tube("a")
    tube.watching += 1
    store.wait(store.engine.pause(tube, 0.001))
    assert store.fold()
    store.journal._database.execute("UPDATE pause SET until = 1")
    store.journal._folder.keep_house()
    assert store.journal._database.execute("SELECT count(*) FROM pause").fetchone() == (0,)


def failing_sync(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_after_a_sync_that_failed_the_log_is_written_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores.open()
    store.put(body=b"acknowledged")
    store.journal._sync()
    assert "synced again" not in caplog.text
    store.put(body=b"acknowledged, too")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing_sync)
        store.journal._sync()
        assert store.journal.stats.distrusted
    written: list[bytes] = []
    pwrite = os.pwrite

    def watched(fd: int, data: bytes, at: int) -> int:
        written.append(bytes(data))
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", watched)
    for _ in range(2):
        store.journal._sync()
    assert not store.journal.stats.distrusted
    assert [(b"acknowledged, too" in data, b"acknowledged\0" in data) for data in written] == [(True, False)]
    assert caplog.text.count("all changes are synced again") == 1


def test_while_the_log_cannot_be_read_again_a_failed_sync_is_not_made_good(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.open()
    store.put(body=b"acknowledged")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing_sync)
        store.journal._sync()
    file = store.journal._log.current
    whole = os.pread(file.fd, file.end, 0)
    os.pwrite(file.fd, b"?", file.end - 1)
    later = store.another()
    assert later is not None
    assert isinstance(later.error, StoreFailed)
    os.pwrite(file.fd, whole, 0)
    assert store.put() == 3


def test_a_sync_comes_in_time_however_many_changes_follow_the_first(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stores.fsync_ms = 1000 * 3600
    store = stores.open()
    store.put()
    now += 3000
    store.put()
    assert store.journal._until_sync() == 600.0


def test_a_sync_that_failed_is_tried_again_after_a_pause(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stores.fsync_ms = 1000 * 3600
    store = stores.open()
    store.put()
    now += 3000
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing_sync)
        store.journal._sync()
    assert store.journal._until_sync() == 3600.0


def test_a_stop_writes_again_what_an_earlier_sync_may_have_lost(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.fsync_ms = 1000 * 3600
    store = stores.open()
    store.put()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing_sync)
        store.journal._sync()
        assert store.journal.stats.distrusted
    # Then all that holds the job is the log.
    monkeypatch.setattr(folder_module, "fold_steps", failing_fold)
    stores.close()
    assert not store.journal.stats.distrusted


def test_nobody_reserves_the_space_again_that_the_folder_uses(tmp_path: Path) -> None:
    room = Room(tmp_path)
    assert room.restore()
    with room.lend():
        assert not room.restore()
        assert not (tmp_path / "reserve").exists()
    assert room.restore()

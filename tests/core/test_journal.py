"""What a real journal gives back after a restart is what was committed to it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import inspect
import os
import random
import shutil
import sqlite3
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest
from journals import FILES, Store, Stores, crash, described

from beanspiked.engine.contract import BURIED, DELAYED, READY, RESERVED, Details, Filter, Job
from beanspiked.engine.embedded import database as database_module
from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.embedded import log as log_module
from beanspiked.engine.embedded import start as start_module
from beanspiked.engine.embedded import statements as statements_module
from beanspiked.engine.embedded.backup import backup
from beanspiked.engine.embedded.database import FILE_NAME
from beanspiked.engine.embedded.journal import Journal
from beanspiked.engine.embedded.room import RESERVE_BYTES
from beanspiked.engine.errors import StoreFailed, StoreFull, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simulated import Wire

    from beanspiked.engine.later import Later


@pytest.fixture
def stores(tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    # The log is folded, and the database kept tidy, when a test says so.
    monkeypatch.setattr(folder_module, "HOUSEKEEPING_SECONDS", 1e6)
    stores = Stores(tmp_path, wire)
    yield stores
    stores.close()


@pytest.mark.parametrize("seed", range(25))
def test_any_history_is_the_same_after_a_restart(seed: int, stores: Stores) -> None:
    chooser = random.Random(seed)
    store = stores.open(by_writer=seed % 2 == 1)
    known: dict[int, tuple[object, ...]] = {}
    for _ in range(40):
        engine = store.engine
        ids = sorted(known)
        verb = chooser.choice(
            [
                "put",
                "put",
                "put",
                "take",
                "delete",
                "release",
                "bury",
                "kick",
                "kick_job",
                "update",
                "move",
                "fold",
                "open",
                "wait",
            ]
        )
        if verb == "put":
            job_id = store.put(
                tube=chooser.choice(["a", "b"]),
                pri=chooser.choice([0, 7, 4294967295]),
                delay=chooser.choice([0, 0, 5, 1000]),
                ttr=chooser.choice([0, 1, 0.5]),
                body=chooser.randbytes(chooser.choice([0, 3, 5000])),
                details=chooser.choice([None, Details(metadata="m"), Details(raw_size=9, retries=2, failed=True)]),
            )
            assert job_id not in known
            known[job_id] = described(store.job(job_id))
        elif verb == "open":
            store = stores.open()
            assert {job_id: described(store.job(job_id)) for job_id in known} == known
            assert store.engine.counts.jobs() == len(known)
            # Delayed jobs become due by the clock that the next engine is given.
        elif verb == "fold":
            assert store.fold()
        elif verb == "wait":
            stores.clock.time += chooser.choice([0.25, 10])
        elif verb == "move":
            store.wait(engine.move(engine.tube("a"), engine.tube("b"), Filter(max_pri=7)))
            moved = (job for job in map(store.job, ids) if job.state != RESERVED and job.tube.name == "b")
            known |= {job.id: (job.id, "b", *known[job.id][2:]) for job in moved}
        elif verb == "kick":
            tube = engine.tube(chooser.choice(["a", "b"]))
            count, later = engine.kick(tube, 2)
            if count:
                store.wait(later)
            known = {
                job_id: described(store.job(job_id)) for job_id in known if store.job(job_id).state != RESERVED
            } | {job_id: was for job_id, was in known.items() if store.job(job_id).state == RESERVED}
        elif ids:
            job = store.job(chooser.choice(ids))
            if verb == "take" and job.state != RESERVED:
                assert engine.take_job(job) is None
            elif verb == "delete":
                store.wait(engine.delete(job))
                del known[job.id]
            elif verb == "kick_job" and job.state in (DELAYED, BURIED):
                store.wait(engine.kick_job(job))
                known[job.id] = described(job)
            elif job.state == RESERVED and verb in ("release", "bury", "update"):
                if verb == "release":
                    store.wait(engine.release(job, chooser.choice([3, 9]), chooser.choice([0, 77.5])))
                    known[job.id] = described(job)
                elif verb == "bury":
                    store.wait(engine.bury(job, 5, chooser.choice(["", "why"])))
                    known[job.id] = described(job)
                else:
                    store.wait(engine.update(job, b"new", 3))
                    # It is still held: only what the update changed is on disk.
                    was = list(known[job.id])
                    was[8], was[-1] = b"new", 3
                    known[job.id] = tuple(was)
    store = stores.open()
    assert {job_id: described(store.job(job_id)) for job_id in known} == known


@pytest.mark.parametrize("verb", ["clear", "move"])
def test_what_was_killed_amid_many_jobs_has_changed_whole_slices(verb: str, stores: Stores, tmp_path: Path) -> None:
    store = stores.open(by_writer=True)
    engine = store.engine
    tube, target = engine.tube("a"), engine.tube("b")
    later: Later | None = None
    for _ in range(1200):
        later = engine.put(tube, engine.new_id(), 1, 0, 60, b"x")
    store.wait(later)
    bulk = engine.clear(tube, Filter()) if verb == "clear" else engine.move(tube, target, Filter())
    engine.flush()
    assert store.news.wait(10)
    # The first slice is on disk, and nobody has heard of it.
    store.news.clear()
    assert not bulk.done
    after = Stores(crash(tmp_path, tmp_path / "crashed"), stores.wire)
    names = [job.tube.name for job in after.open().engine._jobs.all()]
    after.close()
    assert (names.count("a"), names.count("b")) == (700, 0 if verb == "clear" else 500)
    while not bulk.done:
        stores.wire.broker.on_alarm()
        engine.flush()
        store.journal.settle()
        store.engine._timers.run()
    assert bulk.value == 1200


def test_ids_are_never_used_again(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put() for _ in range(5)]
    for job_id in ids:
        store.wait(store.engine.delete(store.job(job_id)))
    assert stores.open().put() == ids[-1] + 1


def test_burials_keep_their_order(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put() for _ in range(5)]
    order = [ids[3], ids[0], ids[4]]
    for job_id in order:
        store.engine.take_job(store.job(job_id))
        store.wait(store.engine.bury(store.job(job_id), 1))
    for _ in range(2):
        store = stores.open()
    store.engine.take_job(store.job(ids[1]))
    store.wait(store.engine.bury(store.job(ids[1]), 1))
    found = []
    while (job := store.engine.peek_next(store.engine.tube("default"), BURIED)) is not None:
        found.append(job.id)
        store.wait(store.engine.delete(job))
    assert found == [*order, ids[1]]


def test_a_pause_outlasts_a_restart_while_its_tube_does(stores: Stores) -> None:
    store = stores.open()
    store.put("a")
    for name in ("a", "gone"):
        tube = store.engine.tube(name)
        tube.watching += 1
        store.wait(store.engine.pause(tube, 100))
    stores.clock.time += 40
    store = stores.open()
    tube = store.engine.find_tube("a")
    assert tube is not None
    assert (tube.pause, tube.paused_until - stores.clock.time) == (100, 60)
    assert store.engine.take([tube]) is None
    assert store.engine.find_tube("gone") is None


def test_an_ended_pause_does_not_come_back(stores: Stores) -> None:
    store = stores.open()
    store.put("a")
    tube = store.engine.tube("a")
    store.wait(store.engine.pause(tube, 100))
    store.wait(store.engine.pause(tube, 0))
    assert stores.open().engine.tube("a").pause == 0


def test_metadata_finds_jobs_but_buried_ones(stores: Stores) -> None:
    store = stores.open()
    found = [store.put("a", details=Details(metadata="order 7")) for _ in range(3)]
    store.put("a", details=Details(metadata="order 8"))
    store.put("b", details=Details(metadata="order 7"))
    store.engine.take_job(store.job(found[1]))
    store.wait(store.engine.bury(store.job(found[1]), 0, "no such order"))
    store = stores.open()
    tube = store.engine.tube("a")
    answer = store.engine.find(tube, "order 7")
    assert (answer.done, answer.ids) == (True, [found[0], found[2]])
    assert (store.job(found[1]).details or Details()).reason == "no such order"


def test_a_tube_is_deleted_with_all_its_jobs(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put("a", delay=delay) for delay in (0, 0, 50)]
    kept = store.put("b")
    store.engine.take_job(store.job(ids[0]))
    store.wait(store.engine.delete_tube(store.engine.tube("a")))
    assert [store.engine.find_job(job_id) for job_id in ids] == [None] * 3
    store = stores.open()
    assert store.engine.counts.jobs() == 1
    assert store.job(kept).tube.name == "b"


# --- failures


def test_when_there_is_no_room_puts_fail_and_deletes_do_not(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "FIRST_BYTES", 1 << 15)
    monkeypatch.setattr(log_module, "MOST_BYTES", 1 << 15)
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
    store = stores.open(by_writer=True)
    with monkeypatch.context() as patch:
        patch.setattr(store.journal, "_succeed", None)
        later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x")
        store.wait(later)
        assert later is not None
        assert isinstance(later.error, StoreFailed)
    assert store.put() == 2


def test_pauses_of_tubes_that_went_are_swept(stores: Stores) -> None:
    store = stores.open()
    tube = store.engine.tube("a")
    tube.watching += 1
    store.wait(store.engine.pause(tube, 0.001))
    assert store.fold()
    store.journal._database.execute("UPDATE pause SET until = 1")
    store.journal._folder.keep_house()
    assert store.journal._database.execute("SELECT count(*) FROM pause").fetchone() == (0,)


# --- time


DAYS = 49 * 3600.0


@pytest.mark.parametrize("set_by", [DAYS, -DAYS], ids=["forward", "back"])
def test_times_on_disk_are_the_wall_clocks_also_when_it_was_set_after_the_start(stores: Stores, set_by: float) -> None:
    clock = stores.clock
    store = stores.open()
    clock.wall_ahead = set_by
    clock.time += 100
    put = store.put("a", delay=3600)
    released = store.put("a")
    store.engine.take_job(store.job(released))
    store.wait(store.engine.release(store.job(released), 1, 1800))
    store.wait(store.engine.pause(store.engine.tube("a"), 7200))
    store.journal._folder.keep_house()
    # The next process begins with the right time.
    store.close()
    stores.now = None
    clock.time += set_by
    clock.wall_ahead = 0.0
    store = stores.open()
    assert [store.job(job_id).key - clock.time for job_id in (put, released)] == [3600, 1800]
    assert [store.job(job_id).born for job_id in (put, released)] == [clock.time, clock.time]
    assert store.engine.tube("a").paused_until - clock.time == 7200


def test_a_clock_that_runs_beside_the_wall_clock_reads_what_is_on_disk_by_that(stores: Stores) -> None:
    store = stores.open()
    delayed = store.put("a", delay=3600)
    store.wait(store.engine.pause(store.engine.tube("a"), 7200))
    stores.clock.wall_ahead = 600
    store = stores.open()
    assert store.job(delayed).key - stores.clock.time == 3000
    assert stores.clock.time - store.job(delayed).born == 600
    assert store.engine.tube("a").paused_until - stores.clock.time == 6600


def test_a_birth_that_a_producer_names_is_by_the_wall_clock_already(stores: Stores) -> None:
    store = stores.open()
    stores.clock.wall_ahead = 600
    job_id = store.put(details=Details(born=1_600_000_000.0))
    stores.now = None
    store.close()
    stores.clock.wall_ahead = 0
    assert stores.open().job(job_id).born == 1_600_000_000.0


# --- rows that are no jobs

FAULTS = {
    "body = 'text'": "body",
    "body = cast(x'ff00' AS TEXT)": "body",
    "tube = x'61'": "tube",
    "tube = cast(x'ff' AS TEXT)": "tube",
    "tube = ''": "name",
    "tube = 'two words'": "name",
    "tube = '-a'": "name",
    "tube = printf('%.201c', 'a')": "name",
    "state = 2": "state",
    "state = 'ready'": "state",
    "pri = -1": "priority",
    "pri = 4294967296": "priority",
    "pri = 1.5": "priority",
    "delay = 'soon'": "delay",
    "delay = -1": "delay",
    "ttr = 9e999": "time to run",
    "born = x'00'": "birth",
    "place = '?'": "place",
    "place = -9e999": "place",
    "reserves = 'many'": "counters",
    "kicks = 0.5": "counters",
    "metadata = cast(x'ff' AS TEXT)": "metadata",
    "reason = x'00'": "reason",
    "raw_size = 'big'": "library",
    "id = -7": "id",
}


@pytest.fixture
def spoil(stores: Stores, tmp_path: Path) -> Callable[..., Store]:
    """Closes the journal, runs statements on its database, and opens it again."""

    def run(*statements: str) -> Store:
        assert stores.now is not None
        stores.now.close()
        stores.now = None
        database = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        for statement in statements:
            database.execute(statement)
        database.close()
        return stores.open()

    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_that_is_no_job_is_set_aside_alone(
    stores: Stores, spoil: Callable[..., Store], caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    store = stores.open()
    ids = [store.put("a", delay=delay) for delay in (0, 5, 0)]
    store = spoil(f"UPDATE job SET {fault} WHERE id = {ids[1]}")
    assert [store.engine.find_job(job_id) is not None for job_id in ids] == [True, False, True]
    assert store.engine.counts.jobs() == 2
    assert [tube.name for tube in store.engine.tubes()] == ["default", "a"]
    lines = [record.getMessage() for record in caplog.records if "set aside" in record.getMessage()]
    assert len(lines) == 1
    assert FAULTS[fault] in lines[0]
    assert store.put() == ids[2] + 1
    assert store.fold()
    assert store.journal._database.execute("SELECT count(*) FROM job").fetchone() == (4,)


def test_missing_values_are_set_aside_too(stores: Stores, spoil: Callable[..., Store]) -> None:
    stores.open().put()
    # What a damaged page, or a tool, may hold though the schema forbids it.
    columns = "tube, state, pri, delay, ttr, born, place, reserves, timeouts, releases, buries, kicks, metadata, reason, retries, failed"
    names = [*columns.split(", "), "raw_size", "body"]
    statements = ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')"]
    spoil(*statements)
    whole = f"SELECT {', '.join(names)} FROM job WHERE id = 1"
    copies = [f"INSERT INTO job ({', '.join(names)}) {whole.replace(name, 'NULL', 1)}" for name in names]
    store = spoil(*copies)
    assert store.journal.reading.aside == len(names)
    assert store.put() == len(names) + 2


def test_the_id_of_a_row_that_is_set_aside_stays_taken(stores: Stores, spoil: Callable[..., Store]) -> None:
    job_id = stores.open().put()
    store = spoil("UPDATE job SET pri = -1", "DELETE FROM sqlite_sequence")
    assert store.put() == job_id + 1


def test_the_log_names_a_few_rows_that_are_set_aside(
    stores: Stores, spoil: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = stores.open()
    for _ in range(20):
        store.put()
    assert spoil("UPDATE job SET pri = -1").journal.reading.aside == 20
    assert len([record for record in caplog.records if "set aside" in record.getMessage()]) == 5


def test_a_pause_that_cannot_be_read_is_left_out(stores: Stores, spoil: Callable[..., Store]) -> None:
    store = stores.open()
    for name in ("a", "b"):
        store.put(name)
        store.wait(store.engine.pause(store.engine.tube(name), 100))
    store = spoil("UPDATE pause SET until = 'later' WHERE tube = 'a'")
    assert [store.engine.tube(name).pause for name in ("a", "b")] == [0, 100]


def test_more_jobs_than_are_read_at_a_time_are_all_read(stores: Stores, spoil: Callable[..., Store]) -> None:
    stores.open().put()
    names = "tube, state, pri, delay, ttr, born, place, body"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999)"
    store = spoil(f"INSERT INTO job ({names}) {numbers} SELECT {names} FROM job, n WHERE id = 1")
    assert store.engine.counts.ready == 10_000
    assert store.put() == 10_001


def test_a_long_loading_is_told_of(
    stores: Stores, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(start_module, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(start_module, "LOG_SECONDS", 0.0)
    stores.open().put()
    stores.open().close()
    stores.now = None
    told: list[None] = []

    async def begin() -> None:
        soon = asyncio.get_running_loop().call_soon_threadsafe
        engine = start_module.start(
            str(tmp_path), 0, wire.timers, wire.broker, lambda: None, soon, lambda: told.append(None)
        )
        closed = engine.close()
        assert closed is not None
        ended = asyncio.Event()
        closed.then(lambda _: ended.set())
        await ended.wait()

    asyncio.run(begin())
    assert len(told) == 1
    assert "1 jobs read so far" in caplog.text
    assert gc.isenabled()


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (3 << 20) + 7])
def test_a_large_body_is_kept_whole(stores: Stores, size: int) -> None:
    body = random.Random(size).randbytes(size)
    store = stores.open()
    ids = [store.put(body=b"before"), store.put(body=body), store.put(body=b"after")]
    store = stores.open()
    assert [store.job(job_id).body for job_id in ids] == [b"before", body, b"after"]
    store.engine.take_job(store.job(ids[0]))
    store.wait(store.engine.update(store.job(ids[0]), body))
    assert stores.open().job(ids[0]).body == body


# --- others' eyes


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


def test_a_stop_that_cannot_write_counters_says_how_many_and_the_jobs_are_there(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores.open()
    for _ in range(3):
        given_back(store, store.put())
    with contextlib.closing(sqlite3.connect(stores.directory / FILE_NAME)) as other:
        other.execute("CREATE TRIGGER refuse BEFORE UPDATE ON job BEGIN SELECT raise(ABORT, 'no'); END")
    stores.close()
    with contextlib.closing(sqlite3.connect(stores.directory / FILE_NAME)) as other:
        other.execute("DROP TRIGGER refuse")
    assert "cannot write the counters of 3 jobs" in caplog.text
    assert stores.open().engine.counts.ready == 3


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
    monkeypatch.setattr(log_module, "FIRST_BYTES", 1 << 12)
    monkeypatch.setattr(log_module, "MOST_BYTES", 1 << 12)
    store = stores.open()
    first = store.put()
    store.journal._database.execute("PRAGMA busy_timeout = 200")
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    engine = store.engine
    laters = [engine.put(engine.tube("default"), engine.new_id(), 1, 0, 60, b"x" * 1000) for _ in range(30)]
    for later in laters:
        store.wait(later)
    assert any(later is not None and isinstance(later.error, StoreFailed) for later in (*laters, another(store)))
    store.wait(engine.delete(store.job(first)))
    assert engine.find_job(first) is None
    assert time.monotonic() - began < 2
    other.execute("ROLLBACK")
    while store.journal._log.spare is None:
        store.journal._folder.wake()
        time.sleep(0.01)
    assert store.put() > 30


def another(store: Store) -> Later | None:
    later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x" * 1000)
    store.wait(later)
    return later


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


# --- what only memory knew


def given_back(store: Store, job_id: int, timed_out: bool = False) -> None:
    store.engine.take_job(store.job(job_id))
    store.engine.give_back(store.job(job_id), timed_out)


def counters(job: Job) -> tuple[int, int, int, int, int]:
    return job.reserves, job.timeouts, job.releases, job.buries, job.kicks


def test_a_clean_stop_keeps_how_often_jobs_were_reserved_and_timed_out(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put() for _ in range(3)]
    for _ in range(3):
        given_back(store, ids[0], timed_out=True)
    given_back(store, ids[1])
    for _ in range(2):
        store = stores.open()
        assert [counters(store.job(job_id))[:2] for job_id in ids] == [(3, 3), (1, 0), (0, 0)]


def test_a_clean_stop_keeps_that_a_buried_or_delayed_job_was_made_ready(stores: Stores) -> None:
    store = stores.open()
    buried, delayed = store.put(), store.put(delay=1000)
    store.engine.take_job(store.job(buried))
    store.wait(store.engine.bury(store.job(buried), 1))
    for job_id in (buried, delayed):
        given_back(store, job_id)
    store = stores.open()
    assert [store.job(job_id).state for job_id in (buried, delayed)] == [READY, READY]
    assert counters(store.job(buried)) == (2, 0, 0, 1, 0)


@pytest.mark.parametrize("verb", ["release", "bury", "kick"])
def test_a_change_after_a_job_was_given_back_is_what_a_stop_keeps(stores: Stores, verb: str) -> None:
    store = stores.open()
    job_id = store.put()
    given_back(store, job_id, timed_out=True)
    store.engine.take_job(store.job(job_id))
    if verb == "release":
        store.wait(store.engine.release(store.job(job_id), 7, 1000))
    else:
        store.wait(store.engine.bury(store.job(job_id), 7))
    if verb == "kick":
        store.wait(store.engine.kick_job(store.job(job_id)))
    before = described(store.job(job_id)), counters(store.job(job_id))
    store = stores.open()
    assert (described(store.job(job_id)), counters(store.job(job_id))) == before


@pytest.mark.parametrize("verb", ["release", "kick"])
def test_a_stop_does_not_write_again_what_a_change_has_written(stores: Stores, verb: str) -> None:
    store = stores.open()
    job_id, other_id = store.put(), store.put()
    for given in (job_id, other_id):
        given_back(store, given)
    store.engine.take_job(store.job(job_id))
    if verb == "release":
        store.wait(store.engine.release(store.job(job_id), 7, 0))
    else:
        store.wait(store.engine.bury(store.job(job_id), 7))
        store.wait(store.engine.kick_job(store.job(job_id)))
    stores.close()
    assert store.journal._given_back == {(1, 0): [other_id]}


def test_after_a_crash_the_counters_are_those_of_the_last_change(stores: Stores, tmp_path: Path, wire: Wire) -> None:
    store = stores.open()
    job_id = store.put()
    store.engine.take_job(store.job(job_id))
    store.wait(store.engine.release(store.job(job_id), 1, 0))
    given_back(store, job_id, timed_out=True)
    after = Stores(crash(tmp_path, tmp_path / "crashed"), wire)
    assert counters(after.open().job(job_id)) == (1, 0, 1, 0, 0)
    after.close()


def test_a_stop_takes_its_time_only_so_long_and_says_what_it_left(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(statements_module, "GIVEN_BACK_SECONDS", 0.0)
    store = stores.open()
    for _ in range(3):
        given_back(store, store.put())
    stores.close()
    assert "the counters of 3 jobs" in caplog.text
    assert stores.open().engine.counts.ready == 3


def test_a_stop_writes_more_jobs_than_one_change_holds(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements_module, "GIVEN_BACK_CHUNK", 2)
    store = stores.open()
    ids = [store.put() for _ in range(7)]
    for job_id in ids:
        given_back(store, job_id)
    store = stores.open()
    assert {store.job(job_id).reserves for job_id in ids} == {1}


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
    later = another(store)
    assert later is not None
    assert isinstance(later.error, StoreFailed)
    os.pwrite(file.fd, whole, 0)
    assert store.put() == 3

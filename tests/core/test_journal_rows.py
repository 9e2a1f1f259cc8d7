"""Rows of a journal that are no jobs are set aside, and all others are read."""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
from typing import TYPE_CHECKING

import pytest
from journals import Store, Stores, crash

from beanspiked.engine.embedded import start as start_module
from beanspiked.engine.embedded.database import FILE_NAME
from beanspiked.engine.embedded.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulated import Wire


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


def test_jobs_are_read_in_the_order_of_their_ids_wherever_they_are(stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    engine = store.engine
    late = [engine.new_id() for _ in range(2)]
    store.put()
    assert store.fold()
    for job_id in (*late, engine.new_id()):
        store.wait(engine.put(engine.tube("default"), job_id, 1, 0, 60, b"in the log"))
    journal = Journal(crash(stores.directory, tmp_path / "crashed"), stores.clock)
    assert [row[0] for rows in journal.reading.chunks() for row in rows] == [1, 2, 3, 4]
    journal.abandon()


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

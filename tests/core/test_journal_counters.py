"""A stop writes what only memory knew of jobs, and takes its time for that only so long."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journals import Store, Stores, crash, described

from beanspiked.engine.contract import READY, Job
from beanspiked.engine.embedded import statements as statements_module
from beanspiked.engine.embedded.database import FILE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from simulated import Wire


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

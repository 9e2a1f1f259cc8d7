"""pause-tube (§2.6)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Connect


@pytest.mark.rule("2.6/pauses-reserve")
def test_a_paused_tube_hands_out_no_job(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert()
    assert connection.ask(b"pause-tube " + tube.encode() + b" 100") == b"PAUSED"
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"


@pytest.mark.rule("2.6/pauses-nothing-else")
def test_everything_but_reserve_works_on_a_paused_tube(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    first = connection.insert()
    connection.pause_tube(tube, 100)
    second = connection.insert(delay=100)
    assert connection.peek_ready().id == first
    assert connection.peek_delayed().id == second
    job = connection.reserve_job(first)
    connection.touch(job)
    connection.release(job)
    connection.bury(connection.reserve_job(first))
    assert connection.peek_buried().id == first
    assert connection.kick(10) == 1
    assert connection.kick(10) == 1
    connection.delete(first)
    connection.delete(second)


@pytest.mark.slow
@pytest.mark.rule("2.6/waiters", "2.3/timers")
@pytest.mark.cluster_relaxed("other front-ends learn of a pause a little later")
def test_a_waiting_worker_stays_blocked_and_is_served_when_the_pause_ends(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve\r\n")
    assert worker.is_silent(0.05)
    began_at = time.monotonic()
    producer.pause_tube(tube, 1)
    job_id = producer.insert()
    assert worker.is_silent()
    assert worker.job_reply()[1] == job_id
    assert 0.98 <= time.monotonic() - began_at < 1.8
    stats = producer.stats_tube(tube)
    assert (stats["pause"], stats["pause-time-left"]) == (0, 0)


@pytest.mark.rule("2.6/overrides", "2.6/fields")
def test_a_new_pause_replaces_the_old_one(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    for seconds in (1000, 100):
        connection.pause_tube(tube, seconds)
        stats = connection.stats_tube(tube)
        assert stats["pause"] == seconds
        assert seconds - 2 <= stats["pause-time-left"] <= seconds
    assert connection.stats_tube(tube)["cmd-pause-tube"] == 2


@pytest.mark.rule("2.6/unpause", "2.6/fields")
def test_a_pause_of_0_ends_the_pause_and_is_counted(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert()
    connection.pause_tube(tube, 100)
    connection.pause_tube(tube, 0)
    assert connection.ask_job(b"reserve-with-timeout 2")[1] == job_id
    stats = connection.stats_tube(tube)
    assert (stats["pause"], stats["pause-time-left"], stats["cmd-pause-tube"]) == (0, 0, 2)


@pytest.mark.rule("1.2/pause-tube")
def test_pausing_a_tube_that_is_not_there_finds_nothing_and_creates_none(connect: Connect, tube: str) -> None:
    connection = connect()
    assert connection.ask(b"pause-tube " + tube.encode() + b" 10") == b"NOT_FOUND"
    assert connection.ask(b"stats-tube " + tube.encode()) == b"NOT_FOUND"


@pytest.mark.rule("2.6/pauses-reserve", "2.2/global-order")
@pytest.mark.cluster_relaxed("other front-ends learn of a pause a little later")
def test_a_worker_waiting_over_two_tubes_gets_the_job_of_the_tube_that_is_not_paused(
    connect: Connect, tube: str
) -> None:
    other = f"{tube}.2"
    worker, producer = connect(watch=[tube, other]), connect(use=tube)
    producer.pause_tube(tube, 100)
    worker.send(b"reserve\r\n")
    assert worker.is_silent(0.05)
    producer.insert(pri=0)
    assert worker.is_silent(0.05)
    producer.use(other)
    job_id = producer.insert(pri=9)
    assert worker.job_reply()[1] == job_id

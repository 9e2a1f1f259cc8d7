"""reserve, reserve-with-timeout and reserve-job (§1.2, §2.3, §2.4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import greenstalk
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect


@pytest.mark.rule("1.2/reserve")
def test_reserve_hands_out_a_ready_job_once(connect: Connect, tube: str) -> None:
    one, other = connect(use=tube, watch=tube), connect(watch=tube)
    job_id = one.insert(b"body")
    assert one.ask_job(b"reserve") == (b"RESERVED", job_id, b"body")
    with pytest.raises(greenstalk.TimedOutError):
        other.reserve(0)
    assert other.stats_job(job_id)["state"] == "reserved"


@pytest.mark.rule("1.2/reserve")
def test_reserve_waits_until_there_is_a_job(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve\r\n")
    assert worker.is_silent()
    job_id = producer.insert(b"now")
    assert worker.job_reply() == (b"RESERVED", job_id, b"now")


@pytest.mark.rule("1.2/reserve")
def test_only_watched_tubes_are_reserved_from(connect: Connect, new_tube: Callable[[], str]) -> None:
    watched, used = new_tube(), new_tube()
    connection = connect(use=used, watch=watched)
    connection.insert()
    with pytest.raises(greenstalk.TimedOutError):
        connection.reserve(0)


@pytest.mark.rule("2.3/timeout-zero")
def test_a_timeout_of_0_does_not_wait(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    began_at = time.monotonic()
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"
    assert time.monotonic() - began_at < 0.5
    job_id = connection.insert()
    assert connection.reserve(0).id == job_id


@pytest.mark.slow
@pytest.mark.rule("2.3/timeout", "2.3/timers")
def test_a_timeout_is_kept_and_never_early(connect: Connect, tube: str) -> None:
    connection = connect(watch=tube)
    began_at = time.monotonic()
    assert connection.ask(b"reserve-with-timeout 1") == b"TIMED_OUT"
    assert 0.99 <= time.monotonic() - began_at < 1.8


@pytest.mark.rule("2.3/timeout")
def test_a_job_within_the_timeout_ends_the_wait(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve-with-timeout 60\r\n")
    assert worker.is_silent()
    job_id = producer.insert()
    assert worker.job_reply() == (b"RESERVED", job_id, b"x")


@pytest.mark.rule("2.4/states")
def test_reserve_job_takes_a_ready_a_delayed_and_a_buried_job(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    ready, delayed, buried = connection.insert(b"r"), connection.insert(b"d", delay=100), connection.insert(b"b", pri=0)
    connection.bury(connection.reserve(0))
    for job_id, body in ((ready, b"r"), (delayed, b"d"), (buried, b"b")):
        assert connection.ask_job(b"reserve-job %d" % job_id) == (b"RESERVED", job_id, body)
        stats = connection.stats_job(job_id)
        assert (stats["state"], stats["reserves"]) == ("reserved", 2 if job_id == buried else 1)


@pytest.mark.rule("2.4/any-tube")
def test_reserve_job_needs_no_watch_and_overrides_a_pause(connect: Connect, tube: str) -> None:
    producer, stranger = connect(use=tube), connect()
    job_id = producer.insert()
    producer.pause_tube(tube, 100)
    assert stranger.reserve_job(job_id).id == job_id
    stranger.delete(job_id)


@pytest.mark.rule("2.4/reserved")
def test_reserve_job_does_not_find_a_reserved_job_nor_a_missing_one(connect: Connect, tube: str) -> None:
    holder, other = connect(use=tube, watch=tube), connect()
    job_id = holder.insert()
    holder.reserve(0)
    assert holder.ask(b"reserve-job %d" % job_id) == b"NOT_FOUND"
    assert other.ask(b"reserve-job %d" % job_id) == b"NOT_FOUND"
    holder.delete(job_id)
    assert other.ask(b"reserve-job %d" % job_id) == b"NOT_FOUND"


@pytest.mark.rule("2.4/leaves-state")
def test_a_delayed_job_taken_by_id_is_ready_after_its_holder_has_gone(connect: Connect, tube: str) -> None:
    producer, worker = connect(use=tube), connect(watch=tube)
    job_id = producer.insert(delay=100)
    holder = connect()
    holder.reserve_job(job_id)
    holder.close()
    worker.send(b"reserve-with-timeout 4\r\n")
    assert worker.job_reply()[1] == job_id
    assert worker.stats_job(job_id)["delay"] == 100


@pytest.mark.rule("2.4/leaves-state")
def test_a_buried_job_taken_by_id_is_ready_after_its_release(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert()
    connection.bury(connection.reserve(0))
    connection.release(connection.reserve_job(job_id))
    stats = connection.stats_job(job_id)
    assert (stats["state"], stats["buries"], stats["releases"]) == ("ready", 1, 1)
    assert connection.ask(b"peek-buried") == b"NOT_FOUND"


@pytest.mark.rule("2.4/no-deadline-soon")
def test_reserve_job_never_answers_deadline_soon(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert(ttr=1, pri=0)
    connection.reserve(0)
    assert connection.ask(b"reserve-job 18446744073709551615") == b"NOT_FOUND"
    other = connection.insert(delay=100)
    assert connection.reserve_job(other).id == other


@pytest.mark.rule("2.2/one-place")
def test_a_job_waited_for_over_two_tubes_comes_once(connect: Connect, new_tube: Callable[[], str]) -> None:
    one, other = new_tube(), new_tube()
    worker, producer = connect(watch=[one, other]), connect(use=one)
    worker.send(b"reserve\r\n")
    assert worker.is_silent()
    first = producer.insert()
    assert worker.job_reply()[1] == first
    producer.use(other)
    second = producer.insert()
    assert worker.is_silent(0.05)
    assert worker.reserve(1).id == second


@pytest.mark.rule("2.2/wakes")
@pytest.mark.parametrize("how", ["kick", "kick-job", "release", "disconnect"])
def test_a_waiting_worker_is_woken_by_whatever_makes_a_job_ready(connect: Connect, tube: str, how: str) -> None:
    producer = connect(use=tube, watch=tube)
    worker = connect(watch=tube)
    holder = connect()
    job_id = producer.insert(delay=100 if how in {"kick", "kick-job"} else 0)
    if how in {"release", "disconnect"}:
        holder.reserve_job(job_id)
    worker.send(b"reserve\r\n")
    assert worker.is_silent()
    if how == "kick":
        assert producer.kick(1) == 1
    elif how == "kick-job":
        producer.kick_job(job_id)
    elif how == "release":
        assert holder.ask(b"release %d 5 0" % job_id) == b"RELEASED"
    else:
        holder.close()
    assert worker.job_reply()[1] == job_id


@pytest.mark.rule("2.2/wakes", "2.6/unpause")
@pytest.mark.cluster_relaxed("other front-ends learn of a pause a little later")
def test_a_waiting_worker_is_woken_when_a_pause_is_ended(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    job_id = producer.insert()
    producer.pause_tube(tube, 100)
    worker.send(b"reserve\r\n")
    assert worker.is_silent()
    producer.pause_tube(tube, 0)
    assert worker.job_reply()[1] == job_id


@pytest.mark.slow
@pytest.mark.rule("2.2/wakes", "2.2/delay-ends")
def test_a_waiting_worker_is_woken_when_a_delay_ends(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve\r\n")
    began_at = time.monotonic()
    job_id = producer.insert(delay=1)
    assert worker.job_reply()[1] == job_id
    assert 0.99 <= time.monotonic() - began_at < 1.8


@pytest.mark.rule("2.2/waiters")
def test_of_two_waiting_workers_each_gets_one_job(connect: Connect, tube: str) -> None:
    workers = [connect(watch=tube), connect(watch=tube)]
    producer = connect(use=tube)
    for worker in workers:
        worker.send(b"reserve\r\n")
        assert worker.is_silent(0.05)
    ids = {producer.insert(), producer.insert()}
    assert {worker.job_reply()[1] for worker in workers} == ids


@pytest.mark.rule("2.2/waiters-fifo")
@pytest.mark.beanstalkd_bug("taking a waiter out of its list moves the last one into the gap")
@pytest.mark.cluster_relaxed("waiters are ordered per front-end")
def test_workers_are_served_in_the_order_they_began_to_wait(connect: Connect, tube: str) -> None:
    workers = [connect(watch=tube) for _ in range(8)]
    producer = connect(use=tube)
    for waiting, worker in enumerate(workers, start=1):
        worker.send(b"reserve\r\n")
        while producer.stats_tube(tube)["current-waiting"] < waiting:
            time.sleep(0.001)
    ids = [producer.insert() for _ in workers]
    assert [worker.job_reply()[1] for worker in workers] == ids

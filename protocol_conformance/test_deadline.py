"""TTR: the warning in its last second, its end, and touch (§2.3)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import greenstalk
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect
    from .wire import Connection


IDLE_HOLDERS = 60


def stir(holder: Connection) -> None:
    """Let the holder say something: see the idle holder's test for why beanstalkd needs that at the end of a TTR."""
    time.sleep(0.05)
    assert holder.ask(b"list-tube-used").startswith(b"USING ")


@pytest.mark.rule("2.3/deadline-at-once", "2.3/deadline-over-timeout", "2.3/deadline-repeats")
def test_holding_a_job_in_its_last_second_every_reserve_is_answered_deadline_soon(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert(ttr=1)
    connection.reserve(0)
    began_at = time.monotonic()
    assert connection.ask(b"reserve") == b"DEADLINE_SOON"
    assert connection.ask(b"reserve-with-timeout 0") == b"DEADLINE_SOON"
    assert connection.ask(b"reserve-with-timeout 10") == b"DEADLINE_SOON"
    assert time.monotonic() - began_at < 0.5


@pytest.mark.rule("2.3/deadline-ready-wins")
def test_a_ready_job_is_handed_out_even_in_the_last_second_of_another(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert(ttr=1)
    connection.reserve(0)
    second = connection.insert()
    assert connection.reserve(0).id == second
    with pytest.raises(greenstalk.DeadlineSoonError):
        connection.reserve(0)


@pytest.mark.rule("2.3/deadline-own")
def test_only_the_holder_is_warned(connect: Connect, tube: str) -> None:
    holder, other = connect(use=tube, watch=tube), connect(watch=tube)
    holder.insert(ttr=1)
    holder.reserve(0)
    assert other.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"


@pytest.mark.rule("2.3/deadline-own")
def test_a_job_of_an_unwatched_tube_warns_too(connect: Connect, new_tube: Callable[[], str]) -> None:
    connection = connect(use=new_tube(), watch=new_tube())
    connection.reserve_job(connection.insert(ttr=1))
    assert connection.ask(b"reserve-with-timeout 0") == b"DEADLINE_SOON"


@pytest.mark.rule("2.3/deadline-paused")
def test_a_ready_job_in_a_paused_tube_does_not_hold_the_warning_back_for_long(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.reserve_job(connection.insert(ttr=1))
    connection.insert()
    connection.pause_tube(tube, 100)
    began_at = time.monotonic()
    assert connection.ask(b"reserve-with-timeout 10") == b"DEADLINE_SOON"
    assert time.monotonic() - began_at < 0.5


@pytest.mark.rule("2.3/deadline-ends")
@pytest.mark.parametrize("command", [b"delete %d", b"release %d 0 100", b"bury %d 0"])
def test_giving_the_job_up_ends_the_warnings(connect: Connect, tube: str, command: bytes) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(ttr=1)
    connection.reserve(0)
    assert connection.ask(b"reserve-with-timeout 0") == b"DEADLINE_SOON"
    connection.ask(command % job_id)
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"


@pytest.mark.rule("2.3/deadline-only-pending")
def test_no_warning_comes_unasked(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert(ttr=1)
    connection.reserve(0)
    assert connection.is_silent()
    assert connection.ask(b"list-tube-used") == b"USING " + tube.encode()


@pytest.mark.slow
@pytest.mark.rule("2.3/deadline-blocked", "2.3/timers", "2.3/deadline-no-id")
def test_a_waiting_holder_is_warned_one_second_before_the_end(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.insert(ttr=2)
    began_at = time.monotonic()
    connection.reserve(0)
    assert connection.ask(b"reserve") == b"DEADLINE_SOON"
    assert 0.98 <= time.monotonic() - began_at < 1.6


@pytest.mark.slow
@pytest.mark.rule("2.3/deadline-blocked")
def test_the_earliest_of_several_held_jobs_decides(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    for ttr in (60, 2, 30):
        connection.insert(ttr=ttr)
    began_at = time.monotonic()
    for _ in range(3):
        connection.reserve(0)
    assert connection.ask(b"reserve-with-timeout 10") == b"DEADLINE_SOON"
    assert 0.98 <= time.monotonic() - began_at < 1.6


@pytest.mark.slow
@pytest.mark.rule("2.3/expiry", "2.3/expiry-counts", "2.3/expired-holder", "2.2/wakes")
def test_when_the_time_is_up_the_job_goes_to_the_next_worker(connect: Connect, tube: str) -> None:
    holder, worker = connect(use=tube, watch=tube), connect(watch=tube)
    job_id = holder.insert(ttr=1, pri=77)
    holder.reserve(0)
    worker.send(b"reserve-with-timeout 5\r\n")
    assert worker.is_silent(0.97)
    stir(holder)
    assert worker.job_reply(timeout=1)[1] == job_id
    for command in (b"touch %d", b"release %d 0 0", b"bury %d 0", b"delete %d"):
        assert holder.ask(command % job_id) == b"NOT_FOUND"
    stats = worker.stats_job(job_id)
    assert (stats["pri"], stats["reserves"], stats["timeouts"], stats["releases"]) == (77, 2, 1, 0)
    worker.delete(job_id)


@pytest.mark.slow
@pytest.mark.rule("2.3/expiry", "2.3/timers")
@pytest.mark.beanstalkd_bug("a timer that fires in the very microsecond of the deadline is not set again", flaky=True)
def test_an_idle_holder_loses_its_job_in_time_every_time(connect: Connect, tube: str) -> None:
    worker = connect(use=tube, watch=tube)
    holders = [connect(watch=tube) for _ in range(IDLE_HOLDERS)]
    for holder in holders:
        worker.insert(ttr=1)
        holder.reserve(0)
    last_reserved_at = time.monotonic()
    for _ in holders:
        word, job_id, _ = worker.ask_job(b"reserve-with-timeout 2")
        assert word == b"RESERVED"
        worker.delete(job_id)
    assert time.monotonic() - last_reserved_at < 1.8


@pytest.mark.slow
@pytest.mark.rule("2.3/expired-holder", "2.3/expiry")
def test_after_the_time_is_up_the_old_holder_may_still_delete_the_ready_job(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(ttr=1)
    connection.reserve(0)
    time.sleep(1)
    stir(connection)
    time.sleep(0.05)
    stats = connection.stats_job(job_id)
    assert (stats["state"], stats["time-left"], stats["timeouts"]) == ("ready", 0, 1)
    for command in (b"touch %d", b"release %d 0 0", b"bury %d 0"):
        assert connection.ask(command % job_id) == b"NOT_FOUND"
    assert connection.ask(b"delete %d" % job_id) == b"DELETED"


@pytest.mark.slow
@pytest.mark.rule("2.3/expiry")
def test_a_waiting_holder_gets_its_own_expired_job_again(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(ttr=1)
    connection.reserve(0)
    replies: list[bytes] = []
    give_up_at = time.monotonic() + 3
    while not replies or (replies[-1] == b"DEADLINE_SOON" and time.monotonic() < give_up_at):
        replies.append(connection.ask(b"reserve-with-timeout 3"))
        time.sleep(0.05)
    assert replies[-1] == b"RESERVED %d 1" % job_id
    assert connection.data(1) == b"x"


@pytest.mark.slow
@pytest.mark.rule("2.3/touch")
def test_touch_gives_the_whole_ttr_again_and_adds_nothing(connect: Connect, tube: str) -> None:
    holder, worker = connect(use=tube, watch=tube), connect(watch=tube)
    job = holder.reserve_job(holder.insert(ttr=2))
    holder.touch(job)
    holder.touch(job)
    assert holder.stats_job(job)["time-left"] <= 2
    assert holder.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"
    time.sleep(1.1)
    assert holder.ask(b"reserve-with-timeout 0") == b"DEADLINE_SOON"
    holder.touch(job)
    assert holder.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"
    worker.send(b"reserve-with-timeout 5\r\n")
    assert worker.is_silent(1.97)
    stir(holder)
    assert worker.job_reply(timeout=1)[1] == job.id


@pytest.mark.rule("2.3/touch", "1.2/touch")
def test_only_the_holder_can_touch(connect: Connect, tube: str) -> None:
    holder, other = connect(use=tube, watch=tube), connect()
    job_id = holder.insert()
    assert holder.ask(b"touch %d" % job_id) == b"NOT_FOUND"
    holder.reserve(0)
    assert other.ask(b"touch %d" % job_id) == b"NOT_FOUND"
    assert holder.ask(b"touch %d" % job_id) == b"TOUCHED"

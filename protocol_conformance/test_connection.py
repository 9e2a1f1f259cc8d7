"""How a connection ends, what that does to its jobs, and half-close (§2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .wire import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect
    from .wire import Connection

ENDINGS: dict[str, Callable[[Connection], None]] = {
    "close": lambda connection: connection.close(),
    "reset": lambda connection: connection.reset(),
    "quit": lambda connection: connection.send(b"quit\r\n"),
}


@pytest.mark.rule("2.5/close", "2.5/no-counters")
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_jobs_of_an_ended_connection_are_ready_and_no_counter_tells(
    connect: Connect, tube: str, ending: str
) -> None:
    holder, observer = connect(use=tube, watch=tube), connect()
    ids = [holder.insert(pri=50 + place) for place in range(3)]
    for _ in ids:
        holder.reserve(0)
    ENDINGS[ending](holder)
    assert eventually(lambda: all(observer.stats_job(job_id)["state"] == "ready" for job_id in ids))
    for place, job_id in enumerate(ids):
        stats = observer.stats_job(job_id)
        assert (stats["pri"], stats["reserves"], stats["time-left"]) == (50 + place, 1, 0)
        assert (stats["releases"], stats["timeouts"], stats["buries"], stats["kicks"]) == (0, 0, 0, 0)


@pytest.mark.rule("2.5/dead-waiter")
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_no_job_goes_to_a_connection_that_ended_while_it_waited(connect: Connect, tube: str, ending: str) -> None:
    dead, producer = connect(watch=tube), connect(use=tube)
    dead.send(b"reserve\r\n")
    assert eventually(lambda: producer.stats_tube(tube)["current-waiting"] == 1)
    ENDINGS[ending](dead)
    assert eventually(lambda: producer.stats_tube(tube)["current-waiting"] == 0)
    job_id = producer.insert()
    stats = producer.stats_job(job_id)
    assert (stats["state"], stats["reserves"]) == ("ready", 0)


@pytest.mark.rule("2.5/dead-waiter")
def test_a_job_put_right_after_a_waiter_died_reaches_the_living_one(connect: Connect, tube: str) -> None:
    dead, alive, producer = connect(watch=tube), connect(watch=tube), connect(use=tube)
    for worker in (dead, alive):
        worker.send(b"reserve\r\n")
        assert worker.is_silent(0.05)
    dead.close()
    job_id = producer.insert()
    assert alive.job_reply()[1] == job_id


@pytest.mark.rule("1.2/quit")
def test_what_comes_behind_quit_is_dropped(connect: Connect, tube: str) -> None:
    connection, observer = connect(use=tube), connect(use=tube)
    connection.send(b"quit\r\nput 0 0 60 1\r\na\r\n")
    assert connection.is_ended()
    assert observer.stats_tube(tube)["total-jobs"] == 0


@pytest.mark.rule("2.5/half-close")
def test_commands_sent_before_a_half_close_are_all_answered(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.send(b"put 0 0 60 2\r\nhi\r\nreserve\r\nlist-tube-used\r\n")
    connection.half_close()
    job_id = int(connection.reply().split()[1])
    assert connection.job_reply() == (b"RESERVED", job_id, b"hi")
    assert connection.reply() == b"USING " + tube.encode()
    assert connection.is_ended()
    observer = connect()
    assert eventually(lambda: observer.stats_job(job_id)["state"] == "ready")


@pytest.mark.rule("2.5/half-close-reserve")
@pytest.mark.parametrize("command", [b"reserve", b"reserve-with-timeout 100"])
def test_a_reserve_that_would_wait_after_a_half_close_is_timed_out(connect: Connect, tube: str, command: bytes) -> None:
    connection = connect(watch=tube)
    connection.send(command + b"\r\n" + command + b"\r\nlist-tube-used\r\n")
    connection.half_close()
    assert connection.replies(3) == [b"TIMED_OUT", b"TIMED_OUT", b"USING default"]
    assert connection.is_ended()


@pytest.mark.rule("2.5/half-close-reserve")
@pytest.mark.parametrize("command", [b"reserve", b"reserve-with-timeout 100"])
def test_a_half_close_ends_a_wait_that_has_begun(connect: Connect, tube: str, command: bytes) -> None:
    connection = connect(watch=tube)
    connection.send(command + b"\r\n")
    assert connection.is_silent()
    connection.half_close()
    assert connection.reply() == b"TIMED_OUT"
    assert connection.is_ended()


@pytest.mark.rule("2.5/half-close")
def test_a_half_close_inside_a_line_or_a_body_ends_the_connection_quietly(connect: Connect, tube: str) -> None:
    observer = connect(use=tube)
    for unfinished in (b"list-tube-used", b"put 0 0 60 10\r\nabc", b"put 0 0 60 999999\r\nabc"):
        connection = connect(use=tube)
        connection.send(unfinished)
        connection.half_close()
        assert connection.is_ended()
    assert observer.stats_tube(tube)["total-jobs"] == 0


@pytest.mark.rule("2.5/no-idle-timeout", "2.5/close")
def test_a_held_job_stays_held_while_its_connection_is_open(connect: Connect, tube: str) -> None:
    holder, other = connect(use=tube, watch=tube), connect(watch=tube)
    job_id = holder.insert()
    holder.reserve(0)
    assert other.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"
    holder.close()
    assert other.ask_job(b"reserve-with-timeout 4")[1] == job_id

"""delete, release, bury, kick and kick-job (§1.2)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import greenstalk
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect
    from .wire import Connection

U32_MAX = 2**32 - 1


def state(connection: Connection, job_id: int) -> str:
    return connection.stats_job(job_id)["state"]


@pytest.mark.rule("1.2/delete")
def test_anybody_may_delete_a_ready_delayed_or_buried_job(connect: Connect, tube: str) -> None:
    producer, stranger = connect(use=tube, watch=tube), connect()
    buried = producer.insert()
    producer.bury(producer.reserve(0))
    for job_id in (buried, producer.insert(), producer.insert(delay=100)):
        assert stranger.ask(b"delete %d" % job_id) == b"DELETED"
        assert stranger.ask(b"delete %d" % job_id) == b"NOT_FOUND"
        assert stranger.ask(b"peek %d" % job_id) == b"NOT_FOUND"


@pytest.mark.rule("1.2/delete")
def test_only_its_holder_may_delete_a_reserved_job(connect: Connect, tube: str) -> None:
    holder, stranger = connect(use=tube, watch=tube), connect()
    job_id = holder.insert()
    holder.reserve(0)
    assert stranger.ask(b"delete %d" % job_id) == b"NOT_FOUND"
    assert holder.ask(b"delete %d" % job_id) == b"DELETED"


@pytest.mark.rule("1.2/release")
def test_a_released_job_has_its_new_priority_and_is_ready(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(pri=5)
    connection.release(connection.reserve(0), priority=U32_MAX, delay=0)
    stats = connection.stats_job(job_id)
    assert (stats["state"], stats["pri"], stats["delay"], stats["releases"]) == ("ready", U32_MAX, 0, 1)
    assert connection.reserve(0).id == job_id


@pytest.mark.rule("1.2/release")
def test_a_job_released_with_a_delay_is_delayed(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert()
    connection.release(connection.reserve(0), priority=3, delay=100)
    stats = connection.stats_job(job_id)
    assert (stats["state"], stats["pri"], stats["delay"]) == ("delayed", 3, 100)
    assert 98 <= stats["time-left"] <= 100
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"


@pytest.mark.rule("1.2/release", "1.2/bury")
@pytest.mark.parametrize("command", [b"release %d 0 0", b"bury %d 0"])
def test_only_the_holder_may_release_or_bury(connect: Connect, tube: str, command: bytes) -> None:
    holder, stranger = connect(use=tube, watch=tube), connect()
    job_id = holder.insert()
    assert holder.ask(command % job_id) == b"NOT_FOUND"
    holder.reserve(0)
    assert stranger.ask(command % job_id) == b"NOT_FOUND"
    assert holder.ask(command % job_id) in {b"RELEASED", b"BURIED"}
    assert holder.ask(command % job_id) == b"NOT_FOUND"


@pytest.mark.rule("1.2/bury")
def test_a_buried_job_keeps_its_new_priority_and_is_not_handed_out(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(pri=5)
    connection.bury(connection.reserve(0), priority=9)
    stats = connection.stats_job(job_id)
    assert (stats["state"], stats["pri"], stats["buries"], stats["time-left"]) == ("buried", 9, 1, 0)
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"


@pytest.mark.rule("2.2/kick-buried-first", "1.2/kick")
def test_kick_takes_buried_jobs_only_as_long_as_there_are_any(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    buried = [connection.insert(b"b") for _ in range(3)]
    for _ in buried:
        connection.bury(connection.reserve(0))
    delayed = [connection.insert(b"d", delay=100) for _ in range(2)]
    assert connection.kick(2) == 2
    assert [state(connection, job_id) for job_id in buried] == ["ready", "ready", "buried"]
    assert connection.kick(100) == 1
    assert [state(connection, job_id) for job_id in delayed] == ["delayed", "delayed"]
    assert connection.kick(100) == 2
    assert connection.kick(100) == 0


@pytest.mark.rule("2.2/buried-fifo", "2.2/kick-buried-first")
def test_the_longest_buried_job_is_kicked_first_whatever_its_priority(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    ids = [connection.insert() for _ in range(3)]
    order = [ids[1], ids[2], ids[0]]
    for priority, job_id in zip((30, 20, 10), order, strict=True):
        connection.bury(connection.reserve_job(job_id), priority=priority)
        time.sleep(0.005)
    for job_id in order:
        assert connection.peek_buried().id == job_id
        assert connection.kick(1) == 1
        assert state(connection, job_id) == "ready"


@pytest.mark.rule("2.2/kick-delayed-soonest")
def test_of_delayed_jobs_the_soonest_is_kicked_first(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    late, soon = connection.insert(delay=200, pri=1), connection.insert(delay=100, pri=2)
    assert connection.kick(1) == 1
    assert (state(connection, soon), state(connection, late)) == ("ready", "delayed")


@pytest.mark.rule("2.2/kick-keeps")
@pytest.mark.parametrize("command", [b"kick 1", b"kick-job %d"])
def test_a_kicked_job_keeps_priority_and_delay_and_counts_the_kick(connect: Connect, tube: str, command: bytes) -> None:
    connection = connect(use=tube)
    job_id = connection.insert(pri=42, delay=100)
    expected = b"KICKED 1" if command == b"kick 1" else b"KICKED"
    assert connection.ask(command % job_id if b"%" in command else command) == expected
    stats = connection.stats_job(job_id)
    assert (stats["state"], stats["pri"], stats["delay"], stats["kicks"]) == ("ready", 42, 100, 1)
    assert stats["time-left"] == 0


@pytest.mark.rule("1.2/kick")
def test_kick_works_on_the_used_tube_only(connect: Connect, new_tube: Callable[[], str]) -> None:
    here, there = new_tube(), new_tube()
    connection = connect(use=there)
    job_id = connection.insert(delay=100)
    connection.use(here)
    assert connection.kick(10) == 0
    assert state(connection, job_id) == "delayed"


@pytest.mark.rule("1.2/kick-job")
def test_kick_job_reaches_a_buried_or_delayed_job_of_any_tube(connect: Connect, tube: str) -> None:
    producer, stranger = connect(use=tube, watch=tube), connect()
    buried = producer.insert()
    producer.bury(producer.reserve(0))
    for job_id in (buried, producer.insert(delay=100)):
        assert stranger.ask(b"kick-job %d" % job_id) == b"KICKED"
        assert state(stranger, job_id) == "ready"


@pytest.mark.rule("1.2/kick-job")
def test_kick_job_does_not_find_a_ready_or_reserved_job(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert()
    assert connection.ask(b"kick-job %d" % job_id) == b"NOT_FOUND"
    connection.reserve(0)
    assert connection.ask(b"kick-job %d" % job_id) == b"NOT_FOUND"
    with pytest.raises(greenstalk.NotFoundError):
        connection.kick_job(2**63)


@pytest.mark.rule("1.2/delete", "2.2/kick-buried-first")
def test_a_deleted_buried_job_is_not_kicked(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    ids = [connection.insert() for _ in range(3)]
    for _ in ids:
        connection.bury(connection.reserve(0))
    connection.delete(ids[1])
    assert connection.kick(3) == 2
    assert [connection.reserve(0).id for _ in range(2)] == [ids[0], ids[2]]

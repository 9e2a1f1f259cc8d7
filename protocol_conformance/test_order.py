"""Which job comes next (§2.2)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect
    from .wire import Connection

U32_MAX = 2**32 - 1


def reserve_ids(connection: Connection, count: int) -> list[int]:
    return [connection.reserve(0).id for _ in range(count)]


@pytest.mark.rule("2.2/priority")
def test_the_smallest_priority_comes_first_and_equals_in_order_of_put(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    priorities = [7, 0, U32_MAX, 7, 1024, 0, 1023, 7]
    ids = [connection.insert(pri=pri) for pri in priorities]
    expected = [job_id for _, job_id in sorted(zip(priorities, ids, strict=True))]
    assert reserve_ids(connection, len(ids)) == expected


@pytest.mark.rule("2.2/priority")
def test_a_hundred_jobs_of_one_priority_come_first_in_first_out(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    ids = [connection.insert() for _ in range(100)]
    assert reserve_ids(connection, 100) == ids


@pytest.mark.rule("2.2/comes-back-by-id")
@pytest.mark.parametrize("way", ["release", "bury and kick", "disconnect"])
def test_a_job_that_comes_back_is_ahead_of_newer_ones(connect: Connect, tube: str, way: str) -> None:
    connection, holder = connect(use=tube, watch=tube), connect(watch=tube)
    ids = [connection.insert(pri=9) for _ in range(3)]
    job = holder.reserve(0)
    assert job.id == ids[0]
    if way == "release":
        holder.release(job, priority=9)
    elif way == "bury and kick":
        holder.bury(job, priority=9)
        assert connection.kick(1) == 1
    else:
        holder.send(b"quit\r\n")
        assert holder.is_ended()
    give_up_at = time.monotonic() + 3
    while connection.stats_job(ids[0])["state"] != "ready" and time.monotonic() < give_up_at:
        time.sleep(0.005)
    assert reserve_ids(connection, 3) == ids


@pytest.mark.rule("2.2/global-order")
@pytest.mark.cluster_relaxed("puts at different front-ends within some milliseconds have no order")
def test_over_all_watched_tubes_priority_and_age_decide(connect: Connect, new_tube: Callable[[], str]) -> None:
    tubes = [new_tube(), new_tube(), new_tube()]
    connection = connect(watch=reversed(tubes))
    expected = []
    for place, (which, priority) in enumerate([(0, 5), (1, 3), (2, 5), (1, 5), (0, 3), (2, 0)]):
        connection.use(tubes[which])
        expected.append((priority, place, connection.insert(pri=priority)))
    assert reserve_ids(connection, 6) == [job_id for _, _, job_id in sorted(expected)]


@pytest.mark.rule("2.2/global-order", "2.6/pauses-reserve")
def test_a_paused_tube_is_passed_over(connect: Connect, new_tube: Callable[[], str]) -> None:
    paused, other = new_tube(), new_tube()
    connection = connect(use=paused, watch=[paused, other])
    connection.insert(pri=0)
    connection.use(other)
    job_id = connection.insert(pri=9)
    connection.pause_tube(paused, 100)
    assert connection.reserve(0).id == job_id
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"


@pytest.mark.slow
@pytest.mark.rule("2.2/delay-ends", "2.3/timers")
def test_delayed_jobs_that_have_come_due_are_ordered_by_priority(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    second = connection.insert(delay=1, pri=2)
    first = connection.insert(delay=1, pri=1)
    assert connection.ask(b"reserve-with-timeout 0") == b"TIMED_OUT"
    time.sleep(1.1)
    stats = connection.stats_job(first)
    assert (stats["state"], stats["delay"], stats["time-left"]) == ("ready", 1, 0)
    assert reserve_ids(connection, 2) == [first, second]


@pytest.mark.slow
@pytest.mark.rule("2.2/delayed-order")
def test_a_waiting_worker_gets_delayed_jobs_in_the_order_they_come_due(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    early = producer.insert(delay=1, pri=9)
    time.sleep(0.1)
    urgent = producer.insert(delay=1, pri=0)
    worker.send(b"reserve\r\n")
    assert worker.job_reply()[1] == early
    worker.send(b"reserve-with-timeout 2\r\n")
    assert worker.job_reply()[1] == urgent

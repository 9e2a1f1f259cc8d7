"""What a server with `-b` still knows after kill -9 (§2.13)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .servers import Farm, FreshServer
    from .wire import Connection

    Crash = Callable[..., Connection]


@pytest.fixture
def crash(farm: Farm, folder: Path) -> Crash:
    """Kills the server of the last call, if any, and returns a connection to its successor on the same journal."""
    running: list[FreshServer] = []

    def successor(*flags: str) -> Connection:
        if running:
            running.pop().kill()
        running.append(farm.start("-b", folder, *flags))
        return running[0].connect(use="t", watch="t")

    return successor


@pytest.mark.rule("2.13/ready")
def test_a_ready_job_survives_with_all_its_numbers_and_its_body(crash: Crash) -> None:
    connection = crash()
    body = bytes(range(256)) * 8
    ids = [connection.insert(body, pri=7, ttr=77), connection.insert(b"", pri=3)]
    after = crash()
    stats = after.stats_job(ids[0])
    assert (stats["tube"], stats["state"], stats["pri"], stats["ttr"], stats["delay"]) == ("t", "ready", 7, 77, 0)
    assert [after.reserve(0).id for _ in range(2)] == ids[::-1]
    assert after.peek(ids[0]).body == body


@pytest.mark.rule("2.13/deleted")
def test_a_deleted_job_does_not_come_back(crash: Crash) -> None:
    connection = crash()
    ids = [connection.insert() for _ in range(4)]
    connection.delete(ids[0])
    connection.delete(connection.reserve(0))
    connection.bury(connection.reserve(0))
    connection.delete(ids[2])
    after = crash()
    assert [after.ask(b"peek %d" % job_id) for job_id in ids[:3]] == [b"NOT_FOUND"] * 3
    assert after.reserve(0).id == ids[3]


@pytest.mark.rule("2.13/reserved")
def test_a_reserved_job_is_ready_again(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert(pri=9)
    connection.reserve(0)
    after = crash()
    stats = after.stats_job(job_id)
    assert (stats["state"], stats["pri"], stats["timeouts"], stats["releases"]) == ("ready", 9, 0, 0)
    assert after.reserve(0).id == job_id


@pytest.mark.rule("2.13/delayed")
def test_a_delayed_job_keeps_the_time_it_comes_due(crash: Crash) -> None:
    connection = crash()
    put, released = connection.insert(delay=100, pri=4), connection.insert()
    connection.release(connection.reserve(0), priority=5, delay=200)
    after = crash()
    for job_id, delay, pri in ((put, 100, 4), (released, 200, 5)):
        stats = after.stats_job(job_id)
        assert (stats["state"], stats["delay"], stats["pri"]) == ("delayed", delay, pri)
        assert delay - 10 < stats["time-left"] < delay
    assert after.peek_delayed().id == put


@pytest.mark.slow
@pytest.mark.rule("2.13/delayed")
def test_a_job_that_came_due_while_the_server_was_down_is_ready(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert(delay=1)
    time.sleep(1)
    assert crash().ask_job(b"reserve-with-timeout 1")[1] == job_id


@pytest.mark.rule("2.13/buried")
def test_a_buried_job_stays_buried_with_its_priority(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert(pri=1)
    connection.bury(connection.reserve(0), priority=6)
    after = crash()
    stats = after.stats_job(job_id)
    assert (stats["state"], stats["pri"]) == ("buried", 6)
    assert after.kick(10) == 1
    assert crash().stats_job(job_id)["state"] == "ready"


@pytest.mark.rule("2.13/kicked")
def test_a_kicked_job_stays_ready(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert(delay=100)
    connection.kick_job(job_id)
    stats = crash().stats_job(job_id)
    assert (stats["state"], stats["kicks"]) == ("ready", 1)


@pytest.mark.rule("2.13/tubes")
def test_tubes_are_there_by_their_jobs_only(crash: Crash) -> None:
    connection = crash()
    connection.watch("empty")
    connection.use("full")
    connection.insert()
    after = crash()
    assert sorted(after.tubes()) == ["default", "full", "t"]
    assert after.stats()["current-jobs-ready"] == 1


@pytest.mark.rule("2.13/counters-anew")
def test_counters_of_the_server_begin_anew(crash: Crash) -> None:
    connection = crash()
    connection.insert()
    stats = crash().stats()
    assert (stats["total-jobs"], stats["cmd-put"], stats["job-timeouts"], stats["current-jobs-ready"]) == (0, 0, 0, 1)


@pytest.mark.slow
@pytest.mark.rule("2.13/age")
def test_the_age_of_a_job_goes_on(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert()
    time.sleep(1)
    assert crash().stats_job(job_id)["age"] >= 1


@pytest.mark.rule("2.13/ids-rise")
def test_new_ids_are_above_those_of_the_jobs_in_the_journal(crash: Crash) -> None:
    connection = crash()
    ids = [connection.insert() for _ in range(3)]
    assert crash().insert() > ids[-1]


@pytest.mark.rule("2.13/ids-never-repeat")
@pytest.mark.beanstalkd_bug("ids begin at 1 again when no journal file holds a higher one")
def test_ids_do_not_repeat_even_when_all_jobs_are_gone(crash: Crash) -> None:
    connection = crash()
    ids = [connection.insert() for _ in range(5)]
    for job_id in ids:
        connection.delete(job_id)
    crash()
    assert crash().insert() > ids[-1]


@pytest.mark.rule("2.13/release-priority")
@pytest.mark.beanstalkd_bug("a release without delay is not written, so its priority is lost")
def test_the_priority_of_a_release_survives(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert(pri=1)
    connection.release(connection.reserve(0), priority=8, delay=0)
    assert crash().stats_job(job_id)["pri"] == 8


@pytest.mark.rule("2.13/buries")
@pytest.mark.beanstalkd_bug("each restart buries once more")
def test_a_restart_is_not_counted_as_a_burial(crash: Crash) -> None:
    connection = crash()
    job_id = connection.insert()
    connection.bury(connection.reserve(0))
    crash()
    assert crash().stats_job(job_id)["buries"] == 1


@pytest.mark.rule("2.13/burial-order")
@pytest.mark.beanstalkd_bug("after a restart buried jobs are in the order of their ids")
def test_the_order_of_burial_survives(crash: Crash) -> None:
    connection = crash()
    ids = [connection.insert() for _ in range(4)]
    order = [ids[2], ids[0], ids[3], ids[1]]
    for job_id in order:
        connection.bury(connection.reserve_job(job_id))
    after = crash()
    found = []
    for _ in order:
        found.append(after.peek_buried().id)
        after.delete(found[-1])
    assert found == order


@pytest.mark.rule("2.13/largest-job")
@pytest.mark.beanstalkd_bug("the CRLF is counted as body, so the job and all records behind it are dropped")
def test_a_job_of_the_largest_size_survives_and_so_do_those_after_it(crash: Crash) -> None:
    connection = crash()
    body = b"m" * 65_535
    first, second = connection.insert(body), connection.insert(b"behind")
    after = crash()
    assert after.peek(second).body == b"behind"
    assert after.peek(first).body == body


@pytest.mark.rule("2.13/lower-limit")
@pytest.mark.beanstalkd_bug("jobs above a lowered limit are dropped, with all records behind them")
def test_lowering_the_size_limit_drops_no_job(crash: Crash) -> None:
    connection = crash()
    large, small = connection.insert(b"m" * 100), connection.insert(b"s")
    after = crash("-z", "10")
    assert after.peek(small).body == b"s"
    assert after.peek(large).body == b"m" * 100
    assert after.ask(b"put 0 0 60 11\r\n" + b"m" * 11) == b"JOB_TOO_BIG"


@pytest.mark.rule("2.13/many")
@pytest.mark.parametrize("flags", [(), ("-f", "0"), ("-F",)], ids=["default", "-f0", "-F"])
def test_every_acknowledged_put_survives_a_crash(crash: Crash, flags: tuple[str, ...]) -> None:
    connection = crash(*flags, "-s", "8192")
    count = 300
    connection.send(b"".join(b"put 5 0 60 100\r\n%0100d\r\n" % number for number in range(count)))
    ids = [int(connection.reply().removeprefix(b"INSERTED ")) for _ in range(count)]
    after = crash(*flags, "-s", "8192")
    jobs = [after.reserve(0) for _ in range(count)]
    assert [(job.id, job.body) for job in jobs] == [(ids[number], b"%0100d" % number) for number in range(count)]


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.13/without")
def test_without_b_nothing_survives(farm: Farm) -> None:
    first = farm.start()
    first.connect().insert()
    assert first.connect().stats_job(1)["file"] == 0
    first.kill()
    assert farm.start().connect().ask(b"peek 1") == b"NOT_FOUND"

"""The fields of stats-job and stats-tube (§2.10, §2.11)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect

JOB_FIELDS = "id tube state pri age delay ttr time-left file reserves timeouts releases buries kicks"
TUBE_FIELDS = (
    "name current-jobs-urgent current-jobs-ready current-jobs-reserved current-jobs-delayed current-jobs-buried "
    "total-jobs current-using current-watching current-waiting cmd-delete cmd-pause-tube pause pause-time-left"
)


@pytest.mark.rule("2.10/order", "1.2/stats-job")
def test_stats_job_has_these_fields_in_this_order_and_no_other(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    job_id = connection.insert(pri=7, delay=0, ttr=99)
    fields = connection.fields(b"stats-job %d" % job_id)
    assert " ".join(fields) == JOB_FIELDS
    fields.pop("file")
    fields["tube"] = fields["tube"].strip('"')
    assert list(fields.values()) == [str(job_id), tube, "ready", "7", "0", "0", "99", "0", *["0"] * 5]


@pytest.mark.rule("2.10/file")
def test_the_file_of_a_job_is_a_number(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    assert connection.stats_job(connection.insert())["file"] >= 0


@pytest.mark.rule("2.10/quoted", "2.11/quoted")
@pytest.mark.since_1_13("before, tube names were bare")
def test_tube_names_are_quoted_in_stats_and_bare_in_lists(connect: Connect) -> None:
    connection = connect(use="0123")
    job_id = connection.insert()
    try:
        assert '\ntube: "0123"\nstate: ready\npri: 1000\n' in connection.ask_text(b"stats-job %d" % job_id)
        assert connection.ask_text(b"stats-tube 0123").startswith('---\nname: "0123"\ncurrent-')
        assert "\n- 0123\n" in connection.ask_text(b"list-tubes")
        assert yaml.safe_load(connection.ask_text(b"stats-tube 0123"))["name"] == "0123"
    finally:
        connection.delete(job_id)


@pytest.mark.rule("2.10/states")
def test_each_state_has_its_name(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(delay=100)
    seen = [connection.stats_job(job_id)["state"]]
    for command in (b"kick 1", b"reserve", b"bury %d 0" % job_id):
        if command == b"reserve":
            connection.reserve(0)
        else:
            connection.ask(command)
        seen.append(connection.stats_job(job_id)["state"])
    assert seen == ["delayed", "ready", "reserved", "buried"]


@pytest.mark.rule("2.10/counters")
def test_each_counter_counts_its_command(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert()
    for _ in range(3):
        connection.release(connection.reserve(0))
    for _ in range(2):
        connection.bury(connection.reserve(0))
        connection.kick_job(job_id)
    connection.reserve_job(job_id)
    stats = connection.stats_job(job_id)
    assert (stats["reserves"], stats["releases"], stats["buries"], stats["kicks"]) == (6, 3, 2, 2)
    assert stats["timeouts"] == 0


@pytest.mark.rule("2.10/time-left")
def test_time_left_is_what_remains_of_delay_or_ttr_in_whole_seconds(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(delay=100, ttr=200)
    assert connection.stats_job(job_id)["time-left"] in {98, 99}
    connection.kick_job(job_id)
    assert connection.stats_job(job_id)["time-left"] == 0
    job = connection.reserve(0)
    assert connection.stats_job(job_id)["time-left"] in {198, 199}
    connection.release(job, delay=50)
    stats = connection.stats_job(job_id)
    assert (stats["time-left"] in {48, 49}, stats["delay"]) == (True, 50)


@pytest.mark.rule("2.10/time-left")
@pytest.mark.cluster_relaxed("the time left of a job held at another front-end may be shown as its whole ttr")
def test_others_see_the_time_left_of_a_reserved_job(connect: Connect, tube: str) -> None:
    holder, observer = connect(use=tube, watch=tube), connect()
    job_id = holder.insert(ttr=200)
    holder.reserve(0)
    assert observer.stats_job(job_id)["time-left"] in {198, 199}


@pytest.mark.slow
@pytest.mark.rule("2.10/age")
def test_age_counts_whole_seconds_since_the_put(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert()
    time.sleep(1.05)
    assert connection.stats_job(job_id)["age"] == 1
    connection.release(connection.reserve(0))
    assert connection.stats_job(job_id)["age"] == 1


@pytest.mark.rule("1.2/stats-job")
def test_stats_job_of_a_missing_job_is_not_found(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    job_id = connection.insert()
    connection.delete(job_id)
    assert connection.ask(b"stats-job %d" % job_id) == b"NOT_FOUND"


@pytest.mark.rule("2.11/order", "1.2/stats-tube")
def test_stats_tube_has_these_fields_in_this_order_and_no_other(connect: Connect, tube: str) -> None:
    fields = connect(use=tube).fields(b"stats-tube " + tube.encode())
    assert " ".join(fields) == TUBE_FIELDS
    assert fields.pop("name").strip('"') == tube
    assert fields.pop("current-using") == "1"
    assert set(fields.values()) == {"0"}


@pytest.mark.rule("2.11/jobs", "2.9/urgent")
def test_stats_tube_counts_the_jobs_of_this_tube_by_state(connect: Connect, new_tube: Callable[[], str]) -> None:
    tube = new_tube()
    connection = connect(use=tube, watch=tube)
    for pri in (0, 1023, 1024, 1025, 1026):
        connection.insert(pri=pri)
    connection.insert(pri=0, delay=100)
    connection.reserve(0)
    connection.bury(connection.reserve(0), priority=0)
    connection.use(new_tube())
    connection.insert()
    stats = connection.stats_tube(tube)
    states = ("urgent", "ready", "reserved", "delayed", "buried")
    assert [stats[f"current-jobs-{state}"] for state in states] == [0, 3, 1, 1, 1]  # type: ignore[literal-required]
    assert stats["total-jobs"] == 6


@pytest.mark.rule("2.11/deletes")
def test_only_deletes_that_found_a_job_of_the_tube_are_counted_there(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    ids = [connection.insert() for _ in range(3)]
    connection.delete(ids[0])
    connection.delete(connection.reserve(0))
    assert connection.ask(b"delete %d" % ids[0]) == b"NOT_FOUND"
    stats = connection.stats_tube(tube)
    assert (stats["cmd-delete"], stats["total-jobs"], stats["current-jobs-ready"]) == (2, 3, 1)


@pytest.mark.rule("2.11/connections")
def test_stats_tube_counts_who_uses_watches_and_waits(
    connect: Connect, new_tube: Callable[[], str], agrees: Callable[[Callable[[], bool]], bool]
) -> None:
    one, other = new_tube(), new_tube()
    observer, user = connect(use=one, watch=other), connect(use=one)
    worker = connect(watch=[one, other])

    def counts(tube: str) -> tuple[int, int, int]:
        stats = observer.stats_tube(tube)
        return stats["current-using"], stats["current-watching"], stats["current-waiting"]

    assert agrees(lambda: counts(one) == (2, 1, 0))
    assert agrees(lambda: counts(other) == (0, 2, 0))
    worker.send(b"reserve\r\n")
    assert worker.is_silent()
    assert agrees(lambda: counts(one) == (2, 1, 1))
    assert agrees(lambda: counts(other) == (0, 2, 1))
    user.use(other)
    user.insert()
    assert worker.job_reply()[0] == b"RESERVED"
    assert agrees(lambda: counts(one) == (1, 1, 0))
    assert agrees(lambda: counts(other) == (1, 2, 0))


@pytest.mark.rule("1.2/stats-tube")
def test_stats_tube_of_a_missing_tube_is_not_found_and_creates_none(connect: Connect, tube: str) -> None:
    connection = connect()
    assert connection.ask(b"stats-tube " + tube.encode()) == b"NOT_FOUND"
    assert tube not in connection.tubes()

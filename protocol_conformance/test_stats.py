"""The fields of stats: their order, their form, and what they count (§2.9)."""

from __future__ import annotations

import os
import platform
import re
import time
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

from .wire import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Connect
    from .servers import Farm

FIELDS = (
    *(f"current-jobs-{state}" for state in ("urgent", "ready", "reserved", "delayed", "buried")),
    *("cmd-put", "cmd-peek", "cmd-peek-ready", "cmd-peek-delayed", "cmd-peek-buried"),
    *("cmd-reserve", "cmd-reserve-with-timeout", "cmd-delete", "cmd-release", "cmd-use", "cmd-watch", "cmd-ignore"),
    *("cmd-bury", "cmd-kick", "cmd-touch", "cmd-stats", "cmd-stats-job", "cmd-stats-tube", "cmd-list-tubes"),
    *("cmd-list-tube-used", "cmd-list-tubes-watched", "cmd-pause-tube", "job-timeouts", "total-jobs", "max-job-size"),
    *("current-tubes", "current-connections", "current-producers", "current-workers", "current-waiting"),
    *("total-connections", "pid", "version", "rusage-utime", "rusage-stime", "uptime"),
    *("binlog-oldest-index", "binlog-current-index", "binlog-records-migrated", "binlog-records-written"),
    *("binlog-max-size", "draining", "id", "hostname", "os", "platform"),
)
FORMS = {
    "rusage-utime": r"\d+\.\d{6}",
    "rusage-stime": r"\d+\.\d{6}",
    "version": r'".+"',
    "draining": "true|false",
    "id": "[0-9a-f]{16}",
    "hostname": ".+",
    "os": ".+",
    "platform": ".+",
}
# One call of each, which is answered NOT_FOUND, TIMED_OUT or with success but never with BAD_FORMAT.
COUNTED = {
    "cmd-peek": b"peek 18446744073709551615",
    "cmd-peek-ready": b"peek-ready",
    "cmd-peek-delayed": b"peek-delayed",
    "cmd-peek-buried": b"peek-buried",
    "cmd-reserve-with-timeout": b"reserve-with-timeout 0",
    "cmd-delete": b"delete 18446744073709551615",
    "cmd-release": b"release 18446744073709551615 0 0",
    "cmd-use": b"use other",
    "cmd-watch": b"watch other",
    "cmd-ignore": b"ignore another",
    "cmd-bury": b"bury 18446744073709551615 0",
    "cmd-kick": b"kick 1",
    "cmd-touch": b"touch 18446744073709551615",
    "cmd-stats-job": b"stats-job 18446744073709551615",
    "cmd-stats-tube": b"stats-tube missing",
    "cmd-list-tube-used": b"list-tube-used",
    "cmd-pause-tube": b"pause-tube missing 1",
}


@pytest.mark.rule("2.9/order")
def test_stats_has_its_fields_in_order(connect: Connect) -> None:
    fields = connect().fields(b"stats")
    assert tuple(fields)[: len(FIELDS)] == FIELDS
    assert all(key.startswith("beanspiked-") for key in tuple(fields)[len(FIELDS) :])


@pytest.mark.rule("2.9/form", "1.2/stats")
def test_every_value_of_stats_has_its_form(connect: Connect) -> None:
    text = connect().ask_text(b"stats")
    assert text.startswith("---\n")
    assert text.endswith("\n")
    for row in text.splitlines()[1:]:
        key, value = row.split(": ", 1)
        if key in FIELDS:
            assert re.fullmatch(FORMS.get(key, r"\d+"), value), f"{key} is {value!r}"


@pytest.mark.rule("2.9/quoted", "1.2/stats")
@pytest.mark.since_1_13("before, hostname, os and platform were bare, so that os could be a YAML comment")
def test_stats_is_yaml_that_means_what_it_says(connect: Connect) -> None:
    connection = connect()
    text = connection.ask_text(b"stats")
    for key in ("hostname", "os", "platform", "version"):
        assert re.search(rf'^{key}: ".+"$', text, re.MULTILINE)
    loaded = yaml.safe_load(text)
    assert loaded["version"].startswith("1.")
    assert isinstance(loaded["os"], str)


@pytest.mark.rule("2.9/new-server")
def test_a_new_server_has_counted_one_connection_and_one_stats(farm: Farm) -> None:
    server = farm.start()
    stats = server.connect().stats()
    ones = {key for key, value in stats.items() if value == 1 and key not in {"pid", "uptime"}}
    assert ones == {"cmd-stats", "current-tubes", "current-connections", "total-connections"}
    assert stats["uptime"] <= 1
    assert stats["max-job-size"] == 65535
    assert stats["binlog-max-size"] == 10485760
    assert stats["draining"] == "false"
    others = set(FIELDS[: FIELDS.index("pid")]) - ones - {"max-job-size"}
    assert {key: stats[key] for key in others} == dict.fromkeys(others, 0)  # type: ignore[literal-required]


@pytest.mark.rule("2.9/process")
def test_pid_host_and_platform_are_those_of_the_process(farm: Farm) -> None:
    server = farm.start()
    fields = server.connect().fields(b"stats")
    assert int(fields["pid"]) == server.pid
    assert fields["hostname"].strip('"') == os.uname().nodename
    assert fields["os"].strip('"') == os.uname().version
    assert fields["platform"].strip('"') == platform.machine()
    assert float(fields["rusage-utime"]) < 60
    assert float(fields["rusage-stime"]) < 60


@pytest.mark.rule("2.9/process")
def test_each_process_has_an_id_of_its_own(farm: Farm) -> None:
    assert farm.start().connect().stats()["id"] != farm.start().connect().stats()["id"]


@pytest.mark.rule("2.9/counted")
def test_every_command_whose_arguments_parse_is_counted_once(farm: Farm) -> None:
    connection = farm.start().connect()
    for line in COUNTED.values():
        reply = connection.ask(line)
        assert reply != b"BAD_FORMAT"
    connection.ask_text(b"list-tubes")
    connection.ask_text(b"list-tubes-watched")
    connection.insert()
    assert connection.ask_job(b"reserve")[0] == b"RESERVED"
    stats = connection.stats()
    counters = [key for key in stats if key.startswith("cmd-")]
    assert {key: stats[key] for key in counters} == dict.fromkeys(counters, 1)  # type: ignore[literal-required]


@pytest.mark.rule("2.9/bad-not-counted")
def test_a_command_that_does_not_parse_is_not_counted(farm: Farm) -> None:
    connection = farm.start().connect()
    for word in (b"peek", b"delete", b"release", b"bury", b"touch", b"kick", b"use", b"watch", b"ignore"):
        assert connection.ask(word + b" :") == b"BAD_FORMAT"
    for line in (
        b"put 0 0 x 0",
        b"stats-job x",
        b"stats-tube :",
        b"statsx",
        b"reservex",
        b"peek-readyx",
        b"pause-tube :",
    ):
        assert connection.ask(line) == b"BAD_FORMAT"
    stats = connection.stats()
    counters = [key for key in stats if key.startswith("cmd-") and key != "cmd-stats"]
    assert {key: stats[key] for key in counters} == dict.fromkeys(counters, 0)  # type: ignore[literal-required]


@pytest.mark.rule("2.9/put-counted", "2.1/checks")
def test_put_is_counted_also_when_it_is_refused_but_its_job_is_not(farm: Farm) -> None:
    connection = farm.start("-z", "10").connect()
    connection.send(b"put 0 0 0 11\r\n" + b"x" * 11 + b"\r\n")
    assert connection.reply() == b"JOB_TOO_BIG"
    assert connection.stats()["current-producers"] == 0
    connection.send(b"put 0 0 0 1\r\nabc" + b"put 0 0 0 1x\r\n")
    assert connection.replies(2) == [b"EXPECTED_CRLF", b"BAD_FORMAT"]
    stats = connection.stats()
    assert (stats["cmd-put"], stats["total-jobs"], stats["current-producers"]) == (3, 0, 1)


@pytest.mark.rule("2.9/jobs", "2.9/urgent")
def test_jobs_are_counted_by_state_and_urgent_ones_below_1024(farm: Farm) -> None:
    connection = farm.start().connect()
    for pri in (0, 1023, 1024, 5):
        connection.insert(pri=pri)
    connection.insert(pri=0, delay=100)

    def counts() -> list[int]:
        stats = connection.stats()
        states = ("urgent", "ready", "reserved", "delayed", "buried")
        return [stats[f"current-jobs-{state}"] for state in states]  # type: ignore[literal-required]

    assert counts() == [3, 4, 0, 1, 0]
    job = connection.reserve(0)
    assert counts() == [2, 3, 1, 1, 0]
    connection.bury(job, priority=0)
    assert counts() == [2, 3, 0, 1, 1]
    connection.kick(1)
    assert counts() == [3, 4, 0, 1, 0]
    connection.kick(1)
    assert counts() == [4, 5, 0, 0, 0]
    connection.delete(job)
    assert counts() == [3, 4, 0, 0, 0]
    assert connection.stats()["total-jobs"] == 5


@pytest.mark.rule("2.9/connections", "2.4/worker")
def test_connections_are_counted_by_what_they_did(farm: Farm) -> None:
    server = farm.start()
    observer = server.connect()

    def counts() -> tuple[int, int, int, int, int]:
        stats = observer.stats()
        connections = (stats["current-connections"], stats["total-connections"])
        return *connections, stats["current-producers"], stats["current-workers"], stats["current-waiting"]

    assert counts() == (1, 1, 0, 0, 0)
    other = server.connect()
    job_id = other.insert(delay=100)
    assert counts() == (2, 2, 1, 0, 0)
    assert other.ask(b"reserve-job 99") == b"NOT_FOUND"
    assert counts() == (2, 2, 1, 0, 0)
    assert other.reserve_job(job_id).id == job_id
    assert counts() == (2, 2, 1, 1, 0)
    third = server.connect(watch=["default", "a", "b"])
    third.send(b"reserve\r\n")
    assert eventually(lambda: counts() == (3, 3, 1, 2, 1))
    third.close()
    assert eventually(lambda: counts() == (2, 3, 1, 1, 0))
    other.close()
    assert eventually(lambda: counts() == (1, 3, 0, 0, 0))


@pytest.mark.slow
@pytest.mark.rule("2.9/uptime", "2.3/expiry-counts")
def test_uptime_counts_seconds_and_job_timeouts_the_expired(farm: Farm) -> None:
    connection = farm.start().connect()
    began_at = time.monotonic()
    connection.insert(ttr=1)
    connection.reserve(0)
    time.sleep(1.05)
    connection.using()
    assert eventually(lambda: connection.stats()["job-timeouts"] == 1)
    assert 1 <= connection.stats()["uptime"] <= time.monotonic() - began_at + 2


@pytest.mark.rule("2.9/tubes")
def test_tubes_are_counted(farm: Farm) -> None:
    connection = farm.start().connect()
    connection.watch("a")
    connection.use("b")
    assert connection.stats()["current-tubes"] == 3
    connection.ignore("a")
    assert connection.stats()["current-tubes"] == 2


@pytest.mark.rule("2.9/shared")
def test_counters_of_a_shared_server_only_rise(
    connect: Connect, tube: str, agrees: Callable[[Callable[[], bool]], bool]
) -> None:
    connection = connect(use=tube)
    before = connection.stats()
    connection.insert()
    after = connection.stats()
    assert after["cmd-put"] > before["cmd-put"]
    assert after["total-jobs"] > before["total-jobs"]
    assert agrees(lambda: connection.stats()["cmd-stats"] >= before["cmd-stats"] + 2)

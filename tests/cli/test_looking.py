"""stats, tubes, peek, jobs, wait and health: they change nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from either import COMMAND, bury

if TYPE_CHECKING:
    from conftest import Commands

    from beanspiked.client.blocking import Conn

pytestmark = pytest.mark.usefixtures("server")


def test_stats_tell_about_the_server(cli: Commands) -> None:
    assert cli("stats").out.startswith("what ")
    assert cli("stats", "--json").json["draining"] is False


def test_stats_tell_about_a_tube(cli: Commands, tube: str) -> None:
    cli("put", tube, "a", "b")
    assert cli("stats", tube, "--json").json["current-jobs-ready"] == 2


@pytest.mark.parametrize(
    "command", ["stats {}", "peek {}", "jobs {}", "kick {}", "pause {} 1", "move {} b", "clear {} -y"]
)
def test_of_a_tube_that_is_not_there_the_nearest_is_named(cli: Commands, tube: str, command: str) -> None:
    cli("put", tube, "a")
    wrong = tube[:-1]
    assert (
        cli(*command.format(wrong).split(), code=1).said
        == f"beanspiked: there is no tube {wrong} (do you mean {tube}?)"
    )


def test_tubes_are_listed_with_what_is_in_them(cli: Commands, conn: Conn, tube: str) -> None:
    cli("put", tube, "a", "b", "c")
    cli("put", tube, "d", "--delay", "1h")
    bury(conn, tube)
    cli("pause", tube, "1h")
    head, row = cli("tubes", f"{tube}*").out.splitlines()
    assert head.split() == ["tube", "ready", "urgent", "reserved", "delayed", "buried", "waiting", "total", "paused"]
    assert row.split()[:8] == [tube, "2", "0", "0", "1", "1", "0", "4"]
    assert "59m" in row


def test_tubes_are_sorted_by_what_is_asked_for(cli: Commands, tube: str) -> None:
    cli("put", f"{tube}-1", "a")
    cli("put", f"{tube}-2", "a", "b")
    assert cli("tubes", f"{tube}-*", "--names").out.split() == [f"{tube}-1", f"{tube}-2"]
    told = cli("tubes", f"{tube}-*", "--sort", "ready", "--json").json
    assert [one["name"] for one in told] == [f"{tube}-2", f"{tube}-1"]


def test_peek_shows_a_job_by_its_id(cli: Commands, tube: str) -> None:
    (job_id,) = cli("put", tube, "two\nlines").out.split()
    shown = cli("peek", job_id).out
    assert f"id: {job_id}\ntube: {tube}\nstate: ready\n" in shown
    assert shown.endswith("size: 9\n\ntwo\nlines\n")


def test_peek_shows_the_next_job_of_each_state(cli: Commands, conn: Conn, tube: str) -> None:
    cli("put", tube, "buried", "ready")
    cli("put", tube, "delayed", "--delay", "1h")
    bury(conn, tube)
    told = cli("peek", tube, "--json").json
    assert [(job["state"], job["body"]) for job in told] == [(state, state) for state in ("ready", "delayed", "buried")]
    assert cli("peek", tube, "--state", "buried", "--body").out == "buried"


def test_peek_says_when_there_is_nothing(cli: Commands, tube: str) -> None:
    assert cli("peek", 2**63, code=1).said == f"beanspiked: there is no job {2**63}"
    cli("put", tube, "a", "-d", "1h")
    assert cli("peek", tube, "-s", "buried", code=1).said == f"beanspiked: no job of {tube} is buried"


def test_a_number_may_be_a_tube(cli: Commands) -> None:
    cli("put", "4711", "a")
    assert cli("peek", "--tube", "4711", "--body").out == "a"


def test_bodies_do_nothing_to_a_terminal(cli: Commands, tube: str) -> None:
    (job_id,) = cli("put", tube, "--whole", stdin=b"\x1b[2J\xff\0\r\ttab").out.split()
    assert cli("peek", job_id).out.endswith("\n\n\\x1b[2J\\xff\\x00\\r\ttab\n")
    assert "\x1b" not in cli("jobs", tube).out
    assert cli("peek", job_id, "--json").json[0]["body_base64"] == "G1sySv8ADQl0YWI="


def test_a_character_that_the_output_cannot_show_is_escaped(cli: Commands, tube: str) -> None:
    cli("put", tube, "tschüß")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [*COMMAND, "peek", "--tube", tube]
    shown, document = (
        subprocess.run([*words, *more], env=environ, capture_output=True, check=True, timeout=20).stdout
        for more in ([], ["--json"])
    )
    assert shown.endswith(b"tsch\\xfc\\xdf\n")
    assert json.loads(document)[0]["body"] == "tschüß"


def test_jobs_lists_the_next_ones(cli: Commands, tube: str) -> None:
    cli("put", tube, "first", "second")
    head, row = cli("jobs", tube).out.splitlines()
    assert head.split() == ["id", "state", "pri", "age", "reserves", "buries", "bytes", "body"]
    assert row.split()[1:] == ["ready", "1024", "0s", "0", "0", "5", "first"]


def test_jobs_looks_at_a_range_of_ids(cli: Commands, conn: Conn, tube: str) -> None:
    ids = [int(word) for word in cli("put", tube, "apple", "pear", "plum", "peach").out.split()]
    bury(conn, tube, 2)
    cli("put", f"{tube}-other", "pear")
    ids_of = [job["id"] for job in cli("jobs", tube, "--ids", f"1-{ids[-1] + 1}", "--json").json]
    assert ids_of == ids
    found = cli("jobs", tube, "--ids", f"{ids[0]}-{ids[-1]}", "--state", "buried", "--grep", "pear", "--json").json
    assert [job["body"] for job in found] == ["pear"]
    assert cli("jobs", tube, "--ids", f"1-{ids[-1]}", "--older", "1h", "--json").json == []


def test_wait_ends_when_the_tube_is_empty(cli: Commands, conn: Conn, tube: str) -> None:
    assert cli("wait", tube, "--empty").out == f"{tube} is empty\n"
    cli("put", tube, "a")
    said = cli("wait", tube, "--empty", "--timeout", "0", code=1).said
    assert said == f"beanspiked: {tube} is not empty: 1 job left"
    bury(conn, tube)
    assert cli("wait", tube, "--empty").out == f"{tube} is empty; 1 job buried\n"
    cli("wait", tube, "--buried", "--timeout", "0", code=1)


@pytest.mark.parametrize(
    ("limits", "code", "word"),
    [
        ([], 0, "OK"),
        (["--max-ready", "2", "--warn-ready", "2"], 0, "OK"),
        (["--max-ready", "9", "--warn-ready", "1"], 1, "WARNING"),
        (["--max-ready", "1", "--warn-ready", "1"], 2, "CRITICAL"),
        (["--max-age", "1h", "--max-buried", "1"], 0, "OK"),
        (["--max-buried", "0", "--warn-ready", "1"], 2, "CRITICAL"),
    ],
)
def test_health_ends_as_plugins_do(
    cli: Commands, conn: Conn, tube: str, limits: list[str], code: int, word: str
) -> None:
    cli("put", tube, "a", "b", "c")
    bury(conn, tube)
    result = cli("health", tube, *limits, code=code)
    assert result.out.startswith(f"{word} - {tube}: ")
    assert " | age=0s;" in result.out
    assert " ready=2;" in result.out


def test_health_looks_at_the_age(cli: Commands, tube: str) -> None:
    cli("put", tube, "a")
    while cli("health", tube, "--json").json["age"] < 1:
        time.sleep(0.05)
    assert cli("health", tube, "--max-age", "0", code=2).out.startswith(f"CRITICAL - {tube}: age ")


def test_health_is_critical_without_a_server_and_unknown_without_sense(cli: Commands) -> None:
    assert cli("health", "emails", "-a", "127.0.0.1:1", code=2).out.startswith(
        "CRITICAL - cannot connect to 127.0.0.1:1"
    )
    assert cli("health", "emails", "-a", "a..b:1", code=2).out.startswith(
        "CRITICAL - cannot connect to a..b:1: no such host"
    )
    cli("health", "emails", "--max-reddy", "1", code=3)
    cli("health", "emails", "--timeout", "0", code=3)


def test_health_is_critical_when_the_server_does_not_answer_in_time(cli: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        result = cli("health", "emails", "--timeout", "1s", "-a", address, code=2)
    assert result.out == f"CRITICAL - {address}: no answer for 1 s\n"


def test_wait_waits_no_longer_than_its_timeout_for_a_server_that_does_not_answer(cli: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        said = cli("wait", "emails", "--timeout", "1s", "-a", address, code=1).said
    assert said == f"beanspiked: {address}: no answer for 1 s"


def test_health_without_a_server_prints_json_as_well(cli: Commands) -> None:
    told = cli("health", "emails", "-a", "127.0.0.1:1", "--json", code=2).json
    (why,) = told.pop("complaints")
    assert told == {"status": "CRITICAL", "tube": "emails", "age": None, "ready": None, "buried": None}
    assert why.startswith("cannot connect to 127.0.0.1:1: connection refused")


def test_health_of_a_tube_that_is_not_there_is_fine(cli: Commands, tube: str) -> None:
    assert cli("health", tube, "--max-ready", "0").out.startswith("OK - ")

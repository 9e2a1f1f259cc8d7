"""put, kick, move, delete, clear and pause."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from either import COMMAND, Person, bodies, bury

from beanspiked.client import requests

if TYPE_CHECKING:
    from conftest import Commands

    from beanspiked.client.blocking import Conn

pytestmark = pytest.mark.usefixtures("server")


MANY = [b"%d" % number for number in range(3000)]

# --- put


@pytest.mark.parametrize(
    ("words", "stdin", "put"),
    [
        (["a", "b c"], b"", [b"a", b"b c"]),
        ([""], b"", [b""]),
        ([], b"a\n\nb\r\nc", [b"a", b"b\r", b"c"]),
        ([], b"", []),
        (["-0"], b"a\nb\0\0c\0", [b"a\nb", b"c"]),
        (["--whole"], b"a\n\0b\n", [b"a\n\0b\n"]),
        (["--whole"], b"", [b""]),
        pytest.param([], b"\n".join(MANY), MANY, id="many"),
        ([], b"x" * 65535 + b"\ny", [b"x" * 65535, b"y"]),
    ],
)
def test_put_puts_what_is_given(
    cli: Commands, conn: Conn, tube: str, words: list[str], stdin: bytes, put: list[bytes]
) -> None:
    ids = cli("put", tube, *words, stdin=stdin).out.split()
    assert len(ids) == len(put)
    assert bodies(conn, tube) == put


def test_put_takes_priority_delay_and_ttr(cli: Commands, tube: str) -> None:
    ids = cli("put", tube, "a", "--pri", "5", "--delay", "2m", "--ttr", "1h", "--json").json["ids"]
    (told,) = cli("peek", ids[0], "--json").json
    assert (told["pri"], told["delay"], told["ttr"], told["state"]) == (5, 120, 3600, "delayed")


def test_put_tells_which_lines_are_too_big_and_goes_on(cli: Commands, conn: Conn, tube: str) -> None:
    result = cli("put", tube, "--quiet", stdin=b"a\n\n" + b"x" * 70000 + b"\nb\n", code=1)
    assert "line 3 was not put" in result.said
    assert "the job is larger than the server accepts" in result.said
    assert bodies(conn, tube) == [b"a", b"b"]


def test_put_does_not_wait_for_the_next_line(conn: Conn, tube: str) -> None:
    with subprocess.Popen([*COMMAND, "put", tube], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"a", b"b"):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            # Its id comes before the next line does.
            assert process.stdout.readline().strip().isdigit()
            assert bodies(conn, tube) == [line]
        process.stdin.close()
        assert process.wait(10) == 0


# --- kick


def test_kick_makes_buried_jobs_ready(cli: Commands, conn: Conn, tube: str) -> None:
    cli("put", tube, *"abcde")
    bury(conn, tube, 4)
    assert cli("kick", tube, "1").out == "1 job kicked\n"
    assert cli("kick", tube, "--json").json == {"kicked": 3, "missing": []}
    assert cli.states(tube) == {"ready": 5}


def test_kick_leaves_delayed_jobs_alone_unless_told(cli: Commands, conn: Conn, tube: str) -> None:
    cli("put", tube, "a")
    cli("put", tube, "b", "c", "--delay", "1h")
    assert cli("kick", tube).out == "0 jobs kicked\n"
    bury(conn, tube, 1)
    assert "has 1: kick" in cli("kick", tube, "--delayed", code=1).said
    cli("kick", tube, "9")
    assert cli.states(tube) == {"ready": 1, "delayed": 2}
    assert cli("kick", tube, "1", "--delayed").out == "1 job kicked\n"
    assert cli.states(tube) == {"ready": 2, "delayed": 1}


def test_kick_takes_ids(cli: Commands, tube: str) -> None:
    ids = cli("put", tube, "a", "b", "--delay", "1h").out.split()
    result = cli("kick", "--id", *ids, 2**60, code=1)
    assert (result.out, result.said) == ("2 jobs kicked\n", f"beanspiked: job {2**60} is neither buried nor delayed")
    cli("kick", code=5)
    cli("kick", tube, "--id", "1", code=5)


# --- delete, clear, pause


def test_delete_takes_ids(cli: Commands, tube: str) -> None:
    ids = cli("put", tube, "a", "b").out.split()
    result = cli("delete", *ids, ids[0], code=1)
    assert result.out == "2 jobs deleted\n"
    assert result.said == f"beanspiked: there is no job {ids[0]}, or a worker has reserved it"


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    ("state", "left"),
    [("ready", {"reserved", "delayed", "buried"}), ("buried", {"ready", "reserved", "delayed"}), ("", {"reserved"})],
)
def test_clear_deletes_all_but_what_is_reserved(
    cli: Commands, conn: Conn, tube: str, state: str, left: set[str], paused: bool
) -> None:
    cli("put", tube, *map(str, range(200)))
    bury(conn, tube, 50)
    cli("put", tube, *"abc", "--delay", "1h")
    assert conn.ask(requests.reserve_with_timeout(0)) is not None
    cli("pause", tube, "1h" if paused else "0")
    deleted = {"ready": 149, "delayed": 3, "buried": 50}
    wanted = {name: count for name, count in deleted.items() if not state or name == state}
    assert (
        cli("clear", tube, "--yes", *(["-s", state] if state else [])).out == f"{sum(wanted.values())} jobs deleted\n"
    )
    assert set(cli.states(tube)) == left


def test_clear_wants_to_be_told_twice(cli: Commands, tube: str) -> None:
    cli("put", tube, "a")
    assert "--yes" in cli("clear", tube, code=5).err
    assert cli.states(tube) == {"ready": 1}


@pytest.mark.parametrize(("typed", "code"), [("{}", 0), ("y", 1), ("", 1)])
def test_clear_asks_for_the_name(
    cli: Commands, tube: str, typed: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("put", tube, "a")
    monkeypatch.setattr("sys.stdin", Person(typed.format(tube)))
    result = cli("clear", tube, code=code)
    assert "This deletes 1 job. Type the tube's name to go on:" in result.err
    assert cli.states(tube).get("ready", 0) == bool(code)


def test_pause_begins_and_ends(cli: Commands, tube: str) -> None:
    cli("put", tube, "a")
    assert cli("pause", tube, "10m").out == f"{tube} is paused for 10m\n"
    assert cli("stats", tube, "--json").json["pause"] == 600
    assert cli("pause", tube, "0").out == f"{tube} is not paused any more\n"
    assert cli("stats", tube, "--json").json["pause-time-left"] == 0


# --- move


def test_move_takes_ready_jobs_with_what_they_have(cli: Commands, conn: Conn, tube: str) -> None:
    cli("put", tube, *map(str, range(150)), "--priority", "3", "--ttr", "77")
    cli("put", tube, "stays", "--delay", "1h")
    assert cli("move", tube, f"{tube}-to").out == f"150 jobs moved to {tube}-to\n"
    assert cli.states(tube) == {"delayed": 1}
    (told,) = cli("peek", f"{tube}-to", "--json").json
    assert (told["pri"], told["ttr"]) == (3, 77)
    assert bodies(conn, f"{tube}-to") == [b"%d" % number for number in range(150)]


def test_move_takes_no_more_than_told(cli: Commands, tube: str) -> None:
    cli("put", tube, *"abcd")
    assert cli("move", tube, f"{tube}-to", "-n", "3", "--json").json == {"moved": 3, "doubled": []}
    assert cli.states(tube) == {"ready": 1}


def test_move_takes_buried_and_delayed_jobs(cli: Commands, conn: Conn, tube: str) -> None:
    cli("put", tube, *"abc")
    bury(conn, tube, 3)
    cli("put", tube, *"de", "--delay", "1h")
    assert cli("move", tube, f"{tube}-to", "-s", "buried").out == f"3 jobs moved to {tube}-to\n"
    assert cli("move", tube, f"{tube}-to", "-s", "delayed").out == f"2 jobs moved to {tube}-to\n"
    assert cli.states(tube) == {}
    assert cli.states(f"{tube}-to") == {"ready": 3, "delayed": 2}
    ready, delayed = cli("peek", f"{tube}-to", "--json").json
    assert (ready["pri"], 3500 < delayed["time-left"] <= 3600) == (7, True)


def test_move_takes_jobs_of_a_paused_tube(cli: Commands, tube: str) -> None:
    cli("put", tube, *"abc")
    cli("pause", tube, "1h")
    cli("move", tube, f"{tube}-to")
    assert cli.states(f"{tube}-to") == {"ready": 3}


def test_move_goes_nowhere_within_a_tube(cli: Commands, tube: str) -> None:
    cli("put", tube, "a")
    assert "the tubes are the same" in cli("move", tube, tube, code=5).err

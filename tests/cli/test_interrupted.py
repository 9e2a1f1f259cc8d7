"""put and move where the server takes no more jobs, or where they are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from either import bodies, bury

from beanspiked.client import requests
from beanspiked.client.address import Address
from beanspiked.client.blocking import Conn
from beanspiked.client.errors import JobBuried, Refused, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Commands
    from either import Running


def test_put_tells_from_where_to_try_again(cli: Commands, own_server: Running) -> None:
    own_server.process.send_signal(signal.SIGUSR1)
    while not cli("stats", "--json").json["draining"]:
        pass
    said = cli("put", "t", stdin=b"\na\nb\n", code=1).said
    assert said.endswith("the server is draining and accepts no more jobs; 0 jobs were put: try again from line 2 on")


@pytest.mark.usefixtures("own_server")
def test_put_tells_after_ctrl_c_what_it_may_have_put(cli: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Conn.ask_all

    def interrupted(self: Conn, wanted: Any) -> Any:
        outcomes = exchange(self, wanted)
        if len(wanted) > 1:
            raise KeyboardInterrupt
        return outcomes

    monkeypatch.setattr(Conn, "ask_all", interrupted)
    said = cli("put", "t", stdin=b"a\nb\n", code=130).said
    assert said == "beanspiked: interrupted; 0 jobs were put; those of lines 1 to 2 may have been put"


@pytest.mark.parametrize("state", ["ready", "delayed", "buried"])
def test_move_leaves_everything_where_the_server_takes_no_more(cli: Commands, own_server: Running, state: str) -> None:
    cli("put", "from", *"abc", "--priority", "7", *(["--delay", "1h"] if state == "delayed" else []))
    if state == "buried":
        with Conn.connect(Address.parse(own_server.address)) as conn:
            bury(conn, "from", 3)
    own_server.process.send_signal(signal.SIGUSR1)
    while not cli("stats", "--json").json["draining"]:
        pass
    assert "accepts no more jobs; 0 jobs were moved" in cli("move", "from", "to", "-s", state, code=1).said
    assert cli.states("from") == {state: 3}
    assert cli("peek", "from", "--json").json[0]["pri"] == 7


@pytest.mark.usefixtures("own_server")
@pytest.mark.parametrize(
    ("verbs", "error", "said", "moved"),
    [
        (["put"], StoreFailed, "the server failed", 0),
        (["put", "release"], StoreFailed, "the server failed", 0),
        (["put"], JobBuried, "the server has no room, and buried the job", 0),
        (["delete"], StoreFailed, "the server failed", 3),
    ],
)
def test_move_tells_which_jobs_may_be_in_both_tubes_when_the_server_fails(
    cli: Commands, monkeypatch: pytest.MonkeyPatch, verbs: list[str], error: type[Refused], said: str, moved: int
) -> None:
    cli("put", "from", *"abc")
    exchange = Conn.ask_all

    def failing(self: Conn, wanted: Any) -> Any:
        # It may have carried them out although it says that it failed.
        told = exchange(self, wanted)
        return [error(one.command) if one.verb in verbs else outcome for one, outcome in zip(wanted, told, strict=True)]

    monkeypatch.setattr(Conn, "ask_all", failing)
    text = cli("move", "from", "to", code=1).err
    assert said in text
    assert text.rstrip().endswith(
        f"{moved} jobs were moved, the others are where they were; 3 jobs may be in both tubes: [1, 2, 3]"
    )


class Killed(BaseException):
    """What ends a process between two of its steps."""


def dying(steps: int) -> Callable[..., Any]:
    """Make an exchange after so many of which the process is dead; its connection is closed then."""
    exchange = Conn.ask_all
    left = iter(range(steps))

    def ask_all(self: Conn, wanted: Any) -> Any:
        if next(left, None) is None:
            self.close()
            raise Killed
        return exchange(self, wanted)

    return ask_all


@pytest.mark.slow
@pytest.mark.parametrize("state", ["ready", "delayed", "buried"])
def test_a_move_that_is_killed_between_its_steps_loses_no_job(
    cli: Commands, own_server: Running, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [b"%d" % number for number in range(3)]
    killed = True
    steps = 0
    while killed:
        cli("put", "from", *map(os.fsdecode, given), *(["--delay", "1h"] if state == "delayed" else []))
        if state == "buried":
            with Conn.connect(Address.parse(own_server.address)) as conn:
                bury(conn, "from", len(given))
        with monkeypatch.context() as patch:
            patch.setattr(Conn, "ask_all", dying(steps))
            try:
                cli("move", "from", "to", "-s", state)
                killed = False
            except Killed:
                steps += 1
        while sum(cli.states(name).get("reserved", 0) for name in ("from", "to")):
            pass
        with Conn.connect(Address.parse(own_server.address)) as conn:
            found = Counter()
            for name in ("from", "to"):
                conn.ask(requests.use(name))
                for _ in range(2):
                    conn.ask(requests.kick(100))
                found += Counter(bodies(conn, name))
        assert set(found) == set(given), steps
        assert max(found.values()) <= 2
        assert killed or max(found.values()) == 1
    assert steps > 5

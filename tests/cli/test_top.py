"""top: the tubes live."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from either import COMMAND, bury

from beanspiked.cli.top import _split
from beanspiked.client.address import Address
from beanspiked.client.blocking import Conn

if TYPE_CHECKING:
    from conftest import Commands
    from either import Running

    from beanspiked.client.documents import Stats


@pytest.fixture
def screen() -> Any:
    """A screen of 14 lines, eight tubes among them."""
    pytest.importorskip("rich")
    from rich.console import Console

    from beanspiked.cli.screen import Screen

    return Screen("here", Console(width=100, height=14, force_terminal=True, color_system=None, legacy_windows=False))


SERVER: Stats = {
    "uptime": 90061, "current-connections": 1234, "draining": False,
    **{f"current-jobs-{state}": 5 for state in ("ready", "reserved", "delayed", "buried")},
}  # fmt: skip


def seen(name: str, ready: int = 0, puts: int = 0, deletes: int = 0, **more: int) -> Stats:
    states = {"ready": ready, "reserved": 0, "delayed": 0, "buried": 0, **more}
    counts = {f"current-jobs-{state}": count for state, count in states.items()}
    return {
        "name": name,
        "total-jobs": puts,
        "cmd-delete": deletes,
        "current-waiting": 0,
        "pause-time-left": 0,
        **counts,
    }


def lines(screen: Any) -> list[str]:
    with screen._console.capture() as capture:
        screen._console.print(screen.render())
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).splitlines()


def test_rates_are_of_the_time_between_two_looks(screen: Any) -> None:
    screen.update(10.0, SERVER, [seen("a", puts=100, deletes=50), seen("new")])
    screen.update(12.0, SERVER, [seen("a", puts=120, deletes=56), seen("other", puts=7)])
    rows = {row.name: (row.puts, row.deletes) for row in screen.rows}
    # What a tube had before it was seen first is no rate.
    assert rows == {"a": (10.0, 3.0), "other": (0.0, 0.0)}


def test_a_tube_that_was_gone_meanwhile_has_no_negative_rate(screen: Any) -> None:
    screen.update(1.0, SERVER, [seen("a", puts=100)])
    screen.update(2.0, SERVER, [seen("a", puts=3)])
    assert screen.rows[0].puts == 0


def test_the_order_is_by_a_column_that_a_key_changes(screen: Any) -> None:
    screen.update(1.0, SERVER, [seen("a", 1, buried=5), seen("b", 2), seen("c", 3, reserved=9)])
    assert [row.name for row in screen.rows] == ["c", "b", "a"]
    screen.reversed = True
    assert [row.name for row in screen.rows] == ["a", "b", "c"]
    screen.reversed = False
    screen.sort_by_next()
    assert [row.name for row in screen.rows] == ["c", "a", "b"]
    for _ in range(7):
        screen.sort_by_next()
    assert [row.name for row in screen.rows] == ["a", "b", "c"]


def test_the_chosen_tube_stays_chosen_and_is_in_sight(screen: Any) -> None:
    screen.update(1.0, SERVER, [seen(f"tube-{number:03}", 1000 - number) for number in range(500)])
    screen.choose(-1)
    assert screen.chosen.name == "tube-000"
    for _ in range(300):
        screen.choose(1)
    assert screen.chosen.name == "tube-300"
    assert any("tube-300" in line for line in lines(screen))
    assert len(lines(screen)) <= 14
    screen.choose(10000)
    assert screen.chosen.name == "tube-499"
    screen.update(2.0, SERVER, [seen("tube-499", 5), seen("tube-000", 9)])
    assert screen.chosen.name == "tube-499"
    screen.update(3.0, SERVER, [seen("tube-000", 9)])
    assert screen.chosen.name == "tube-000"


def test_the_head_tells_about_the_server(screen: Any) -> None:
    screen.update(1.0, {**SERVER, "draining": True}, [])
    assert lines(screen)[0] == "here  up 1d 1h  1,234 connections  ready 5  reserved 5  delayed 5  buried 5  DRAINING"
    assert screen.chosen is None


def test_names_do_nothing_to_the_terminal(screen: Any) -> None:
    screen.update(1.0, SERVER, [seen("\x1b[2J[red]")])
    assert any("?[2J[red]" in line for line in lines(screen))


@pytest.mark.usefixtures("server")
def test_once_prints_all_tubes_and_ends(cli: Commands, tube: str) -> None:
    pytest.importorskip("rich")
    cli("put", tube, "a", "b")
    (row,) = [line for line in cli("top", "--once").out.splitlines() if line.startswith(tube)]
    assert row.split()[:2] == [tube, "2"]


@pytest.mark.usefixtures("server")
def test_without_rich_it_says_what_to_install(cli: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "beanspiked.cli.screen", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert "pip install 'beanspiked[cli]'" in cli("top", code=1).said


@pytest.mark.usefixtures("server")
def test_without_a_terminal_it_says_so(cli: Commands) -> None:
    pytest.importorskip("rich")
    assert "top needs a terminal" in cli("top", code=1).said


@pytest.mark.usefixtures("server")
def test_a_terminal_that_could_not_show_it_is_refused() -> None:
    pytest.importorskip("rich")
    terminal = Terminal(term="dumb")
    terminal.wait_for("top needs a terminal")
    assert terminal.ended() == 1


class Terminal:
    """A terminal in which `top` runs, or another command."""

    def __init__(self, *command: str, term: str = "xterm") -> None:
        self.shown = ""
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.environ.update(TERM=term, COLUMNS="120", LINES="40")
            words = command or (*COMMAND, "top")
            os.execvp(words[0], words)

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str) -> None:
        found = ""
        until = time.monotonic() + 20
        while text not in found:
            assert time.monotonic() < until, found
            if select.select([self._fd], [], [], 0.1)[0]:
                found += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._read())

    def ended(self) -> int:
        """Wait for the end; return the exit code."""
        # EIO: nobody is at the other side any more.
        with contextlib.suppress(OSError):
            while self._read():
                pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> str:
        read = os.read(self._fd, 65536).decode("utf-8", "replace")
        self.shown += read
        return read


def test_keys_kick_pause_and_end(cli: Commands, own_server: Running) -> None:
    pytest.importorskip("rich")
    cli("put", "emails", *"abcde")
    with Conn.connect(Address.parse(own_server.address)) as conn:
        bury(conn, "emails", 3)
    terminal = Terminal()
    terminal.wait_for("emails")
    terminal.press("k")
    terminal.wait_for("1 kicked in emails")
    terminal.press("K")
    terminal.wait_for("2 kicked in emails")
    terminal.press("k")
    terminal.wait_for("nothing is buried in emails")
    assert cli.states("emails") == {"ready": 5}
    terminal.press("p")
    terminal.wait_for("emails is paused")
    assert cli("stats", "emails", "--json").json["pause"] == 600
    terminal.press("p")
    terminal.wait_for("emails is not paused any more")
    terminal.press("q")
    assert terminal.ended() == 0


def test_keys_that_come_together_are_all_heard(cli: Commands, own_server: Running) -> None:
    pytest.importorskip("rich")
    cli("put", "emails", *"abc")
    cli("put", "emails", "d", "--delay", "1h")
    with Conn.connect(Address.parse(own_server.address)) as conn:
        bury(conn, "emails", 2)
    terminal = Terminal()
    terminal.wait_for("emails")
    # The third one must not kick the delayed job.
    terminal.press("\x1b[B\x1b[Akkk")
    terminal.wait_for("nothing is buried in emails")
    assert cli.states("emails") == {"ready": 3, "delayed": 1}
    terminal.press("qq")
    assert terminal.ended() == 0


# What a terminal gets at the end: the cursor, and the text that stood there before.
RESTORED = "\x1b[?25h\x1b[?1049l"


@pytest.mark.usefixtures("server")
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was() -> None:
    pytest.importorskip("rich")
    terminal = Terminal()
    terminal.wait_for("tube")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.ended() == 143
    assert RESTORED in terminal.shown


@pytest.mark.usefixtures("server")
def test_ctrl_backslash_ends_it_like_q() -> None:
    pytest.importorskip("rich")
    terminal = Terminal()
    terminal.wait_for("tube")
    terminal.press("\x1c")
    assert terminal.ended() == 0
    assert RESTORED in terminal.shown


@pytest.mark.usefixtures("server")
def test_ctrl_z_gives_the_terminal_back_until_it_goes_on() -> None:
    pytest.importorskip("rich")
    terminal = Terminal("bash", "-mc", f"{shlex.join(COMMAND)} top; stty -a; echo stopped; fg")
    terminal.wait_for("tube")
    terminal.press("\x1a")
    terminal.wait_for("stopped")
    meanwhile = terminal.shown.partition(RESTORED)[2].partition("stopped")[0]
    assert {"icanon", "echo"} <= set(meanwhile.split())
    terminal.wait_for("tube")
    terminal.press("q")
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("read", "keys", "begun"),
    [
        ("qq", ["q", "q"], ""),
        ("\x1b[A\x1bOBk", ["\x1b[A", "\x1bOB", "k"], ""),
        ("\x1b[1;5Ap\x1b[", ["\x1b[1;5A", "p"], "\x1b["),
        ("\x1b", [], "\x1b"),
        ("\x1bq", ["\x1b", "q"], ""),
    ],
)
def test_a_key_that_is_sent_as_several_characters_stays_whole(read: str, keys: list[str], begun: str) -> None:
    assert _split(read) == (keys, begun)

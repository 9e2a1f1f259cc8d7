"""`beanspiked top`: watches the tubes live."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser, seconds
from beanspiked.cli.command import Failed, connect, run, tubes
from beanspiked.client import requests
from beanspiked.client.errors import Refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from beanspiked.cli.screen import Screen
    from beanspiked.client.blocking import Conn

__all__ = ["main", "parser"]

STDIN: Final = 0
PAUSE_SECONDS: Final = 600
# Requests for figures cost the server work, so they take at most this part of the time.
SHARE: Final = 0.1
READ_SIZE: Final = 4096
# In a terminal's modes: no key does this.
NO_KEY: Final = b"\0"
# A key is a character, or the sequence that a terminal sends for a key without one.
KEY: Final = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
BEGUN: Final = re.compile(r"\x1b(?:[\[O][0-9;]*)?\Z")
UP: Final = ("\x1b[A", "\x1bOA")
DOWN: Final = ("\x1b[B", "\x1bOB")


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "top",
        "Watch the tubes live: their jobs by state, and how many are put and deleted a second.\n\n"
        "keys:\n"
        "  up, down    choose a tube\n"
        "  s, r        sort by the next column; reverse the order\n"
        f"  p           pause the tube for {PAUSE_SECONDS // 60} minutes, or end its pause\n"
        "  k, K        kick one buried job; kick all of them\n"
        "  q           quit\n\n"
        "It needs rich: pip install 'beanspiked[cli]'.",
        "  beanspiked top\n  beanspiked top --once",
    )
    words.add_argument("-i", "--interval", type=seconds, default=1, metavar="TIME", help="time between two updates (1)")
    words.add_argument("-1", "--once", action="store_true", help="print the tubes once and exit")
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _top)


def _top(options: argparse.Namespace) -> int:
    try:
        from beanspiked.cli.screen import Screen  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise Failed("top needs rich: pip install 'beanspiked[cli]'; `beanspiked tubes` works without it") from error
    with connect(options) as conn:
        screen = Screen(str(options.address))
        _look(conn, screen)
        if options.once:
            screen.print()
        elif sys.stdin.isatty() and screen.redraws:
            # An end without the terminal's restoration would leave it without echo and cursor.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            while _watch(conn, screen, max(1, options.interval)):
                os.killpg(0, signal.SIGTSTP)
        else:
            raise Failed("top needs a terminal, and one that is not dumb; --once prints the tubes once")
    return 0


def _look(conn: Conn, screen: Screen) -> float:
    """Ask for all figures; return how many seconds that took."""
    began = time.monotonic()
    server = conn.ask(requests.stats())
    screen.update(began, server, tubes(conn))
    return time.monotonic() - began


def _watch(conn: Conn, screen: Screen, interval: float) -> bool:
    """Show the screen until a key ends or stops the command; tell whether it is to be stopped."""
    with _keys_one_by_one(), screen.live() as live:
        look_at = time.monotonic() + interval
        begun = ""
        while True:
            live.update(screen.render(), refresh=True)
            if select.select([STDIN], [], [], max(0.0, look_at - time.monotonic()))[0]:
                data = os.read(STDIN, READ_SIZE)
                keys, begun = _split(begun + data.decode("ascii", "replace"))
                for key in keys:
                    if key in ("q", "Q", "\x04", "\x1c"):
                        return False
                    if key == "\x1a":
                        return True
                    _press(conn, screen, key)
                    if key in ("p", "k", "K"):
                        # The next key is for what the tube is now.
                        _look(conn, screen)
                if not data:
                    return False
                continue
            took = _look(conn, screen)
            look_at = time.monotonic() + max(interval, took / SHARE)


def _split(text: str) -> tuple[list[str], str]:
    """Split what was read into keys; also return the beginning of a key whose rest is still to come."""
    found = BEGUN.search(text)
    end = found.start() if found else len(text)
    return KEY.findall(text[:end]), text[end:]


def _press(conn: Conn, screen: Screen, key: str) -> None:
    if key in UP:
        screen.choose(-1)
    elif key in DOWN:
        screen.choose(1)
    elif key == "s":
        screen.sort_by_next()
    elif key == "r":
        screen.reversed = not screen.reversed
    elif key in ("p", "k", "K") and (chosen := screen.chosen) is not None:
        try:
            screen.said = _act(conn, chosen.name, chosen.buried, chosen.paused, key)
        except Refused as error:
            screen.said = str(error)


def _act(conn: Conn, name: str, buried: int, paused: int, key: str) -> str:
    """Carry out a key's action on a tube; return a text about it."""
    if key == "p":
        conn.ask(requests.pause_tube(name, 0 if paused else PAUSE_SECONDS))
        return f"{name} is not paused any more" if paused else f"{name} is paused"
    if not buried:
        # Otherwise the server would kick delayed jobs.
        return f"nothing is buried in {name}"
    conn.ask(requests.use(name))
    kicked = conn.ask(requests.kick(1 if key == "k" else buried))
    conn.ask(requests.use("default"))
    return f"{kicked} kicked in {name}"


@contextlib.contextmanager
def _keys_one_by_one() -> Iterator[None]:
    """Read each key as it is pressed, without showing it; those that stop or quit a program are keys as well."""
    import termios  # noqa: PLC0415 - only on a terminal
    import tty  # noqa: PLC0415 - likewise

    before = termios.tcgetattr(STDIN)
    tty.setcbreak(STDIN)
    modes = termios.tcgetattr(STDIN)
    modes[6][termios.VSUSP] = modes[6][termios.VQUIT] = NO_KEY
    termios.tcsetattr(STDIN, termios.TCSADRAIN, modes)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)

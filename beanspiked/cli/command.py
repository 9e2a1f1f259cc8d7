"""The common parts of the sub-commands that talk to a server: how they run, fail and find a tube."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Final

from beanspiked.cli.printing import EXIT_FAILED, printing
from beanspiked.cli.terminal import say
from beanspiked.client import requests
from beanspiked.client.blocking import ANSWER_SECONDS, CONNECT_SECONDS, Conn
from beanspiked.client.errors import ClientError, ServerGone
from beanspiked.spelling import meant

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from beanspiked.cli.arguments import Parser
    from beanspiked.client.documents import Stats

__all__ = [
    "BATCH",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "Failed",
    "confirm",
    "connect",
    "existing",
    "number_of",
    "run",
    "tubes",
    "unreachable",
]

EXIT_INTERRUPTED: Final = 130
# How many requests are in flight at a time.
BATCH: Final = 500


class Failed(Exception):  # noqa: N818 - it says what happened
    """A command failed. The text says why, and what to do.

    Args:
        text: The text.
        code: The exit code.
    """

    def __init__(self, text: str, code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.code: int = code


def run(parser: Parser, words: Sequence[str], command: Callable[[argparse.Namespace], int]) -> int:
    """Read the arguments and run the command; return the exit code. A failure is one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every encoding has all characters of a body.
        sys.stdout.reconfigure(errors="backslashreplace")

    def carried_out() -> int:
        try:
            return command(parser.read(words))
        except (ClientError, Failed) as error:
            sys.stdout.flush()
            say(error)
            return error.code if isinstance(error, Failed) else EXIT_FAILED
        except SystemExit as end:
            return int(end.code or 0)

    return printing(carried_out)


def connect(options: argparse.Namespace, within: float = ANSWER_SECONDS) -> Conn:
    """Connect to the server that the options name, which has so many seconds for each reply. Raises ServerGone."""
    try:
        return Conn.connect(options.address, connect_seconds=min(within, CONNECT_SECONDS), answer_seconds=within)
    except ServerGone as error:
        raise unreachable(error) from error


def unreachable(error: ServerGone) -> ServerGone:
    """Return the error of a first connection that failed, with what to do."""
    return ServerGone(f"{error}; set the server's address with -a or BEANSPIKED_ADDR")


def confirm(question: str, typed: str, name: str) -> None:
    """Ask the user to type a text. The question calls it by its name. Raises Failed when the user types something else."""
    sys.stderr.write(f"{question}. Type {name} to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != typed:
        raise Failed("something else was typed; nothing was changed")


def existing(conn: Conn, tube: str) -> Stats:
    """Return a tube's stats. Raises Failed, with the nearest name, when there is no such tube."""
    found = conn.ask(requests.stats_tube(tube))
    if found is None:
        raise Failed(f"there is no tube {tube}{meant(tube, conn.ask(requests.list_tubes()))}")
    return found


def tubes(conn: Conn, names: Sequence[str] | None = None) -> list[Stats]:
    """Return the stats of these tubes, or of all; leave out tubes that are gone. Raises Refused."""
    if names is None:
        names = conn.ask(requests.list_tubes())
    found: list[Stats] = []
    for at in range(0, len(names), BATCH):
        outcomes = requests.accepted(conn.ask_all([requests.stats_tube(name) for name in names[at : at + BATCH]]))
        found += [told for told in outcomes if told is not None]
    return found


def number_of(stats: Stats, key: str) -> int:
    """Return a number from some stats. Raises Failed when the server does not report it."""
    value = stats.get(key)
    if not isinstance(value, int):
        raise Failed(f"the server does not report {key}")
    return value

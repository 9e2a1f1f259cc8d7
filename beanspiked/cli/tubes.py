"""`beanspiked tubes`: lists the tubes and their jobs by state."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser
from beanspiked.cli.command import connect, number_of, run, tubes
from beanspiked.cli.terminal import RED, YELLOW, print_json, print_table, shown, shown_time
from beanspiked.client import requests

if TYPE_CHECKING:
    import argparse

__all__ = ["COLUMNS", "main", "parser"]

# The columns, with the server's names for them.
COLUMNS: Final = {
    "ready": "current-jobs-ready",
    "urgent": "current-jobs-urgent",
    "reserved": "current-jobs-reserved",
    "delayed": "current-jobs-delayed",
    "buried": "current-jobs-buried",
    "waiting": "current-waiting",
    "total": "total-jobs",
}


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "tubes",
        "List the tubes and their jobs by state. The column waiting counts the workers that wait for\n"
        "a job, and total the jobs that were put since the tube exists or the server started.",
        "  beanspiked tubes\n  beanspiked tubes 'email*' --sort buried\n  for tube in $(beanspiked tubes --names); do ...",
    )
    words.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="list only tubes with these names, such as *-failed"
    )
    words.add_argument(
        "-s",
        "--sort",
        choices=("name", *COLUMNS),
        default="name",
        metavar="COLUMN",
        help=f"sort by name, or with the largest first by {', '.join(COLUMNS)}",
    )
    words.add_argument("--names", action="store_true", help="print only the names, one a line")
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _tubes)


def _tubes(options: argparse.Namespace) -> int:
    with connect(options) as conn:
        names = [name for name in sorted(conn.ask(requests.list_tubes())) if _matches(name, options.patterns)]
        if options.names:
            for name in names:
                print(shown(name))
            return 0
        found = tubes(conn, names)
    if options.sort != "name":
        found.sort(key=lambda one: number_of(one, COLUMNS[options.sort]), reverse=True)
    if options.json:
        print_json(found)
        return 0
    rows: list[tuple[str | int, ...]] = []
    for one in found:
        left = number_of(one, "pause-time-left")
        rows.append(
            (str(one["name"]), *(number_of(one, key) for key in COLUMNS.values()), shown_time(left) if left else "")
        )
    print_table(("tube", *COLUMNS, "paused"), rows, {"buried": RED, "paused": YELLOW})
    return 0


def _matches(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

"""`beanspiked pause`: pauses a tube."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.cli.arguments import Parser, seconds, tube
from beanspiked.cli.command import connect, existing, run
from beanspiked.cli.terminal import print_json, shown_time
from beanspiked.client import requests

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "pause",
        "Pause a tube: for a time nobody can reserve from it. Puts go on. 0 ends a pause.",
        "  beanspiked pause emails 10m\n  beanspiked pause emails 0",
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    words.add_argument(
        "time", type=seconds, metavar="TIME", help="seconds, or a time such as 90s, 5m, 2h or 1d; 0 ends the pause"
    )
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _pause)


def _pause(options: argparse.Namespace) -> int:
    with connect(options) as conn:
        existing(conn, options.tube)
        conn.ask(requests.pause_tube(options.tube, options.time))
    if options.json:
        print_json({"tube": options.tube, "pause": options.time})
    elif options.time:
        print(f"{options.tube} is paused for {shown_time(options.time)}")
    else:
        print(f"{options.tube} is not paused any more")
    return 0

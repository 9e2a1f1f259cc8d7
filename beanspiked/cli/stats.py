"""`beanspiked stats`: shows the statistics of a server or a tube."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.cli.arguments import Parser, tube
from beanspiked.cli.command import connect, existing, run
from beanspiked.cli.terminal import print_json, print_table
from beanspiked.client import requests

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "stats",
        "Show the statistics of the server or of one tube.",
        "  beanspiked stats\n  beanspiked stats emails --json",
    )
    words.add_argument("tube", nargs="?", type=tube, metavar="TUBE", help="a tube (the server)")
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _stats)


def _stats(options: argparse.Namespace) -> int:
    with connect(options) as conn:
        told = existing(conn, options.tube) if options.tube else conn.ask(requests.stats())
    if options.json:
        print_json(told)
    else:
        print_table(("what", "value"), [(key, str(value)) for key, value in told.items()])
    return 0

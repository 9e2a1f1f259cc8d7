"""`beanspiked delete`: deletes jobs by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.cli.arguments import Parser, job_id
from beanspiked.cli.command import BATCH, EXIT_FAILED, connect, run
from beanspiked.cli.terminal import Progress, plural, print_json, say
from beanspiked.client import requests

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "delete",
        "Delete jobs of any tube by their ids. Reserved jobs stay.",
        "  beanspiked delete 12 13\n  beanspiked jobs emails --ids 1-9999 --grep spam --json | jq '.[].id' | xargs beanspiked delete",
    )
    words.add_argument("ids", nargs="+", type=job_id, metavar="ID")
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _delete)


def _delete(options: argparse.Namespace) -> int:
    ids = options.ids
    missing = []
    with connect(options) as conn, Progress("deleted", len(ids)) as progress:
        for at in range(0, len(ids), BATCH):
            some = ids[at : at + BATCH]
            outcomes = requests.accepted(conn.ask_all([requests.delete(number) for number in some]))
            for number, gone in zip(some, outcomes, strict=True):
                if not gone:
                    say(f"there is no job {number}, or a worker has reserved it")
                    missing.append(number)
            progress.show(at + len(some))
    deleted = len(ids) - len(missing)
    if options.json:
        print_json({"deleted": deleted, "missing": missing})
    else:
        print(f"{plural(deleted)} deleted")
    return EXIT_FAILED if missing else 0

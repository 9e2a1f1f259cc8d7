"""`beanspiked clear`: deletes all jobs of a tube."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from beanspiked.cli.arguments import STATES, Parser, tube
from beanspiked.cli.command import Failed, connect, existing, number_of, run
from beanspiked.cli.looks import PEEKS
from beanspiked.cli.taking import at_once, take_ready, todo, watch_only
from beanspiked.cli.terminal import Progress, plural, print_json
from beanspiked.client import requests

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from beanspiked.client.blocking import Conn
    from beanspiked.client.documents import Stats
    from beanspiked.client.requests import Request

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "clear",
        "Delete the jobs of a tube that are ready, delayed or buried now. Reserved jobs stay. The\n"
        "protocol has no command for this: ready jobs are reserved and deleted, some dozens at a\n"
        "time; the others are deleted one by one. You type the tube's name to confirm.",
        "  beanspiked clear emails\n  beanspiked clear emails --state buried --yes",
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    words.add_argument("-s", "--state", choices=STATES, help="delete only jobs of this state")
    words.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    words_parser = parser()
    return run(words_parser, words, lambda options: _clear(words_parser, options))


def _clear(words: Parser, options: argparse.Namespace) -> int:
    if not options.yes and not sys.stdin.isatty():
        words.error("clear: without a terminal to ask at, give --yes")
    states = [options.state] if options.state else list(STATES)
    with connect(options) as conn:
        told = existing(conn, options.tube)
        total = sum(todo(told, state, None) for state in states)
        if not options.yes:
            _ask(options.tube, total)
        deleted = 0
        conn.ask(requests.use(options.tube))
        with Progress("deleted", total) as progress:
            for state in states:
                for count in _deleting(conn, options.tube, state, told):
                    deleted += count
                    progress.show(deleted)
    if options.json:
        print_json({"tube": options.tube, "deleted": deleted})
    else:
        print(f"{plural(deleted)} deleted")
    return 0


def _ask(name: str, total: int) -> None:
    """Ask for the tube's name. Raises Failed when another name is typed."""
    sys.stderr.write(f"This deletes {plural(total)}. Type the tube's name to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != name:
        raise Failed("the names differ; nothing was deleted")


def _deleting(conn: Conn, name: str, state: str, told: Stats) -> Iterator[int]:
    """Delete the jobs of a state; yield how many each step deleted."""
    left = todo(told, state, None)
    if state == "ready" and not number_of(told, "pause-time-left"):
        watch_only(conn, name)
        size = at_once(conn)
        while left > 0 and (jobs := take_ready(conn, min(size, left))):
            yield sum(requests.accepted(conn.ask_all([requests.delete(job.id) for job in jobs])))
            left -= len(jobs)
        return
    # These cannot be reserved: peek shows the first one, and the next one once that is deleted.
    job = conn.ask(PEEKS[state]())
    while left > 0 and job is not None:
        wanted: list[Request[Any]] = [requests.delete(job.id), PEEKS[state]()]
        gone, job = requests.accepted(conn.ask_all(wanted))
        yield gone
        left -= 1

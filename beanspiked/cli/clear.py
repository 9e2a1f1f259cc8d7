"""`beanspiked clear`: deletes all jobs of a tube."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beanspiked.cli.arguments import STATES, Parser, tube
from beanspiked.cli.command import confirm, connect, existing, number_of, run
from beanspiked.cli.looks import PEEKS
from beanspiked.cli.matching import Matching, add_all, expect_answer, over_admin
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
        "protocol has no command for this, so the command reserves and deletes ready jobs, some dozens\n"
        "at a time, and deletes the others one by one. With --admin or a filter the server deletes the\n"
        "jobs itself. You type the tube's name to confirm.",
        "  beanspiked clear emails\n  beanspiked clear emails --state buried --yes\n"
        "  beanspiked clear emails --grep spam --older 1d --admin 11301",
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    words.add_argument("-s", "--state", choices=STATES, help="delete only jobs of this state")
    add_all(words)
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    words_parser = parser()
    return run(words_parser, words, lambda options: _clear(words_parser, options))


def _clear(words: Parser, options: argparse.Namespace) -> int:
    expect_answer(words, options)
    states = [options.state] if options.state else list(STATES)
    if over_admin(options):
        matching = Matching(options, options.tube, states)
        if options.count:
            return matching.print_count()
        deleted = matching.change("tube/clear", "deleted", "This deletes {}", options.tube)
    else:
        deleted = _delete_all(options, states)
    if options.json:
        print_json({"tube": options.tube, "deleted": deleted})
    else:
        print(f"{plural(deleted)} deleted")
    return 0


def _delete_all(options: argparse.Namespace, states: list[str]) -> int:
    """Delete all jobs of these states with the protocol's commands; return how many."""
    with connect(options) as conn:
        told = existing(conn, options.tube)
        total = sum(todo(told, state, None) for state in states)
        if not options.yes:
            confirm(f"This deletes {plural(total)}", options.tube, "the tube's name")
        deleted = 0
        conn.ask(requests.use(options.tube))
        with Progress("deleted", total) as progress:
            for state in states:
                for count in _deleting(conn, options.tube, state, told):
                    deleted += count
                    progress.show(deleted)
    return deleted


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
    # Nobody can reserve these. A peek shows the first one, and the next one once the first is deleted.
    job = conn.ask(PEEKS[state]())
    while left > 0 and job is not None:
        wanted: list[Request[Any]] = [requests.delete(job.id), PEEKS[state]()]
        gone, job = requests.accepted(conn.ask_all(wanted))
        yield gone
        left -= 1

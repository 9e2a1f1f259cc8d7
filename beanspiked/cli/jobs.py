"""`beanspiked jobs`: lists jobs: by a filter over the admin port, or by their ids with the protocol, which has no list of all jobs."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import STATES, Parser, at_least_one, job_id, tube
from beanspiked.cli.command import BATCH, connect, existing, number_of, run
from beanspiked.cli.looks import as_fields, next_of
from beanspiked.cli.matching import Matching, add_admin, add_filter, admin_known, filtered
from beanspiked.cli.terminal import Progress, plural, print_json, print_table, say, shown_body, shown_time
from beanspiked.client import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from beanspiked.client.blocking import Conn
    from beanspiked.client.documents import Stats
    from beanspiked.client.requests import Job

__all__ = ["main", "parser"]

# How much of a body a table shows, in characters.
SHOWN: Final = 60
MAX_IDS: Final = 100_000_000
# How many jobs are listed by default.
MAX_LISTED: Final = 1000


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "jobs",
        "List jobs of a tube, in the order of their queues. This needs the server's admin port. The\n"
        "protocol shows only the next job of each state, and any job by its id. Without an admin port\n"
        "the command lists these next jobs. With --ids it asks for each id of a range, about ten\n"
        "thousand a second. Ids count from 1; on an Aerospike cluster they are too far apart for this.",
        "  beanspiked jobs emails\n"
        '  beanspiked jobs emails --state buried --older 1h --grep \'"to": "bob\' --admin 11301\n'
        "  beanspiked jobs emails --ids 1-50000 --state buried --json",
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    words.add_argument("-i", "--ids", type=_range, metavar="FROM-TO", help="list the jobs with ids in this range")
    words.add_argument("-s", "--state", choices=(*STATES, "reserved"), help="only jobs of this state")
    add_filter(words)
    words.add_argument(
        "-n", "--number", type=at_least_one, default=MAX_LISTED, metavar="N", help=f"this many at most ({MAX_LISTED:,})"
    )
    add_admin(words)
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    words_parser = parser()
    return run(words_parser, words, lambda options: _jobs(words_parser, options))


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = job_id(first), job_id(last if dash else first)
    if low > high or high - low >= MAX_IDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of up to {MAX_IDS:,} ids, the lower one first")
    return low, high


def _jobs(words: Parser, options: argparse.Namespace) -> int:
    if options.ids and options.admin:
        words.error("jobs: --ids uses the protocol and --admin the admin port; give only one of them")
    if options.ids or not (filtered(options) or admin_known(options)):
        with connect(options) as conn:
            existing(conn, options.tube)
            matching = ((job, told) for job, told in _candidates(conn, options) if _wanted(job, told, options))
            found = list(islice(matching, options.number + 1))
    else:
        states = [options.state] if options.state else [*STATES, "reserved"]
        found = []
        with Progress("listed") as progress:
            for one in Matching(options, options.tube, states).listed(options.number + 1):
                found.append(one)
                progress.show(len(found))
    if len(found) > options.number:
        found.pop()
        say(f"only the first {plural(options.number)}; list more with --number")
    _print(options, found)
    return 0


def _print(options: argparse.Namespace, found: list[tuple[Job, Stats]]) -> None:
    if options.json:
        print_json([as_fields(job, told) for job, told in found])
        return
    rows = [
        (
            number_of(told, "id"),
            str(told["state"]),
            number_of(told, "pri"),
            shown_time(number_of(told, "age")),
            number_of(told, "reserves"),
            number_of(told, "buries"),
            len(job.body),
            _beginning(job, told),
        )
        for job, told in found
    ]
    print_table(("id", "state", "pri", "age", "reserves", "buries", "bytes", "body"), rows)


def _beginning(job: Job, told: Stats) -> str:
    """Return the beginning of a body on one line, and why the job is buried."""
    text = shown_body(job.body[: 4 * SHOWN]).replace("\n", "\\n").replace("\t", "\\t")[:SHOWN]
    return f"{text}  ({told['reason']})" if told.get("reason") else text


def _wanted(job: Job, told: Stats, options: argparse.Namespace) -> bool:
    low, high = options.priority
    return (
        number_of(told, "age") >= options.older
        and options.state in (None, told["state"])
        and number_of(told, "reserves") >= options.tries
        and low <= number_of(told, "pri") <= high
        and (not options.grep or options.grep.encode("utf-8", "surrogateescape") in job.body)
    )


def _candidates(conn: Conn, options: argparse.Namespace) -> Iterator[tuple[Job, Stats]]:
    if options.ids is None:
        yield from next_of(conn, options.tube, [state for state in STATES if options.state in (None, state)])
        return
    first, last = options.ids
    with Progress("ids checked", last - first + 1) as progress:
        for low in range(first, last + 1, BATCH):
            ids = range(low, min(low + BATCH, last + 1))
            for told in requests.accepted(conn.ask_all([requests.stats_job(number) for number in ids])):
                if told is None or told["tube"] != options.tube:
                    continue
                job = conn.ask(requests.peek(number_of(told, "id")))
                if job is not None:
                    yield job, told
            progress.show(ids[-1] - first + 1)

"""`beanspiked jobs`: lists the next job of each state, or jobs by their ids; the protocol has no list of all jobs."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import STATES, Parser, job_id, seconds, tube
from beanspiked.cli.command import BATCH, connect, existing, number_of, run
from beanspiked.cli.looks import as_fields, next_of
from beanspiked.cli.terminal import Progress, print_json, print_table, shown_body, shown_time
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


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "jobs",
        "List jobs of a tube. The protocol cannot list all jobs: it shows the next job of each state,\n"
        "which this lists without --ids, and any job by its id. With --ids this asks for each id of\n"
        "a range, some ten thousand a second. Ids count from 1, except on an Aerospike cluster,\n"
        "where they are too far apart for this.",
        "  beanspiked jobs emails\n"
        '  beanspiked jobs emails --ids 1-50000 --state buried --older 1h --grep \'"to": "bob\'',
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    words.add_argument("-i", "--ids", type=_range, metavar="FROM-TO", help="list the jobs with ids in this range")
    words.add_argument("-s", "--state", choices=(*STATES, "reserved"), help="list only jobs of this state")
    words.add_argument(
        "-g",
        "--grep",
        type=_pattern,
        metavar="PATTERN",
        help="list only jobs whose body matches this regular expression",
    )
    words.add_argument(
        "-o",
        "--older",
        type=seconds,
        default=0,
        metavar="TIME",
        help="list only jobs that were put at least this long ago: 90s, 5m, 2h, 1d",
    )
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _jobs)


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = job_id(first), job_id(last if dash else first)
    if low > high or high - low >= MAX_IDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of up to {MAX_IDS:,} ids, the lower one first")
    return low, high


def _pattern(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _jobs(options: argparse.Namespace) -> int:
    with connect(options) as conn:
        existing(conn, options.tube)
        found = [(job, told) for job, told in _candidates(conn, options) if _wanted(job, told, options)]
    if options.json:
        print_json([as_fields(job, told) for job, told in found])
        return 0
    rows = [
        (
            number_of(told, "id"),
            str(told["state"]),
            number_of(told, "pri"),
            shown_time(number_of(told, "age")),
            number_of(told, "reserves"),
            number_of(told, "buries"),
            len(job.body),
            shown_body(job.body[: 4 * SHOWN]).replace("\n", "\\n").replace("\t", "\\t")[:SHOWN],
        )
        for job, told in found
    ]
    print_table(("id", "state", "pri", "age", "reserves", "buries", "bytes", "body"), rows)
    return 0


def _wanted(job: Job, told: Stats, options: argparse.Namespace) -> bool:
    return (
        number_of(told, "age") >= options.older
        and options.state in (None, told["state"])
        and (options.grep is None or options.grep.search(job.body) is not None)
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

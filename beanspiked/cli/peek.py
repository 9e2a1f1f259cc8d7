"""`beanspiked peek`: shows jobs without changing anything."""

from __future__ import annotations

import argparse
import sys

from beanspiked.cli.arguments import STATES, Parser, job_id, tube
from beanspiked.cli.command import Failed, connect, existing, run
from beanspiked.cli.looks import as_fields, described, next_of, print_job
from beanspiked.cli.terminal import print_json
from beanspiked.client import requests

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "peek",
        "Show a job by its id, or the next ready, delayed and buried job of a tube.",
        "  beanspiked peek 12\n  beanspiked peek emails\n  beanspiked peek emails --state buried --body | jq .",
    )
    words.add_argument("what", metavar="ID|TUBE", help="a number is an id, anything else a tube")
    words.add_argument("-s", "--state", choices=STATES, help="show only the next job of this state")
    words.add_argument("-t", "--tube", action="store_true", help="take a number for a tube's name")
    words.add_argument("-b", "--body", action="store_true", help="print the body as it is, and nothing else")
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    words_parser = parser()
    return run(words_parser, words, lambda options: _peek(words_parser, options))


def _peek(words: Parser, options: argparse.Namespace) -> int:
    by_id = options.what.isascii() and options.what.isdigit() and not options.tube
    if by_id and options.state:
        words.error("--state needs a tube; if the number is a tube's name, add --tube")
    try:
        wanted = (job_id if by_id else tube)(options.what)
    except argparse.ArgumentTypeError as error:
        words.error(str(error))
    with connect(options) as conn:
        if isinstance(wanted, int):
            job = conn.ask(requests.peek(wanted))
            told = None if job is None else described(conn, job)
            found = [] if job is None or told is None else [(job, told)]
            missing = f"there is no job {wanted}"
        else:
            existing(conn, wanted)
            found = next_of(conn, wanted, [options.state] if options.state else list(STATES))
            missing = f"no job of {wanted} is {options.state or ', '.join(STATES[:-1]) + ' or ' + STATES[-1]}"
    if not found:
        raise Failed(missing)
    if options.body:
        for job, _ in found:
            sys.stdout.buffer.write(job.body)
    elif options.json:
        print_json([as_fields(job, told) for job, told in found])
    else:
        for place, (job, told) in enumerate(found):
            print("\n" if place else "", end="")
            print_job(job, told)
    return 0

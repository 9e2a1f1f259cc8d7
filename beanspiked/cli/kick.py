"""`beanspiked kick`: makes buried or delayed jobs ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser, at_least_one, job_id, tube
from beanspiked.cli.command import EXIT_FAILED, Failed, connect, existing, number_of, run
from beanspiked.cli.matching import Matching, add_all, expect_answer, filtered, kick_each, over_admin
from beanspiked.cli.terminal import Progress, plural, print_json, say
from beanspiked.client import requests
from beanspiked.client.errors import JobNotFound, Refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from beanspiked.client.blocking import Conn

__all__ = ["main", "parser"]

# How many jobs one kick takes. Other clients wait no longer than for these.
SLICE: Final = 1000


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "kick",
        "Make the buried jobs of a tube ready, the first buried first: all of them, or NUMBER. With\n"
        "--delayed, make delayed jobs ready, the first due first. With the protocol a server does that\n"
        "only in a tube without buried jobs. A filter needs the admin port, and the command then asks\n"
        "before it kicks.",
        "  beanspiked kick emails\n  beanspiked kick emails 10\n  beanspiked kick --id 12 13\n"
        "  beanspiked kick emails --grep 'timed out' --tries 3 --admin 11301",
    )
    words.add_argument("tube", nargs="?", type=tube, metavar="TUBE")
    words.add_argument("number", nargs="?", type=at_least_one, metavar="NUMBER", help="kick this many jobs at most")
    words.add_argument("-d", "--delayed", action="store_true", help="kick delayed jobs instead of buried ones")
    words.add_argument(
        "-i", "--id", nargs="+", type=job_id, metavar="ID", help="kick these jobs, buried or delayed, of any tube"
    )
    add_all(words)
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    words_parser = parser()
    return run(words_parser, words, lambda options: _kick(words_parser, options))


def _kick(words: Parser, options: argparse.Namespace) -> int:
    if (options.tube is None) == (options.id is None):
        words.error("kick: name a tube, or jobs with --id")
    if options.id and (filtered(options) or options.count or options.delayed):
        words.error("kick: --id names the jobs: no filter, --count or --delayed")
    missing: list[int] = []
    if options.id:
        kicked, missing = _kick_jobs(options)
    elif over_admin(options):
        expect_answer(words, options)
        matching = Matching(options, options.tube, ["delayed" if options.delayed else "buried"], options.number)
        if options.count:
            return matching.print_count()
        kicked = matching.change("tube/kick-jobs", "kicked", "This makes {} ready", "yes")
    else:
        with connect(options) as conn:
            kicked = _kick_tube(conn, options)
    if options.json:
        print_json({"kicked": kicked, "missing": missing})
    else:
        print(f"{plural(kicked)} kicked")
    return EXIT_FAILED if missing else 0


def _kick_jobs(options: argparse.Namespace) -> tuple[int, list[int]]:
    """Kick the jobs that are named; return how many were kicked, and which were not."""
    missing = []
    kicks = kick_each(options, options.id) if over_admin(options) else _kick_each(options)
    for number, kicked in zip(options.id, kicks, strict=True):
        if not kicked:
            say(f"job {number} is neither buried nor delayed")
            missing.append(number)
    return len(options.id) - len(missing), missing


def _kick_each(options: argparse.Namespace) -> Iterator[bool]:
    """Kick the jobs that are named with the protocol's command; tell of each whether it was kicked."""
    with connect(options) as conn:
        for outcome in conn.ask_all([requests.kick_job(number) for number in options.id]):
            if isinstance(outcome, Refused) and not isinstance(outcome, JobNotFound):
                raise outcome
            yield not isinstance(outcome, JobNotFound)


def _kick_tube(conn: Conn, options: argparse.Namespace) -> int:
    told = existing(conn, options.tube)
    buried = number_of(told, "current-jobs-buried")
    if options.delayed and buried:
        raise Failed(
            f"a server kicks buried jobs first, and {options.tube} has {buried:,}: kick or delete these before delayed ones, "
            "or name its admin port with --admin"
        )
    there = number_of(told, "current-jobs-delayed") if options.delayed else buried
    todo = there if options.number is None else min(there, options.number)
    kicked = 0
    conn.ask(requests.use(options.tube))
    with Progress("kicked", todo) as progress:
        # Never more than were buried, since the server would go on with delayed ones.
        while kicked < todo:
            count = conn.ask(requests.kick(min(SLICE, todo - kicked)))
            if not count:
                break
            kicked += count
            progress.show(kicked)
    return kicked

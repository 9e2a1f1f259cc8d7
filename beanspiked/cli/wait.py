"""`beanspiked wait`: waits until a tube is empty."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser, seconds, tube
from beanspiked.cli.command import Failed, connect, number_of, run
from beanspiked.cli.terminal import Progress, plural, print_json
from beanspiked.client import requests
from beanspiked.client.blocking import ANSWER_SECONDS

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]

# The interval between two questions to the server, in seconds.
EVERY: Final = 0.25


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "wait",
        "Wait until a tube is empty: no job is ready, delayed or reserved. Buried jobs wait until\n"
        "somebody kicks them, so they count only with --buried. A tube that does not exist is empty.",
        "  beanspiked wait emails --empty --timeout 10m && systemctl stop mailer",
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    words.add_argument("--empty", action="store_true", help="wait until the tube is empty (the default)")
    words.add_argument("--buried", action="store_true", help="also wait until no job is buried")
    words.add_argument(
        "-t", "--timeout", type=seconds, metavar="TIME", help="fail after this time, such as 90s, 5m, 2h or 1d"
    )
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _wait)


def _wait(options: argparse.Namespace) -> int:
    until, within = None, ANSWER_SECONDS
    if options.timeout is not None:
        until, within = time.monotonic() + options.timeout, min(within, max(1, options.timeout))
    counted = ["ready", "delayed", "reserved", *(["buried"] if options.buried else [])]
    with connect(options, within) as conn, Progress(f"jobs left in {options.tube}") as progress:
        while True:
            told = conn.ask(requests.stats_tube(options.tube))
            if told is None:
                buried = 0
                break
            left = sum(number_of(told, f"current-jobs-{state}") for state in counted)
            buried = number_of(told, "current-jobs-buried")
            if not left:
                break
            if until is not None and time.monotonic() >= until:
                raise Failed(f"{options.tube} is not empty: {plural(left)} left")
            progress.show(left)
            time.sleep(EVERY)
    if options.json:
        print_json({"tube": options.tube, "buried": buried})
    else:
        print(f"{options.tube} is empty" + (f"; {plural(buried)} buried" if buried else ""))
    return 0

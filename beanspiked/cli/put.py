"""`beanspiked put`: puts a job for each line of the input."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser, number, seconds, tube
from beanspiked.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, Failed, connect, run
from beanspiked.cli.terminal import Progress, plural, print_json, say
from beanspiked.client import requests
from beanspiked.client.errors import ClientError, JobTooBig, Refused
from beanspiked.client.requests import DEFAULT_PRIORITY, DEFAULT_TTR

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from beanspiked.client.blocking import Conn

__all__ = ["main", "parser"]

STDIN: Final = 0
READ_SIZE: Final = 1 << 16


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "put",
        "Put jobs into a tube: each BODY, or without any, each line of standard input as soon as it\n"
        "comes. It skips empty lines and prints the ids. It reports and skips a job that is too big.\n"
        "When the server accepts no more jobs, it says from which line to try again.",
        '  beanspiked put emails \'{"to": "bob"}\'\n'
        "  beanspiked put emails --delay 10m --priority 0 < emails.jsonl\n"
        "  find . -name '*.png' -print0 | beanspiked put -0 thumbnails --ttr 5m\n"
        "  beanspiked put images --whole < picture.jpg",
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    # Without a default argparse would say that it is required.
    words.add_argument("bodies", nargs="*", default=[], metavar="BODY")
    words.add_argument(
        "-p",
        "--priority",
        "--pri",
        type=number,
        default=DEFAULT_PRIORITY,
        metavar="N",
        help=f"0 is the most urgent ({DEFAULT_PRIORITY})",
    )
    words.add_argument(
        "-d",
        "--delay",
        type=seconds,
        default=0,
        metavar="TIME",
        help="make the job ready after this time, such as 90s, 5m, 2h or 1d (0)",
    )
    words.add_argument(
        "-t",
        "--ttr",
        type=seconds,
        default=DEFAULT_TTR,
        metavar="TIME",
        help=f"how long a worker may keep it without a touch ({DEFAULT_TTR})",
    )
    words.add_argument("-q", "--quiet", action="store_true", help="print no ids")
    way = words.add_mutually_exclusive_group()
    way.add_argument("-0", "--null", action="store_true", help="split the input at NULs, not at line ends")
    way.add_argument("-w", "--whole", action="store_true", help="put all of standard input as one job")
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _put)


class _Putting:
    """Puts jobs and counts them.

    Attributes:
        ids: The ids of the jobs that were put.
        line: How many lines were read, empty ones included.
        refused: How many jobs were not put.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.ids: list[int] = []
        self.line = 0
        self.refused = 0
        self._options = options

    def send(self, conn: Conn, bodies: Sequence[bytes]) -> None:
        """Put some jobs. Raises Failed when the server takes no more, ClientError when it is gone."""
        options = self._options
        # Empty lines count, so that the numbers are those of an editor.
        numbered = [
            (self.line + place, body) for place, body in enumerate(bodies, 1) if body or options.bodies or options.whole
        ]
        self.line += len(bodies)
        wanted = [
            requests.put(body, priority=options.priority, delay=options.delay, ttr=options.ttr) for _, body in numbered
        ]
        try:
            outcomes = conn.ask_all(wanted)
        except (ClientError, KeyboardInterrupt) as error:
            first = numbered[0][0]
            reason, code = (
                ("interrupted", EXIT_INTERRUPTED) if isinstance(error, KeyboardInterrupt) else (error, EXIT_FAILED)
            )
            raise Failed(
                f"{reason}; {plural(len(self.ids))} were put; those of lines {first} to {self.line} may have been put",
                code,
            ) from error
        ended: tuple[int, Refused] | None = None
        for (line, _), outcome in zip(numbered, outcomes, strict=True):
            if not isinstance(outcome, Refused):
                self.ids.append(outcome)
                if ended is not None:
                    say(f"line {line} was put after all")
                continue
            self.refused += 1
            if isinstance(outcome, JobTooBig):
                say(f"line {line} was not put: {outcome}")
            elif ended is None:
                ended = (line, outcome)
        if ended is not None:
            raise Failed(f"{ended[1]}; {plural(len(self.ids))} were put: try again from line {ended[0]} on")


def _put(options: argparse.Namespace) -> int:
    putting = _Putting(options)
    with connect(options) as conn, Progress(f"put into {options.tube}") as progress:
        conn.ask(requests.use(options.tube))
        for bodies in _given(options):
            before = len(putting.ids)
            try:
                putting.send(conn, bodies)
            finally:
                if not (options.quiet or options.json):
                    print(*putting.ids[before:], sep="\n", end="\n" if len(putting.ids) > before else "", flush=True)
            progress.show(len(putting.ids))
    if options.json:
        print_json({"tube": options.tube, "ids": putting.ids, "refused": putting.refused})
    return EXIT_FAILED if putting.refused else 0


def _given(options: argparse.Namespace) -> Iterator[list[bytes]]:
    """Yield lists of bodies. Each list has the bodies that come together."""
    if options.bodies:
        yield [os.fsencode(body) for body in options.bodies]
        return
    end = b"\0" if options.null else b"\n"
    rest: list[bytes] = []
    while data := os.read(STDIN, READ_SIZE):
        complete, found, begun = data.rpartition(end)
        if options.whole or not found:
            rest.append(data)
            continue
        yield (b"".join(rest) + complete).split(end)
        rest = [begun]
    last = b"".join(rest)
    if last or options.whole:
        yield [last]

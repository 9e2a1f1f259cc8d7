"""The command line of `beanspiked bench`."""

from __future__ import annotations

import argparse
import os
import re
import secrets
from dataclasses import dataclass
from typing import Literal, NoReturn, cast

from beanspiked.client.address import Address

Mode = Literal["cycle", "put", "drain"]

DEFAULT_ADDRESS = "127.0.0.1:11300"

DEFAULT_JOBS = 50_000
"""Jobs of one run without `--jobs` and `--seconds`."""

MAX_BODY = 1 << 30
"""beanstalkd's `-z` goes no higher (beanstalkd.1: "1073741824")."""

MAX_IN_FLIGHT = 1 << 31
"""Bytes of bodies that may be in flight at once. They all stay in the generator's memory."""

# protocol.txt: "names [...] may contain letters, numerals, hyphen, plus, slash, semicolon, dot, dollar-sign,
# underscore and parentheses, but may not begin with a hyphen"; at most 200 bytes.
_TUBE = re.compile(r"(?!-)[A-Za-z0-9\-+/;.$_()]{1,200}", re.ASCII)

_DESCRIPTION = """\
Load a beanstalkd-compatible server, and print jobs and commands per second and the
latency of each command. With --vs, it alternates between two servers and prints their ratio.

modes:
  cycle   put, reserve, delete, over and over: three commands a job (the default)
  put     put only. The jobs STAY on the server; the report names the tubes
  drain   reserve and delete. Without --tube it first puts --jobs jobs into a new
          tube, outside the measurement

Without --tube it uses new tubes with random names and leaves all other jobs alone. After
cycle and drain these tubes are empty and gone."""

_EPILOG = """\
At depth 1 it measures the latency of every command. At greater depths it measures one
command per connection at a time, including the wait behind the others in flight.

The load generator is one Python process. If it used 90 % of a processor or more, the
report says that the generator was the bottleneck: the server may be faster than the
figure. To publish figures, use a generator written in C. Compare servers with --vs
in one run: absolute figures change from minute to minute.

exit status: 0 measured, 1 failed (one line on standard error, nothing on standard
output), 2 wrong usage, 130 interrupted (what was measured so far is printed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options, checked and with their defaults filled in."""

    server: Address
    versus: Address | None
    connections: int
    depth: int
    jobs: int | None
    """Jobs of one run; None to run until the time is up, or (drain) until the tubes are empty."""
    seconds: float | None
    body: int
    mode: Mode
    tubes: tuple[str, ...]
    own_tubes: bool
    """Whether the tubes are new. Then every job in them is ours and has the known body."""
    rounds: int
    json: bool


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, after argparse's usage line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r}: {exc}") from exc


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000000")
    return int(text)


def _body(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_BODY):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MAX_BODY}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0 and up to 86400 seconds")
    return value


def _tube(text: str) -> str:
    if not _TUBE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a tube name")
    return text


def parser() -> _Parser:
    """Return the parser of `beanspiked bench`."""
    words = _Parser(
        prog="beanspiked bench",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = words.add_argument
    add(
        "server",
        nargs="?",
        type=_address,
        default=os.environ.get("BEANSPIKED_ADDR") or DEFAULT_ADDRESS,
        metavar="SERVER",
        help=f"HOST:PORT, [IPV6]:PORT or unix:PATH (BEANSPIKED_ADDR, else {DEFAULT_ADDRESS})",
    )
    add("--vs", type=_address, metavar="SERVER", help="a second server; the order of the two changes each round")
    add("--rounds", type=_count, metavar="N", help="runs per server; medians are printed (1, with --vs 5)")
    add("--mode", choices=("cycle", "put", "drain"), default="cycle", help="see above (cycle)")
    add("--connections", type=_count, default=50, metavar="N", help="connections (50)")
    add("--depth", type=_count, default=1, metavar="N", help="commands in flight on each connection (1)")
    length = words.add_mutually_exclusive_group()
    length.add_argument(
        "--jobs",
        type=_count,
        metavar="N",
        help=f"jobs of one run ({DEFAULT_JOBS}; drain with --tube: until it is empty)",
    )
    length.add_argument("--seconds", type=_seconds, metavar="S", help="length of one run, instead of --jobs")
    add("--body", type=_body, default=100, metavar="BYTES", help="size of each job's body (100)")
    add("--tubes", type=_count, default=1, metavar="N", help="spread the connections over N tubes (1)")
    add(
        "--tube",
        type=_tube,
        metavar="NAME",
        help="use this tube (NAME-0, NAME-1, ... with --tubes); cycle and drain DELETE the jobs that are in it",
    )
    add("--json", action="store_true", help="print one JSON document instead of the table")
    return words


def parse_options(argv: list[str]) -> Options:
    """Read and check the arguments.

    Raises:
        SystemExit: 2 for wrong usage, 0 after `--help`; the text is printed before.

    """
    words = parser()
    args = words.parse_args(argv)
    mode = cast("Mode", args.mode)
    name: str | None = args.tube
    jobs: int | None = args.jobs
    seconds: float | None = args.seconds
    if mode == "drain" and name is None and seconds is not None:
        words.error("--mode drain with --seconds needs --tube, since the number of jobs to put first is unknown")
    if jobs is None and seconds is None and not (mode == "drain" and name is not None):
        jobs = max(DEFAULT_JOBS, args.connections)
    if jobs is not None and jobs < args.connections:
        words.error("--jobs is below --connections")
    if mode != "drain" and args.connections * args.depth * args.body > MAX_IN_FLIGHT:
        words.error("--connections times --depth times --body is above 2 GiB, which would all be in memory")
    if args.tubes > args.connections:
        words.error("--tubes is above --connections")
    base = name or f"beanspiked-bench-{secrets.token_hex(4)}"
    tubes = (base,) if args.tubes == 1 else tuple(f"{base}-{i}" for i in range(args.tubes))
    if len(tubes[-1]) > 200:
        words.error("the tube's name is too long for numbers behind it")
    return Options(
        server=args.server,
        versus=args.vs,
        connections=args.connections,
        depth=args.depth,
        jobs=jobs,
        seconds=seconds,
        body=args.body,
        mode=mode,
        tubes=tubes,
        own_tubes=name is None,
        rounds=args.rounds or (5 if args.vs else 1),
        json=args.json,
    )

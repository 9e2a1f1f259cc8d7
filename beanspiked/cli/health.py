"""`beanspiked health`: checks a tube, for monitoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from beanspiked.cli.arguments import Parser, number, seconds, some_time, tube
from beanspiked.cli.command import Failed, connect, number_of, run
from beanspiked.cli.looks import next_of
from beanspiked.cli.terminal import print_json
from beanspiked.client import requests
from beanspiked.client.errors import ClientError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from beanspiked.client.blocking import Conn

__all__ = ["main", "parser"]

# The exit codes are those of the Monitoring Plugins' development guidelines.
OK: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2
UNKNOWN: Final = 3
WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
# As long as those guidelines give a check.
TIMEOUT: Final = 10
# The measures and their units in the performance data.
MEASURES: Final = {"age": "s", "ready": "", "buried": ""}


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "health",
        "Check a tube as monitoring plugins do. It prints one line and exits with 0 (fine), 1\n"
        "(warning), 2 (critical, also when the server does not answer) or 3 (wrong usage). The age\n"
        "is that of the job that is reserved next; older, less urgent jobs may wait behind it. A\n"
        "tube that does not exist is empty, and so fine.",
        "  beanspiked health emails --max-age 5m --max-ready 1000\n"
        "  beanspiked health emails --max-age 10m --warn-age 5m --max-buried 0",
        usage_code=UNKNOWN,
    )
    words.add_argument("tube", type=tube, metavar="TUBE")
    for level, says in (("max", "critical"), ("warn", "a warning")):
        words.add_argument(
            f"--{level}-age",
            type=seconds,
            metavar="TIME",
            help=f"an older job is {says}; a time such as 90s, 5m, 2h or 1d",
        )
        words.add_argument(f"--{level}-ready", type=number, metavar="N", help=f"more ready jobs are {says}")
        words.add_argument(f"--{level}-buried", type=number, metavar="N", help=f"more buried jobs are {says}")
    words.add_argument(
        "-t",
        "--timeout",
        type=some_time,
        default=TIMEOUT,
        metavar="TIME",
        help=f"an answer that takes longer is critical (default {TIMEOUT}s)",
    )
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _health)


def _health(options: argparse.Namespace) -> int:
    try:
        with connect(options, options.timeout) as conn:
            measured = _measure(conn, options.tube)
    except (ClientError, Failed) as error:
        if options.json:
            _print_json(CRITICAL, options.tube, dict.fromkeys(MEASURES), [str(error)])
        else:
            print(f"CRITICAL - {error}")
        return CRITICAL
    code, complaints = OK, []
    for name, value in measured.items():
        limits = {level: getattr(options, f"{level}_{name}") for level in ("warn", "max")}
        for level, worse in (("max", CRITICAL), ("warn", WARNING)):
            if limits[level] is not None and value > limits[level]:
                code = max(code, worse)
                complaints.append(f"{name} {value}{MEASURES[name]} is above {limits[level]}{MEASURES[name]}")
                break
    if options.json:
        _print_json(code, options.tube, measured, complaints)
        return code
    text = (
        "; ".join(complaints)
        or f"{measured['ready']} ready, {measured['buried']} buried, the next one waits for {measured['age']} s"
    )
    data = " ".join(
        f"{name}={value}{MEASURES[name]};{_limit(options, 'warn', name)};{_limit(options, 'max', name)};0"
        for name, value in measured.items()
    )
    print(f"{WORDS[code]} - {options.tube}: {text} | {data}")
    return code


def _print_json(code: int, name: str, measured: Mapping[str, int | None], complaints: list[str]) -> None:
    print_json({"status": WORDS[code], "tube": name, **measured, "complaints": complaints})


def _limit(options: argparse.Namespace, level: str, name: str) -> str:
    value = getattr(options, f"{level}_{name}")
    return "" if value is None else str(value)


def _measure(conn: Conn, name: str) -> dict[str, int]:
    told = conn.ask(requests.stats_tube(name))
    if told is None:
        return {"age": 0, "ready": 0, "buried": 0}
    following = next_of(conn, name, ["ready"])
    return {
        "age": number_of(following[0][1], "age") if following else 0,
        "ready": number_of(told, "current-jobs-ready"),
        "buried": number_of(told, "current-jobs-buried"),
    }

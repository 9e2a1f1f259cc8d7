"""Measure a server against Debian's beanstalkd, turn about, and print the ratios.

    python tests/speed/measure.py [--server CMD] [--peer CMD] [--rounds 5] [--only ROW,...] [--json FILE]

Both servers are started fresh for every run. Figures move from minute to minute, ratios less: quote those. A figure that
misses its bar is printed as `missed` and changes nothing else; the exit code is 1 only when something broke.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rig.client import UnexpectedReplyError
from rig.load import Bsload
from rig.process import BrokenError, Server, Side
from rig.report import Report, Run, machine
from rig.rows import FULL, QUICK, ROWS, Bench

EXIT_BROKEN = 1
EXIT_TERMINATED = 128 + signal.SIGTERM


def default_server() -> str:
    """Return the server under test: as the tests name it, or the console script of this Python."""
    given = os.environ.get("BEANSPIKED_TEST_COMMAND")
    return given or shlex.quote(str(Path(sys.executable).parent / "beanspiked"))


def default_peer() -> str:
    """Return beanstalkd, or nothing; Debian's lies outside many users' PATH."""
    return shutil.which("beanstalkd") or shutil.which("beanstalkd", path="/usr/bin:/usr/sbin:/usr/local/bin") or ""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Measure a server against beanstalkd, turn about, and print the ratios."
    )
    parser.add_argument("--server", metavar="CMD", default=default_server(), help="the server (default: %(default)s)")
    parser.add_argument("--peer", metavar="CMD", default=default_peer(), help="what to compare with; empty for nothing")
    parser.add_argument("--rounds", metavar="N", type=int, help="how often each row is measured (default: 5, quick: 2)")
    parser.add_argument("--only", metavar="ROW,...", default=",".join(ROWS), help="some of the rows: %(default)s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every figure to this file")
    parser.add_argument(
        "--quick", action="store_true", help="tiny numbers: shows that it works, not how fast anything is"
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where journals go; a real disk, not a tmpfs (default: %(default)s)",
    )
    given = parser.parse_args()
    given.only = [row for row in given.only.split(",") if row]
    unknown = [row for row in given.only if row not in ROWS]
    if unknown or not given.only:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if given.rounds is None:
        given.rounds = 2 if given.quick else 5
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return given


def measure(given: argparse.Namespace) -> Report:
    """Measure each row in each round on each side."""
    sides = [Side(name="ours", command=tuple(shlex.split(given.server)), durable=())]
    if given.peer:
        sides.append(Side(name="peer", command=tuple(shlex.split(given.peer)), durable=("-f0",)))
    report = Report(machine(given.data_dir))
    for side in sides:
        with Server(side.command) as server:
            report.machine[side.name] = server.about()
    for name, value in report.machine.items():
        print(f"{name}: {value}", flush=True)
    with tempfile.TemporaryDirectory(prefix="beanspiked-speed-") as folder:
        bench = Bench(Bsload(Path(folder)), QUICK if given.quick else FULL, given.data_dir)
        for row in given.only:
            for number in range(1, given.rounds + 1):
                # Turn about: who goes first meets another machine than who goes second.
                for side in sides if number % 2 else reversed(sides):
                    run = Run(row=row, round=number, side=side.name, outcome=ROWS[row].measure(bench, side))
                    report.runs.append(run)
                    print(run, flush=True)
    return report


def main() -> int:
    """Run the command line; return the exit code."""
    given = arguments()
    # Servers end with their measurement, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        report = measure(given)
    except (BrokenError, UnexpectedReplyError, subprocess.TimeoutExpired, OSError) as error:
        print(f"measure: {error}", file=sys.stderr)
        return EXIT_BROKEN
    if not given.peer:
        print("measure: there is no beanstalkd to compare with", file=sys.stderr)
    print(f"\n{report.markdown()}")
    if given.json is not None:
        given.json.write_text(json.dumps(report.json(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

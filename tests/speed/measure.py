"""Alternate between a server and others, and print medians, ranges and ratios.

    python tests/speed/measure.py [--server CMD] [--peer NAME=CMD]... [--durable NAME=OPTIONS]... [--only ROW,...] [--json FILE]

Every run starts its server again. Figures change from minute to minute and ratios less, so quote ratios. A figure that misses its
bar is printed as `missed`. The exit code is 1 only when something broke. `make figures` turns the JSON into the tables and charts
of the documents.
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
from rig.report import Report, Run, machine, used_by_others
from rig.rows import FULL, QUICK, ROWS, Bench

# The name of the server under test among its peers.
OURS = "beanspiked"
EXIT_BROKEN = 1
EXIT_TERMINATED = 128 + signal.SIGTERM


def default_server() -> str:
    """Return the command under test: that of the tests, or the console script of this Python."""
    given = os.environ.get("BEANSPIKED_TEST_COMMAND")
    return given or shlex.quote(str(Path(sys.executable).parent / "beanspiked"))


def default_peer() -> str:
    """Return the path of beanstalkd, or nothing. Debian's lies outside many users' PATH."""
    return shutil.which("beanstalkd") or shutil.which("beanstalkd", path="/usr/bin:/usr/sbin:/usr/local/bin") or ""


def default_peers() -> list[str]:
    """Return Debian's beanstalkd as a peer, if it is installed."""
    found = default_peer()
    return [f"beanstalkd={shlex.quote(found)}"] if found else []


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Alternate between a server and others, and print the ratios.")
    parser.add_argument("--server", metavar="CMD", default=default_server(), help="the server (default: %(default)s)")
    parser.add_argument(
        "--peer",
        metavar="NAME=CMD",
        action="append",
        help=f"a server to compare with; may be repeated; NAME= alone for none (default: {' '.join(default_peers())})",
    )
    parser.add_argument(
        "--durable",
        metavar="NAME=OPTIONS",
        action="append",
        default=[],
        help="the options after -b DIR that make a peer sync before each reply (default: -f0)",
    )
    parser.add_argument("--rounds", metavar="N", type=int, help="how often each row is measured (default: 5, quick: 2)")
    parser.add_argument("--only", metavar="ROW,...", default=",".join(ROWS), help="some of the rows: %(default)s")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write every figure to this file, after each row"
    )
    parser.add_argument("--quick", action="store_true", help="tiny numbers, which show that it works, not the speed")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="the directory for journals, on a real disk, not a tmpfs (default: %(default)s)",
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
    durable = dict(option.partition("=")[::2] for option in given.durable)
    given.peers = []
    for peer in default_peers() if given.peer is None else given.peer:
        name, _, command = peer.partition("=")
        if not command:
            continue
        options = tuple(shlex.split(durable.pop(name, "-f0")))
        given.peers.append(Side(name=name, command=tuple(shlex.split(command)), durable=options))
    if durable:
        parser.error(f"--durable names no peer: {', '.join(durable)}")
    if len({OURS, *(peer.name for peer in given.peers)}) <= len(given.peers):
        parser.error(f"peers need names of their own, and {OURS} is the server's")
    return given


def measure(given: argparse.Namespace) -> Report:
    """Measure each row in each round on each side."""
    sides = [Side(name=OURS, command=tuple(shlex.split(given.server)), durable=()), *given.peers]
    report = Report(machine(given.data_dir))
    for side in sides:
        with Server(side.command) as server:
            report.sides[side.name] = server.about()
    for name, value in (report.machine | report.sides).items():
        print(f"{name}: {value}", flush=True)
    with tempfile.TemporaryDirectory(prefix="beanspiked-speed-") as folder:
        bench = Bench(Bsload(Path(folder)), QUICK if given.quick else FULL, given.data_dir)
        for row in given.only:
            for number in range(1, given.rounds + 1):
                # Each round swaps the order, since the machine changes from run to run.
                for side in sides if number % 2 else reversed(sides):
                    others = used_by_others()
                    outcome = ROWS[row].measure(bench, side)
                    run = Run(row=row, round=number, side=side.name, others=others, outcome=outcome)
                    report.runs.append(run)
                    print(run, flush=True)
            if given.json is not None:
                # Write after each row, so that a run of an hour that breaks leaves the figures of whole rows.
                given.json.write_text(json.dumps(report.json(), indent=1) + "\n")
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
    if not given.peers:
        print("measure: there is no peer to compare with", file=sys.stderr)
    if report.warning():
        print(f"measure: warning: {report.warning()}", file=sys.stderr)
    print(f"\n{report.markdown()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

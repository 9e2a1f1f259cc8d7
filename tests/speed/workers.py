"""Measure a server with several workers against one front-end, in turns, and the processor time that each part takes for a job.

    python tests/speed/workers.py --aerospike HOST:PORT/NAMESPACE [--server CMD] [--workers 2] [--rounds 5] [--node-pid PID]

Figures change from minute to minute; quote the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

from measure import default_server
from rig.load import Bsload
from rig.process import Server, cpu_s
from shared import front_end

# Connections, commands in flight, jobs, tubes. Two workers get clients in turn: of ten tubes none has clients at both, of seven each has.
SHAPES = (
    (50, 16, 60000, 0),
    (50, 1, 20000, 0),
    (50, 16, 60000, 10),
    (50, 1, 20000, 10),
    (50, 16, 60000, 7),
    (50, 1, 20000, 7),
)


def family(server: Server) -> list[int]:
    """List a server's process and those of its workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii")
    return [server.pid, *map(int, children.split())]


class Side:
    """One of the servers that are compared: what each round took."""

    def __init__(self, server: Server, node_pid: int) -> None:
        self.server = server
        self.node_pid = node_pid
        self.speeds: list[float] = []
        self.front_us: list[float] = []
        self.node_us: list[float] = []

    def measure(self, bsload: Bsload, connections: int, depth: int, jobs: int, tubes: int) -> None:
        pids = family(self.server)
        front, node = sum(map(cpu_s, pids)), cpu_s(self.node_pid) if self.node_pid else 0.0
        self.speeds.append(bsload.run(self.server, "cycle", connections, depth, jobs, tubes=tubes).jobs_per_s)
        self.front_us.append((sum(map(cpu_s, pids)) - front) * 1e6 / jobs)
        self.node_us.append(((cpu_s(self.node_pid) if self.node_pid else 0.0) - node) * 1e6 / jobs)

    def told(self) -> str:
        median = statistics.median
        node = f" + node {median(self.node_us):.0f}" if self.node_pid else ""
        return f"{median(self.speeds):,.0f} jobs/s, front-end {median(self.front_us):.0f}{node} us a job"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerospike", required=True, metavar="HOST:PORT/NAMESPACE")
    parser.add_argument("--server", default=default_server(), metavar="CMD")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--node-pid", type=int, default=0, metavar="PID", help="the Aerospike server, if it runs here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bsload = Bsload(Path(folder))
        for connections, depth, jobs, tubes in SHAPES:
            one = front_end(arguments.server, arguments.aerospike, f"w{uuid.uuid4().hex[:6]}_")
            words = f"{arguments.server} --workers {arguments.workers}"
            several = front_end(words, arguments.aerospike, f"w{uuid.uuid4().hex[:6]}_")
            with one, several:
                sides = [Side(server, arguments.node_pid) for server in (one, several)]
                time.sleep(2)
                for _ in range(arguments.rounds):
                    for side in sides:
                        side.measure(bsload, connections, depth, jobs, tubes)
                ratios = [b / a for a, b in zip(*(side.speeds for side in sides), strict=True)]
                print(
                    f"{connections} x {depth}, {tubes or 1} tubes: {arguments.workers} workers {sides[1].told()}; "
                    f"one front-end {sides[0].told()}; {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare a server with several workers and one front-end, and measure the processor time that each part takes for a job.

    python tests/speed/workers.py --aerospike HOST:PORT/NAMESPACE [--server CMD] [--workers 2] [--rounds 5] [--node-pid PID] [--json FILE]

Figures change from minute to minute; quote the ratios. `make figures` turns the JSON into tables of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import default_server
from rig.load import Bsload
from rig.process import Server, cpu_s
from rig.report import keep, spread, used_by_others
from shared import LOADS, front_end


def family(server: Server) -> list[int]:
    """List a server's process and those of its workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii")
    return [server.pid, *map(int, children.split())]


class Side:
    """One of the compared servers, with the results of each round."""

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

    def figures(self) -> dict[str, Any]:
        """Return the figures of all rounds; processor times are in microseconds a job."""
        found = {"jobs/s": self.speeds, "front-end us": self.front_us, "node us": self.node_us}
        return {name: asdict(spread(values)) for name, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerospike", required=True, metavar="HOST:PORT/NAMESPACE")
    parser.add_argument("--server", default=default_server(), metavar="CMD")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--node-pid", type=int, default=0, metavar="PID", help="the Aerospike server, if it runs here")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    others, lines = used_by_others(), []
    with tempfile.TemporaryDirectory() as folder:
        bsload = Bsload(Path(folder))
        for connections, depth, tubes, jobs in LOADS:
            one = front_end(arguments.server, arguments.aerospike, f"w{uuid.uuid4().hex[:6]}_")
            words = f"{arguments.server} --workers {arguments.workers}"
            several = front_end(words, arguments.aerospike, f"w{uuid.uuid4().hex[:6]}_")
            about = one.about()
            with one, several:
                sides = [Side(server, arguments.node_pid) for server in (one, several)]
                time.sleep(2)
                for _ in range(arguments.rounds):
                    for side in sides:
                        side.measure(bsload, connections, depth, jobs, tubes)
            ratio = spread([b / a for a, b in zip(*(side.speeds for side in sides), strict=True)])
            print(f"{connections} x {depth}, {tubes or 1} tubes: {ratio} x one front-end", flush=True)
            line = {"connections": connections, "depth": depth, "tubes": tubes or 1, "ratio": asdict(ratio)}
            lines.append({**line, "one": sides[0].figures(), "several": sides[1].figures()})
    keep(
        arguments.json,
        "workers",
        others,
        arguments.rounds,
        {"server": about, "workers": arguments.workers, "lines": lines},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

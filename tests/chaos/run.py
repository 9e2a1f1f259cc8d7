"""A chaos run: real nodes, real front-ends, real clients; processes are killed, frozen and restarted, and nothing may be lost.

    python tests/chaos/run.py --asd PATH/asd --minutes 10 --jobs 100000 --faults 20

It starts an Aerospike cluster with two copies of everything and three front-ends on loopback, and ends them. It exits with 1 if a
promise was broken. The log says what was asked and answered when; each server's own log lies beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from clients import Client, make_clients
from cluster import Cluster, Ports
from drain import drain
from faults import KINDS, Faults
from fronts import FrontEnd
from judge import judge
from processes import until
from record import Record

FRONT_ENDS = 3
# Longer than the others wait for a node before they drop it.
FREEZE = 4.0
# By then the sessions of the dead are declared dead, and their jobs are taken back.
SESSIONS_OVER = 15.0
# A slow machine may need so much longer for the jobs, in seconds.
OVERTIME = 1200.0
SHOWN = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(sys.executable).with_name("beanspiked")
    parser.add_argument("--asd", metavar="FILE", default=shutil.which("asd"), help="the Aerospike server")
    parser.add_argument("--server", metavar="CMD", default=str(beside), help="the front-end (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="how long faults and jobs come, at least (default: %(default)g)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=100_000,
        help="how many jobs are put, at least: as long as faults come, jobs come (default: %(default)s)",
    )
    parser.add_argument("--faults", type=int, default=20, help="how many of each kind (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which kinds: %(default)s")
    parser.add_argument(
        "--nodes", type=int, choices=(2, 3), default=3, help="nodes of the cluster (default: %(default)s)"
    )
    parser.add_argument(
        "--beats",
        type=int,
        default=10,
        help="a node is lost after so many missed heartbeats of 0.15 s (default: %(default)s)",
    )
    parser.add_argument(
        "--freeze", type=float, default=FREEZE, metavar="S", help="the longest freeze of a node (default: %(default)s)"
    )
    parser.add_argument("--seed", default=str(int(time.time())), help="decides what happens when (default: the time)")
    parser.add_argument(
        "--ports", metavar="FIRST-LAST", default="15000-31999", help="where to listen (default: %(default)s)"
    )
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="where to put logs and data; removed at the end by default"
    )
    parsed = parser.parse_args()
    if parsed.asd is None:
        parser.error("there is no asd on the PATH: say --asd FILE")
    return parsed


class Run:
    """One run."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._options = options
        first, _, last = options.ports.partition("-")
        ports = Ports(int(first), int(last))
        self.record = Record(work / "events.log")
        self.cluster = Cluster(options.asd, work, options.nodes, ports, options.beats)
        url = self.cluster.url("chaos_")
        self.fronts = [FrontEnd(options.server, work, number, ports.take(), url) for number in range(1, FRONT_ENDS + 1)]
        self.fresh = FrontEnd(options.server, work, FRONT_ENDS + 1, ports.take(), url)
        self.build = ""

    async def go(self) -> dict[str, int]:
        """Do it all; return what the store counts at the end."""
        record = self.record
        for node in self.cluster.nodes:
            node.start()
        await self.cluster.until_whole()
        self.build = await self.cluster.build()
        record.say(f"{len(self.cluster.nodes)} nodes of Aerospike {self.build}, seed {self._options.seed}")
        for front in self.fronts:
            front.start()
        await asyncio.gather(*[front.until_it_serves() for front in self.fronts])
        # Faults and puts are reckoned from here.
        record.began = time.monotonic()
        watch = asyncio.create_task(self._watch())
        try:
            await self._live()
            record.say("no more faults")
            self.fresh.start()
            await self.fresh.until_it_serves()
            await asyncio.sleep(SESSIONS_OVER)
            return await drain(record, self.fresh)
        finally:
            watch.cancel()

    async def _live(self) -> None:
        """Let clients work while faults happen."""
        record = self.record
        seconds = self._options.minutes * 60
        producers = 0

        def pace() -> float:
            # Faster when outages have held them up; and on and on while the faults take longer: nothing is proved by hurting a server
            # that has nothing to do.
            missing = max(1, self._options.jobs - len(record.jobs))
            return producers * min(seconds / max(1, self._options.jobs), max(0.5, seconds - record.now()) / missing)

        clients: list[Client] = make_clients(record, self.fronts, self._options.seed, pace)
        producers = sum(client.kind == "p" for client in clients)
        tasks = [asyncio.create_task(client.run()) for client in clients]
        options = self._options
        faults = Faults(
            record,
            self.cluster,
            self.fronts,
            seconds,
            options.faults,
            options.seed,
            tuple(options.kinds.split(",")),
            options.freeze,
        )
        await faults.run()
        await asyncio.sleep(max(0.0, seconds - record.now()))
        await until(self._enough, OVERTIME)
        for client in clients:
            client.stopped = True
        await asyncio.gather(*tasks)

    async def _enough(self) -> bool:
        return len(self.record.jobs) >= self._options.jobs

    async def _watch(self) -> None:
        """Note servers that end without being told to, and start them again."""
        told = 0.0
        while True:
            await asyncio.sleep(0.5)
            for process in (*self.cluster.nodes, *self.fronts, self.fresh):
                if process.died():
                    self.record.odd(process.name, "ended by itself")
                    process.start()
            if self.record.now() - told > 30:
                told = self.record.now()
                self.record.say(", ".join(f"{count} {what}" for what, count in sorted(self.record.counts.items())))

    def destroy(self) -> None:
        """End all processes."""
        for process in (*self.fronts, self.fresh, *self.cluster.nodes):
            process.destroy()


def report(run: Run, left: dict[str, int]) -> bool:
    """Print what was found; tell whether all promises were kept."""
    record = run.record
    verdict = judge(record, left)
    for front in (*run.fronts, run.fresh):
        for line in front.bugs():
            verdict.violations["a bug that a front-end tells of"].append(f"{front.name}: {line}")
    in_doubt = sum(not job.acknowledged for job in record.jobs.values())
    doubted = sum(job.doubted() and not job.ended() for job in record.jobs.values())
    print(
        f"\nAerospike {run.build}, {len(run.cluster.nodes)} nodes, replication factor 2; {len(run.fronts)} front-ends"
    )
    print(f"{len(record.jobs)} puts, {in_doubt} of them in doubt; {doubted} jobs whose only deletes are in doubt")
    print(", ".join(f"{count} {what}" for what, count in sorted(record.counts.items())))
    print(", ".join(f"{count} x {what}" for what, count in sorted(record.faults.items())))
    for found, mark in ((verdict.notable, "note"), (verdict.violations, "VIOLATION")):
        for kind, cases in found.items():
            record.say(f"{mark}: {kind}: {len(cases)}")
            for index, case in enumerate(cases):
                (record.say if index < SHOWN else record.log)("   ", case)
    total = sum(map(len, verdict.violations.values()))
    print(f"{total} violations", flush=True)
    return total == 0


async def main() -> int:
    options = arguments()
    work = options.keep or Path(tempfile.mkdtemp(prefix="beanspiked-chaos."))
    work.mkdir(parents=True, exist_ok=True)
    run = Run(options, work)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    kept = False
    try:
        left = await run.go()
        kept = report(run, left)
    except asyncio.CancelledError:
        print("stopped")
        return 130
    finally:
        run.destroy()
        run.record.close()
        if options.keep is None and kept:
            with contextlib.suppress(OSError):
                shutil.rmtree(work)
        else:
            print(f"logs are in {work}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

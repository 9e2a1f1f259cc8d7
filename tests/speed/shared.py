"""Compare front-ends of an Aerospike server with beanstalkd, and with bare operations on the same Aerospike server.

    python tests/speed/shared.py --aerospike HOST:PORT/NAMESPACE [--server CMD] [--rounds 3] [--ready 0,100000,1000000] [--json FILE]

One run alternates between the compared servers. Figures change from minute to minute, so quote the ratios. The JSON keeps one run of
each row; `make figures` turns it into the tables and the chart of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import statistics
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import default_peer, default_server
from rig.client import Client
from rig.load import Bsload
from rig.process import Server
from rig.report import keep, spread, used_by_others

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b"x" * 100
PUT = b"put 100 0 600 100\r\n" + BODY + b"\r\n"
# Its status, `---`, 14 figures, and the empty line after them.
STATS_TUBE_LINES = 17
# Connections, commands in flight on each, tubes (0: all in one), jobs. Clients alternate between two workers. So with seven tubes each
# tube has clients at both, and with ten, fifty or a thousand tubes each tube has all its clients at one.
LOADS = (
    (50, 16, 0, 80000),
    (50, 1, 0, 20000),
    (50, 16, 7, 80000),
    (50, 1, 7, 20000),
    (50, 16, 10, 80000),
    (50, 1, 10, 20000),
    (50, 16, 50, 80000),
    (1000, 16, 1000, 60000),
    (1000, 1, 1000, 20000),
)


def median(values: list[float]) -> float:
    return statistics.median(values)


@contextlib.contextmanager
def connected(where: str) -> Iterator[tuple[Any, str]]:
    """Open a client of the Aerospike server; yield it and the namespace."""
    import aerospike

    address, _, namespace = where.partition("/")
    host, _, port = address.partition(":")
    client = aerospike.client({"hosts": [(host, int(port or 3000))]}).connect()
    yield client, namespace
    client.close()


def asked(where: str, command: str) -> list[str]:
    """Return each node's answer to an info command. `{namespace}` in it becomes the namespace."""
    with connected(where) as (client, namespace):
        answers = client.info_all(command.replace("{namespace}", namespace)).values()
    return [str(said).strip() for _, said in answers]


def counted(where: str, *names: str) -> int:
    """Return the sum of some of the namespace's figures over all nodes."""
    nodes = [dict(part.split("=", 1) for part in said.split(";")) for said in asked(where, "namespace/{namespace}")]
    return sum(int(figures[name]) for figures in nodes for name in names)


def front_end(server: str, store: str, prefix: str) -> Server:
    """Start a front-end and wait until it has a session."""
    made = Server((*shlex.split(server), "--store", f"aerospike://{store}?prefix={prefix}"))
    with Client(made.port) as client:
        until = time.monotonic() + 15
        while not client.ask("peek 1").startswith("NOT_FOUND"):
            if time.monotonic() > until:
                raise SystemExit("the front-end does not reach the Aerospike server")
    return made


def speed(arguments: argparse.Namespace, bsload: Bsload) -> dict[str, Any]:
    """Measure jobs a second, and alternate with beanstalkd."""
    peer = Server(tuple(shlex.split(arguments.peer)))
    server = front_end(arguments.server, arguments.aerospike, f"s{uuid.uuid4().hex[:6]}_")
    lines = []
    with peer, server:
        sides = [server.about(), peer.about(), f"Aerospike {asked(arguments.aerospike, 'build')[0]}"]
        bsload.run(server, "cycle", 50, 16, 20000)
        for connections, depth, tubes, jobs in LOADS:
            mine: list[float] = []
            theirs: list[float] = []
            for _ in range(arguments.rounds):
                for side, speeds in ((server, mine), (peer, theirs)):
                    speeds.append(bsload.run(side, "cycle", connections, depth, jobs, tubes=tubes).jobs_per_s)
            ratios = spread([a / b for a, b in zip(mine, theirs, strict=True)])
            print(
                f"{connections} x {depth}, {tubes or 1} tubes: {median(mine):,.0f} jobs/s, beanstalkd in memory {median(theirs):,.0f},"
                f" {ratios} x",
                flush=True,
            )
            lines.append(
                {
                    "connections": connections,
                    "depth": depth,
                    "tubes": tubes or 1,
                    "ours": asdict(spread(mine)),
                    "peer": asdict(spread(theirs)),
                    "ratio": asdict(ratios),
                }
            )
    return {"sides": sides, "lines": lines}


def two(arguments: argparse.Namespace, bsload: Bsload) -> dict[str, Any]:
    """Alternate between one front-end and two with half of the load each."""
    prefix = f"s{uuid.uuid4().hex[:6]}_"
    first = front_end(arguments.server, arguments.aerospike, prefix)
    second = front_end(arguments.server, arguments.aerospike, prefix)
    with first, second:
        time.sleep(3)
        ratios, totals = [], []
        for _ in range(arguments.rounds):
            alone = bsload.run(first, "cycle", 50, 16, 60000, tubes=10).jobs_per_s
            with ThreadPoolExecutor(2) as pool:
                halves = [pool.submit(bsload.run, side, "cycle", 25, 16, 30000, tubes=5) for side in (first, second)]
            both = [half.result().jobs_per_s for half in halves]
            ratios.append(sum(both) / alone)
            totals.append(sum(both))
        print(f"two front-ends together: {median(totals):,.0f} jobs/s, {spread(ratios)} x one")
        return {"jobs/s": asdict(spread(totals)), "ratio": asdict(spread(ratios)), "wake ms": wake(first, second)}


def wake(first: Server, second: Server) -> dict[str, float]:
    """Measure how long a put at one front-end takes to reach a reserve that waits at another."""
    times = []
    with Client(first.port) as producer, Client(second.port) as worker:
        producer.ask("use woken")
        worker.ask("watch woken")
        for number in range(60):
            worker.exchange(b"reserve\r\n", 0)
            time.sleep(0.05 + number % 10 / 100)
            began = time.perf_counter()
            producer.exchange(PUT, 0)
            reply = worker.exchange(b"", 2)
            times.append((time.perf_counter() - began) * 1e3)
            producer.exchange(b"", 1)
            worker.ask(f"delete {reply.split()[1].decode()}")
    print(f"a put at one front-end reaches a reserve at another in {median(times):.1f} ms, {max(times):.1f} at most")
    return asdict(spread(times))


def latency(arguments: argparse.Namespace, bsload: Bsload) -> dict[str, Any]:
    """Measure one command in flight on one connection, and the same operations from a bare script."""
    lines = []
    stats_ms: dict[str, float] = {}
    for ready in arguments.ready:
        server = front_end(arguments.server, arguments.aerospike, f"s{uuid.uuid4().hex[:6]}_")
        with server, Client(server.port) as client:
            if ready:
                bsload.run(server, "put", 50, 16, ready)
            nothing, bare, mine = [], [], {"put": [], "reserve": [], "delete": []}
            for _ in range(arguments.rounds):
                bare.append(bare_operations(arguments.aerospike))
                for _ in range(300):
                    began = time.perf_counter()
                    client.ask("list-tube-used")
                    at = time.perf_counter()
                    nothing.append(at - began)
                    client.exchange(PUT, 1)
                    put_at = time.perf_counter()
                    reply = client.exchange(b"reserve\r\n", 2)
                    reserved_at = time.perf_counter()
                    client.ask(f"delete {reply.split()[1].decode()}")
                    for name, value in zip(
                        mine, (put_at - at, reserved_at - put_at, time.perf_counter() - reserved_at), strict=True
                    ):
                        mine[name].append(value)
            idle = median(nothing)
            line: dict[str, Any] = {"ready": ready}
            for index, name in enumerate(mine):
                base = median([operations[index] for operations in bare]) * 1e6
                own = (median(mine[name]) - idle) * 1e6
                print(f"{name} with {ready:,} ready: {own:.0f} us, bare {base:.0f} us, {own / base:.2f} x", flush=True)
                line[name] = {"us": own, "bare us": base}
            lines.append(line)
            if ready >= 1000000:
                times = []
                for _ in range(7):
                    began = time.perf_counter()
                    client.exchange(b"stats-tube default\r\n", STATS_TUBE_LINES)
                    times.append((time.perf_counter() - began) * 1e3)
                stats_ms = asdict(spread(times))
                print(f"stats-tube with {ready:,} jobs: {median(times):.1f} ms")
    return {"lines": lines, "stats-tube ms": stats_ms}


def requested(number: int, lease: int, change: Any) -> Any:
    """Return a change of a segment as the store's adapter takes it."""
    from beanspiked.engine.aerospike.store.request import Request

    made = Request(change)
    made.number, made.lease = number, lease
    return made


def bare_operations(where: str) -> tuple[float, float, float]:
    """Time put, take and delete on a segment of its own from a bare script, which only calls the client."""
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
    from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
    from beanspiked.engine.aerospike.store.seam import Change, Move

    lease = lease_key(1, 1)
    times: tuple[list[float], ...] = ([], [], [])
    with connected(where) as (client, namespace):
        store = AerospikeStore(client, namespace, f"b{uuid.uuid4().hex[:6]}_")
        asyncio.run(store.create(1, "tube", lease))
        for slot in range(1, 400):
            key = ready_key(100, slot, slot)
            changes = (
                Change(last_slot=slot, puts={"ready": {key: b"\0" * 29 + BODY}}),
                Change(take=1),
                Change(moves=[Move(key)]),
            )
            for taken, change in zip(times, changes, strict=True):
                began = time.perf_counter()
                store.changes._send_here([requested(1, lease, change)])
                taken.append(time.perf_counter() - began)
        store.caller.close()
    return median(times[0]), median(times[1]), median(times[2])


def floor(arguments: argparse.Namespace, bsload: Bsload) -> dict[str, Any]:
    """Alternate between a front-end with 1,000 tubes, one command in flight in each, and a bare script that makes the same operations."""
    bare, mine = [], []
    with front_end(arguments.server, arguments.aerospike, f"s{uuid.uuid4().hex[:6]}_") as server:
        bsload.run(server, "cycle", 1000, 1, 5000, tubes=1000)
        for _ in range(arguments.rounds):
            bare.append(bare_batches(arguments.aerospike))
            mine.append(bsload.run(server, "cycle", 1000, 1, 10000, tubes=1000).jobs_per_s)
    ratios = spread([a / b for a, b in zip(mine, bare, strict=True)])
    print(
        f"1,000 tubes, one command in flight: {median(mine):,.0f} jobs/s, a bare script {median(bare):,.0f}, {ratios} x"
    )
    return {"bare": asdict(spread(bare)), "ours": asdict(spread(mine)), "ratio": asdict(ratios)}


def bare_batches(where: str) -> float:
    """Put, take and delete a job in each of many segments, as many in a call as a front-end sends; return jobs a second."""
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
    from beanspiked.engine.aerospike.store.aerospike.together import TOGETHER_MAX
    from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
    from beanspiked.engine.aerospike.store.seam import Change, Move

    segments, rounds = 30 * TOGETHER_MAX, 8
    with connected(where) as (client, namespace):
        store = AerospikeStore(client, namespace, f"b{uuid.uuid4().hex[:6]}_")
        for number in range(1, segments + 1):
            asyncio.run(store.create(number, "tube", lease_key(1, number)))
        # From now on writes have a deadline, as a front-end's.
        store.caller.node_now(store._segment_key(1))
        began = time.perf_counter()
        for slot in range(1, rounds + 1):
            key = ready_key(100, slot, slot)
            put = Change(last_slot=slot, puts={"ready": {key: b"\0" * 29 + BODY}}, few=True)
            changes = (put, Change(take=1, few=True), Change(moves=[Move(key)], few=True))
            for start in range(1, segments, TOGETHER_MAX):
                for change in changes:
                    numbers = range(start, start + TOGETHER_MAX)
                    store.changes._send_here([requested(number, lease_key(1, number), change) for number in numbers])
        took = time.perf_counter() - began
        store.caller.close()
    return segments * rounds / took


def idle(arguments: argparse.Namespace, bsload: Bsload) -> dict[str, Any]:  # noqa: ARG001 - one shape for all rows
    """Measure the processor time of a front-end that only waits, beside another one."""
    prefix = f"s{uuid.uuid4().hex[:6]}_"
    first, second = (front_end(arguments.server, arguments.aerospike, prefix) for _ in range(2))
    with first, second, Client(first.port) as client:
        client.watch(1000)
        client.exchange(b"reserve\r\n", 0)
        time.sleep(5)
        began, used = time.monotonic(), first.cpu_s()
        time.sleep(15)
        part = (first.cpu_s() - used) / (time.monotonic() - began)
    print(f"waiting on 1,000 tubes: {part:.1%} of a core")
    return {"part": part}


def stored(arguments: argparse.Namespace, bsload: Bsload) -> dict[str, Any]:
    """Measure how many bytes a waiting job takes in the store."""
    jobs = 200000
    with front_end(arguments.server, arguments.aerospike, f"s{uuid.uuid4().hex[:6]}_") as server:
        before = counted(arguments.aerospike, "data_used_bytes")
        bsload.run(server, "put", 50, 16, jobs)
        size = (counted(arguments.aerospike, "data_used_bytes") - before) / jobs
    print(f"bytes stored per waiting job of 100 bytes: {size:.0f}")
    return {"bytes": size}


ROWS = {"speed": speed, "floor": floor, "two": two, "latency": latency, "idle": idle, "stored": stored}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerospike", required=True, metavar="HOST:PORT/NAMESPACE")
    parser.add_argument("--server", default=default_server(), metavar="CMD")
    parser.add_argument("--peer", default=default_peer(), metavar="CMD")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--ready", default="0,100000,1000000", type=lambda text: [int(word) for word in text.split(",")]
    )
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROW,...")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write each row's figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bsload = Bsload(Path(folder))
        for name in filter(None, arguments.only.split(",")):
            others = used_by_others()
            keep(arguments.json, name, others, arguments.rounds, ROWS[name](arguments, bsload))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure several front-ends of one Aerospike server: the cost of waiting, how soon a put elsewhere wakes, the operations of idle ones.

    python tests/speed/front_ends.py --aerospike HOST:PORT/NAMESPACE [--server CMD] [--front-ends 8] [--seconds 30] [--json FILE]

One front-end waits on some of the tubes while each of the others puts jobs into all of them. The load runs on the same machine. The
processor time is that of the waiting front-end alone, with its own replies and changes. `make figures` turns the JSON into a table of
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from measure import default_server
from rig.process import Server
from rig.report import keep, used_by_others
from shared import counted, front_end

EVERY_S = 0.02
SETTLE_S = 5.0
WAITERS = 4
CHUNK = 200
COUNTED = ("client_read_success", "client_write_success", "batch_sub_read_success", "batch_sub_write_success")


def tube(number: int) -> bytes:
    return b"tube-%d" % number


@contextlib.asynccontextmanager
async def connection(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.close()


async def produce(server: Server, tubes: int, rate: float, until: float, chance: random.Random) -> tuple[int, int]:
    """Put jobs at a rate, each with the time in its body; return how many were put, and how many were refused."""
    done = failed = 0
    async with connection(server) as (reader, writer):
        begun = time.monotonic()
        while (now := time.monotonic()) < until:
            due = int((now - begun) * rate) - done
            for _ in range(due):
                body = b"%d" % time.monotonic_ns()
                writer.write(b"use %s\r\nput 0 0 60 %d\r\n%s\r\n" % (tube(chance.randrange(tubes)), len(body), body))
            for _ in range(due):
                await reader.readline()
                reply = await reader.readline()
                failed += not reply.startswith(b"INSERTED")
            done += due
            await asyncio.sleep(EVERY_S)
    return done, failed


async def consume(server: Server, watched: int, delays: list[float]) -> None:
    """Wait on tubes, and note the time of each job from its put to its reserve."""
    async with connection(server) as (reader, writer):
        for first in range(0, watched, CHUNK):
            numbers = range(first, min(first + CHUNK, watched))
            writer.write(b"".join(b"watch %s\r\n" % tube(number) for number in numbers))
            for _ in numbers:
                await reader.readline()
        while True:
            writer.write(b"reserve\r\n")
            head = (await reader.readline()).split()
            body = (await reader.readexactly(int(head[2]) + 2))[:-2]
            delays.append((time.monotonic_ns() - int(body)) / 1e6)
            writer.write(b"delete %s\r\n" % head[1])
            await reader.readline()


async def busy(fronts: list[Server], arguments: argparse.Namespace) -> dict[str, float]:
    """Let the first front-end wait while the others put."""
    chance = random.Random(arguments.seed)
    delays: list[float] = []
    waiting = [asyncio.ensure_future(consume(fronts[0], arguments.watched, delays)) for _ in range(WAITERS)]
    await asyncio.sleep(SETTLE_S)
    idle = fronts[0].cpu_s()
    await asyncio.sleep(SETTLE_S)
    idle = fronts[0].cpu_s() - idle
    used = fronts[0].cpu_s()
    until = time.monotonic() + arguments.seconds
    puts = await asyncio.gather(
        *[produce(front, arguments.tubes, arguments.rate, until, chance) for front in fronts[1:]]
    )
    used = fronts[0].cpu_s() - used
    for task in waiting:
        task.cancel()
    failed = [error for error in await asyncio.gather(*waiting, return_exceptions=True) if isinstance(error, Exception)]
    if failed:
        raise failed[0]
    # At first nearly all puts make a segment each.
    later = sorted(delays[len(delays) // 2 :])
    delays.sort()
    put, refused = (sum(figures) for figures in zip(*puts, strict=True))
    found = {
        "front-ends": len(fronts),
        "tubes": arguments.tubes,
        "watched": arguments.watched,
        "puts/s": put / arguments.seconds,
        "refused": refused,
        "woken/s": len(delays) / arguments.seconds,
        "median ms": statistics.median(delays),
        "p99 ms": delays[len(delays) * 99 // 100],
        "later median ms": statistics.median(later),
        "later p99 ms": later[len(later) * 99 // 100],
        "part": used / arguments.seconds,
        "part before": idle / SETTLE_S,
    }
    print(
        f"{len(fronts)} front-ends, {found['puts/s']:,.0f} puts/s ({refused} refused) over {arguments.tubes:,} tubes,"
        f" one waits on {arguments.watched:,}: {found['woken/s']:,.0f} jobs/s woken after"
        f" {found['median ms']:.1f} ms in a median, p99 {found['p99 ms']:.1f},"
        f" in the second half {found['later median ms']:.1f} and {found['later p99 ms']:.1f};"
        f" it takes {found['part']:.1%} of a core, before the puts {found['part before']:.1%}"
    )
    return found


async def idle(server: str, address: str, seconds: float) -> dict[str, float]:
    """Count the operations of two idle front-ends."""
    prefix = f"s{uuid.uuid4().hex[:6]}_"
    with front_end(server, address, prefix) as first, front_end(server, address, prefix) as second:
        await asyncio.sleep(SETTLE_S)
        before, cpu = counted(address, *COUNTED), first.cpu_s() + second.cpu_s()
        await asyncio.sleep(seconds)
        found = {
            "operations/s": (counted(address, *COUNTED) - before) / seconds,
            "part": (first.cpu_s() + second.cpu_s() - cpu) / seconds / 2,
        }
    print(f"two idle front-ends: {found['operations/s']:.1f} operations/s, {found['part']:.1%} of a core each")
    return found


async def measure(arguments: argparse.Namespace) -> None:
    """Measure all."""
    others = used_by_others()
    keep(arguments.json, "idle", others, 1, await idle(arguments.server, arguments.aerospike, arguments.seconds))
    prefix = f"s{uuid.uuid4().hex[:6]}_"
    with contextlib.ExitStack() as stack:
        fronts = [
            stack.enter_context(front_end(arguments.server, arguments.aerospike, prefix))
            for _ in range(arguments.front_ends)
        ]
        keep(arguments.json, "busy", others, 1, await busy(fronts, arguments))


def main(argv: list[str]) -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aerospike", required=True, metavar="HOST:PORT/NAMESPACE")
    parser.add_argument("--server", default=default_server(), help="the command that starts a front-end")
    parser.add_argument("--front-ends", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tubes", type=int, default=10_000)
    parser.add_argument("--watched", type=int, default=1_000)
    parser.add_argument(
        "--rate", type=float, default=200.0, help="puts a second through each front-end but the waiting one"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to this file")
    asyncio.run(measure(parser.parse_args(argv)))


if __name__ == "__main__":
    main(sys.argv[1:])

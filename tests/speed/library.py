"""Measure the library in one process: the operations of go-beanspike's benchmarks, and many coroutines at once.

    python tests/speed/library.py [--url memory:|sqlite:DIR|aerospike://HOST:PORT/NAMESPACE?prefix=bench_] [--rounds 3] [--json FILE]

go-beanspike publishes: put 0.589 ms, reserve 14.76 ms, release 0.607 ms. The JSON keeps one run for each kind of store; `make figures`
turns it into the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from rig.published import COROUTINES, THEIRS_MS
from rig.report import keep, used_by_others

import beanspiked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from beanspiked import Job, Tube

# The size of a body, as in the other benchmarks of jobs a second.
BODY = b"x" * 100


async def each(number: int, operation: Callable[[int], Awaitable[object]]) -> float:
    """Repeat an operation; return how long one took, in milliseconds."""
    began = time.perf_counter()
    for index in range(number):
        await operation(index)
    return (time.perf_counter() - began) / number * 1000


async def sequential(tube: Tube, number: int) -> dict[str, float]:
    """Measure BenchmarkPut, BenchmarkReserve and BenchmarkRelease, and a delete."""
    jobs: list[Job] = []

    async def reserve(_: int) -> None:
        job = await tube.reserve(5)
        assert job is not None
        jobs.append(job)

    took = {"put": await each(number, lambda _: tube.put(b"hello", compress=False, metadata="metadata"))}
    took["reserve"] = await each(number, reserve)
    took["release"] = await each(number, lambda index: jobs[index].release(count_retry=True, failed=True))
    jobs.clear()
    await each(number, reserve)
    took["delete"] = await each(number, lambda index: jobs[index].delete())
    return took


async def together(tube: Tube, number: int) -> float:
    """Put, reserve and delete with many coroutines at once; return jobs a second."""

    async def cycle() -> None:
        for _ in range(number // COROUTINES):
            await tube.put(BODY, ttr=60)
            job = await tube.reserve()
            assert job is not None
            await job.delete()

    began = time.perf_counter()
    await asyncio.gather(*[cycle() for _ in range(COROUTINES)])
    return number // COROUTINES * COROUTINES / (time.perf_counter() - began)


async def measure(options: argparse.Namespace) -> None:
    others = used_by_others()
    async with beanspiked.connect(options.url) as conn:
        tube = conn.use(f"bench-{uuid.uuid4().hex[:8]}")
        await together(tube, 5000)
        rounds = [await sequential(tube, options.number) for _ in range(options.rounds)]
        for what in rounds[0]:
            took = [one[what] for one in rounds]
            theirs = f", go-beanspike publishes {THEIRS_MS[what]} ms" if what in THEIRS_MS else ""
            print(f"{what}: {statistics.median(took):.3f} ms ({min(took):.3f} to {max(took):.3f}){theirs}")
        speeds = [await together(tube, options.jobs) for _ in range(options.rounds)]
        print(
            f"{COROUTINES} coroutines, put, reserve and delete: {statistics.median(speeds):,.0f} jobs/s"
            f" ({min(speeds):,.0f} to {max(speeds):,.0f})"
        )
    figures = {"ms": {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}}
    kind = options.url.partition(":")[0]
    keep(options.json, kind, others, options.rounds, {**figures, "jobs/s": statistics.median(speeds)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="memory:", help="the store (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--number", type=int, default=2000, help="operations one after the other (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=40000, help="jobs of all coroutines (default: %(default)s)")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write the figures to this file, by the kind of store"
    )
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="(default: %(default)s)")
    options = parser.parse_args()
    if options.loop == "uvloop":
        uvloop.run(measure(options))
    else:
        asyncio.run(measure(options))


if __name__ == "__main__":
    main()

"""A soak: many jobs go through workers that fail at random. None may be lost, or given out after its acknowledged delete.

    python tests/shared/soak.py --url aerospike://127.0.0.1:3000/test?prefix=soak_ --minutes 10 --jobs 100000 --kill-every 20

With --kill-every another process works on the same tube. It is killed after this many seconds and started again, again and again. The
script exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import beanspiked
from beanspiked.library.errors import EngineError

if TYPE_CHECKING:
    from beanspiked import Conn, Job, Tube

PUTTERS = 20
SHOWN = 10
BACKOFF = beanspiked.Retry(first=0.01, longest=0.2)
# By then the sessions of killed processes are declared dead, and their jobs are ready again.
LOST_FOR = 20.0


class Record:
    """A record of all work on the jobs, by the numbers in their bodies."""

    def __init__(self) -> None:
        self.put: set[int] = set()
        self.put_in_doubt: set[int] = set()
        self.deleted_at: dict[int, float] = {}
        self.deleting: dict[int, str] = {}
        self.in_doubt: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def got(self, number: int, who: str, at: float) -> None:
        """Note that a worker works on a job."""
        self.counts["deliveries"] += 1
        deleted_at = self.deleted_at.get(number)
        if deleted_at is not None and deleted_at < at:
            self.wrong.append(f"job {number} came to {who} {at - deleted_at:.3f} s after its delete was acknowledged")

    def delete_begins(self, number: int, who: str) -> None:
        self.deleting[number] = who

    def deleted(self, number: int, at: float) -> None:
        """Note that a delete was acknowledged."""
        self.deleting.pop(number, None)
        if number in self.deleted_at:
            self.wrong.append(f"job {number} was deleted twice")
        self.deleted_at[number] = at

    def delete_failed(self, number: int) -> None:
        self.deleting.pop(number, None)
        self.counts["deletes failed"] += 1

    def delete_unknown(self, number: int) -> None:
        self.deleting.pop(number, None)
        self.in_doubt.add(number)

    def died(self, who: str) -> None:
        """Note that a process was killed. The jobs that it was deleting may be gone."""
        for number in [number for number, name in self.deleting.items() if name == who]:
            self.delete_unknown(number)

    def open(self) -> set[int]:
        """The jobs that must be there."""
        return self.put - self.deleted_at.keys() - self.in_doubt

    def judge(self, left: int) -> list[str]:
        """List the broken promises, if `left` jobs are left in the tube."""
        wrong = self.wrong + [f"job {number} is lost" for number in sorted(self.open())]
        if left:
            wrong.append(f"{left} jobs are left that nobody gets")
        return wrong

    def summary(self) -> str:
        counts = self.counts
        counts.update({"puts": len(self.put), "puts in doubt": len(self.put_in_doubt), "deletes": len(self.deleted_at)})
        counts["deletes in doubt"] = len(self.in_doubt)
        return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


class Handler:
    """Works on a job, mostly with success."""

    def __init__(self, record: Record | Lines, who: str, chance: random.Random) -> None:
        self._record = record
        self._who = who
        self._chance = chance

    async def __call__(self, body: bytes, job: Job) -> None:
        number = int(body)
        self._record.got(number, self._who, time.monotonic())
        lot = self._chance.random()
        if lot < 0.04:
            raise RuntimeError("as it happens")
        if lot < 0.06:
            await job.release(self._chance.random() / 10, count_retry=True)
            return
        if lot < 0.08:
            await job.bury("as it happens")
            return
        if lot < 0.12:
            await asyncio.sleep(self._chance.random() / 50)
        self._record.delete_begins(number, self._who)
        try:
            done = await job.delete()
        except beanspiked.OutcomeUnknown:
            self._record.delete_unknown(number)
            raise
        except asyncio.CancelledError:
            self._record.delete_unknown(number)
            raise
        except EngineError:
            self._record.delete_failed(number)
            raise
        if done:
            self._record.deleted(number, time.monotonic())
        else:
            self._record.delete_failed(number)


class Lines:
    """Another process's work, which reaches this process's record line by line."""

    def got(self, number: int, who: str, at: float) -> None:  # noqa: ARG002
        print("got", number, at, flush=True)

    def delete_begins(self, number: int, who: str) -> None:  # noqa: ARG002
        print("begins", number, 0, flush=True)

    def deleted(self, number: int, at: float) -> None:
        print("deleted", number, at, flush=True)

    def delete_failed(self, number: int) -> None:
        print("failed", number, 0, flush=True)

    def delete_unknown(self, number: int) -> None:
        print("unknown", number, 0, flush=True)


async def soak(
    conn: Conn, name: str, jobs: int, workers: int, seed: str, seconds: float = 0.0, record: Record | None = None
) -> Record:
    """Put jobs and work on them until all are done. With `seconds`, spread the puts over that time."""
    chance = random.Random(seed)
    record = record or Record()
    tube = conn.use(name)
    began = time.monotonic()
    numbers = iter(range(jobs))

    async def put() -> None:
        for number in numbers:
            try:
                await tube.put(b"%d" % number, ttr=60, delay=chance.random() / 10 if chance.random() < 0.05 else 0)
            except beanspiked.OutcomeUnknown:
                record.put_in_doubt.add(number)
            except EngineError:
                record.counts["puts failed"] += 1
            else:
                record.put.add(number)
            early = began + seconds * number / jobs - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)

    async def kick() -> None:
        while True:
            await asyncio.sleep(0.2)
            with contextlib.suppress(EngineError):
                await tube.kick(1000)

    handler = Handler(record, "here", chance)
    worker = beanspiked.Worker(tube, handler, concurrency=workers, backoff=BACKOFF, chance=chance)
    kicking = asyncio.create_task(kick())
    async with worker:
        await asyncio.gather(*[put() for _ in range(PUTTERS)])
        await _until_done(record, tube)
    kicking.cancel()
    return record


async def _until_done(record: Record, tube: Tube) -> None:
    """Wait until every job is done, or until no job was done for long."""
    last = (0, time.monotonic())
    while record.open() or (await tube.stats()).jobs:
        done = len(record.deleted_at)
        if done != last[0]:
            last = (done, time.monotonic())
        elif time.monotonic() - last[1] > LOST_FOR:
            return
        await asyncio.sleep(0.05)


async def _other_process(record: Record, command: list[str], every: float, chance: random.Random) -> None:
    """Let another process work on the same tube, kill it now and then, and start it again."""
    life = 0
    while True:
        life += 1
        who = f"process {life}"
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        reading = asyncio.create_task(_read(record, process.stdout, who))
        try:
            await asyncio.sleep(every * chance.uniform(0.5, 1.5))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await reading
            record.died(who)
            record.counts["processes killed"] += 1


async def _read(record: Record, lines: asyncio.StreamReader, who: str) -> None:
    async for line in lines:
        if not line.endswith(b"\n"):
            return
        what, number, at = line.split()
        if what == b"got":
            record.got(int(number), who, float(at))
        elif what == b"begins":
            record.delete_begins(int(number), who)
        elif what == b"deleted":
            record.deleted(int(number), float(at))
        elif what == b"failed":
            record.delete_failed(int(number))
        else:
            record.delete_unknown(int(number))


async def _work(options: argparse.Namespace) -> None:
    """Run the other process."""
    async with beanspiked.connect(options.url, retry=beanspiked.Retry()) as conn:
        handler = Handler(Lines(), "", random.Random())
        worker = beanspiked.Worker(conn.use(options.tube), handler, concurrency=options.workers, backoff=BACKOFF)
        await worker.run()


async def _main(options: argparse.Namespace) -> int:
    if options.work:
        await _work(options)
        return 0
    async with beanspiked.connect(options.url, put_retry=beanspiked.Retry(attempts=5)) as conn:
        record = Record()
        command = [sys.executable, __file__, "--work", "--url", options.url, "--tube", options.tube]
        command += ["--workers", str(options.workers)]
        other = None
        if options.kill_every:
            chance = random.Random(options.seed)
            other = asyncio.create_task(_other_process(record, command, options.kill_every, chance))
        await soak(conn, options.tube, options.jobs, options.workers, options.seed, options.minutes * 60, record)
        if other is not None:
            other.cancel()
            await asyncio.wait([other])
            await asyncio.sleep(LOST_FOR)
        left = (await conn.use(options.tube).stats()).jobs
    wrong = record.judge(left)
    print(record.summary())
    for line in wrong[:SHOWN]:
        print("VIOLATION:", line)
    print(f"{len(wrong)} violations")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="memory:", help="the store (default: %(default)s)")
    parser.add_argument("--tube", default=f"soak-{int(time.time())}", help="the tube (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=50, help="how many at a time (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=0.0, help="over how long jobs are put (default: at once)")
    parser.add_argument(
        "--kill-every", type=float, default=0.0, metavar="S", help="how often to kill another process, in seconds"
    )
    parser.add_argument("--seed", default=str(int(time.time())), help="decides what fails (default: the time)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    logging.basicConfig(level=logging.CRITICAL)
    return asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

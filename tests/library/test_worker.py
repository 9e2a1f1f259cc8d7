"""What a worker does with jobs: those that are done, fail, cannot be read, are lost, or are interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from memory import Cluster
from soak import soak
from stores import SimulatedConn, reserved

import beanspiked
from beanspiked.engine.aerospike.store.seam import Busy, Unknown

if TYPE_CHECKING:
    from stores import Stores

    from beanspiked import Conn, Job

SOON = beanspiked.Retry(first=0.005, longest=0.02)


async def nothing(body: bytes, job: Job) -> None:
    """Do a job at once."""


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.005)


def test_a_job_that_is_done_is_deleted(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await asyncio.gather(*[tube.put(b"", ttr=60) for _ in range(30)])
        async with beanspiked.Worker(tube, nothing, concurrency=5):
            await until(lambda: emptied(tube))
        assert not conn._core.held
        assert (await tube.stats()).deleted == 30

    stores.run(check)


async def emptied(tube: beanspiked.Tube) -> bool:
    return (await tube.stats()).jobs == 0


def test_a_job_that_fails_is_tried_again_later_and_buried_after_its_last_try(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        tries: list[tuple[int, bool]] = []

        async def fail(body: bytes, job: Job) -> None:  # noqa: ARG001
            tries.append((job.retries, job.failed))
            raise ZeroDivisionError("no wonder")

        job_id = await tube.put(b"", ttr=60, metadata="mine")

        async def buried() -> bool:
            return (await tube.peek_buried()) is not None

        async with beanspiked.Worker(tube, fail, max_attempts=3, backoff=SOON):
            await until(buried)
        assert tries == [(0, False), (1, True), (2, True)]
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.reason, info.metadata) == ("buried", "ZeroDivisionError: no wonder", "mine")

    stores.run(check)


@pytest.mark.parametrize("error", [beanspiked.DecodingError("no text"), ValueError("no text")])
def test_a_body_that_cannot_be_decoded_is_buried_with_the_reason(stores: Stores, error: Exception) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        seen: list[str] = []

        def decode(body: bytes) -> str:
            if body == b"bad":
                raise error
            return body.decode()

        async def handle(text: str, job: Job) -> None:  # noqa: ARG001
            seen.append(text)

        for body in (b"bad", b"good"):
            await tube.put(body, ttr=60)

        async def done() -> bool:
            return seen == ["good"] and (await tube.stats()).buried == 1

        async with beanspiked.Worker(tube, handle, decoder=decode):
            await until(done)
        info = await tube.peek_buried()
        assert info is not None
        assert info.reason.endswith("no text")

    stores.run(check)


def test_a_handler_may_let_its_job_go_itself(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)

        async def handle(body: bytes, job: Job) -> None:
            if body == b"delete":
                assert await job.delete()
            elif body == b"release":
                await job.release(100)
            else:
                await job.bury("by hand")

        for body in (b"delete", b"release", b"bury"):
            await tube.put(body, ttr=60)

        async def done() -> bool:
            stats = await tube.stats()
            return (stats.jobs, stats.delayed, stats.buried, stats.reserved) == (2, 1, 1, 0)

        async with beanspiked.Worker(tube, handle):
            await until(done)

    stores.run(check)


def test_a_handler_longer_than_the_time_to_run_keeps_its_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        runs = 0

        async def slow(body: bytes, job: Job) -> None:  # noqa: ARG001
            nonlocal runs
            runs += 1
            await asyncio.sleep(0.5)

        await tube.put(b"", ttr=0.2)
        async with beanspiked.Worker(tube, slow, concurrency=3):
            await until(lambda: emptied(tube))
        assert runs == 1

    stores.run(check)


def test_a_handler_whose_job_is_lost_is_cancelled(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        working, cancelled = asyncio.Event(), asyncio.Event()

        async def handle(body: bytes, job: Job) -> None:
            if body == b"next":
                return
            working.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                assert not job.held
                cancelled.set()
                raise

        await tube.put(b"lost", ttr=60)
        async with beanspiked.Worker(tube, handle):
            await working.wait()
            await conn.delete_tube(stores.tube)
            await asyncio.wait_for(cancelled.wait(), 10)
            # It goes on.
            await tube.put(b"next", ttr=60)
            await until(lambda: emptied(tube))

    stores.run(check)


def test_closing_lets_handlers_finish_and_gives_the_others_jobs_back_at_once(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        finished: list[bytes] = []

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            await asyncio.sleep(0.05 if body == b"quick" else 60)
            finished.append(body)

        quick = await tube.put(b"quick", ttr=600)
        slow = await tube.put(b"slow", ttr=600)
        worker = beanspiked.Worker(tube, handle, concurrency=2)
        worker.start()
        await until(lambda: len(conn._core.held) == 2)
        await worker.close(grace=0.3)
        assert finished == [b"quick"]
        assert await tube.peek(quick) is None
        again = await reserved(tube)
        assert (again.id, again.retries) == (slow, 0)
        with pytest.raises(ValueError, match="once"):
            worker.start()

    stores.run(check)


def test_closing_the_connection_ends_its_workers(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"", ttr=600)
        started = asyncio.Event()

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            started.set()
            await asyncio.sleep(60)

        worker = beanspiked.Worker(tube, handle, concurrency=3)
        running = asyncio.create_task(worker.run())
        await started.wait()
        await conn.close()
        await asyncio.wait_for(running, 5)

    stores.run(check)


def test_no_wake_up_is_lost(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        seen: list[bytes] = []

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            seen.append(body)

        async with beanspiked.Worker(tube, handle, concurrency=4):
            for number in range(60):
                # At any moment of the others' waiting and working.
                await tube.put(b"%d" % number, ttr=600)
                for _ in range(random.randrange(5)):
                    await asyncio.sleep(0)
            await until(lambda: len(seen) == 60)
        assert sorted(map(int, seen)) == list(range(60))

    stores.run(check)


def test_a_worker_that_is_cancelled_at_any_moment_holds_nothing(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        chance = random.Random(3)
        done: set[bytes] = set()

        async def handle(body: bytes, job: Job) -> None:
            await asyncio.sleep(0)
            if await job.delete():
                done.add(body)

        for number in range(40):
            await tube.put(b"%d" % number, ttr=600)
        for _ in range(25):
            worker = beanspiked.Worker(tube, handle, concurrency=3)
            worker.start()
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            await worker.close(grace=0)
            assert not conn._core.held
        async with beanspiked.Worker(tube, handle, concurrency=3):
            await until(lambda: emptied(tube))

    stores.run(check)


WORKING = """
import asyncio, sys, beanspiked

async def handle(body, job):
    print("working", flush=True)
    await asyncio.sleep(60)

async def main():
    async with beanspiked.connect(sys.argv[1]) as conn:
        tube = conn.use("testtube")
        await tube.put(b"x", ttr=600)
        await beanspiked.Worker(tube, handle).run()
        print("reserved", (await tube.stats()).reserved, flush=True)

asyncio.run(main())
"""


def test_sigterm_gives_jobs_back_at_once(tmp_path: Any) -> None:
    command = [sys.executable, "-c", WORKING, f"sqlite:{tmp_path}/jobs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "reserved 0\n"
        assert process.wait(10) == 0


def test_a_worker_that_ends_gives_signals_the_programs_handlers_back() -> None:
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def check() -> None:
        before = handlers()
        async with beanspiked.connect("memory:") as conn:
            tube = conn.use("testtube")
            ends = asyncio.gather(*(beanspiked.Worker(tube, nothing).run() for _ in range(2)))
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
            await ends
        assert handlers() == before

    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        asyncio.run(check())
    finally:
        signal.signal(signal.SIGTERM, former)


def test_nothing_is_lost_where_the_store_fails_at_random() -> None:
    chance = random.Random(7)
    cluster = Cluster(lambda: int(asyncio.get_event_loop().time() * 1000) + 10**12)
    conn = SimulatedConn(cluster, put_retry=beanspiked.Retry(attempts=10, first=0.001))

    async def unreliable(name: str, operation: Any) -> Any:
        lot = chance.random()
        if lot < 0.03:
            raise Busy("14: key busy")
        result = operation()
        if lot < 0.05 and name not in ("heartbeat", "sessions"):
            raise Unknown("9: timeout, but it was done")
        if lot < 0.07:
            await asyncio.sleep(0.01)
        return result

    async def check() -> None:
        async with conn:
            conn.transport = unreliable
            record = await soak(conn, "testtube", 3000, 50, "7")
            conn.transport = at_once
            assert record.judge((await conn.use("testtube").stats()).jobs) == []
            assert len(record.deleted_at) > 2900

    async def at_once(name: str, operation: Any) -> Any:  # noqa: ARG001
        return operation()

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(check())


@pytest.mark.slow
def test_a_soak_of_many_jobs_that_fail_at_random_loses_none() -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            record = await soak(conn, "testtube", 100_000, 50, "1")
            assert record.judge((await conn.use("testtube").stats()).jobs) == []
            assert len(record.deleted_at) == 100_000

    asyncio.run(check())


@pytest.mark.slow
def test_a_soak_on_every_store_loses_none(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        record = await soak(conn, stores.tube, 1500, 50, "2")
        assert record.judge((await conn.use(stores.tube).stats()).jobs) == []
        assert len(record.deleted_at) == 1500

    stores.run(check)

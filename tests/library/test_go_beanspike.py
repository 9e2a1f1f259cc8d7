"""The cases that go-beanspike tests itself with, under the names that it gives them, on every store."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from stores import reserved

import beanspiked

if TYPE_CHECKING:
    from stores import Stores

    from beanspiked import Conn, Job


def test_connection(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        assert not conn.closed

    stores.run(check)


def test_put(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"hello", metadata="metadata")
        job = await reserved(tube)
        assert job.id == job_id
        # There, a job without a time to run cannot be touched; here that is nothing to fail for.
        await job.touch()
        await job.release()
        assert await tube.delete(job_id)

    stores.run(check)


def test_reserve(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"hello", metadata="metadata")
        job = await reserved(tube)
        assert job.born > 0
        assert job.body == b"hello"

    stores.run(check)


def test_time_of_birth(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"hello", born=1_479_800_000.25)
        assert (await reserved(tube)).born == 1_479_800_000.25

    stores.run(check)


@pytest.mark.parametrize(
    "body", [random.Random(5).randbytes(16 * 1024), b"a text, again and again " * 700], ids=["random", "text"]
)
def test_reserve_compressed(stores: Stores, body: bytes) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(body)
        assert (await reserved(tube)).body == body

    stores.run(check)


def test_put_ttr(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"hello", ttr=0.2)
        job = await reserved(tube)
        assert (job.id, job.ttr) == (job_id, 0.2)
        assert await tube.reserve(0) is None
        assert (await reserved(tube)).id == job_id

    stores.run(check)


def test_put_touch(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"hello", ttr=0.3)
        job = await reserved(tube)
        await asyncio.sleep(0.2)
        await job.touch()
        await asyncio.sleep(0.2)
        assert await tube.reserve(0) is None
        assert job.held

    stores.run(check)


def test_release(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"hello", ttr=120)
        job = await reserved(tube)
        assert (job.id, job.ttr) == (job_id, 120)
        assert await tube.reserve(0) is None
        await job.release()
        assert (await reserved(tube)).id == job_id
        with pytest.raises(beanspiked.JobLost):
            await job.release()

    stores.run(check)


def test_delete(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"to delete", ttr=120, compress=False, metadata="metadata")
        assert await tube.delete(job_id) is True
        assert await tube.delete(job_id) is False
        for put in ({"delay": 100}, {}):
            job_id = await tube.put(b"", **put)  # type: ignore[arg-type]
            if not put:
                await reserved(tube)
            assert await tube.delete(job_id) is True
        assert not conn._core.held

    stores.run(check)


def test_stats(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(10):
            await tube.put(b"hello")
            await tube.put(random.randbytes(4000))
        await reserved(tube)
        stats = await tube.stats()
        assert (stats.jobs, stats.ready, stats.reserved) == (20, 19, 1)
        assert stats.skipped_size == 10 * 4000

    stores.run(check)


def test_bump_delayed(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"hello", delay=0.1)
        assert await tube.reserve(0) is None
        job = await reserved(tube)
        assert job.id == job_id
        await job.release(0.1)
        assert await tube.reserve(0) is None
        assert (await reserved(tube)).id == job_id

    stores.run(check)


def test_retries(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"hello")
        for number in range(5):
            job = await reserved(tube)
            assert (job.retries, job.failed) == (number, number > 0)
            await job.release(count_retry=True, failed=True)

    stores.run(check)


def test_retries_without_increment(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"hello")
        for _ in range(5):
            job = await reserved(tube)
            assert (job.retries, job.failed) == (0, False)
            await job.release(0.01)

    stores.run(check)


def test_example_reserve_batch(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await asyncio.gather(*[tube.put(b"", ttr=60) for _ in range(1200)])
        sizes = []
        while jobs := await tube.reserve_many(500, 0):
            sizes.append(len(jobs))
        assert sum(sizes) == 1200
        # A front-end has its jobs in a few places of a cluster, one memory has them all in one.
        assert len(sizes) == 3 or (stores.shared and len(sizes) < 30)

    stores.run(check)


@pytest.mark.slow
def test_example_reserve_and_keep_loop(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await asyncio.gather(*[tube.put(b"", ttr=3.0) for _ in range(300)])
        released = 0
        working = 0
        all_working = asyncio.Event()

        async def handler(body: bytes, job: Job) -> None:  # noqa: ARG001
            nonlocal released, working
            working += 1
            if working == 300:
                all_working.set()
            try:
                await asyncio.Event().wait()
            finally:
                released += 1

        worker = beanspiked.Worker(tube, handler, concurrency=300)
        worker.start()
        await asyncio.wait_for(all_working.wait(), 20)
        await asyncio.sleep(6)
        assert (working, released) == (300, 0)
        await worker.close(grace=0)
        assert released == 300
        assert not conn._core.held
        assert len(await tube.reserve_many(1, 5)) == 1

    stores.run(check)

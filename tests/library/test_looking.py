"""Looking at tubes and jobs: what go-beanspike's users have, on every store; tests have the names of its list of abilities.

go-beanspike (https://github.com/redsift/go-beanspike) is the library whose users should find everything here.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from stores import reserved

import beanspiked
from beanspiked.library.conn import Conn, _store_of
from beanspiked.library.tube_base import TubeStats

if TYPE_CHECKING:
    from stores import Stores

# More than compression begins with, and of use to it or not.
SQUEEZABLE = b"as compressible as can be " * 200


def test_stats(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        assert await tube.stats() == TubeStats()
        for body in (b"r", b"rr", b"rrr", b"b"):
            await tube.put(body, priority=2000 - len(body))
        await tube.put(b"dddd", delay=100)
        for _ in range(2):
            job = await reserved(tube)
            if job.body == b"rr":
                await job.bury()
        job = await reserved(tube)
        await job.delete()
        stats = await tube.stats()
        assert (stats.jobs, stats.ready, stats.reserved, stats.delayed, stats.buried) == (4, 1, 1, 1, 1)
        assert stats.deleted == 1
        assert stats.used_size == stats.job_size
        assert await conn.use(f"{stores.tube}-none").stats() == TubeStats()

    stores.run(check)


def test_find_by_metadata(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        wanted = [await tube.put(b"", metadata="a"), await tube.put(b"", metadata="a", delay=100)]
        await tube.put(b"", metadata="b")
        await tube.put(b"a")
        await conn.use(f"{stores.tube}-other").put(b"", metadata="a")
        assert await tube.find("a") == wanted
        held = await reserved(tube)
        assert await tube.find("a") == wanted
        assert held.held
        assert await tube.find("c") == []
        with pytest.raises(ValueError, match="must not be empty"):
            await tube.find("")

    stores.run(check)


def test_delete_a_tube(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        other = conn.use(f"{stores.tube}-other")
        await other.put(b"stays")
        ids = [await tube.put(SQUEEZABLE[:3000]) for _ in range(3)]
        ids.append(await tube.put(b"", delay=100))
        held = await reserved(tube)
        buried = await reserved(tube)
        await buried.bury()
        lost = asyncio.Event()
        held.when_lost(lost.set)
        await conn.delete_tube(stores.tube)
        await asyncio.wait_for(lost.wait(), 5)
        assert not held.held
        assert await held.delete() is False
        assert [await tube.peek(job_id) for job_id in ids] == [None] * 4
        assert (await tube.stats()).jobs == 0
        assert (await other.stats()).jobs == 1
        # It goes on as a tube like any other.
        await tube.put(b"new")
        job = await reserved(tube)
        assert job.body == b"new"
        await conn.delete_tube(f"{stores.tube}-never")

    stores.run(check)


def test_admin_is_nobodys_duty(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"due", delay=0.05)
        await tube.put(b"runs out", ttr=0.05)
        first = await reserved(tube)
        assert first.body == b"runs out"
        bodies = [(await reserved(tube)).body for _ in range(2)]
        assert sorted(bodies) == [b"due", b"runs out"]

    stores.run(check)


def test_monitor_a_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=0.1)
        job = await reserved(tube)
        async with job.keep_alive():
            await asyncio.sleep(0.35)
            assert job.held
        await job.release()
        job = await reserved(tube)
        began = time.monotonic()
        deleting = asyncio.get_running_loop().call_later(
            0.01, lambda: tasks.append(asyncio.create_task(conn.delete_tube(stores.tube)))
        )
        tasks: list[asyncio.Task[None]] = []
        with pytest.raises(beanspiked.JobLost):
            async with job.keep_alive():
                await asyncio.sleep(60)
        assert time.monotonic() - began < 30
        assert deleting.when()
        await tasks[0]
        with pytest.raises(beanspiked.JobLost):
            async with job.keep_alive():
                pass

    stores.run(check)


def test_managed_worker(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        done: list[int] = []
        all_done = asyncio.Event()

        async def handler(number: int, job: beanspiked.Job) -> None:
            if number == 3 and job.retries == 0:
                raise RuntimeError("not yet")
            done.append(number)
            if len(done) == 10:
                all_done.set()

        for number in range(10):
            await tube.put(str(number).encode(), ttr=60)
        await tube.put(b"not a number")
        backoff = beanspiked.Retry(first=0.01)
        async with beanspiked.Worker(tube, handler, decoder=int, concurrency=3, backoff=backoff):
            await asyncio.wait_for(all_done.wait(), 10)
        assert sorted(done) == list(range(10))
        stats = await tube.stats()
        assert (stats.jobs, stats.buried) == (1, 1)
        buried = await tube.peek_buried()
        assert buried is not None
        assert "not a number" in buried.reason

    stores.run(check)


def test_metrics_hooks(stores: Stores) -> None:
    counted: dict[str, int] = {}
    timed: dict[str, list[float]] = {}

    class Metrics:
        def count(self, event: str, tube: str, number: int) -> None:
            assert tube == stores.tube
            counted[event] = counted.get(event, 0) + number

        def timing(self, event: str, tube: str, seconds: float) -> None:
            assert tube == stores.tube
            timed.setdefault(event, []).append(seconds)

    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(4):
            await tube.put(b"x", ttr=60)
        for job in await tube.reserve_many(2, 1):
            await job.touch()
            await job.bury()
        assert await tube.kick(9) == 2
        job = await reserved(tube)
        await job.update(b"y")
        await job.release()
        job = await reserved(tube)
        await job.delete()
        job = await reserved(tube)
        await conn.delete_tube(stores.tube)

    stores.run(check, metrics=Metrics())
    assert counted == {
        "put": 4,
        "reserve": 5,
        "touch": 2,
        "bury": 2,
        "kick": 2,
        "update": 1,
        "release": 1,
        "delete": 1,
        "delete_tube": 1,
        "lost": 1,
    }
    assert {"put", "reserve", "release", "delete"} <= set(timed)
    assert all(0 <= seconds < 60 for durations in timed.values() for seconds in durations)


def test_errors() -> None:
    for error in (
        beanspiked.JobLost,
        beanspiked.JobNotFound,
        beanspiked.NotKickable,
        beanspiked.DecodingError,
        beanspiked.ConnClosed,
        beanspiked.StoreFull,
        beanspiked.StoreFailed,
        beanspiked.OutcomeUnknown,
        beanspiked.StoreUnusable,
        beanspiked.DamagedEntry,
    ):
        assert issubclass(error, beanspiked.BeanspikeError)
    assert issubclass(beanspiked.NotKickable, beanspiked.JobNotFound)
    assert issubclass(beanspiked.OutcomeUnknown, beanspiked.StoreFailed)


def test_errors_of_a_closed_connection(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=60)
        job = await reserved(tube)
        waiting = asyncio.create_task(tube.reserve())
        await asyncio.sleep(0.01)
        await conn.close()
        with pytest.raises(beanspiked.ConnClosed):
            await waiting
        for call in (tube.put(b""), tube.reserve(0), tube.stats(), conn.tubes(), job.touch(), job.delete()):
            with pytest.raises(beanspiked.ConnClosed):
                await call
        with pytest.raises(beanspiked.ConnClosed):
            conn.use("other")

    stores.run(check)


def test_error_logger(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)

        async def failing(body: bytes, job: beanspiked.Job) -> None:  # noqa: ARG001
            raise RuntimeError("as expected")

        await tube.put(b"x", ttr=60)
        worker = beanspiked.Worker(tube, failing, max_attempts=1)
        async with worker:
            assert await asyncio.wait_for(_buried(tube), 10)

    stores.run(check)
    records = [record for record in caplog.records if record.name.startswith("beanspiked.library")]
    assert any("failed in try 1" in record.getMessage() and record.exc_info for record in records)


async def _buried(tube: beanspiked.Tube) -> bool:
    while (await tube.stats()).buried == 0:  # noqa: ASYNC110 - that is what is to be seen
        await asyncio.sleep(0.01)
    return True


def test_a_store_is_told_by_its_url() -> None:
    assert _store_of("memory:") is None
    assert _store_of("sqlite:a/b") == "a/b"
    assert str(_store_of("aerospike://h/ns?prefix=p_")) == "aerospike://h:3000/ns?prefix=p_"

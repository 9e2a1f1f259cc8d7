"""Reserving jobs and keeping them: what go-beanspike's users have, on every store; tests have the names of its list of abilities.

go-beanspike (https://github.com/redsift/go-beanspike) is the library whose users should find everything here.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from stores import reserved

import beanspiked

if TYPE_CHECKING:
    from stores import Stores

    from beanspiked.library.conn import Conn


def test_reserve(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        assert await tube.reserve(0) is None
        assert await tube.reserve(timedelta(milliseconds=20)) is None
        waiting = asyncio.create_task(tube.reserve())
        await asyncio.sleep(0.01)
        first = await tube.put(b"a", priority=5, ttr=60, born=77.0)
        job = await waiting
        assert job is not None
        assert (job.id, job.body, job.priority, job.ttr, job.born) == (first, b"a", 5, 60, 77.0)
        assert (job.retries, job.failed, job.metadata) == (0, False, "")
        assert 59 < job.time_left <= 60
        for priority in (30, 10, 20):
            await tube.put(b"%d" % priority, priority=priority)
        assert [(await reserved(tube)).body for _ in range(3)] == [b"10", b"20", b"30"]

    stores.run(check)


def test_reserve_that_is_cancelled_takes_no_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(20):
            waiting = asyncio.create_task(tube.reserve())
            await asyncio.sleep(0.001)
            putting = asyncio.create_task(tube.put(b"x", ttr=100))
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            waiting.cancel()
            await putting
            try:
                job = await waiting
            except asyncio.CancelledError:
                job = await reserved(tube)
            await job.delete()
        assert (await tube.stats()).jobs == 0
        assert not conn._core.held

    stores.run(check)


def test_reserve_in_batches(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for number in range(10):
            await tube.put(b"%d" % number)
        got: list[bytes] = []
        while jobs := await tube.reserve_many(4, 0):
            assert len(jobs) <= 4
            got += [job.body for job in jobs]
        assert got == [b"%d" % number for number in range(10)]
        assert await tube.reserve_many(4, 0.01) == []
        with pytest.raises(ValueError, match="at least 1"):
            await tube.reserve_many(0)

    stores.run(check)


def test_touch(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=0.2)
        job = await reserved(tube)
        for _ in range(4):
            await asyncio.sleep(0.1)
            await job.touch()
        assert job.held
        lost = asyncio.Event()
        job.when_lost(lost.set)
        await asyncio.wait_for(lost.wait(), 5)
        for change in (job.touch(), job.release(), job.bury(), job.update(b"")):
            with pytest.raises(beanspiked.JobLost):
                await change

    stores.run(check)


def test_a_job_that_comes_due_before_the_timeout_is_given(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(3):
            await tube.put(b"x", delay=0.2)
            job = await tube.reserve(timeout=0.2)
            assert job is not None
            await job.delete()

    stores.run(check)


def test_who_lost_a_job_to_another_program_learns_it_from_a_change_but_not_from_a_touch(stores: Stores) -> None:
    if not stores.shared:
        pytest.skip("the store belongs to one process")

    async def check() -> None:
        async with stores.connect() as one, stores.connect() as other:
            tube = one.use(stores.tube)
            await tube.put(b"x", ttr=60)
            job = await reserved(tube)
            await other.delete_tube(stores.tube)
            await job.touch()
            with pytest.raises(beanspiked.JobLost):
                await job.release()
            with pytest.raises(beanspiked.JobLost):
                await job.touch()

    asyncio.run(check())

"""Of a call that has ended and a job that is done nothing is kept until a time that may be years away."""

from __future__ import annotations

import asyncio

import beanspiked
from beanspiked.engine.timers import NEVER

YEAR = 365 * 86400


def test_neither_who_waited_nor_what_was_held_is_remembered() -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            timers = conn._core.broker.timers
            tube = conn.use("testtube")
            waiting = asyncio.create_task(tube.reserve(timeout=YEAR))
            await asyncio.sleep(0)
            assert timers.next_at() < NEVER
            await tube.put(b"x", ttr=YEAR)
            job = await waiting
            assert job is not None
            await job.delete()
            assert timers.next_at() == NEVER

    asyncio.run(check())


def test_a_worker_that_is_closed_is_not_remembered_by_its_connection() -> None:
    async def handle(body: bytes, job: beanspiked.Job) -> None:
        """Never called."""

    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            async with beanspiked.Worker(conn.use("testtube"), handle):
                assert conn._core._closers
            assert not conn._core._closers

    asyncio.run(check())

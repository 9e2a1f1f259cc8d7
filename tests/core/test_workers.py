"""The threads that blocking calls are made on."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from beanspiked.engine.aerospike.workers import Workers


def test_what_is_asked_for_is_done_and_its_outcome_returned() -> None:
    async def check() -> None:
        assert await workers.do(partial(int, "7")) == 7
        with pytest.raises(ValueError, match="invalid literal"):
            await workers.do(partial(int, "x"))

    workers = Workers(2, "test")
    asyncio.run(check())
    workers.close()


def test_an_urgent_call_is_made_before_those_that_wait() -> None:
    workers = Workers(1, "test")
    begun, go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def blocking() -> None:
        begun.set()
        go_on.wait(10)

    async def check() -> None:
        workers.run(blocking)
        assert begun.wait(10)
        ordinary = [asyncio.ensure_future(workers.do(partial(made.append, "ordinary"))) for _ in range(3)]
        await asyncio.sleep(0)
        urgent = asyncio.ensure_future(workers.do(partial(made.append, "urgent"), first=True))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*ordinary, urgent)

    asyncio.run(check())
    workers.close()
    assert made == ["urgent", *["ordinary"] * 3]


def test_no_call_is_missed_however_threads_come_and_go() -> None:
    workers = Workers(4, "test")
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    async def check() -> None:
        # Now one after the other, so that threads rest in between, now many at once.
        for size in [1, 2, 40] * 60:
            await asyncio.gather(*[workers.do(lambda: None) for _ in range(size)])
            await workers.do(count)

    asyncio.run(check())
    workers.close()
    assert counted == 180

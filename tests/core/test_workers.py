"""The threads that blocking calls are made on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from functools import partial

import pytest

from beanspiked.engine.aerospike.store.aerospike.workers import Workers, look_until


def test_what_is_asked_for_is_done_and_its_outcome_returned() -> None:
    async def check() -> None:
        assert await workers.do(partial(int, "7")) == 7
        with pytest.raises(ValueError, match="invalid literal"):
            await workers.do(partial(int, "x"))

    workers = Workers(2, "test")
    asyncio.run(check())
    workers.close()


class CallError(Exception):
    """Can be watched until nobody refers to it any more."""


def test_the_error_of_a_call_is_no_garbage_that_only_the_collector_finds() -> None:
    def fail() -> None:
        error = CallError()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def check() -> None:
        with contextlib.suppress(CallError):
            await workers.do(fail)
        # The thread lets go of it a moment later.
        await workers.do(lambda: None)
        await asyncio.sleep(0)

    errors: list[weakref.ref[CallError]] = []
    workers = Workers(1, "test")
    gc.disable()
    try:
        asyncio.run(check())
        assert errors[0]() is None
    finally:
        gc.enable()
    workers.close()


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


def test_a_look_is_repeated_until_it_shows_what_is_wanted() -> None:
    seen = iter([1, 2, 3])
    assert look_until(lambda: next(seen), lambda number: number == 2, 60, 0.0) == 2


def test_a_look_ends_with_its_time_and_returns_what_was_seen_last() -> None:
    seen = iter([1, 2, 3])
    assert look_until(lambda: next(seen), lambda _: False, 0.0, 60) == 1

"""Tubes and puts: what go-beanspike's users have, on every store; tests have the names of its list of abilities.

go-beanspike (https://github.com/redsift/go-beanspike) is the library whose users should find everything here.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from stores import reserved

import beanspiked
from beanspiked.engine.errors import OutcomeUnknown, StoreFailed
from beanspiked.library.tube_base import IDS_LOW

if TYPE_CHECKING:
    from stores import Stores

    from beanspiked.library.conn import Conn

# More than compression begins with, and of use to it or not.
SQUEEZABLE = b"as compressible as can be " * 200
RANDOM = random.Random(1).randbytes(5000)


def test_use_a_tube(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        assert conn.use(stores.tube) is tube
        assert tube.name == stores.tube
        assert {"default", stores.tube} <= set(await conn.tubes())
        for name in ("", "-x", "white space", "x" * 201, "ümlaut"):
            with pytest.raises(ValueError, match="tube"):
                conn.use(name)

    stores.run(check)


def test_put(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        before = time.time()
        plain = await tube.put(b"plain", ttr=timedelta(seconds=90))
        full = await tube.put(b"", delay=0, ttr=5.5, priority=7, metadata="mine", born=1234.5)
        info = await tube.peek(full)
        assert info is not None
        assert (info.id, info.tube, info.body, info.state) == (full, stores.tube, b"", "ready")
        assert (info.priority, info.ttr, info.born, info.metadata) == (7, 5.5, 1234.5, "mine")
        other = await tube.peek(plain)
        assert other is not None
        assert (other.priority, other.ttr, other.metadata) == (1024, 90, "")
        assert before - 5 < other.born < time.time() + 5
        for wrong in ({"delay": -1}, {"ttr": 2**32}, {"priority": -1}, {"priority": 2**32}, {"metadata": "x" * 65536}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                await tube.put(b"", **wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="body"):
            await tube.put(b"x" * 2_000_000)
        with pytest.raises(TypeError, match="bytes"):
            await tube.put("text")  # type: ignore[arg-type]
        assert (await tube.stats()).jobs == 2

    stores.run(check)


def test_ttr_0_never_times_out(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for ttr in (None, 0, timedelta()):
            await tube.put(b"for ever", ttr=ttr)
            job = await reserved(tube)
            assert (job.ttr, job.time_left) == (0, float("inf"))
            await job.touch()
            await job.delete()

    stores.run(check)


def test_a_time_to_run_ends(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"short", ttr=0.05)
        job = await reserved(tube)
        lost = asyncio.Event()
        job.when_lost(lost.set)
        await asyncio.wait_for(lost.wait(), 5)
        assert not job.held
        again = await reserved(tube)
        assert again.id == job_id
        assert await job.delete() is False
        assert await again.delete() is True
        info = await tube.peek(job_id)
        assert info is None

    stores.run(check)


def test_delay(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        began = time.monotonic()
        await tube.put(b"later", delay=0.1)
        await tube.put(b"much later", delay=100)
        assert await tube.reserve(0) is None
        first = await tube.peek_delayed()
        assert first is not None
        assert (first.state, first.body, first.delay) == ("delayed", b"later", 0.1)
        job = await reserved(tube)
        assert job.body == b"later"
        assert time.monotonic() - began > 0.09
        assert (await tube.stats()).delayed == 1

    stores.run(check)


def test_compress(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(SQUEEZABLE)
        stats = await tube.stats()
        assert (stats.job_size, stats.skipped_size) == (len(SQUEEZABLE), 0)
        assert stats.used_size < len(SQUEEZABLE) / 10
        await tube.put(RANDOM)
        await tube.put(SQUEEZABLE, compress=False)
        await tube.put(b"small")
        grown = await tube.stats()
        assert grown.job_size == 2 * len(SQUEEZABLE) + len(RANDOM) + 5
        assert grown.used_size == stats.used_size + len(RANDOM) + len(SQUEEZABLE) + 5
        assert grown.skipped_size == len(RANDOM)
        bodies = [job.body for job in await tube.reserve_many(4, 1)]
        bodies += [job.body for job in await tube.reserve_many(4, 0)]
        assert sorted(bodies) == sorted([SQUEEZABLE, RANDOM, SQUEEZABLE, b"small"])

    stores.run(check)


def test_ids(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    counted: list[tuple[str, int]] = []

    class Metrics:
        def count(self, event: str, tube: str, number: int) -> None:  # noqa: ARG002
            counted.append((event, number))

        def timing(self, event: str, tube: str, seconds: float) -> None:
            pass

    async def first(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        ids.extend([await tube.put(b"") for _ in range(20)])
        assert ("ids.low", 1) not in counted
        # As when two thirds of all ids are gone.
        conn._core.ids_low(tube.name, IDS_LOW + 1)
        conn._core.ids_low(tube.name, IDS_LOW + 2)

    async def second(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        ids.extend([await tube.put(b"") for _ in range(20)])

    ids: list[int] = []
    stores.run(first, metrics=Metrics())
    if stores.name != "memory":
        stores.run(second)
        assert len(ids) == 40
    assert len(set(ids)) == len(ids)
    assert all(0 < number < IDS_LOW for number in ids)
    assert counted.count(("ids.low", 1)) == 2
    assert caplog.text.count("two thirds of all ids") == 1


def test_put_retries(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        engine = conn._core.broker.engine
        put = type(engine).put
        failures: list[Exception] = []

        def failing(self: Any, *args: Any) -> Any:
            if failures:
                later = beanspiked.engine.later.Later()  # type: ignore[attr-defined]
                later.settle(failures.pop())
                return later
            return put(self, *args)

        class Failing:
            def __getattr__(self, name: str) -> Any:
                return (lambda *args: failing(engine, *args)) if name == "put" else getattr(engine, name)

        monkeypatch.setattr(conn._core, "broker", _Proxy(conn._core.broker, Failing()))
        failures += [StoreFailed("away"), StoreFailed("away")]
        await tube.put(b"third time lucky")
        failures += [StoreFailed("away")] * 3
        with pytest.raises(StoreFailed):
            await tube.put(b"never")
        failures += [OutcomeUnknown("it may be there")]
        with pytest.raises(OutcomeUnknown):
            await tube.put(b"once at most")
        assert not failures
        assert (await tube.stats()).jobs == 1

    stores.run(check, put_retry=beanspiked.Retry(attempts=3, first=0.001))


class _Proxy:
    """A broker with another engine."""

    def __init__(self, broker: Any, engine: Any) -> None:
        self._broker = broker
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

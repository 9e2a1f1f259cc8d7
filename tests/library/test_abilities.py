"""What go-beanspike's users have, ability by ability, on every store; the names are those of its list of abilities.

go-beanspike (https://github.com/redsift/go-beanspike) is the library whose users should find everything here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from asd import NAMESPACE
from ports import free_port

import beanspiked
from beanspiked.engine.errors import OutcomeUnknown, StoreFailed
from beanspiked.library.conn import DEFAULT_HOST, Conn, _store_of
from beanspiked.library.tube import IDS_LOW, TubeStats

if TYPE_CHECKING:
    from stores import Stores

# More than compression begins with, and of use to it or not.
SQUEEZABLE = b"as compressible as can be " * 200
RANDOM = random.Random(1).randbytes(5000)


# --- connecting


@pytest.mark.parametrize(
    ("environ", "hosts"),
    [
        ({}, [(DEFAULT_HOST, 3000)]),
        ({"AEROSPIKE_HOST": "db1"}, [("db1", 3000)]),
        ({"AEROSPIKE_HOST": "db1", "AEROSPIKE_PORT": "4000"}, [("db1", 4000)]),
        ({"AEROSPIKE_PORT": "tcp://172.17.0.5:3100"}, [("172.17.0.5", 3100)]),
    ],
)
def test_connect_with_defaults(environ: dict[str, str], hosts: list[tuple[str, int]]) -> None:
    conn = beanspiked.dial_default(environ)
    assert [(host, port) for host, port, _ in conn._store.hosts] == hosts  # type: ignore[union-attr]
    assert conn._store.namespace == "beanspike"  # type: ignore[union-attr]


def test_connect_with_defaults_to_a_cluster(address: tuple[str, int]) -> None:
    host, port = address

    async def check() -> None:
        environ = {"AEROSPIKE_HOST": host, "AEROSPIKE_PORT": f"tcp://{host}:{port}", "AEROSPIKE_NAMESPACE": NAMESPACE}
        for dialled in (beanspiked.dial_default(environ), beanspiked.dial(host, port, NAMESPACE)):
            async with dialled as conn:
                tube = conn.use("test-connect-with-defaults")
                assert await tube.delete(await tube.put(b"x"))

    asyncio.run(check())


def test_connect_and_keep_trying_a_cluster_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        url = f"aerospike://127.0.0.1:{free_port()}/{NAMESPACE}"
        with pytest.raises(beanspiked.StoreUnusable):
            await beanspiked.connect(url, retry=beanspiked.Retry(attempts=2, first=0.01))
        trying = asyncio.create_task(beanspiked.connect(url, retry=beanspiked.Retry(first=0.01)).open())
        await asyncio.sleep(0.1)
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying

    asyncio.run(check())
    assert "not connected after 1 tries" in caplog.text


@pytest.mark.parametrize("variable", ["AEROSPIKE_HOST", "AEROSPIKE_PORT"])
def test_connect_with_defaults_names_a_malformed_variable(variable: str) -> None:
    with pytest.raises(ValueError, match=variable):
        beanspiked.dial_default({variable: "no such: thing"})


def test_connect_explicitly(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        assert conn.client_id == "me"
        assert await conn.use(stores.tube).put(b"x") > 0
        await conn.delete_tube(stores.tube)

    stores.run(check, client_id="me")
    assert len({beanspiked.dial("db1", 3000).client_id for _ in range(3)}) == 3


@pytest.mark.parametrize("url", ["", "memory", "sqlite:", "aerospike://", "aerospike://host", "http://x/y"])
def test_connect_explicitly_refuses_what_is_no_store(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        beanspiked.connect(url)


def test_connect_and_keep_trying(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        async with beanspiked.connect(f"sqlite:{tmp_path}/jobs"):
            with pytest.raises(beanspiked.StoreUnusable):
                await beanspiked.connect(f"sqlite:{tmp_path}/jobs")
            with pytest.raises(beanspiked.StoreUnusable):
                await beanspiked.connect(f"sqlite:{tmp_path}/jobs", retry=beanspiked.Retry(attempts=3, first=0.001))
            trying = asyncio.create_task(
                beanspiked.connect(f"sqlite:{tmp_path}/jobs", retry=beanspiked.Retry(first=0.001, longest=0.001)).open()
            )
            while "after 41 tries" not in caplog.text:  # noqa: ASYNC110 - that is what is to be seen
                await asyncio.sleep(0.001)
            cancelled = asyncio.create_task(
                beanspiked.connect(f"sqlite:{tmp_path}/jobs", retry=beanspiked.Retry()).open()
            )
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        await (await trying).close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(check())
    # Once in twenty tries.
    assert caplog.text.count("not connected after") <= 4 + 1000 // 20


# --- tubes and puts


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
            job = await tube.reserve(1)
            assert job is not None
            assert (job.ttr, job.time_left) == (0, float("inf"))
            await job.touch()
            await job.delete()

    stores.run(check)


def test_a_time_to_run_ends(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"short", ttr=0.05)
        job = await tube.reserve(1)
        assert job is not None
        lost = asyncio.Event()
        job.when_lost(lost.set)
        await asyncio.wait_for(lost.wait(), 5)
        assert not job.held
        again = await tube.reserve(2)
        assert again is not None
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
        job = await tube.reserve(5)
        assert job is not None
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
    assert caplog.text.count("near their end") == 1


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


# --- reserving


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
        assert [(await tube.reserve(1)).body for _ in range(3)] == [b"10", b"20", b"30"]  # type: ignore[union-attr]

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
                job = await tube.reserve(5)
            assert job is not None
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
        job = await tube.reserve(1)
        assert job is not None
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


# --- letting go


def test_release(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x", priority=9, ttr=50)
        job = await tube.reserve(1)
        assert job is not None
        await job.release()
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.priority, info.releases, info.retries) == ("ready", 9, 1, 0)
        job = await tube.reserve(1)
        assert job is not None
        await job.release(100, priority=3)
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.priority, info.delay) == ("delayed", 3, 100)
        assert 99 < info.time_left <= 100
        with pytest.raises(beanspiked.JobLost):
            await job.release()

    stores.run(check)


def test_retry_count(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", metadata="kept")

        async def again(**how: Any) -> tuple[int, bool]:
            job = await tube.reserve(5)
            assert job is not None
            await job.release(**how)
            job = await tube.reserve(5)
            assert job is not None
            found = job.retries, job.failed
            assert job.metadata == "kept"
            await job.release()
            return found

        # Only the flag is set: once, at least.
        assert await again(failed=True) == (1, True)
        assert await again() == (0, False)
        assert await again(count_retry=True, failed=True) == (1, True)
        assert await again(count_retry=True) == (2, False)
        assert await again() == (2, False)

    stores.run(check)


def test_bury_with_a_reason(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x", metadata="mine")
        assert await tube.find("mine") == [job_id]
        job = await tube.reserve(1)
        assert job is not None
        await job.bury("it is broken: é")
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.reason, info.buries) == ("buried", "it is broken: é", 1)
        assert await tube.find("mine") == []
        with pytest.raises(ValueError, match="reason"):
            await job.bury("x" * 65536)

    stores.run(check)


def test_kick_one_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        delayed = await tube.put(b"delayed", delay=100)
        buried = await tube.put(b"buried", metadata="mine")
        job = await tube.reserve(1)
        assert job is not None
        await job.bury("why")
        await tube.kick_job(delayed)
        await tube.kick_job(buried)
        info = await tube.peek(buried)
        assert info is not None
        assert (info.state, info.reason, info.kicks, info.metadata) == ("ready", "", 1, "mine")
        assert await tube.find("mine") == [buried]
        with pytest.raises(beanspiked.NotKickable):
            await tube.kick_job(buried)
        with pytest.raises(beanspiked.JobNotFound):
            await tube.kick_job(2**62)
        for _ in range(2):
            job = await tube.reserve(1)
            assert job is not None
            await job.bury()
        assert (await tube.kick(1), await tube.kick(5), await tube.kick(5)) == (1, 1, 0)

    stores.run(check)


def test_peek_buried(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        assert (await tube.peek_buried(), await tube.peek_ready(), await tube.peek_delayed()) == (None, None, None)
        for body in (b"first", b"second"):
            await tube.put(body)
            job = await tube.reserve(1)
            assert job is not None
            await job.bury(f"because of {body.decode()}")
            # Burials are told apart by the millisecond.
            await asyncio.sleep(0.002)
        await tube.put(SQUEEZABLE)
        info = await tube.peek_buried()
        assert info is not None
        assert (info.body, info.reason) == (b"first", "because of first")
        ready = await tube.peek_ready()
        assert ready is not None
        assert ready.body == SQUEEZABLE
        assert await tube.peek(2**62) is None

    stores.run(check)


@pytest.mark.parametrize("body", [b"", b"token", SQUEEZABLE, RANDOM], ids=["empty", "small", "squeezed", "large"])
def test_update_a_body(stores: Stores, body: bytes) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for first in (b"old", RANDOM[::-1]):
            job_id = await tube.put(first, ttr=60, metadata="m")
            job = await tube.reserve(1)
            assert job is not None
            await job.update(body)
            assert (job.body, job.held) == (body, True)
            await job.release()
            job = await tube.reserve(1)
            assert job is not None
            assert (job.id, job.body, job.metadata) == (job_id, body, "m")
            stats = await tube.stats()
            assert (stats.jobs, stats.job_size) == (1, len(body))
            assert await job.delete() is True

    stores.run(check)


def test_delete(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x")
        job = await tube.reserve(1)
        assert job is not None
        assert await job.delete() is True
        assert await job.delete() is False
        assert await tube.peek(job_id) is None
        assert (await tube.stats()).deleted == 1

    stores.run(check)


# --- looking at tubes


def test_stats(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        assert await tube.stats() == TubeStats()
        for body in (b"r", b"rr", b"rrr", b"b"):
            await tube.put(body, priority=2000 - len(body))
        await tube.put(b"dddd", delay=100)
        for _ in range(2):
            job = await tube.reserve(1)
            assert job is not None
            if job.body == b"rr":
                await job.bury()
        job = await tube.reserve(1)
        assert job is not None
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
        held = await tube.reserve(1)
        assert held is not None
        assert await tube.find("a") == wanted
        assert await tube.find("c") == []
        with pytest.raises(ValueError, match="nothing to find"):
            await tube.find("")

    stores.run(check)


def test_delete_a_tube(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        other = conn.use(f"{stores.tube}-other")
        await other.put(b"stays")
        ids = [await tube.put(SQUEEZABLE[:3000]) for _ in range(3)]
        ids.append(await tube.put(b"", delay=100))
        held = await tube.reserve(1)
        buried = await tube.reserve(1)
        assert held is not None
        assert buried is not None
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
        job = await tube.reserve(1)
        assert job is not None
        assert job.body == b"new"
        await conn.delete_tube(f"{stores.tube}-never")

    stores.run(check)


def test_admin_is_nobodys_duty(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"due", delay=0.05)
        await tube.put(b"runs out", ttr=0.05)
        first = await tube.reserve(1)
        assert first is not None
        assert first.body == b"runs out"
        bodies = [(await tube.reserve(5)).body for _ in range(2)]  # type: ignore[union-attr]
        assert sorted(bodies) == [b"due", b"runs out"]

    stores.run(check)


def test_monitor_a_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=0.1)
        job = await tube.reserve(1)
        assert job is not None
        async with job.keep_alive():
            await asyncio.sleep(0.35)
            assert job.held
        await job.release()
        job = await tube.reserve(1)
        assert job is not None
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
        job = await tube.reserve(1)
        assert job is not None
        await job.update(b"y")
        await job.release()
        job = await tube.reserve(1)
        assert job is not None
        await job.delete()
        job = await tube.reserve(1)
        assert job is not None
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
        job = await tube.reserve(1)
        assert job is not None
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
    assert any("failed, try 1" in record.getMessage() and record.exc_info for record in records)


async def _buried(tube: beanspiked.Tube) -> bool:
    while (await tube.stats()).buried == 0:  # noqa: ASYNC110 - that is what is to be seen
        await asyncio.sleep(0.01)
    return True


def test_a_store_is_told_by_its_url() -> None:
    assert _store_of("memory:") is None
    assert _store_of("sqlite:a/b") == "a/b"
    assert str(_store_of("aerospike://h/ns?prefix=p_")) == "aerospike://h:3000/ns?prefix=p_"

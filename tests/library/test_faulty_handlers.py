"""A worker outlives what its handlers do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import beanspiked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stores import Stores

    from beanspiked import Conn, Job


async def fails(body: bytes, job: Job) -> None:  # noqa: ARG001
    # Half of a pair: no UTF-8 can be made of it.
    raise ValueError("\ud800")


class Unspeakable(Exception):  # noqa: N818 - it cannot say what is wrong
    """An error without a text."""

    def __str__(self) -> str:
        raise KeyError("what")


async def cannot_say_why(body: bytes, job: Job) -> None:  # noqa: ARG001
    raise Unspeakable


async def says_too_much(body: bytes, job: Job) -> None:  # noqa: ARG001
    # No reason may be that long.
    raise ValueError("x" * 70_000)


async def ends_no_generator(body: bytes, job: Job) -> None:  # noqa: ARG001
    raise GeneratorExit


class Panic(BaseException):
    """What a module that is written in Rust raises when it panics."""


async def panics(body: bytes, job: Job) -> None:  # noqa: ARG001
    raise Panic


async def waits_for_what_was_cancelled(body: bytes, job: Job) -> None:  # noqa: ARG001
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def learns_of_another_jobs_loss(body: bytes, job: Job) -> None:  # noqa: ARG001
    raise beanspiked.JobLost("another one")


@pytest.fixture
def unlogged() -> Iterator[None]:
    """What handlers fail with here cannot be passed on to whoever collects the tests' logs."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize(
    "handler",
    [
        fails,
        cannot_say_why,
        says_too_much,
        panics,
        ends_no_generator,
        waits_for_what_was_cancelled,
        learns_of_another_jobs_loss,
    ],
)
def test_a_worker_outlives_its_handlers_faults(stores: Stores, handler: Any) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(4):
            await tube.put(b"", ttr=60)

        async def all_buried() -> None:
            while (await tube.stats()).buried < 4:  # noqa: ASYNC110 - that is what is to be seen
                await asyncio.sleep(0.01)

        backoff = beanspiked.Retry(first=0.001, longest=0.001)
        async with beanspiked.Worker(tube, handler, concurrency=2, max_attempts=2, backoff=backoff):
            await asyncio.wait_for(all_buried(), 10)

    stores.run(check)


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize(
    ("error", "reason"), [(Unspeakable, "Unspeakable"), (Panic, "Panic: "), (GeneratorExit, "GeneratorExit: ")]
)
def test_a_worker_outlives_its_decoders_faults(stores: Stores, error: type[BaseException], reason: str) -> None:
    def decoder(body: bytes) -> bytes:  # noqa: ARG001
        raise error

    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(2):
            await tube.put(b"", ttr=60)
        async with beanspiked.Worker(tube, fails, decoder=decoder):
            async with asyncio.timeout(10):
                while (await tube.stats()).buried < 2:  # noqa: ASYNC110 - that is what is to be seen
                    await asyncio.sleep(0.01)
        buried = await tube.peek_buried()
        assert buried is not None
        assert buried.reason == reason

    stores.run(check)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_program_that_a_handler_ends_leaves_its_store(error: type[BaseException]) -> None:
    conns: list[Conn] = []

    async def ends(body: bytes, job: Job) -> None:  # noqa: ARG001
        raise error

    async def main() -> None:
        async with beanspiked.connect("memory:") as conn:
            conns.append(conn)
            tube = conn.use("t")
            await tube.put(b"")
            async with beanspiked.Worker(tube, ends, concurrency=2):
                await asyncio.sleep(10)

    with pytest.raises(error):
        asyncio.run(main())
    assert conns[0].closed


@pytest.mark.usefixtures("unlogged")
def test_a_pause_that_is_longer_than_a_delay_may_be_is_the_longest_delay(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for _ in range(2):
            await tube.put(b"", ttr=60)
        async with beanspiked.Worker(tube, fails, backoff=beanspiked.Retry(first=1e12, longest=1e12)):
            async with asyncio.timeout(10):
                while (await tube.stats()).delayed < 2:  # noqa: ASYNC110 - that is what is to be seen
                    await asyncio.sleep(0.01)

    stores.run(check)


def test_a_handler_that_is_not_async_works_on_a_job_once(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        seen: list[bytes] = []
        await tube.put(b"x", ttr=60)

        async def deleted() -> None:
            while not (await tube.stats()).deleted:  # noqa: ASYNC110 - that is what is to be seen
                await asyncio.sleep(0.01)

        handler: Any = lambda body, job: seen.append(body)  # noqa: ARG005, E731
        async with beanspiked.Worker(tube, handler, backoff=beanspiked.Retry(first=0.001)):
            await asyncio.wait_for(deleted(), 10)
        assert seen == [b"x"]

    stores.run(check)


def test_a_handler_that_yields_is_refused() -> None:
    async def yields(body: bytes, job: Job) -> Any:
        yield body, job

    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            with pytest.raises(TypeError, match="yield"):
                beanspiked.Worker(conn.use("a"), yields)

    asyncio.run(check())


def test_a_handler_that_swallows_its_cancellation_does_not_stop_its_worker(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        seen: list[bytes] = []
        last = asyncio.Event()

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            seen.append(body)
            if body == b"last":
                last.set()
                return
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

        async with beanspiked.Worker(tube, handle):
            for number in range(3):
                await tube.put(b"%d" % number, ttr=60)
                while len(seen) <= number:  # noqa: ASYNC110 - that is what is to be seen
                    await asyncio.sleep(0.005)
                await conn.delete_tube(stores.tube)
            await tube.put(b"last", ttr=60)
            await asyncio.wait_for(last.wait(), 5)

    stores.run(check)


def test_a_handler_that_cancels_itself_and_goes_on_leaves_the_next_ones_faults_what_they_are(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)

        async def handle(body: bytes, job: Job) -> None:
            if body == b"first":
                this = asyncio.current_task()
                assert this is not None
                this.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
            else:
                await waits_for_what_was_cancelled(body, job)

        await tube.put(b"first", priority=0, ttr=60)
        await tube.put(b"second", ttr=60)
        async with beanspiked.Worker(tube, handle, max_attempts=1):
            async with asyncio.timeout(10):
                while (await tube.stats()).buried < 1:  # noqa: ASYNC110 - that is what is to be seen
                    await asyncio.sleep(0.01)

    stores.run(check)


def test_a_handler_that_somebody_cancels_has_failed_and_its_worker_works_on(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        handlers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            handlers.put_nowait(asyncio.current_task())
            if body == b"long":
                await asyncio.sleep(60)

        async with asyncio.timeout(10), beanspiked.Worker(tube, handle, max_attempts=1):
            for body in (b"long", b"short", b"last"):
                await tube.put(body, ttr=60)
                handler = await handlers.get()
                assert handler is not None
                # The short ones may be over: then there is nothing to cancel.
                await asyncio.sleep(0.02)
                handler.cancel()
            while (await tube.stats()).jobs > 1:  # noqa: ASYNC110 - that is what is to be seen
                await asyncio.sleep(0.01)
        buried = await tube.peek_buried()
        assert buried is not None
        assert (buried.body, buried.reason) == (b"long", "CancelledError: ")

    stores.run(check)


def test_a_handler_that_ends_as_its_worker_is_stopped_has_done_its_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=60)

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            worker.stop()

        worker = beanspiked.Worker(tube, handle)
        await worker.run()
        assert (await tube.stats()).jobs == 0

    stores.run(check)


def test_a_job_that_always_takes_longer_than_it_may_is_buried(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=0.05)

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            # Nothing can be touched meanwhile.
            time.sleep(0.1)  # noqa: ASYNC251
            await asyncio.sleep(0.02)

        async def buried() -> None:
            while (await tube.stats()).buried == 0:  # noqa: ASYNC110 - that is what is to be seen
                await asyncio.sleep(0.02)

        async with beanspiked.Worker(tube, handle, max_attempts=3):
            await asyncio.wait_for(buried(), 10)

    stores.run(check)


def not_decodable(_: bytes) -> bytes:
    raise beanspiked.DecodingError("it is malformed")


@pytest.mark.parametrize("decoder", [None, not_decodable])
def test_a_worker_that_never_waits_lets_others_go_on(decoder: Callable[[bytes], bytes] | None) -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            tube = conn.use("testtube")
            for _ in range(2000):
                await tube.put(b"")
            turns = 0

            async def handle(body: bytes, job: Job) -> None:
                """Do it at once."""

            async with beanspiked.Worker(tube, handle, decoder=decoder):
                while (now := await tube.stats()).jobs > now.buried:
                    turns += 1
                    await asyncio.sleep(0)
            assert turns > 100

    asyncio.run(check())


TWO_WORKERS = """
import asyncio, os, signal, beanspiked

async def handle(body, job):
    pass

async def main():
    async with beanspiked.connect("memory:") as conn:
        workers = [beanspiked.Worker(conn.use(name), handle) for name in "ab"]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.gather(*running)
        print("done")

asyncio.run(main())
"""


def test_a_signal_stops_all_workers_of_a_program() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_WORKERS], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "done\n", done.stderr

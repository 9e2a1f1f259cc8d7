"""A worker that is closed while it waits for itself or for its store ends, and loses no outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from stores import reserved

import beanspiked
from beanspiked.library import worker as worker_module

if TYPE_CHECKING:
    from stores import Stores

    from beanspiked import Conn, Job


def test_a_handler_that_closes_its_worker_goes_on_and_its_job_is_done(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=60)
        went_on = asyncio.Event()

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            await worker.close()
            went_on.set()

        worker: beanspiked.Worker[bytes] = beanspiked.Worker(tube, handle)
        worker.start()
        await asyncio.wait_for(went_on.wait(), 10)
        await worker.close()
        assert (await tube.stats()).jobs == 0

    stores.run(check)


def test_closing_does_not_wait_for_the_next_try_of_a_store_that_fails(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STORE_AGAIN", beanspiked.Retry(first=60.0, longest=60.0))

    async def handle(body: bytes, job: Job) -> None:
        """Never called."""

    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        failed = asyncio.Event()

        async def fail() -> Job:
            failed.set()
            raise beanspiked.StoreFailed("no answer")

        monkeypatch.setattr(tube, "reserve", fail)
        worker: beanspiked.Worker[bytes] = beanspiked.Worker(tube, handle)
        worker.start()
        await asyncio.wait_for(failed.wait(), 10)
        await asyncio.sleep(0)
        await asyncio.wait_for(worker.close(), 5)

    stores.run(check)


def test_a_connection_ends_the_handlers_that_a_cancelled_close_was_waiting_for(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"", ttr=60)
        begun = asyncio.Event()
        ended = False

        async def handle(body: bytes, job: Job) -> None:  # noqa: ARG001
            nonlocal ended
            begun.set()
            try:
                await asyncio.sleep(600)
            finally:
                await asyncio.sleep(0.05)
                ended = job.held

        worker = beanspiked.Worker(tube, handle)
        worker.start()
        await begun.wait()
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await conn.close()
        assert ended
        assert "was lost" not in caplog.text

    stores.run(check)


def test_a_worker_is_started_once(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        async def handle(body: bytes, job: Job) -> None:
            """Never called."""

        async with beanspiked.Worker(conn.use(stores.tube), handle) as worker:
            with pytest.raises(ValueError, match="a worker is started once"):
                worker.start()

    stores.run(check)


def test_a_closer_that_raises_keeps_no_connection_from_its_end(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"", ttr=60)
        job = await reserved(tube)

        async def broken() -> None:
            raise ValueError("a fault")

        conn.before_close(broken)
        await conn.close()
        assert conn.closed
        assert not job.held
        assert "ValueError: a fault" in caplog.text

    stores.run(check)

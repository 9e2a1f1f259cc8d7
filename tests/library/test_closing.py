"""What a program that closes its connection leaves in its journal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import beanspiked

if TYPE_CHECKING:
    from pathlib import Path

    from beanspiked import Conn


def test_closing_keeps_how_often_jobs_were_reserved(tmp_path: Path) -> None:
    async def reserve() -> None:
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}") as conn:
            tube = conn.use("a")
            await tube.put(b"x")
            assert await tube.reserve(1) is not None

    asyncio.run(reserve())
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")) as database:
        assert database.execute("SELECT state, reserves FROM job").fetchall() == [(0, 1)]


def test_a_directory_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    async def connect() -> None:
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}"):
            pass

    asyncio.run(connect())
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700


def test_a_connection_that_was_closed_is_not_opened(tmp_path: Path) -> None:
    async def open_closed() -> None:
        conn = beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}")
        await conn.close()
        with pytest.raises(beanspiked.ConnClosed):
            await conn.open()
        # The journal is free.
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}"):
            pass

    asyncio.run(open_closed())


def test_a_connection_that_is_closed_while_it_opens_leaves_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close_meanwhile() -> None:
        conn = beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}")
        start = conn._start

        async def start_late(*args: Any) -> Any:
            await conn.close()
            return await start(*args)

        monkeypatch.setattr(conn, "_start", start_late)
        with pytest.raises(beanspiked.ConnClosed):
            await conn.open()
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}"):
            pass

    asyncio.run(close_meanwhile())


def test_a_task_that_is_cancelled_as_its_event_loop_ends_leaves_the_store(tmp_path: Path) -> None:
    conns: list[Conn] = []

    async def hold(begun: asyncio.Event) -> None:
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}") as conn:
            conns.append(conn)
            begun.set()
            await asyncio.Event().wait()

    async def cancel_and_end() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(hold(begun))
        await begun.wait()
        task.cancel()

    for _ in range(2):
        asyncio.run(cancel_and_end())
        assert conns.pop().closed


def test_changes_on_their_way_are_written_although_their_event_loop_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    failed: list[threading.Thread | None] = []
    sync = os.fdatasync
    others = set(threading.enumerate())

    def late(fd: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise OSError("left to the writer")
        begun.set()
        ended.wait(10)
        sync(fd)

    async def forget_to_close() -> Conn:
        conn = await beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}")
        monkeypatch.setattr(os, "fdatasync", late)
        put = asyncio.create_task(conn.use("a").put(b"x"))
        assert await asyncio.to_thread(begun.wait, 10)
        assert not put.done()
        return conn

    monkeypatch.setattr(threading, "excepthook", lambda error: failed.append(error.thread))
    conn = asyncio.run(forget_to_close())
    ended.set()
    # Its threads end once they have written everything. The connection itself cannot be closed any more.
    conn._core.broker.engine.close()
    until = time.monotonic() + 10
    for thread in set(threading.enumerate()) - others:
        thread.join(until - time.monotonic())
        assert not thread.is_alive()
    assert others.issuperset(failed)
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")) as database:
        assert database.execute("SELECT body FROM job").fetchall() == [(b"x",)]

"""What a program that closes its connection leaves in its journal."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest

import beanspiked

if TYPE_CHECKING:
    from pathlib import Path


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

"""A journal that gets too little memory, or no threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

import beanspiked
from beanspiked.engine.embedded import folder as folder_module
from beanspiked.engine.errors import StoreFull, StoreUnusable

if TYPE_CHECKING:
    from pathlib import Path

    from journals import Stores

    from beanspiked.engine.later import Later


@pytest.mark.parametrize("started", [0, 1])
def test_without_threads_a_journal_is_refused_and_can_be_opened_later(
    started: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        nonlocal count
        count += 1
        if count > started:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def put() -> None:
        async with beanspiked.connect(f"sqlite:{tmp_path}") as conn:
            await conn.use("tube").put(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(StoreUnusable, match="can't start new thread"):
            asyncio.run(put())
    asyncio.run(put())


def test_without_memory_to_fold_the_log_puts_are_refused_and_deletes_are_not(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    def put() -> Later:
        later = store.engine.put(store.engine.tube("default"), store.engine.new_id(), 1, 0, 60, b"x")
        store.wait(later)
        assert later is not None
        return later

    store = stores.open()
    first = store.put()
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "read_part", no_memory)
        assert not store.fold()
        assert isinstance(put().error, StoreFull)
        store.wait(store.engine.delete(store.job(first)))
    assert store.fold()
    assert put().error is None
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "there is not enough memory to fold the log; changes are refused until a write succeeds"
    ]

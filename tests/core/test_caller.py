"""Which calls of the store wait behind which: a heartbeat behind none, and nothing behind those that may take long."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.store.aerospike import room, udf
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.aerospike.calls import SLOW_THREADS, THREADS, Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# More than there are threads of a kind.
MANY = SLOW_THREADS + THREADS


class Stuck:
    """Calls that do not end before they are let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, *_: object, **__: object) -> Any:
        self.begun.release()
        self.go_on.wait(30)
        return SimpleNamespace(results=lambda _: [])


async def beside(stuck: Stuck, slow: Callable[[], Awaitable[object]], begun: int, other: Awaitable[object]) -> None:
    """Do something, within little time, while calls are stuck."""
    waiting = [asyncio.ensure_future(slow()) for _ in range(MANY)]
    for _ in range(begun):
        assert await asyncio.to_thread(stuck.begun.acquire, timeout=10)
    try:
        await asyncio.wait_for(other, 10)
    finally:
        stuck.go_on.set()
        await asyncio.gather(*waiting, return_exceptions=True)


def test_a_heartbeat_does_not_wait_behind_any_other_call() -> None:
    caller, stuck = Caller(object()), Stuck()
    asyncio.run(beside(stuck, partial(caller.call, stuck), THREADS, caller.beat(lambda: None)))
    caller.close()


def test_a_heartbeat_does_not_wait_behind_slow_calls() -> None:
    caller, stuck = Caller(object()), Stuck()
    asyncio.run(beside(stuck, partial(caller.call_slow, stuck), SLOW_THREADS, caller.beat(lambda: None)))
    caller.close()


@pytest.mark.parametrize("name", ["leased_by", "has_room", "tube_sizes"])
def test_what_asks_all_nodes_keeps_no_other_call_waiting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck()
    monkeypatch.setattr(room, "has_room", stuck)
    monkeypatch.setattr(udf, "sizes", stuck)
    client = SimpleNamespace(query=stuck, get=lambda *_: (None, None, {"numbers": {}}))
    store = AerospikeStore(client, "test")
    arguments = {"leased_by": (7,), "has_room": (), "tube_sizes": ("t",)}[name]
    asyncio.run(beside(stuck, partial(getattr(store, name), *arguments), SLOW_THREADS, store.sessions()))
    store.caller.close()

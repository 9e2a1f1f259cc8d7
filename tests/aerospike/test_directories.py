"""What every store must keep of tubes: their segments, pauses and counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from memory import MemoryStore
from segments import RECORDS, run

from beanspiked.engine.aerospike.store.seam import Directory

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.seam import SegmentStore


def test_a_directory_lists_what_was_entered_and_not_taken_out(store: SegmentStore) -> None:
    async def check() -> None:
        for number in (3, 1, 2, 3, RECORDS + 1):
            await store.enlist("tube", number)
        await store.enlist("other", 9)
        for _ in range(2):
            await store.unlist("tube", 2)
        assert await store.directory("tube") == Directory([1, 3, RECORDS + 1])
        await store.unlist("other", 9)
        assert await store.directory("other") == Directory([])

    run(check())


def test_a_tube_that_never_had_anything_has_no_directory(store: SegmentStore) -> None:
    async def check() -> None:
        await store.unlist("tube", 1)
        assert await store.directory("tube") is None

    run(check())


def test_directories_of_many_tubes_are_read_together(store: SegmentStore) -> None:
    async def check() -> None:
        await store.enlist("a", 1)
        await store.enlist("c", 3)
        await store.pause("c", 5, 6)
        assert await store.directories(["c", "b", "a"]) == [Directory([3], 5, 6), None, Directory([1])]
        assert await store.directories([]) == []

    run(check())


def test_a_pause_lasts_until_it_is_ended(store: SegmentStore) -> None:
    async def check() -> None:
        await store.enlist("tube", 1)
        await store.pause("tube", 5000, 2**41)
        assert await store.directory("tube") == Directory([1], 5000, 2**41)
        await store.pause("tube", 7000, 2**41 + 1)
        assert await store.directory("tube") == Directory([1], 7000, 2**41 + 1)
        await store.pause("tube", 0, 0)
        assert await store.directory("tube") == Directory([1])

    run(check())


def test_a_tube_without_a_segment_may_be_paused(store: SegmentStore) -> None:
    async def check() -> None:
        await store.pause("tube", 1, 2)
        await store.unlist("tube", 1)
        assert await store.directory("tube") == Directory([], 1, 2)
        await store.enlist("tube", 1)
        assert await store.directory("tube") == Directory([1], 1, 2)

    run(check())


def test_counters_add_up(store: SegmentStore) -> None:
    async def check() -> None:
        await store.add_counters("new", {"total_jobs": 1})
        await store.enlist("tube", 1)
        await store.add_counters("tube", {"total_jobs": 5, "deletes": 3, "pauses": 0})
        await store.add_counters("tube", {"total_jobs": 2**40, "pauses": 1})
        counters = {"total_jobs": 5 + 2**40, "deletes": 3, "pauses": 1}
        assert await store.directory("tube") == Directory([1], counters=counters)
        assert await store.directory("new") == Directory([], counters={"total_jobs": 1})

    run(check())


def test_tubes_that_had_a_segment_are_listed_until_they_are_unlisted(store: SegmentStore) -> None:
    async def check() -> None:
        assert await store.tubes() == []
        names = [f"tube-{number}" for number in range(100)]
        for name in reversed(names):
            await store.enlist(name, 1)
        await store.unlist("tube-7", 1)
        await store.pause("paused", 1, 2)
        await store.unlist("never", 1)
        assert await store.tubes() == sorted(names)
        for name in ("tube-7", "tube-7", "tube-8", "paused", "never"):
            await store.unlist_tube(name)
        assert await store.tubes() == sorted({*names} - {"tube-7"})
        assert await store.directories(["tube-7", "paused"]) == [Directory([]), Directory([], 1, 2)]
        await store.enlist("tube-7", 2)
        assert await store.tubes() == sorted(names)

    run(check())


@pytest.mark.parametrize("operations", [1, 2, 3])
def test_a_tube_that_gets_a_segment_while_it_is_unlisted_stays_listed(
    store: SegmentStore, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = isinstance(store, MemoryStore)
    owner, name = (store, "_transport") if memory else (store.caller, "call")  # type: ignore[attr-defined]
    send = getattr(owner, name)
    done = 0

    async def counting(*arguments: Any) -> Any:
        nonlocal done
        result = await send(*arguments)
        done += 1
        if done == operations:
            monkeypatch.setattr(owner, name, send)
            await store.enlist("tube", 2)
        return result

    async def check() -> None:
        await store.enlist("tube", 1)
        await store.unlist("tube", 1)
        monkeypatch.setattr(owner, name, counting)
        await store.unlist_tube("tube")
        assert done == operations
        assert (await store.tubes(), await store.directory("tube")) == (["tube"], Directory([2]))

    run(check())

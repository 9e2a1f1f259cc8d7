"""What every store must keep of tubes: their segments, pages, pauses and counters; and the rings that number segments and pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from memory import MemoryStore
from segments import RECORDS, run

from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.keys import placed, record_of
from beanspiked.engine.aerospike.store.lister import ALIVE_MAX, Lister, Numbers
from beanspiked.engine.aerospike.store.seam import Page, Refused, Ring

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore


async def entry(store: SegmentStore, tube: str) -> Directory | None:
    return (await store.directories([tube]))[0]


def limit(store: SegmentStore, inline: int, page: int) -> None:
    """Let entries and pages hold only so many segments."""
    limits: Any = store._cluster if isinstance(store, MemoryStore) else store
    limits.inline_max, limits.page_max = inline, page


@pytest.fixture
def small(store: SegmentStore) -> Any:
    """A store whose entries hold two segments, and whose pages hold three."""
    before = (128, 512)
    limit(store, 2, 3)
    yield store
    limit(store, *before)


# --- entries


def test_an_entry_lists_what_was_entered_and_not_taken_out(store: SegmentStore) -> None:
    async def check() -> None:
        for number in (3, 1, 2, 3, RECORDS + 1):
            await store.enlist("tube", number)
        await store.enlist("other", 9)
        assert [await store.unlist("tube", 2) for _ in range(2)] == [True, False]
        assert await entry(store, "tube") == Directory([1, 3, RECORDS + 1])

    run(check())


def test_an_entry_goes_with_the_last_that_it_says(store: SegmentStore) -> None:
    async def check() -> None:
        assert not await store.unlist("tube", 1)
        assert await entry(store, "tube") is None
        await store.enlist("tube", 1)
        await store.pause("tube", 1, 2)
        await store.add_counters("tube", {"deletes": 1})
        await store.list_page("tube", 5)
        await store.unlist("tube", 1)
        assert await entry(store, "tube") == Directory([], 1, 2, {"deletes": 1}, [5])
        await store.unlist_page("tube", 5)
        await store.forget_tube("tube")
        assert await entry(store, "tube") is None
        assert await store.tubes() == {}

    run(check())


def test_entries_of_many_tubes_are_read_together(store: SegmentStore) -> None:
    async def check() -> None:
        await store.enlist("a", 1)
        await store.enlist("c", 3)
        await store.pause("c", 5, 6)
        assert await store.directories(["c", "b", "a"]) == [Directory([3], 5, 6), None, Directory([1])]
        assert await store.directories([]) == []

    run(check())


def test_a_tube_whose_name_begins_as_anothers_has_an_entry_of_its_own(store: SegmentStore) -> None:
    async def check() -> None:
        for number, name in enumerate(["t", "ts", "t-", "tt", "t" * 200], 1):
            await store.enlist(name, number)
        assert await entry(store, "t") == Directory([1])
        assert {name: record.segments for name, record in (await store.tubes()).items()} == {
            "t": [1],
            "ts": [2],
            "t-": [3],
            "tt": [4],
            "t" * 200: [5],
        }

    run(check())


def test_a_pause_lasts_until_it_is_ended(store: SegmentStore) -> None:
    async def check() -> None:
        await store.enlist("tube", 1)
        await store.pause("tube", 5000, 2**41)
        assert await entry(store, "tube") == Directory([1], 5000, 2**41)
        await store.pause("tube", 7000, 2**41 + 1)
        assert await entry(store, "tube") == Directory([1], 7000, 2**41 + 1)
        await store.pause("tube", 0, 0)
        assert await entry(store, "tube") == Directory([1])

    run(check())


def test_counters_add_up(store: SegmentStore) -> None:
    async def check() -> None:
        await store.add_counters("new", {"total_jobs": 1})
        await store.add_counters("nothing", {"total_jobs": 0})
        await store.enlist("tube", 1)
        await store.add_counters("tube", {"total_jobs": 5, "deletes": 3, "pauses": 0})
        await store.add_counters("tube", {"total_jobs": 2**40, "pauses": 1})
        counters = {"total_jobs": 5 + 2**40, "deletes": 3, "pauses": 1}
        assert await store.tubes() == {
            "tube": Directory([1], counters=counters),
            "new": Directory([], counters={"total_jobs": 1}),
        }

    run(check())


def test_all_tubes_are_read_with_their_entries(store: SegmentStore) -> None:
    async def check() -> None:
        expected = {f"tube-{number}": Directory([number + 1]) for number in range(100)}
        for name, record in expected.items():
            await store.enlist(name, record.segments[0])
        assert await store.tubes() == expected

    run(check())


# --- pages


def test_an_entry_that_is_full_takes_no_other_segment(small: SegmentStore) -> None:
    async def check() -> None:
        for number in (1, 2, 1):
            await small.enlist("tube", number)
        with pytest.raises(Refused):
            await small.enlist("tube", 3)
        assert await entry(small, "tube") == Directory([1, 2])
        await small.unlist("tube", 1)
        await small.enlist("tube", 3)
        assert await entry(small, "tube") == Directory([2, 3])

    run(check())


def test_a_page_takes_segments_until_it_is_full(small: SegmentStore) -> None:
    async def check() -> None:
        await small.create_page(RECORDS, "tube")
        assert [await small.enter(RECORDS, number) for number in (7, 8, 7, 9, 9)] == [True, True, True, False, False]
        with pytest.raises(Refused):
            await small.enter(RECORDS, 10)
        assert [await small.leave_page(RECORDS, number) for number in (7, 7, 8)] == [2, None, 1]
        assert await small.pages([RECORDS, RECORDS + 1]) == [Page(RECORDS, "tube", [9]), None]

    run(check())


def test_a_page_dies_only_empty_and_takes_nothing_then(small: SegmentStore) -> None:
    async def check() -> None:
        await small.create_page(RECORDS, "tube")
        await small.enter(RECORDS, 7)
        assert not await small.retire_page(RECORDS)
        await small.leave_page(RECORDS, 7)
        assert [await small.retire_page(RECORDS) for _ in range(2)] == [True, True]
        with pytest.raises(Refused):
            await small.enter(RECORDS, 8)
        assert await small.pages([RECORDS]) == [None]
        assert not await small.retire_page(RECORDS + 1)

    run(check())


def test_the_record_of_an_empty_page_is_used_again_under_a_higher_number(small: SegmentStore) -> None:
    async def check() -> None:
        first, second = RECORDS, 2 * RECORDS
        await small.create_page(first, "tube")
        await small.enter(first, 1)
        with pytest.raises(Refused):
            await small.create_page(second, "other")
        await small.leave_page(first, 1)
        await small.create_page(second, "other")
        with pytest.raises(Refused):
            await small.create_page(first, "tube")
        with pytest.raises(Refused):
            await small.enter(first, 1)
        assert await small.leave_page(first, 1) is None
        assert await small.retire_page(first)
        assert await small.pages([first, second]) == [None, Page(second, "other", [])]

    run(check())


def test_a_lister_finds_room_for_any_number_of_segments_and_takes_all_of_them_out_again(small: SegmentStore) -> None:
    async def check() -> None:
        lister, page, where = Lister(small), 0, {}
        for number in range(1, 21):
            where[number] = page
            page = await lister.enlist("tube", number, page)
        record = await entry(small, "tube")
        assert record is not None
        assert (list(record.segments), len(record.pages)) == ([1, 2], 6)
        assert sorted((await lister.everywhere({"tube": record}))["tube"]) == list(range(1, 21))
        for number, page in where.items():
            await lister.unlist("tube", number, page)
            await lister.unlist("tube", number, page)
        assert await small.tubes() == {}

    run(check())


def test_a_segment_is_taken_out_though_it_is_in_another_page_than_it_was_to_be(small: SegmentStore) -> None:
    async def check() -> None:
        lister, page = Lister(small), 0
        for number in range(1, 10):
            page = await lister.enlist("tube", number, page)
        for number in range(1, 10):
            await lister.unlist("tube", number, 77 * RECORDS)
        assert await small.tubes() == {}

    run(check())


# --- numbers


def test_places_are_taken_once_and_a_ring_grows_once(store: SegmentStore) -> None:
    async def check() -> None:
        first = await store.reserve_places("segment", 8)
        size = first.size
        assert (first, await store.reserve_places("segment", 8)) == (Ring(0, size, 1), Ring(8, size, 1))
        await store.reserve_places("segment", 2 * size)
        for _ in range(2):
            await store.grow_ring("segment", size)
        # Two generations, and a part of the third, were given.
        assert await store.reserve_places("segment", 8) == Ring(0, 2 * size, 4)
        assert (await store.reserve_places("page", 1)).base == 1

    run(check())


def test_numbers_rise_at_each_record_however_often_the_ring_grows() -> None:
    from memory import Cluster

    async def check() -> None:
        numbers = Numbers(MemoryStore(Cluster(lambda: 0, records=8)), "segment")
        last: dict[int, int] = {}
        for count in range(3000):
            number = await numbers.take()
            numbers.used()
            assert number > last.get(number % RECORDS, 0)
            last[number % RECORDS] = number
            if count % 500 == 499:
                for _ in range(ALIVE_MAX):
                    numbers.refused()
        assert max(last) < 8 << 6

    run(check())


def test_a_ring_that_has_grown_takes_its_new_records_first() -> None:
    numbers = [placed(n, 64, 5) for n in range(32 + 2 * 64)]
    records = list(map(record_of, numbers))
    assert sorted(records[:32]) == list(range(32, 64))
    assert sorted(records[32:96]) == sorted(records[96:]) == list(range(64))
    assert len(set(numbers)) == len(numbers)


def test_numbers_that_others_have_overtaken_do_not_make_the_ring_grow() -> None:
    from memory import Cluster

    async def use(numbers: Numbers, last: dict[int, int]) -> int:
        """Use one number; return how many were refused before."""
        for tries in range(100):
            number = await numbers.take()
            if number > last.get(number % RECORDS, 0):
                last[number % RECORDS] = number
                numbers.used()
                return tries
            numbers.refused()
        raise AssertionError("all are refused")

    async def check() -> None:
        store = MemoryStore(Cluster(lambda: 0, records=256))
        last: dict[int, int] = {}
        idle, busy = Numbers(store, "segment"), Numbers(store, "segment")
        for _ in range(20):
            await use(idle, last)
            for _ in range(1000):
                await use(busy, last)
        assert len(last) <= 256
        assert (await store.reserve_places("segment", 1)).size == 256

    run(check())

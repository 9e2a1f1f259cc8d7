"""What every store must do with a segment from its making to the next use of its record, and with leases that others end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from segments import (
    ATTACH,
    LEASE,
    OTHER,
    QUEUES,
    RECORDS,
    RENEWED,
    filled,
    head_of,
    held_in,
    jobs,
    key_of,
    opened,
    puts,
    run,
    whole,
)

from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    OPEN,
    OVER,
    READY,
    Change,
    Fenced,
    Head,
    Move,
    Refused,
    Segment,
    Sizes,
)

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

# --- a segment's life


def test_a_new_segment_is_empty_and_open_and_its_makers(store: SegmentStore) -> None:
    async def check() -> None:
        await store.create(1, "tube", LEASE)
        assert await whole(store) == Segment(1, "tube", 7, OPEN, 0, 0, 0, {}, {}, {}, {LEASE: {}})
        assert await store.heads([1]) == [Head([], None, None, 0, 0, 0, 0, OPEN)]
        assert await store.sizes([1]) == [Sizes(0, 0, 0, 0, 0, None, None, None, 0)]

    run(check())


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("apply", (LEASE, ATTACH)),
        ("apply", (LEASE, puts(1))),
        ("settle", (LEASE, RENEWED)),
        ("shift", (READY, [key_of(1)], BURIED, jobs(1, queue=BURIED))),
        ("remove", (READY, key_of(1))),
        ("close", ()),
        ("retire", ()),
        ("number_bodies", (LEASE, 1)),
    ],
)
def test_an_absent_segment_is_fenced(store: SegmentStore, operation: str, arguments: tuple[Any, ...]) -> None:
    async def check() -> None:
        with pytest.raises(Fenced):
            await getattr(store, operation)(5, *arguments)
        assert await store.read(5) is None

    run(check())


def test_an_absent_segment_has_no_head_and_nothing_to_reclaim(store: SegmentStore) -> None:
    async def check() -> None:
        assert (await store.read(5), await store.heads([5]), await store.sizes([5])) == (None, [None], [None])
        assert await store.reclaim(5, LEASE) == 0

    run(check())


def test_a_segment_is_closed_once(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        assert [await store.close(1) for _ in range(3)] == [True, False, False]
        assert ((await whole(store)).state, (await head_of(store)).state) == (CLOSED, CLOSED)
        await store.apply(1, OTHER, ATTACH)
        assert (await store.apply(1, OTHER, Change(take=1))).taken == [*jobs(1).items()]

    run(check())


def test_a_segment_retires_when_it_is_closed_and_empty(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        await store.apply(1, OTHER, ATTACH)
        assert not await store.retire(1)
        await store.close(1)
        assert [await store.retire(1), await store.retire(1)] == [True, True]
        segment = await whole(store)
        assert (segment.state, segment.leases) == (DEAD, {})
        assert (await head_of(store)).state == DEAD
        assert not await store.close(1)

    run(check())


@pytest.mark.parametrize("place", [*QUEUES, "lease"])
def test_a_segment_with_a_job_anywhere_does_not_retire(store: SegmentStore, place: str) -> None:
    async def check() -> None:
        await opened(store)
        queue = READY if place == "lease" else place
        await store.apply(1, LEASE, puts(1, queue=queue))
        await store.close(1)
        if place == "lease":
            await store.apply(1, LEASE, Change(take=1))
        before = await whole(store)
        assert not await store.retire(1)
        assert await whole(store) == before
        if place == "lease":
            await store.apply(1, LEASE, Change(moves=[Move(key_of(1))]))
        else:
            await store.remove(1, queue, key_of(1, queue))
        assert await store.retire(1)

    run(check())


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("apply", (OTHER, ATTACH)),
        ("apply", (LEASE, puts(2))),
        ("settle", (LEASE, RENEWED)),
        ("number_bodies", (LEASE, 1)),
    ],
)
def test_a_dead_segment_has_no_leases(store: SegmentStore, operation: str, arguments: tuple[Any, ...]) -> None:
    async def check() -> None:
        await opened(store)
        await store.close(1)
        await store.retire(1)
        before = await whole(store)
        with pytest.raises(Fenced):
            await getattr(store, operation)(1, *arguments)
        assert await store.reclaim(1, LEASE) == 0
        assert await whole(store) == before

    run(check())


def test_a_wiped_segment_has_no_job_and_no_lease_and_takes_no_puts(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2, 3)
        await store.apply(1, LEASE, Change(4, {BURIED: jobs(4, queue=BURIED)}, take=1))
        before = await whole(store)
        held = sum(map(len, before.leases.values()))
        jobs_there = held + sum(len(before.queue(name)) for name in (READY, DELAYED, BURIED))
        assert (held, jobs_there) == (1, 4)
        assert await store.wipe(1) == jobs_there
        assert await store.wipe(1) == 0
        after = await whole(store)
        assert (after.state, after.held, after.leases) == (CLOSED, 0, {})
        assert not any(after.queue(name) for name in (READY, DELAYED, BURIED))
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, puts(9))
        assert await store.retire(1) is True
        assert await store.wipe(1) == 0
        with pytest.raises(Fenced):
            await store.wipe(1 + RECORDS)

    run(check())


def test_a_segment_whose_record_is_used_again_has_the_head_of_a_dead_one(store: SegmentStore) -> None:
    async def check() -> None:
        await store.create(1 + RECORDS, "tube", LEASE)
        assert await store.heads([1, 1 + 2 * RECORDS, 2]) == [OVER, None, None]

    run(check())


def test_a_dead_segments_record_is_used_again_under_a_higher_number_only(store: SegmentStore) -> None:
    async def check() -> None:
        later = lease_key(7, 2)
        await opened(store, 1)
        await store.number_bodies(1, LEASE, 4)
        with pytest.raises(Refused):
            await store.create(1 + RECORDS, "later", later)
        await store.remove(1, READY, key_of(1))
        await store.close(1)
        with pytest.raises(Refused):
            await store.create(1 + RECORDS, "later", later)
        await store.retire(1)
        with pytest.raises(Refused):
            await store.create(1, "again", later)
        await store.create(1 + RECORDS, "later", later)
        assert await whole(store, 1 + RECORDS) == Segment(
            1 + RECORDS, "later", 7, OPEN, 0, 0, 0, {}, {}, {}, {later: {}}
        )
        with pytest.raises(Refused):
            await store.create(1, "tube", lease_key(7, 3))

    run(check())


def test_a_segment_whose_record_is_used_again_is_gone(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        await store.close(1)
        await store.retire(1)
        await store.create(1 + RECORDS, "later", RENEWED)
        await store.apply(1 + RECORDS, RENEWED, puts(1))
        before = await whole(store, 1 + RECORDS)
        assert (await store.read(1), await store.heads([1]), await store.sizes([1])) == (None, [OVER], [None])
        assert await store.reclaim(1, LEASE) == 0
        for gone in (
            store.apply(1, OTHER, ATTACH),
            store.apply(1, LEASE, puts(1)),
            store.settle(1, LEASE, lease_key(7, 3)),
            store.number_bodies(1, LEASE, 9),
            store.remove(1, READY, key_of(1)),
            store.close(1),
            store.retire(1),
        ):
            with pytest.raises(Fenced):
                await gone
        with pytest.raises(Refused):
            await store.shift(1, READY, [key_of(1)], BURIED, jobs(1, queue=BURIED))
        assert await whole(store, 1 + RECORDS) == before

    run(check())


# --- by others


@pytest.mark.parametrize("target", QUEUES)
@pytest.mark.parametrize("source", QUEUES)
def test_a_shift_moves_jobs_from_queue_to_queue(store: SegmentStore, source: str, target: str) -> None:
    async def check() -> None:
        await opened(store)
        await store.apply(1, LEASE, puts(1, 2, 3, queue=source))
        keys = [key_of(1, source), key_of(3, source)]
        moved = {ready_key(1, 1, 1): b"one", ready_key(1, 1, 3): b"three"}
        head = await store.shift(1, source, keys, target, moved)
        assert head == await head_of(store)
        expected: dict[str, dict[bytes, bytes]] = {name: {} for name in QUEUES}
        expected[source].update(jobs(2, queue=source))
        expected[target].update(moved)
        segment = await whole(store)
        assert {name: segment.queue(name) for name in QUEUES} == expected
        assert await held_in(store) == 0

    run(check())


def test_a_shift_moves_jobs_into_a_lease(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        head = await store.shift(1, BURIED, [key_of(4, BURIED)], LEASE, {key_of(4): b"four"})
        assert head == Head([key_of(1), key_of(2)], key_of(2), key_of(3, DELAYED), 2, 1, 0, 4, OPEN)
        assert (await whole(store)).leases == {LEASE: {**jobs(5, 6), key_of(4): b"four"}, OTHER: jobs(7)}
        await store.shift(1, READY, [key_of(2), key_of(1)], OTHER, jobs(1, 2))
        assert (await whole(store)).leases[OTHER] == jobs(1, 2, 7)
        assert await held_in(store) == 6

    run(check())


def test_a_shift_without_entries_moves_jobs_into_a_lease_as_they_are(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        before = await whole(store)
        head = await store.shift(1, READY, [key_of(1), key_of(2)], OTHER, None)
        assert (head.ready, head.held) == (0, before.held + 2)
        assert (await whole(store)).leases[OTHER] == {**before.leases[OTHER], **before.ready}
        with pytest.raises(Fenced):
            await store.shift(1, DELAYED, [key_of(3, DELAYED)], -7, None)
        with pytest.raises(Refused):
            await store.shift(1, READY, [key_of(1)], OTHER, None)

    run(check())


def test_a_shift_to_nowhere_deletes_all_jobs_or_none(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        with pytest.raises(Refused):
            await store.shift(1, READY, [key_of(1), key_of(9)], None, None)
        head = await store.shift(1, READY, [key_of(1), key_of(2)], None, None)
        assert (head.ready, head.delayed, head.buried) == (0, 1, 1)

    run(check())


def test_a_job_is_removed_from_its_queue_once(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        for slot, queue in ((1, READY), (3, DELAYED), (4, BURIED)):
            key = key_of(slot, queue)
            assert [await store.remove(1, queue, key) for _ in range(2)] == [True, False]
        assert await head_of(store) == Head([key_of(2)], key_of(2), None, 1, 0, 0, 3, OPEN)

    run(check())


def test_a_job_that_is_held_or_elsewhere_is_not_removed(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        before = await whole(store)
        for queue, key in ((READY, key_of(5)), (BURIED, key_of(3, DELAYED)), (READY, key_of(9))):
            assert not await store.remove(1, queue, key)
        assert await whole(store) == before

    run(check())

"""What every store must do: one operation, one segment, all or nothing, and no lease used twice."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.memory import Cluster, MemoryStore
from beanspiked.engine.aerospike.store import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    HEAD_KEYS,
    OPEN,
    READY,
    Change,
    Directory,
    Fenced,
    Head,
    Move,
    Refused,
    Segment,
    Settlement,
    Sizes,
    StoreError,
    due_key,
    job_slot,
    lease_key,
    lease_session,
    ready_key,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from beanspiked.engine.aerospike.store import SegmentStore

# Segment numbers that differ by this share a record.
RECORDS = 1 << 20
QUEUES = (READY, DELAYED, BURIED)
LEASE = lease_key(7, 1)
RENEWED = lease_key(7, 2)
OTHER = lease_key(8, 1)
NEVER = lease_key(9, 1)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def key_of(slot: int, queue: str = READY) -> bytes:
    return ready_key(5, 1000 + slot, slot) if queue == READY else due_key(1000 + slot, slot)


def packed(slot: int) -> bytes:
    return b"job %d" % slot


def jobs(*slots: int, queue: str = READY) -> dict[bytes, bytes]:
    return {key_of(slot, queue): packed(slot) for slot in slots}


def puts(*slots: int, queue: str = READY) -> Change:
    return Change(last_slot=max(slots), puts={queue: jobs(*slots, queue=queue)})


async def opened(store: SegmentStore, *slots: int) -> None:
    """Make segment 1 with these ready jobs."""
    await store.create(1, "tube", LEASE)
    if slots:
        await store.apply(1, LEASE, puts(*slots))


async def filled(store: SegmentStore) -> None:
    """Make segment 1 with jobs 1 and 2 ready, 3 delayed, 4 buried, 5 and 6 held by LEASE, 7 by OTHER."""
    await store.create(1, "tube", LEASE)
    await store.attach(1, OTHER)
    await store.apply(1, LEASE, puts(5, 6, 7))
    await store.apply(1, LEASE, Change(take=2))
    await store.apply(1, OTHER, Change(take=1))
    await store.apply(1, LEASE, puts(1, 2))
    await store.apply(1, LEASE, puts(3, queue=DELAYED))
    await store.apply(1, LEASE, Change(last_slot=7, puts={BURIED: jobs(4, queue=BURIED)}))
    await store.allow_bodies(1, LEASE, 3)


async def whole(store: SegmentStore, number: int = 1) -> Segment:
    segment = await store.read(number)
    assert segment is not None
    return segment


async def head_of(store: SegmentStore, number: int = 1) -> Head:
    (head,) = await store.heads([number])
    assert head is not None
    return head


async def held_in(store: SegmentStore) -> int:
    """Return how many jobs segment 1's leases hold, which is told in three ways."""
    segment = await whole(store)
    (sizes,) = await store.sizes([1])
    assert sizes is not None
    counted = sum(len(held) for held in segment.leases.values())
    assert (segment.held, (await head_of(store)).held, sizes.held) == (counted, counted, counted)
    return counted


# --- puts and takes


def test_what_is_put_is_taken_by_priority_and_then_by_time(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        entries = {ready_key(9, 1, 1): packed(1), ready_key(2, 5, 2): packed(2), ready_key(2, 4, 3): packed(3)}
        outcome = await store.apply(1, LEASE, Change(last_slot=3, puts={READY: entries}))
        assert (outcome.taken, outcome.head) == ([], Head(sorted(entries), ready_key(9, 1, 1), None, 3, 0, 0, 0, OPEN))
        outcome = await store.apply(1, LEASE, Change(take=2))
        assert outcome.taken == [(ready_key(2, 4, 3), packed(3)), (ready_key(2, 5, 2), packed(2))]
        assert outcome.head == Head([ready_key(9, 1, 1)], ready_key(9, 1, 1), None, 1, 0, 0, 2, OPEN)
        segment = await whole(store)
        assert segment.leases == {LEASE: dict(outcome.taken)}
        assert segment.ready == {ready_key(9, 1, 1): packed(1)}
        assert segment.last_slot == 3

    run(check())


def test_a_take_of_more_than_there_is_takes_what_there_is(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        outcome = await store.apply(1, LEASE, Change(take=10))
        assert (outcome.taken, outcome.head.held) == ([*jobs(1, 2).items()], 2)
        outcome = await store.apply(1, LEASE, Change(take=10))
        assert (outcome.taken, outcome.head.held) == ([], 2)
        assert await held_in(store) == 2

    run(check())


def test_many_are_taken_in_order(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, *range(1, 101))
        outcome = await store.apply(1, LEASE, Change(take=90))
        assert [job_slot(key) for key, _ in outcome.taken] == [*range(1, 91)]
        assert await held_in(store) == 90

    run(check())


def test_only_ready_jobs_are_taken(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        await store.apply(1, LEASE, puts(1, queue=DELAYED))
        await store.apply(1, LEASE, puts(2, queue=BURIED))
        outcome = await store.apply(1, LEASE, Change(take=5))
        assert (outcome.taken, outcome.head) == ([], Head([], None, key_of(1, DELAYED), 0, 1, 1, 0, OPEN))

    run(check())


def test_one_change_puts_into_several_queues(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        change = Change(last_slot=6, puts={queue: jobs(1 + n, 4 + n, queue=queue) for n, queue in enumerate(QUEUES)})
        outcome = await store.apply(1, LEASE, change)
        assert outcome.head == Head([key_of(1), key_of(4)], key_of(4), key_of(2, DELAYED), 2, 2, 2, 0, OPEN)
        segment = await whole(store)
        assert {queue: segment.queue(queue) for queue in QUEUES} == change.puts

    run(check())


def test_the_last_slot_stays_when_nothing_is_put(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 9)
        await store.apply(1, LEASE, Change(take=1))
        assert (await whole(store)).last_slot == 9

    run(check())


def test_a_job_that_is_replaced_stays_in_its_lease(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        outcome = await store.apply(1, LEASE, Change(replaced={key_of(6): b"new"}))
        assert outcome.head.held == 3
        segment = await whole(store)
        assert segment.leases == {LEASE: {key_of(5): packed(5), key_of(6): b"new"}, OTHER: jobs(7)}
        assert await held_in(store) == 3

    run(check())


def test_jobs_leave_a_lease_for_a_queue_or_for_good(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2, 3, 4, 5)
        await store.apply(1, LEASE, Change(take=5))
        moves = [
            Move(key_of(1)),
            Move(key_of(2), DELAYED, due_key(9, 2), b"delayed"),
            Move(key_of(3), BURIED, due_key(8, 3), b"buried"),
            Move(key_of(4), READY, ready_key(1, 1, 4), b"released"),
        ]
        outcome = await store.apply(1, LEASE, Change(moves=moves))
        assert outcome.head == Head([ready_key(1, 1, 4)], ready_key(1, 1, 4), due_key(9, 2), 1, 1, 1, 1, OPEN)
        segment = await whole(store)
        assert segment.delayed == {due_key(9, 2): b"delayed"}
        assert segment.buried == {due_key(8, 3): b"buried"}
        assert segment.ready == {ready_key(1, 1, 4): b"released"}
        assert segment.leases == {LEASE: jobs(5)}
        assert await held_in(store) == 1
        assert [segment.has_slot(slot) for slot in range(1, 7)] == [False, True, True, True, True, False]

    run(check())


def test_a_take_may_take_what_the_same_change_put_and_released(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        await store.apply(1, LEASE, Change(take=1))
        change = Change(
            last_slot=3,
            puts={READY: {ready_key(1, 1, 3): packed(3)}},
            moves=[Move(key_of(1), READY, ready_key(0, 1, 1), b"released")],
            take=2,
        )
        outcome = await store.apply(1, LEASE, change)
        assert outcome.taken == [(ready_key(0, 1, 1), b"released"), (ready_key(1, 1, 3), packed(3))]
        assert outcome.head == Head([key_of(2)], key_of(2), None, 1, 0, 0, 2, OPEN)
        assert (await whole(store)).leases == {LEASE: dict(outcome.taken)}
        assert await held_in(store) == 2

    run(check())


def test_a_take_may_take_again_what_the_same_change_released_under_its_own_key(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        await store.apply(1, LEASE, Change(take=1))
        change = Change(moves=[Move(key_of(1), READY, key_of(1), b"again")], take=3)
        assert (await store.apply(1, LEASE, change)).taken == [(key_of(1), b"again")]
        assert (await whole(store)).leases == {LEASE: {key_of(1): b"again"}}
        assert await held_in(store) == 1

    run(check())


def test_a_job_may_be_replaced_and_then_leave(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        await store.apply(1, LEASE, Change(take=1))
        moves = [Move(key_of(1), BURIED, due_key(1, 1), b"buried")]
        await store.apply(1, LEASE, Change(replaced={key_of(1): b"replaced"}, moves=moves))
        segment = await whole(store)
        assert (segment.leases, segment.buried) == ({LEASE: {}}, {due_key(1, 1): b"buried"})

    run(check())


def test_a_change_of_nothing_tells_the_head(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        before = await whole(store)
        outcome = await store.apply(1, LEASE, Change())
        assert (outcome.taken, outcome.head) == ([], await head_of(store))
        assert await whole(store) == before

    run(check())


def test_a_change_may_close_the_segment_with_its_last_puts(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        outcome = await store.apply(1, LEASE, Change(last_slot=1, puts={READY: jobs(1)}, close=True))
        assert (outcome.head.state, outcome.head.ready) == (CLOSED, 1)
        outcome = await store.apply(1, LEASE, Change(take=1))
        assert (outcome.taken, outcome.head.state) == ([*jobs(1).items()], CLOSED)

    run(check())


def test_a_job_may_be_any_bytes(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        job = random.Random(1).randbytes(3000) + bytes(range(256))
        key = ready_key(4294967295, 2**48 - 1, 65535)
        await store.apply(1, LEASE, Change(last_slot=65535, puts={READY: {key: job}}))
        assert (await store.apply(1, LEASE, Change(take=1))).taken == [(key, job)]
        assert (await whole(store)).leases == {LEASE: {key: job}}

    run(check())


# --- all or nothing


@pytest.mark.parametrize(
    "change",
    [
        Change(),
        puts(8),
        Change(take=1),
        Change(replaced={key_of(5): b"new"}),
        Change(moves=[Move(key_of(5)), Move(key_of(6), DELAYED, due_key(1, 6), packed(6))]),
        Change(close=True),
        Change(8, {READY: jobs(8)}, {key_of(5): b"new"}, [Move(key_of(6))], 2, close=True),
    ],
    ids=["nothing", "put", "take", "replace", "move", "close", "everything"],
)
@pytest.mark.parametrize("lease", [NEVER, RENEWED], ids=["another session's", "another serial"])
def test_without_its_lease_nothing_of_a_change_applies(store: SegmentStore, change: Change, lease: int) -> None:
    async def check() -> None:
        await filled(store)
        before = await whole(store)
        with pytest.raises(Fenced):
            await store.apply(1, lease, change)
        assert await whole(store) == before

    run(check())


@pytest.mark.parametrize(
    ("failure", "operation", "arguments"),
    [
        (Refused, "create", ("later", NEVER)),
        (Refused, "attach", (LEASE,)),
        (Fenced, "settle", (NEVER, lease_key(9, 2))),
        (Fenced, "allow_bodies", (NEVER, 9)),
        (Refused, "shift", (READY, [key_of(1), key_of(9)], BURIED, jobs(1, 9, queue=BURIED))),
        (Refused, "shift", (DELAYED, [key_of(3, DELAYED), key_of(4, DELAYED)], LEASE, jobs(3, 4))),
        (Refused, "shift", (READY, [key_of(5)], LEASE, jobs(5))),
        (Fenced, "shift", (READY, [key_of(1)], NEVER, jobs(1))),
    ],
    ids=[
        "create",
        "attach",
        "settle",
        "allow",
        "shift",
        "shift to a lease",
        "shift of a held one",
        "shift to no lease",
    ],
)
def test_an_operation_that_fails_changes_nothing(
    store: SegmentStore, failure: type[StoreError], operation: str, arguments: tuple[Any, ...]
) -> None:
    async def check() -> None:
        await filled(store)
        before = await whole(store)
        with pytest.raises(failure):
            await getattr(store, operation)(1, *arguments)
        assert await whole(store) == before
        assert await held_in(store) == 3

    run(check())


# --- unknown outcomes


def test_settling_tells_what_happened_and_fences_what_has_not(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        await store.apply(1, LEASE, Change(take=1))
        assert await store.settle(1, LEASE, RENEWED) == Settlement(2, jobs(1))
        assert (await whole(store)).leases == {RENEWED: jobs(1)}
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, puts(3))
        assert (await store.apply(1, RENEWED, puts(3))).head.ready == 2
        assert await held_in(store) == 1

    run(check())


def test_settling_moves_no_other_lease(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        before = await whole(store)
        assert await store.settle(1, LEASE, RENEWED) == Settlement(7, jobs(5, 6))
        after = await whole(store)
        assert after.leases == {RENEWED: jobs(5, 6), OTHER: jobs(7)}
        assert (after.ready, after.delayed, after.buried) == (before.ready, before.delayed, before.buried)
        assert await held_in(store) == 3

    run(check())


def test_settling_may_be_repeated(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        first = await store.settle(1, LEASE, RENEWED)
        after = await whole(store)
        assert await store.settle(1, LEASE, RENEWED) == first
        assert await whole(store) == after
        with pytest.raises(Fenced):
            await store.settle(1, LEASE, lease_key(7, 3))
        assert await whole(store) == after

    run(check())


def test_an_empty_lease_is_settled_too(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        for _ in range(2):
            assert await store.settle(1, LEASE, RENEWED) == Settlement(0, {})
        await store.apply(1, RENEWED, puts(1))
        assert (await store.apply(1, RENEWED, Change(take=1))).taken == [*jobs(1).items()]

    run(check())


def test_a_reclaimed_lease_cannot_be_settled(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        await store.reclaim(1, LEASE)
        for _ in range(2):
            with pytest.raises(Fenced):
                await store.settle(1, LEASE, RENEWED)
        assert (await whole(store)).leases == {OTHER: jobs(7)}

    run(check())


# --- a segment's life


def test_a_new_segment_is_empty_and_open_and_its_makers(store: SegmentStore) -> None:
    async def check() -> None:
        await store.create(1, "tube", LEASE)
        assert await whole(store) == Segment(1, "tube", 7, OPEN, 0, 0, 0, {}, {}, {}, {LEASE: {}})
        assert await store.heads([1]) == [Head([], None, None, 0, 0, 0, 0, OPEN)]
        assert await store.sizes([1]) == [Sizes(0, 0, 0, 0, 0, None, None, None)]

    run(check())


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("attach", (LEASE,)),
        ("apply", (LEASE, puts(1))),
        ("settle", (LEASE, RENEWED)),
        ("shift", (READY, [key_of(1)], BURIED, jobs(1, queue=BURIED))),
        ("remove", (READY, key_of(1))),
        ("close", ()),
        ("retire", ()),
        ("allow_bodies", (LEASE, 1)),
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


def test_a_lease_is_attached_once(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        await store.attach(1, OTHER)
        assert (await whole(store)).leases == {LEASE: {}, OTHER: {}}
        await store.apply(1, OTHER, Change(take=1))
        with pytest.raises(Refused):
            await store.attach(1, OTHER)
        assert (await whole(store)).leases == {LEASE: {}, OTHER: jobs(1)}

    run(check())


def test_a_segment_is_closed_once(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        assert [await store.close(1) for _ in range(3)] == [True, False, False]
        assert ((await whole(store)).state, (await head_of(store)).state) == (CLOSED, CLOSED)
        await store.attach(1, OTHER)
        assert (await store.apply(1, OTHER, Change(take=1))).taken == [*jobs(1).items()]

    run(check())


def test_a_segment_retires_when_it_is_closed_and_empty(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        await store.attach(1, OTHER)
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
        ("attach", (OTHER,)),
        ("apply", (LEASE, puts(2))),
        ("settle", (LEASE, RENEWED)),
        ("allow_bodies", (LEASE, 1)),
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


def test_a_dead_segments_record_is_used_again_under_a_higher_number_only(store: SegmentStore) -> None:
    async def check() -> None:
        later = lease_key(7, 2)
        await opened(store, 1)
        await store.allow_bodies(1, LEASE, 4)
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
        assert (await store.read(1), await store.heads([1]), await store.sizes([1])) == (None, [None], [None])
        assert await store.reclaim(1, LEASE) == 0
        for gone in (
            store.attach(1, OTHER),
            store.apply(1, LEASE, puts(1)),
            store.settle(1, LEASE, lease_key(7, 3)),
            store.allow_bodies(1, LEASE, 9),
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


def test_a_reclaimed_lease_gives_its_jobs_back_and_fences_its_owner(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        assert [await store.reclaim(1, LEASE) for _ in range(2)] == [2, 0]
        segment = await whole(store)
        assert (segment.ready, segment.leases) == (jobs(1, 2, 5, 6), {OTHER: jobs(7)})
        assert await held_in(store) == 1
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, Change(moves=[Move(key_of(5))]))
        assert await store.reclaim(1, OTHER) == 1
        assert (await held_in(store), (await whole(store)).leases) == (0, {})

    run(check())


def test_an_empty_lease_is_reclaimed_too(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        assert await store.reclaim(1, LEASE) == 0
        assert (await whole(store)).leases == {}
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, puts(2))

    run(check())


# --- looks


def test_a_head_tells_the_first_keys_and_the_last(store: SegmentStore) -> None:
    async def check() -> None:
        count = HEAD_KEYS + 3
        await opened(store, *range(1, count + 1))
        keys = [key_of(slot) for slot in range(1, HEAD_KEYS + 1)]
        head = await head_of(store)
        assert head == Head(keys, key_of(count), None, count, 0, 0, 0, OPEN)
        assert (await store.apply(1, LEASE, Change())).head == head
        outcome = await store.apply(1, LEASE, Change(take=HEAD_KEYS + 2))
        assert outcome.head == Head([key_of(count)], key_of(count), None, 1, 0, 0, HEAD_KEYS + 2, OPEN)

    run(check())


def test_a_head_tells_which_delayed_job_is_due_first(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        entries = {due_key(2**40, 1): b"", due_key(2**33, 2): b"", due_key(2**33 + 1, 3): b""}
        outcome = await store.apply(1, LEASE, Change(last_slot=3, puts={DELAYED: entries}))
        assert (outcome.head.due_key, (await head_of(store)).due_key) == (due_key(2**33, 2), due_key(2**33, 2))

    run(check())


def test_many_segments_are_looked_at_together(store: SegmentStore) -> None:
    async def check() -> None:
        for number in range(1, 40):
            lease = lease_key(7, number)
            await store.create(number, "tube", lease)
            await store.apply(number, lease, puts(number))
        heads = await store.heads(range(1, 41))
        assert [head and [*map(job_slot, head.first_keys)] for head in heads] == [*([n] for n in range(1, 40)), None]
        sizes = await store.sizes([3, 41, 2])
        assert [size and job_slot(size.ready_key or b"") for size in sizes] == [3, None, 2]
        assert (await store.heads([]), await store.sizes([])) == ([], [])

    run(check())


def test_sizes_count_the_jobs_by_state_and_name_the_first(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        keys = (key_of(1), key_of(3, DELAYED), key_of(4, BURIED))
        assert await store.sizes([1]) == [Sizes(2, 1, 1, 3, 2, *keys)]

    run(check())


def test_ready_jobs_of_a_priority_below_1024_are_urgent(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        priorities = [0, 0, 1, 1023, 1023, 1024, 1025, 4294967295]
        entries = {ready_key(pri, 2**48 - 1 if slot % 2 else 0, slot): b"" for slot, pri in enumerate(priorities)}
        await store.apply(1, LEASE, Change(last_slot=9, puts={READY: entries, DELAYED: {due_key(0, 9): b""}}))
        assert await store.sizes([1]) == [Sizes(8, 1, 0, 0, 5, min(entries), due_key(0, 9), None)]
        await store.apply(1, LEASE, Change(take=2))
        assert await store.sizes([1]) == [Sizes(6, 1, 0, 2, 3, sorted(entries)[2], due_key(0, 9), None)]

    run(check())


def test_the_segments_that_a_session_has_leases_in_are_found(store: SegmentStore) -> None:
    async def check() -> None:
        for number in range(1, 6):
            await store.create(number, "tube", lease_key(7, number))
        await store.attach(3, lease_key(8, 1))
        await store.attach(5, lease_key(8, 2))
        await store.attach(5, lease_key(8, 3))
        await store.reclaim(2, lease_key(7, 2))
        await store.settle(4, lease_key(7, 4), lease_key(7, 2**32 - 1))
        assert await store.leased_by(7) == [1, 3, 4, 5]
        assert await store.leased_by(8) == [3, 5]
        assert (await store.leased_by(6), await store.leased_by(9)) == ([], [])

    run(check())


# --- directories


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


def test_tubes_that_ever_had_a_segment_are_listed(store: SegmentStore) -> None:
    async def check() -> None:
        assert await store.tubes() == []
        names = [f"tube-{number}" for number in range(100)]
        for name in reversed(names):
            await store.enlist(name, 1)
        await store.unlist("tube-7", 1)
        await store.pause("paused", 1, 2)
        await store.unlist("never", 1)
        assert await store.tubes() == sorted(names)

    run(check())


# --- sessions


def test_numbers_are_given_out_once(store: SegmentStore) -> None:
    async def check() -> None:
        assert [await store.reserve_numbers("segment", 10) for _ in range(3)] == [1, 11, 21]
        assert await store.reserve_numbers("session", 1) == 1

    run(check())


async def listed(store: SegmentStore) -> list[tuple[int, bool, bytes]]:
    return [(record.number, record.dead, record.payload) for record in await store.sessions()]


def test_a_session_joins_once(store: SegmentStore) -> None:
    async def check() -> None:
        assert await store.sessions() == []
        await store.join(8)
        await store.join(7)
        assert await listed(store) == [(7, False, b""), (8, False, b"")]
        await store.heartbeat(7, b"payload")
        with pytest.raises(Refused):
            await store.join(7)
        await store.resign(7)
        with pytest.raises(Refused):
            await store.join(7)
        assert await listed(store) == [(7, True, b"payload"), (8, False, b"")]

    run(check())


def test_a_heartbeat_publishes_a_payload_or_leaves_the_last(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        for payload, seen in ((None, b""), (b"one", b"one"), (None, b"one"), (b"", b""), (b"\x00\xff", b"\x00\xff")):
            await store.heartbeat(7, payload)
            assert await listed(store) == [(7, False, seen)]

    run(check())


@pytest.mark.parametrize("payload", [b"payload", None])
def test_a_heartbeat_ends_a_sessions_silence(store: SegmentStore, payload: bytes | None) -> None:
    async def check() -> None:
        await store.join(7)
        await asyncio.sleep(0.05)
        (record,) = await store.sessions()
        assert 40 <= record.silent_ms < 5000
        await store.heartbeat(7, payload)
        (after,) = await store.sessions()
        assert 0 <= after.silent_ms < record.silent_ms

    run(check())


@pytest.mark.parametrize("payload", [b"payload", None])
def test_the_servers_time_is_told_in_milliseconds(store: SegmentStore, payload: bytes | None) -> None:
    async def check() -> None:
        await store.join(7)
        first = await store.heartbeat(7, payload)
        await asyncio.sleep(0.05)
        assert 40 <= await store.heartbeat(7, payload) - first < 5000
        # The server may be another machine, but not in another age.
        assert abs(first - time.time() * 1000) < 3_600_000

    run(check())


def test_a_session_that_never_joined_is_fenced(store: SegmentStore) -> None:
    async def check() -> None:
        with pytest.raises(Fenced):
            await store.heartbeat(7, b"payload")
        with pytest.raises(Fenced):
            await store.kill(7, 0)
        await store.resign(7)
        await store.forget_session(7)
        assert await store.sessions() == []

    run(check())


def test_only_a_session_that_is_silent_for_long_is_killed(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        assert not await store.kill(7, 60_000)
        assert await listed(store) == [(7, False, b"")]
        await asyncio.sleep(0.02)
        assert await store.kill(7, 5)
        assert await listed(store) == [(7, True, b"")]

    run(check())


def test_only_the_call_that_kills_a_session_says_so(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        await asyncio.sleep(0.02)
        assert [await store.kill(7, 5) for _ in range(3)] == [True, False, False]
        await store.join(8)
        await store.resign(8)
        await asyncio.sleep(0.02)
        assert not await store.kill(8, 5)

    run(check())


@pytest.mark.parametrize("payload", [b"late", None])
@pytest.mark.parametrize("end", ["kill", "resign"])
def test_a_dead_session_is_refused_its_heartbeat(store: SegmentStore, end: str, payload: bytes | None) -> None:
    async def check() -> None:
        await store.join(7)
        await store.heartbeat(7, b"payload")
        await asyncio.sleep(0.01)
        if end == "kill":
            await store.kill(7, 1)
        for _ in range(2 * (end == "resign")):
            await store.resign(7)
        with pytest.raises(Refused):
            await store.heartbeat(7, payload)
        assert await listed(store) == [(7, True, b"payload")]

    run(check())


def test_a_session_that_is_forgotten_is_not_listed(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        await store.join(8)
        await store.resign(7)
        for _ in range(2):
            await store.forget_session(7)
        assert await listed(store) == [(8, False, b"")]
        with pytest.raises(Refused):
            await store.join(7)

    run(check())


def test_news_are_what_a_session_told_last(store: SegmentStore) -> None:
    async def check() -> None:
        assert await store.news([7]) == [b""]
        await store.publish(7, b"one")
        await store.publish(8, b"\x00")
        await store.publish(7, b"two")
        assert await store.news([8, 9, 7]) == [b"\x00", b"", b"two"]
        await store.publish(7, b"")
        assert (await store.news([7]), await store.news([])) == ([b""], [])
        assert await store.sessions() == []

    run(check())


# --- bodies, and the store as a whole


def test_the_highest_number_of_a_body_never_goes_down(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        for bodies, noted in ((16, 16), (3, 16), (16, 16), (17, 17)):
            await store.allow_bodies(1, LEASE, bodies)
            assert (await whole(store)).bodies == noted

    run(check())


def test_bodies_are_kept_until_they_are_dropped(store: SegmentStore) -> None:
    async def check() -> None:
        await store.write_body(1, 1, b"a" * 60_000)
        await store.write_body(1, 2, b"")
        await store.write_body(11, 1, b"another segment's")
        assert await store.read_bodies([(1, 1), (11, 1), (1, 2), (2, 1)]) == [
            b"a" * 60_000,
            b"another segment's",
            b"",
            None,
        ]
        for _ in range(2):
            await store.drop_bodies([(1, 1), (2, 1)])
            assert await store.read_bodies([(1, 1), (1, 2)]) == [None, b""]
        await store.drop_bodies([])
        assert await store.read_bodies([]) == []

    run(check())


def test_a_body_may_be_written_again(store: SegmentStore) -> None:
    async def check() -> None:
        body = random.Random(2).randbytes(5000)
        await store.write_body(1, 1, b"longer than nothing")
        await store.write_body(1, 1, body)
        assert await store.read_bodies([(1, 1)]) == [body]

    run(check())


def test_a_store_that_is_nearly_empty_has_room(store: SegmentStore) -> None:
    async def check() -> None:
        assert await store.has_room() is True

    run(check())


# --- the memory store's own


def test_the_memory_store_notices_an_engine_that_moves_what_it_does_not_hold() -> None:
    async def check() -> None:
        store = MemoryStore(Cluster(lambda: 0))
        await opened(store, 1)
        with pytest.raises(KeyError):
            await store.apply(1, LEASE, Change(moves=[Move(key_of(1))]))

    run(check())


def test_the_memory_store_has_room_or_not_as_it_is_told() -> None:
    async def check() -> None:
        cluster = Cluster(lambda: 0)
        cluster.roomy = False
        assert not await MemoryStore(cluster).has_room()

    run(check())


def test_leases_name_their_session() -> None:
    assert lease_session(lease_key(2**31 - 1, 2**32 - 1)) == 2**31 - 1
    assert lease_key(2**31 - 1, 2**32 - 1) < 2**63


# --- the stores are one and the same


# How often a walk takes each operation.
WEIGHTS = {
    "apply": 50,
    "shift": 14,
    "settle": 8,
    "reclaim": 3,
    "attach": 10,
    "create": 6,
    "remove": 8,
    "close": 1,
    "retire": 8,
    "heads": 1,
    "sizes": 3,
    "allow_bodies": 2,
    "leased_by": 2,
    "enlist": 1,
    "unlist": 1,
    "directories": 1,
    "pause": 1,
    "add_counters": 1,
    "tubes": 1,
    "join": 1,
    "heartbeat": 1,
    "resign": 1,
    "kill": 1,
    "sessions": 1,
    "forget_session": 1,
    "publish": 1,
    "news": 1,
}


class Walk:
    """Random operations, as engines would send them: no lease is used twice, no slot is, and a holder moves what it holds."""

    # The third shares the first one's record.
    NUMBERS = (1, 2, 1 + RECORDS)
    SESSIONS = (7, 8, 9)
    TUBES = ("a", "b")

    def __init__(self, seed: int, memory: SegmentStore) -> None:
        self.random = random.Random(seed)
        self.memory = memory
        self.serial = 0
        self.slot = 0
        self.used: dict[int, list[int]] = {number: [] for number in self.NUMBERS}
        self.settled: dict[int, list[tuple[int, int]]] = {number: [] for number in self.NUMBERS}

    async def step(self) -> tuple[str, tuple[Any, ...]]:
        """Choose an operation and its arguments, most of them good ones."""
        (name,) = self.random.choices([*WEIGHTS], [*WEIGHTS.values()])
        if not hasattr(self, name):
            return name, self.simple(name)
        segments = [
            await self.memory.read(number) or Segment(number, "", 0, DEAD, 0, 0, 0, {}, {}, {}, {})
            for number in self.NUMBERS
        ]
        alive = [segment for segment in segments if segment.state != DEAD]
        if alive and name != "create" and self.random.random() < 0.9:
            segments = alive
        return name, getattr(self, name)(self.random.choice(segments))

    def fresh(self, number: int) -> int:
        self.serial += 1
        lease = lease_key(self.random.choice(self.SESSIONS), self.serial)
        self.used[number].append(lease)
        return lease

    def lease(self, segment: Segment) -> int:
        """Choose one that is there, or one that was or never will be."""
        if segment.leases and self.random.random() < 0.9:
            return self.random.choice([*segment.leases])
        gone = [lease for lease in self.used[segment.number] if lease not in segment.leases]
        return self.random.choice([*gone, NEVER + 2**31])

    def key(self, slot: int, queue: str) -> bytes:
        at = self.random.choice([1, 2, 2**40])
        return ready_key(self.random.choice([0, 5, 2000]), at, slot) if queue == READY else due_key(at, slot)

    def job(self) -> bytes:
        return self.random.randbytes(self.random.randrange(12))

    def some(self, choices: list[bytes], most: int) -> list[bytes]:
        return self.random.sample(choices, min(len(choices), self.random.randrange(most + 1)))

    def create(self, segment: Segment) -> tuple[Any, ...]:
        return segment.number, self.random.choice(self.TUBES), self.fresh(segment.number)

    def attach(self, segment: Segment) -> tuple[Any, ...]:
        there = [*segment.leases]
        taken = there and self.random.random() < 0.2
        return segment.number, self.random.choice(there) if taken else self.fresh(segment.number)

    def apply(self, segment: Segment) -> tuple[Any, ...]:
        lease = self.lease(segment)
        held = [*segment.leases.get(lease, jobs(1))]
        new: dict[str, dict[bytes, bytes]] = {}
        if segment.state == OPEN:
            for queue in self.random.choices(QUEUES, k=self.random.randrange(4)):
                self.slot += 1
                new.setdefault(queue, {})[self.key(self.slot, queue)] = self.job()
        moves = [
            Move(key) if queue is None else Move(key, queue, self.key(job_slot(key), queue), self.job())
            for key in self.some(held, 3)
            for queue in [self.random.choice([None, None, *QUEUES])]
        ]
        change = Change(
            last_slot=self.slot if new else 0,
            puts=new,
            replaced={key: self.job() for key in self.some(held, 2)},
            moves=moves,
            take=self.random.choice([0, 0, 1, 2, 20]),
            close=self.random.random() < 0.01,
        )
        return segment.number, lease, change

    def settle(self, segment: Segment) -> tuple[Any, ...]:
        past = self.settled[segment.number]
        if not past or self.random.random() < 0.6:
            past.append((self.lease(segment), self.fresh(segment.number)))
            return segment.number, *past[-1]
        return segment.number, *self.random.choice(past)

    def shift(self, segment: Segment) -> tuple[Any, ...]:
        source = self.random.choice([queue for queue in QUEUES if segment.queue(queue)] or QUEUES)
        keys = self.some([*segment.queue(source)], 3)
        if not keys or self.random.random() < 0.1:
            keys.append(self.key(self.random.randrange(1, self.slot + 2), source))
        keys = [*dict.fromkeys(keys)]
        target = self.random.choice([*QUEUES, self.lease(segment)])
        kind = target if isinstance(target, str) else READY
        entries = {self.key(job_slot(key), kind): self.job() for key in keys}
        return segment.number, source, keys, target, entries

    def remove(self, segment: Segment) -> tuple[Any, ...]:
        queue = self.random.choice(QUEUES)
        return segment.number, queue, self.random.choice([*segment.queue(queue), self.key(1, queue)])

    def reclaim(self, segment: Segment) -> tuple[Any, ...]:
        return segment.number, self.lease(segment)

    def allow_bodies(self, segment: Segment) -> tuple[Any, ...]:
        return segment.number, self.lease(segment), self.random.randrange(9)

    def close(self, segment: Segment) -> tuple[Any, ...]:
        return (segment.number,)

    def retire(self, segment: Segment) -> tuple[Any, ...]:
        return (segment.number,)

    def simple(self, name: str) -> tuple[Any, ...]:
        """Choose the arguments of an operation on something else than a segment, or on all of them."""
        tube = self.random.choice(self.TUBES)
        session = self.random.choice(self.SESSIONS)
        count = self.random.randrange(9)
        arguments: dict[str, tuple[Any, ...]] = {
            "heads": (self.NUMBERS,),
            "sizes": (self.NUMBERS,),
            "leased_by": (session,),
            "enlist": (tube, count),
            "unlist": (tube, count),
            "directories": (self.TUBES,),
            "pause": (tube, count, count),
            "add_counters": (tube, {"total_jobs": count, "deletes": 1}),
            "join": (session,),
            "heartbeat": (session, self.random.choice([None, self.job()])),
            "resign": (session,),
            # Either at once, or never.
            "kill": (session, self.random.choice([-1, 3_600_000])),
            "forget_session": (session,),
            "publish": (session, self.job()),
            "news": (self.SESSIONS,),
        }
        return arguments.get(name, ())


async def result_of(store: SegmentStore, name: str, arguments: tuple[Any, ...]) -> Any:
    """Return what an operation gives or how it fails, without what a clock tells."""
    try:
        result = await getattr(store, name)(*arguments)
    except StoreError as error:
        return type(error)
    if name == "heartbeat":
        return isinstance(result, int)
    if name == "sessions":
        return await listed(store)
    return result


@pytest.mark.parametrize("seed", range(12))
def test_the_memory_store_does_what_the_real_one_does(real: SegmentStore, seed: int) -> None:
    async def check() -> None:
        memory = MemoryStore(Cluster(lambda: int(time.time() * 1000)))
        walk = Walk(seed, memory)
        done: list[Any] = []
        for _ in range(250):
            name, arguments = await walk.step()
            expected = await result_of(memory, name, arguments)
            done.append((name, arguments, expected))
            assert await result_of(real, name, arguments) == expected, done[-8:]
        for number in walk.NUMBERS:
            assert await real.read(number) == await memory.read(number), done

    run(check())

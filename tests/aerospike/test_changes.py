"""What every store must do with a change: one operation, one segment, all or nothing, and no lease used twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from changes import sent
from segments import (
    ATTACH,
    LEASE,
    NEVER,
    OTHER,
    QUEUES,
    RENEWED,
    filled,
    head_of,
    held_in,
    jobs,
    key_of,
    opened,
    packed,
    puts,
    run,
    whole,
)

from beanspiked.engine.aerospike.store.keys import due_key, job_slot, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    DELAYED,
    OPEN,
    READY,
    Change,
    Fenced,
    Head,
    Move,
    Outcome,
    Refused,
    Settlement,
    StoreError,
)

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

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
        (Refused, "apply", (LEASE, ATTACH)),
        (Fenced, "settle", (NEVER, lease_key(9, 2))),
        (Fenced, "number_bodies", (NEVER, 9)),
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


def test_changes_of_many_segments_at_the_same_time_are_each_as_if_alone(store: SegmentStore) -> None:
    async def check() -> None:
        numbers = range(1, 61)
        for number in numbers:
            await store.create(number, "tube", LEASE)
            await store.apply(number, LEASE, puts(1, 2, 3))
        # Every third has no such lease, every fourth is gone.
        changes = [
            (
                number + 1000 if number % 4 == 0 else number,
                NEVER if number % 3 == 0 else LEASE,
                Change(4, {READY: jobs(4), DELAYED: jobs(5, queue=DELAYED)}, take=2),
            )
            for number in numbers
        ]
        outcomes = await sent(store, changes)
        for number, outcome in zip(numbers, outcomes, strict=True):
            if number % 3 == 0 or number % 4 == 0:
                assert isinstance(outcome, Fenced)
                assert list((await whole(store, number)).ready) == [key_of(1), key_of(2), key_of(3)]
            else:
                assert isinstance(outcome, Outcome)
                assert outcome.taken == [(key_of(1), packed(1)), (key_of(2), packed(2))]
                head = outcome.head
                assert (list(head.first_keys), head.last_key) == ([key_of(3), key_of(4)], key_of(4))
                assert (head.due_key, head.ready, head.delayed, head.held) == (key_of(5, DELAYED), 2, 1, 2)

    run(check())

"""What every store must tell of segments without changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segments import ATTACH, LEASE, filled, head_of, key_of, opened, puts, run

from beanspiked.engine.aerospike.store.keys import due_key, job_slot, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, HEAD_KEYS, OPEN, READY, Change, Head, Sizes

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore


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
        assert await store.sizes([1]) == [Sizes(2, 1, 1, 3, 2, *keys, 7)]

    run(check())


def test_ready_jobs_of_a_priority_below_1024_are_urgent(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        priorities = [0, 0, 1, 1023, 1023, 1024, 1025, 4294967295]
        entries = {ready_key(pri, 2**48 - 1 if slot % 2 else 0, slot): b"" for slot, pri in enumerate(priorities)}
        await store.apply(1, LEASE, Change(last_slot=9, puts={READY: entries, DELAYED: {due_key(0, 9): b""}}))
        assert await store.sizes([1]) == [Sizes(8, 1, 0, 0, 5, min(entries), due_key(0, 9), None, 9)]
        await store.apply(1, LEASE, Change(take=2))
        assert await store.sizes([1]) == [Sizes(6, 1, 0, 2, 3, sorted(entries)[2], due_key(0, 9), None, 9)]

    run(check())


def test_the_segments_that_a_session_has_leases_in_are_found(store: SegmentStore) -> None:
    async def check() -> None:
        for number in range(1, 6):
            await store.create(number, "tube", lease_key(7, number))
        await store.apply(3, lease_key(8, 1), ATTACH)
        await store.apply(5, lease_key(8, 2), ATTACH)
        await store.apply(5, lease_key(8, 3), ATTACH)
        await store.reclaim(2, lease_key(7, 2))
        await store.settle(4, lease_key(7, 4), lease_key(7, 2**32 - 1))
        assert await store.leased_by(7) == [1, 3, 4, 5]
        assert await store.leased_by(8) == [3, 5]
        assert (await store.leased_by(6), await store.leased_by(9)) == ([], [])

    run(check())

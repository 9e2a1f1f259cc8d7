"""Short functions for segments and their jobs, for the tests of stores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from beanspiked.engine.aerospike.store.keys import RING_MAX, due_key, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Change, Head, Segment

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from beanspiked.engine.aerospike.store.contract import SegmentStore

# Segment numbers that differ by this share a record.
RECORDS = RING_MAX
QUEUES = (READY, DELAYED, BURIED)
LEASE = lease_key(7, 1)
RENEWED = lease_key(7, 2)
OTHER = lease_key(8, 1)
NEVER = lease_key(9, 1)
# Makes a lease and nothing else.
ATTACH = Change(attach=True)


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
    await store.apply(1, OTHER, ATTACH)
    await store.apply(1, LEASE, puts(5, 6, 7))
    await store.apply(1, LEASE, Change(take=2))
    await store.apply(1, OTHER, Change(take=1))
    await store.apply(1, LEASE, puts(1, 2))
    await store.apply(1, LEASE, puts(3, queue=DELAYED))
    await store.apply(1, LEASE, Change(last_slot=7, puts={BURIED: jobs(4, queue=BURIED)}))
    await store.number_bodies(1, LEASE, 3)


async def whole(store: SegmentStore, number: int = 1) -> Segment:
    segment = await store.read(number)
    assert segment is not None
    return segment


async def head_of(store: SegmentStore, number: int = 1) -> Head:
    (head,) = await store.heads([number])
    assert head is not None
    return head


async def held_in(store: SegmentStore) -> int:
    """Return how many jobs segment 1's leases hold. The store tells it in three ways."""
    segment = await whole(store)
    (sizes,) = await store.sizes([1])
    assert sizes is not None
    counted = sum(len(held) for held in segment.leases.values())
    assert (segment.held, (await head_of(store)).held, sizes.held) == (counted, counted, counted)
    return counted


async def listed(store: SegmentStore) -> list[tuple[int, bool, bytes]]:
    """Return the store's sessions without the fields that depend on a clock."""
    return [(record.number, record.dead, record.payload) for record in await store.sessions()]

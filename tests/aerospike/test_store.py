"""What every store must do: one operation, one segment, all or nothing, and no lease used twice."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.memory import Cluster, MemoryStore
from beanspiked.engine.aerospike.store import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    OPEN,
    READY,
    Change,
    Entry,
    Fenced,
    Head,
    Move,
    Refused,
    Segment,
    due_key,
    job_slot,
    lease_key,
    lease_session,
    ready_key,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from beanspiked.engine.aerospike.store import SegmentStore

LEASE = lease_key(7, 1)
OTHER = lease_key(8, 1)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def entry(slot: int) -> Entry:
    return Entry(slot, b"job %d" % slot)


def ready(*slots: int, pri: int = 5) -> dict[bytes, Entry]:
    return {ready_key(pri, 1000 + slot, slot): entry(slot) for slot in slots}


def puts(*slots: int, queue: str = READY) -> Change:
    made = ready(*slots) if queue == READY else {due_key(1000 + slot, slot): entry(slot) for slot in slots}
    return Change(last_slot=max(slots), puts={queue: made})


async def opened(store: SegmentStore, *slots: int, number: int = 1) -> None:
    await store.create(number, "tube")
    await store.attach(number, LEASE)
    if slots:
        await store.apply(number, LEASE, puts(*slots))


async def whole(store: SegmentStore, number: int) -> Segment:
    segment = await store.read(number)
    assert segment is not None
    return segment


def key_of(slot: int) -> bytes:
    return ready_key(5, 1000 + slot, slot)


# --- puts and takes


def test_what_is_put_is_taken_by_priority_and_then_by_time(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        jobs = {ready_key(9, 1, 1): entry(1), ready_key(2, 5, 2): entry(2), ready_key(2, 4, 3): entry(3)}
        outcome = await store.apply(1, LEASE, Change(last_slot=3, puts={READY: jobs}))
        assert outcome.head == Head(ready_key(2, 4, 3), None, None, 3, 0, 0)
        outcome = await store.apply(1, LEASE, Change(take=2))
        assert list(outcome.taken) == [(ready_key(2, 4, 3), entry(3)), (ready_key(2, 5, 2), entry(2))]
        assert outcome.head.ready_key == ready_key(9, 1, 1)
        segment = await store.read(1)
        assert segment is not None
        assert dict(segment.leases[LEASE]) == dict(outcome.taken)
        assert dict(segment.ready) == {ready_key(9, 1, 1): entry(1)}
        assert segment.last_slot == 3

    run(check())


def test_a_take_of_more_than_there_is_takes_what_there_is(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        outcome = await store.apply(1, LEASE, Change(take=10))
        assert [taken.slot for _, taken in outcome.taken] == [1, 2]
        assert (await store.apply(1, LEASE, Change(take=10))).taken == []

    run(check())


def test_one_change_puts_moves_revives_and_takes_in_this_order(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2, 3, 4)
        await store.apply(1, LEASE, Change(take=4))
        moves = [
            Move(key_of(1)),
            Move(key_of(2), DELAYED, due_key(9, 2), entry(2)),
            Move(key_of(3), BURIED, due_key(8, 3), entry(3)),
        ]
        change = Change(
            last_slot=6, puts={READY: ready(5, pri=9)}, held=ready(6), moves=moves, revive=[key_of(4)], take=1
        )
        outcome = await store.apply(1, LEASE, change)
        assert list(outcome.taken) == [(key_of(4), entry(4))]
        assert outcome.head == Head(ready_key(9, 1005, 5), due_key(9, 2), due_key(8, 3), 1, 1, 1)
        segment = await store.read(1)
        assert segment is not None
        assert {held.slot for held in segment.leases[LEASE].values()} == {4, 6}
        assert dict(segment.delayed) == {due_key(9, 2): entry(2)}
        assert dict(segment.buried) == {due_key(8, 3): entry(3)}

    run(check())


@pytest.mark.parametrize(
    "change",
    [
        puts(2),
        Change(take=1),
        Change(last_slot=2, held=ready(2)),
        Change(last_slot=2, puts={READY: ready(2)}, take=1),
    ],
    ids=["put", "take", "held", "put and take"],
)
@pytest.mark.parametrize("lease", [OTHER, lease_key(7, 2)], ids=["another session's", "another serial"])
def test_without_its_lease_nothing_of_a_change_applies(store: SegmentStore, change: Change, lease: int) -> None:
    async def check() -> None:
        await opened(store, 1)
        before = await store.read(1)
        with pytest.raises(Fenced):
            await store.apply(1, lease, change)
        assert await store.read(1) == before

    run(check())


def test_bodies_of_any_bytes_survive(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        packed = random.Random(1).randbytes(3000) + bytes(range(256))
        jobs = {ready_key(4294967295, 2**48 - 1, 65535): Entry(65535, packed)}
        await store.apply(1, LEASE, Change(last_slot=65535, puts={READY: jobs}))
        ((key, taken),) = (await store.apply(1, LEASE, Change(take=1))).taken
        assert (key, taken) == (ready_key(4294967295, 2**48 - 1, 65535), Entry(65535, packed))

    run(check())


# --- unknown outcomes


def test_settling_tells_what_happened_and_fences_what_has_not(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        await store.apply(1, LEASE, Change(take=1))
        renewed = lease_key(7, 2)
        settlement = await store.settle(1, LEASE, renewed)
        assert (settlement.last_slot, dict(settlement.held)) == (2, ready(1))
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, puts(3))
        assert (await store.apply(1, renewed, puts(3))).head.ready == 2

    run(check())


def test_settling_may_be_repeated(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        renewed = lease_key(7, 2)
        first = await store.settle(1, LEASE, renewed)
        assert await store.settle(1, LEASE, renewed) == first
        with pytest.raises(Fenced):
            await store.settle(1, LEASE, lease_key(7, 3))

    run(check())


# --- a segment's life


def test_a_segment_is_made_once(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        with pytest.raises(Refused):
            await store.create(1, "tube")
        assert (await whole(store, 1)).last_slot == 1

    run(check())


@pytest.mark.parametrize("operation", ["attach", "apply", "settle", "delete_slot", "close", "retire"])
def test_an_absent_segment_is_fenced(store: SegmentStore, operation: str) -> None:
    arguments = {"attach": (LEASE,), "apply": (LEASE, puts(1)), "settle": (LEASE, OTHER), "delete_slot": (1,)}

    async def check() -> None:
        assert await store.read(5) is None
        assert await store.heads([5]) == [None]
        with pytest.raises(Fenced):
            await getattr(store, operation)(5, *arguments.get(operation, ()))

    run(check())


def test_a_segment_retires_when_it_is_closed_and_empty(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        await store.attach(1, OTHER)
        assert not await store.retire(1)
        assert await store.close(1)
        assert not await store.close(1)
        assert (await whole(store, 1)).state == CLOSED
        assert not await store.retire(1)
        await store.apply(1, LEASE, Change(take=1))
        assert not await store.retire(1)
        await store.apply(1, LEASE, Change(moves=[Move(key_of(1))]))
        assert await store.retire(1)
        assert await store.retire(1)
        segment = await whole(store, 1)
        assert (segment.state, dict(segment.leases)) == (DEAD, {})
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, puts(2))
        with pytest.raises(Fenced):
            await store.attach(1, lease_key(7, 5))

    run(check())


@pytest.mark.parametrize("queue", [DELAYED, BURIED])
def test_a_segment_with_a_job_in_any_queue_does_not_retire(store: SegmentStore, queue: str) -> None:
    async def check() -> None:
        await opened(store)
        await store.apply(1, LEASE, puts(1, queue=queue))
        await store.close(1)
        assert not await store.retire(1)

    run(check())


def test_a_dead_segments_record_is_used_again_under_a_higher_number_only(store: SegmentStore) -> None:
    async def check() -> None:
        records = 1 << 20
        await opened(store, 1)
        with pytest.raises(Refused):
            await store.create(1 + records, "later")
        await store.delete_slot(1, 1)
        await store.close(1)
        await store.retire(1)
        with pytest.raises(Refused):
            await store.create(1, "again")
        await store.create(1 + records, "later")
        assert await store.read(1) is None
        assert await store.heads([1]) == [None]
        segment = await whole(store, 1 + records)
        assert (segment.tube, segment.state, segment.last_slot, segment.leases) == ("later", OPEN, 0, {})
        with pytest.raises(Fenced):
            await store.attach(1, OTHER)
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, puts(1))
        with pytest.raises(Fenced):
            await store.delete_slot(1, 1)

    run(check())


def test_an_attach_is_made_once(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        await store.apply(1, LEASE, Change(take=1))
        with pytest.raises(Refused):
            await store.attach(1, LEASE)
        assert len((await whole(store, 1)).leases[LEASE]) == 1

    run(check())


# --- by others


def test_a_shift_moves_all_of_its_jobs_or_none(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        await store.apply(1, LEASE, puts(1, 2, queue=DELAYED))
        keys = [due_key(1001, 1), due_key(1002, 2)]
        await store.shift(1, DELAYED, keys[:1], READY, ready(1))
        with pytest.raises(Refused):
            await store.shift(1, DELAYED, keys, READY, ready(1, 2))
        segment = await whole(store, 1)
        assert (dict(segment.ready), list(segment.delayed)) == (ready(1), keys[1:])
        await store.shift(1, DELAYED, keys[1:], LEASE, ready(2))
        assert dict((await whole(store, 1)).leases[LEASE]) == ready(2)

    run(check())


def test_a_shift_into_a_lease_that_is_gone_moves_nothing(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        with pytest.raises(Fenced):
            await store.shift(1, READY, [key_of(1)], OTHER, ready(1))
        assert (await store.heads([1]))[0] == Head(key_of(1), None, None, 1, 0, 0)

    run(check())


def test_a_delete_by_slot_finds_any_queue_but_no_lease(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        await store.apply(1, LEASE, puts(3, queue=DELAYED))
        await store.apply(1, LEASE, puts(4, queue=BURIED))
        await store.apply(1, LEASE, Change(take=1))
        assert [await store.delete_slot(1, slot) for slot in (1, 2, 3, 4, 4, 9)] == [
            False,
            True,
            True,
            True,
            False,
            False,
        ]
        assert (await store.heads([1]))[0] == Head(None, None, None, 0, 0, 0)
        assert len((await whole(store, 1)).leases[LEASE]) == 1

    run(check())


def test_a_reclaimed_lease_gives_its_jobs_back_and_fences_its_owner(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        await store.apply(1, LEASE, Change(take=2))
        assert await store.reclaim(1, LEASE) == 2
        assert await store.reclaim(1, LEASE) == 0
        segment = await whole(store, 1)
        assert (dict(segment.ready), dict(segment.leases)) == (ready(1, 2), {})
        with pytest.raises(Fenced):
            await store.apply(1, LEASE, Change(moves=[Move(key_of(1))]))

    run(check())


def test_heads_of_many_segments_are_read_together(store: SegmentStore) -> None:
    async def check() -> None:
        for number in range(1, 40):
            await opened(store, number, number=number)
        heads = await store.heads([*range(1, 41)])
        assert [head and job_slot(head.ready_key or b"") for head in heads] == [*range(1, 40), None]

    run(check())


def test_the_segments_that_a_session_has_leases_in_are_found(store: SegmentStore) -> None:
    async def check() -> None:
        if not isinstance(store, MemoryStore):
            await store.prepare()  # type: ignore[attr-defined]
            await store.prepare()  # type: ignore[attr-defined]
        for number in range(1, 6):
            await opened(store, number=number)
        await store.attach(3, OTHER)
        await store.attach(5, lease_key(8, 2))
        await store.reclaim(2, LEASE)
        assert await store.leased_by(7) == [1, 3, 4, 5]
        assert await store.leased_by(8) == [3, 5]
        assert await store.leased_by(9) == []

    run(check())


# --- directories, sessions, bodies


def test_a_directory_lists_what_was_entered_and_not_taken_out(store: SegmentStore) -> None:
    async def check() -> None:
        assert await store.directory("tube") == []
        await store.unlist("tube", 1)
        for number in (3, 1, 2, 3):
            await store.enlist("tube", number)
        await store.enlist("other", 9)
        await store.unlist("tube", 2)
        await store.unlist("tube", 2)
        assert await store.directory("tube") == [1, 3]
        await store.unlist("other", 9)
        assert (await store.directory("other"), await store.tubes()) == ([], ["other", "tube"])

    run(check())


def test_numbers_are_given_out_once(store: SegmentStore) -> None:
    async def check() -> None:
        assert [await store.reserve_numbers("segment", 10) for _ in range(3)] == [1, 11, 21]
        assert await store.reserve_numbers("session", 1) == 1

    run(check())


def test_a_session_that_was_killed_is_refused_its_heartbeat(store: SegmentStore) -> None:
    async def check() -> None:
        first = await store.heartbeat(7, b"one")
        assert await store.heartbeat(7, b"two") >= first
        assert not await store.kill(7, 60_000)
        ((number, dead, payload),) = [(found.number, found.dead, found.payload) for found in await store.sessions()]
        assert (number, dead, payload) == (7, False, b"two")
        await asyncio.sleep(0.02)
        assert await store.kill(7, 5)
        assert await store.kill(7, 60_000)
        with pytest.raises(Refused):
            await store.heartbeat(7, b"three")
        assert [found.dead for found in await store.sessions()] == [True]
        await store.forget_session(7)
        await store.forget_session(7)
        assert await store.sessions() == []

    run(check())


def test_the_servers_time_is_told_in_milliseconds(store: SegmentStore) -> None:
    async def check() -> None:
        first = await store.heartbeat(7, b"")
        await asyncio.sleep(0.05)
        assert 40 <= await store.heartbeat(7, b"") - first < 5000

    run(check())


def test_bodies_are_kept_until_they_are_dropped(store: SegmentStore) -> None:
    async def check() -> None:
        await store.write_body(1, 1, b"a" * 60_000)
        await store.write_body(1, 2, b"")
        assert await store.read_bodies([(1, 1), (1, 2), (2, 1)]) == [b"a" * 60_000, b"", None]
        await store.drop_bodies([(1, 1), (2, 1)])
        assert await store.read_bodies([(1, 1), (1, 2)]) == [None, b""]

    run(check())


# --- the memory store's own


def test_the_memory_store_notices_an_engine_that_moves_what_it_does_not_hold() -> None:
    async def check() -> None:
        store = MemoryStore(Cluster(lambda: 0))
        await opened(store, 1)
        with pytest.raises(KeyError):
            await store.apply(1, LEASE, Change(moves=[Move(key_of(1))]))

    run(check())


def test_leases_name_their_session() -> None:
    assert lease_session(lease_key(2**31 - 1, 2**32 - 1)) == 2**31 - 1
    assert lease_key(2**31 - 1, 2**32 - 1) < 2**63

"""Leases: made once, settled after a change of unknown outcome, and reclaimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from changes import sent
from segments import (
    ATTACH,
    LEASE,
    OTHER,
    RECORDS,
    filled,
    held_in,
    jobs,
    key_of,
    opened,
    puts,
    run,
    whole,
)

from beanspiked.engine.aerospike.store.keys import lease_key, lease_session
from beanspiked.engine.aerospike.store.seam import (
    READY,
    Change,
    Fenced,
    Move,
    Outcome,
    Refused,
    Settlement,
)

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore


def test_a_lease_is_attached_once(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        await store.apply(1, OTHER, ATTACH)
        assert (await whole(store)).leases == {LEASE: {}, OTHER: {}}
        await store.apply(1, OTHER, Change(take=1))
        with pytest.raises(Refused):
            await store.apply(1, OTHER, ATTACH)
        assert (await whole(store)).leases == {LEASE: {}, OTHER: jobs(1)}

    run(check())


@pytest.mark.parametrize("few", [False, True])
def test_a_change_may_make_its_lease_first(store: SegmentStore, few: bool) -> None:
    async def check() -> None:
        await opened(store, 1, 2, 3)
        outcome = await store.apply(1, OTHER, Change(take=2, attach=True, few=few))
        assert outcome.taken == [*jobs(1, 2).items()]
        assert (list(outcome.head.first_keys), outcome.head.held) == ([key_of(3)], 2)
        assert (await whole(store)).leases == {LEASE: {}, OTHER: jobs(1, 2)}
        with pytest.raises(Refused):
            await store.apply(1, OTHER, Change(take=1, attach=True, few=few))
        assert await held_in(store) == 2

    run(check())


def test_changes_that_make_their_leases_first_are_each_as_if_alone(store: SegmentStore) -> None:
    async def check() -> None:
        for number in (1, 2, 3):
            await store.create(number, "tube", LEASE)
            await store.apply(number, LEASE, puts(1))
        await store.apply(2, LEASE, Change(take=1, moves=[]))
        await store.apply(2, LEASE, Change(moves=[Move(key_of(1))], close=True))
        assert await store.retire(2)
        taking = Change(take=1, attach=True)
        outcomes = await sent(store, [(1, OTHER, taking), (2, OTHER, taking), (3, LEASE, taking), (4, OTHER, taking)])
        assert [type(outcome) for outcome in outcomes] == [Outcome, Fenced, Refused, Fenced]
        assert (await whole(store)).leases == {LEASE: {}, OTHER: jobs(1)}
        assert (await whole(store, 2)).leases == {}
        assert (await whole(store, 3)).leases == {LEASE: {}}

    run(check())


@pytest.mark.parametrize("applied", [True, False])
def test_a_change_that_was_to_make_its_lease_can_do_nothing_any_more_once_it_is_settled(
    store: SegmentStore, applied: bool
) -> None:
    async def check() -> None:
        await opened(store, 1, 2)
        change = Change(take=1, attach=True)
        if applied:
            await store.apply(1, OTHER, change)
        taken = jobs(1) if applied else {}
        renewed = lease_key(8, 2)
        for _ in range(2):
            assert await store.settle_attach(1, OTHER, renewed) == Settlement(2, taken)
            with pytest.raises(Refused):
                await store.apply(1, OTHER, change)
        assert (await whole(store)).leases == {LEASE: {}, OTHER: {}, renewed: taken}
        assert (await store.apply(1, renewed, Change(take=1))).taken == [*jobs(2 if applied else 1).items()]
        assert [await store.reclaim(1, lease) for lease in (OTHER, renewed)] == [0, 1 + applied]
        assert (await whole(store)).ready == jobs(1, 2)

    run(check())


def test_a_change_that_was_to_make_its_lease_in_a_dead_segment_is_not_settled(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store)
        await store.close(1)
        await store.retire(1)
        for number in (1, 1 + RECORDS, 5):
            with pytest.raises(Fenced):
                await store.settle_attach(number, OTHER, lease_key(8, 2))
        assert (await whole(store)).leases == {}

    run(check())


def test_a_lease_may_have_a_negative_number(store: SegmentStore) -> None:
    async def check() -> None:
        await filled(store)
        await store.apply(1, -(1 << 60), ATTACH)
        await store.shift(1, READY, [key_of(1)], -(1 << 60), None)
        settlement = await store.settle(1, -(1 << 60), -5)
        assert dict(settlement.held) == jobs(1)
        with pytest.raises(Fenced):
            await store.apply(1, -(1 << 60), Change(moves=[Move(key_of(1))]))
        await store.apply(1, -5, Change(moves=[Move(key_of(1))]))
        assert await store.reclaim(1, -5) == 0
        assert (await whole(store)).leases.keys() == {LEASE, OTHER}

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


def test_leases_name_their_session() -> None:
    assert lease_session(lease_key(2**31 - 1, 2**32 - 1)) == 2**31 - 1
    assert lease_key(2**31 - 1, 2**32 - 1) < 2**63

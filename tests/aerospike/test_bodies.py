"""What every store must do with bodies that stand apart from their segment, and how it tells whether it has room."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from segments import LEASE, OTHER, key_of, opened, run, whole

from beanspiked.engine.aerospike.segment.codec import Packed, pack
from beanspiked.engine.aerospike.store.keys import lease_key
from beanspiked.engine.aerospike.store.seam import DELAYED, READY, Change

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
    from beanspiked.engine.aerospike.store.contract import SegmentStore


def test_no_number_of_a_body_is_given_twice(store: SegmentStore) -> None:
    async def check() -> None:
        await opened(store, 1)
        assert [await store.number_bodies(1, LEASE, count) for count in (16, 3, 1)] == [1, 17, 20]
        assert (await whole(store)).bodies == 20

    run(check())


@pytest.mark.xdist_group("aerospike-modules")
def test_the_sizes_of_a_tube_are_those_of_all_its_bodies(store: SegmentStore) -> None:
    async def check() -> None:
        await store.create(1, "tube", LEASE)
        await store.create(2, "tube", OTHER)
        await store.create(3, "other", lease_key(9, 9))
        plain = pack(Packed(1, 0, 0, 0, b"x" * 10))
        squeezed = pack(Packed(1, 0, 0, 0, b"y" * 7, raw_size=3000))
        skipped = pack(Packed(1, 0, 0, 0, b"", body_number=1, stored_size=5000, skipped=True))
        await store.apply(1, LEASE, Change(2, {READY: {key_of(1): plain, key_of(2): squeezed}}))
        await store.apply(1, LEASE, Change(take=1))
        await store.apply(2, OTHER, Change(1, {DELAYED: {key_of(1, DELAYED): skipped}}))
        await store.apply(3, lease_key(9, 9), Change(1, {READY: {key_of(1): plain}}))
        summed = await store.tube_sizes("tube")
        assert (summed.raw, summed.stored, summed.skipped) == (10 + 3000 + 5000, 10 + 7 + 5000, 5000)
        nothing = await store.tube_sizes("nobody's")
        assert (nothing.raw, nothing.stored, nothing.skipped) == (0, 0, 0)

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


def test_old_bodies_are_named_a_part_at_a_time_and_again_when_all_were(store: SegmentStore) -> None:
    async def check() -> None:
        names = [(number, body) for number in (1, 1 << 40) for body in range(1, 11)]
        for name in names:
            await store.write_body(*name, b"body")
        assert await store.old_bodies(7, 3_600_000) == []
        await asyncio.sleep(0.05)
        for _ in range(2):
            found: list[tuple[int, int]] = []
            calls = 0
            while len(found) < len(names):
                found += await store.old_bodies(7, 20)
                calls += 1
                assert calls < 12
            assert sorted(found) == names
            assert calls >= 3

    run(check())


def test_bodies_of_the_version_before_are_read_and_left_alone(real: AerospikeStore, client: Any) -> None:
    async def check() -> None:
        client.put(real._body_key(1, 1), {"body": b"old"})
        await asyncio.sleep(0.05)
        assert await real.read_bodies([(1, 1)]) == [b"old"]
        assert await real.old_bodies(10, 20) == []

    run(check())

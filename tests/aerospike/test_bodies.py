"""What every store must do with bodies that stand apart from their segment, and how it tells whether it has room."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from segments import LEASE, opened, run, whole

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store import SegmentStore


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

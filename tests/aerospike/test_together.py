"""Writes of directories and of segments' lives that wait at the same time go out in one call, and each ends as it would alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from segments import run

from beanspiked.engine.aerospike.store.aerospike.calls import meaning
from beanspiked.engine.aerospike.store.aerospike.tally import Tally
from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.keys import lease_key
from beanspiked.engine.aerospike.store.seam import FIRST, Fenced, Refused

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

MANY = 40


@pytest.fixture
def busy(real: AerospikeStore) -> Iterator[AerospikeStore]:
    """A store whose answers take so long that threads wait for them."""
    average = real.pace._average
    real.pace._average = 1e9
    yield real
    real.pace._average = average


async def at_once(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_many_tubes_get_their_segments_at_once(busy: AerospikeStore) -> None:
    async def check() -> None:
        numbers = range(1, MANY + 1)
        calls = [busy.create(number, f"t{number}", lease_key(1, number), FIRST, 0) for number in numbers]
        assert await at_once(*calls) == [None] * MANY
        assert await at_once(*[busy.enlist(f"t{number}", number) for number in numbers]) == [None] * MANY
        assert await busy.directories([f"t{number}" for number in numbers]) == [Directory([n]) for n in numbers]
        assert await at_once(*[busy.close(number) for number in numbers]) == [True] * MANY
        assert await at_once(*[busy.retire(number) for number in numbers]) == [True] * MANY
        assert await at_once(*[busy.unlist(f"t{number}", number) for number in numbers]) == [True] * MANY
        assert await busy.directories([f"t{number}" for number in numbers]) == [None] * MANY

    run(check())


def test_they_take_fewer_calls_than_writes(busy: AerospikeStore) -> None:
    calls: list[str] = []

    class Counting(Tally):
        def add(self, kind: str, *_: Any) -> None:
            calls.append(kind)

    async def check() -> None:
        await busy.enlist("t", MANY + 1)
        busy.caller.tally = Counting(meaning)
        await at_once(*[busy.enlist("t", number) for number in range(1, MANY + 1)])

    run(check())
    busy.caller.tally = None
    assert 0 < calls.count("write") < MANY / 4


def test_one_that_fails_leaves_the_others_alone(busy: AerospikeStore) -> None:
    async def check() -> None:
        await busy.create(2, "taken", lease_key(1, 2))
        calls = [busy.create(number, "new", lease_key(1, 10 + number)) for number in (1, 2, 3)]
        created = await at_once(*calls)
        assert [type(outcome) for outcome in created] == [type(None), Refused, type(None)]
        closed = await at_once(*[busy.close(number) for number in (1, 2, 3, 4)])
        assert closed[:3] == [True] * 3
        assert isinstance(closed[3], Fenced)
        # Their numbers do not hold.
        assert await at_once(busy.close(1), busy.retire(2)) == [False, True]

    run(check())

"""Records on a real server whose bins are of another shape: each is left alone, and its neighbours are read."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from segments import run

from beanspiked.engine.aerospike.store.keys import due_key, lease_key, ready_key
from beanspiked.engine.aerospike.store.request import Request
from beanspiked.engine.aerospike.store.seam import Busy, Change, Damaged, Outcome, Refused

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

ODD: list[Any] = [7, "text", b"\xff", [1], {"a": 1}, {b"k": 1}, 1.5, None]


@pytest.mark.parametrize("name", ["no", "tube", "st", "hwm", "nheld", "ready", "delayed", "buried", "held"])
def test_an_odd_segment_keeps_its_neighbours_from_nothing(real: AerospikeStore, client: Any, name: str) -> None:
    async def check() -> None:
        for number in (1, 2, 3):
            await real.create(number, "t", lease_key(9, number))
        for odd in ODD:
            client.put(real._segment_key(2), {name: odd})
            assert [head is not None for head in await real.heads([1, 2, 3])][::2] == [True, True]
            assert [size is not None for size in await real.sizes([1, 2, 3])][::2] == [True, True]
            assert {1, 3} <= set(await real.leased_by(9))
            try:
                await real.read(2)
            except Damaged:
                continue

    run(check())


def test_a_look_sets_a_segment_aside_whose_jobs_are_in_no_map(
    real: AerospikeStore, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd: list[dict[str, Any]] = [{"held": 7}, {"held": "text"}, {"held": [1]}, {"ready": 7}, {"delayed": "text"}]

    async def check() -> None:
        await real.create(1, "t", lease_key(9, 1))
        for number, bins in enumerate(odd, start=101):
            await real.create(number, "t", lease_key(9, number))
            client.put(real._segment_key(number), bins)
            assert [head is not None for head in await real.heads([1, number])] == [True, False]

    run(check())
    for number in range(101, 101 + len(odd)):
        assert f"segment {number} cannot be read and is left alone: bins are missing or of a wrong type" in caplog.text


def test_odd_news_sessions_and_directories_keep_their_neighbours_from_nothing(
    real: AerospikeStore, client: Any
) -> None:
    async def check() -> None:
        for session in (1, 2, 3):
            await real.join(session)
            await real.publish(session, b"[1,[]]")
            await real.enlist(f"t{session}", session)
        for odd in ODD:
            for bin_name in ("payload", "no", "dead"):
                client.put(real.key("ses", "slot-2"), {bin_name: odd})
                assert [record.number for record in await real.sessions()] == [1, 2, 3]
            client.put(real.key("news", "slot-2"), {"news": odd})
            client.put(real._shard_key("t2"), {"items": odd})
            assert (await real.news([1, 2, 3]))[::2] == [b"[1,[]]"] * 2
            directories = await real.directories(["t1", "t2", "t3"])
            assert [directory and list(directory.segments) for directory in directories][::2] == [[1], [3]]
            assert {"t1", "t3"} <= set(await real.tubes())

    run(check())


def test_an_index_that_somebody_has_removed_is_made_again(
    real: AerospikeStore, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        await real.create(1, "t", lease_key(9, 1))
        client.index_remove("test", real._set("held"))
        found: list[int] = []
        for _ in range(50):
            with contextlib.suppress(Busy):
                found = await real.leased_by(9)
                break
            await asyncio.sleep(0.1)
        assert found == [1]
        assert "is gone, and is made again" in caplog.text

    try:
        run(check())
    finally:
        asyncio.run(real.prepare())


@pytest.mark.parametrize("name", ["dead", "no"])
def test_a_session_that_does_not_say_whether_it_is_dead_or_whose_it_is_sends_no_heartbeat_and_can_be_killed(
    real: AerospikeStore, client: Any, name: str
) -> None:
    async def check() -> None:
        for slot, odd in enumerate((None, "no"), start=1):
            session = await real.reserve_numbers("session", 1)
            await real.join(session)
            client.put(real.key("ses", f"slot-{slot}"), {name: odd})
            with pytest.raises(Refused):
                await real.heartbeat(session, None)
            assert not await real.kill(session, 60_000)
            await asyncio.sleep(0.05)
            assert await real.kill(session, 10)
            assert [record.dead for record in await real.sessions()][-1]

    run(check())


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("nheld", "text"),
        ("nheld", None),
        ("st", 1.5),
        ("delayed", {b"xx": b"job"}),
        ("delayed", {7: b"job"}),
        ("ready", {b"0123456789": b"job"}),
    ],
)
def test_damage_that_the_answer_to_a_change_shows_is_told_as_such(
    real: AerospikeStore, client: Any, caplog: pytest.LogCaptureFixture, name: str, odd: Any, few: bool, together: bool
) -> None:
    change = Change(puts={"buried": {due_key(1, 1): b"job"}}, last_slot=1)
    change.few = few

    async def check() -> None:
        for number in (1, 2):
            await real.create(number, "t", lease_key(9, number))
        client.put(real._segment_key(2), {name: odd})
        numbers = (1, 2) if together else (2,)
        requests = [Request(change) for _ in numbers]
        for number, request in zip(numbers, requests, strict=True):
            request.number, request.lease = number, lease_key(9, number)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        real.send(requests, lambda _: told.set_result(None))
        await told
        assert isinstance(requests[-1].outcome, Damaged)
        if together:
            assert isinstance(requests[0].outcome, Outcome)

    run(check())
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("name", ["ready", "delayed", "buried"])
@pytest.mark.parametrize("few", [False, True])
def test_the_answer_to_a_change_of_a_segment_that_lacks_a_queue_is_told_as_damage(
    real: AerospikeStore, client: Any, caplog: pytest.LogCaptureFixture, name: str, few: bool
) -> None:
    puts = {"ready": {ready_key(0, 1, 1): b"job"}} if name == "buried" else {"buried": {due_key(1, 1): b"job"}}
    change = Change(puts=puts, last_slot=1)
    change.few = few

    async def check() -> None:
        await real.create(2, "t", lease_key(9, 2))
        client.put(real._segment_key(2), {name: None})
        request = Request(change)
        request.number, request.lease = 2, lease_key(9, 2)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        real.send([request], lambda _: told.set_result(None))
        await told
        assert isinstance(request.outcome, Damaged)

    run(check())
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("name", "odd"), [("hwm", "text"), ("held", {lease_key(9, 2): {7: b"job"}})])
def test_damage_that_a_settle_meets_is_told_as_such(real: AerospikeStore, client: Any, name: str, odd: Any) -> None:
    async def check() -> None:
        await real.create(2, "t", lease_key(9, 2))
        client.put(real._segment_key(2), {name: odd})
        with pytest.raises(Damaged):
            await real.settle(2, lease_key(9, 2), lease_key(9, 3))

    run(check())

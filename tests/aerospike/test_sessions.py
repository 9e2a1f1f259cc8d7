"""What every store must do with sessions: numbers given out once, heartbeats, deaths and news."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from segments import listed, run

from beanspiked.engine.aerospike.store.seam import Fenced, Refused, TooBig

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.seam import SegmentStore


def test_numbers_are_given_out_once(store: SegmentStore) -> None:
    async def check() -> None:
        assert [await store.reserve_numbers("segment", 10) for _ in range(3)] == [1, 11, 21]
        assert await store.reserve_numbers("session", 1) == 1

    run(check())


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


def test_a_payload_that_no_record_can_hold_is_told_from_a_death(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        await store.heartbeat(7, b"payload")
        with pytest.raises(TooBig):
            await store.heartbeat(7, random.randbytes(9 << 20))
        await store.heartbeat(7, None)
        assert await listed(store) == [(7, False, b"payload")]

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


def test_what_a_forgotten_session_told_is_dropped(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        await store.heartbeat(7, b"payload")
        await store.publish(7, b"news")
        await store.resign(7)
        await store.forget_session(7)
        assert await store.news([7]) == [b""]
        inside: Any = store
        if hasattr(store, "caller"):
            assert inside.caller.client.get(inside._key("ses", 7))[2]["payload"] == b""
        else:
            assert inside._cluster._sessions[7].payload == b""

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


def test_news_that_are_known_are_waited_for_until_there_are_others(store: SegmentStore) -> None:
    async def check() -> None:
        await store.publish(7, b"old")
        listening = asyncio.ensure_future(store.news([7, 8], [b"old", b""], 60, 0.002))
        await asyncio.wait([listening], timeout=0.02)
        assert not listening.done()
        await store.publish(8, b"new")
        assert await listening == [b"old", b"new"]

    run(check())


def test_news_that_stay_as_they_are_known_are_returned_in_time(store: SegmentStore) -> None:
    async def check() -> None:
        await store.publish(7, b"old")
        began = time.monotonic()
        assert await store.news([7], [b"old"], 0.01, 0.002) == [b"old"]
        assert time.monotonic() - began >= 0.01

    run(check())

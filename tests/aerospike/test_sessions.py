"""What every store must do with sessions: numbers given out once, heartbeats, deaths and news."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import aerospike
import pytest
from aerospike_helpers.operations import map_operations
from memory import MemoryStore
from segments import listed, run

from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.seam import NEVER_WROTE, Refused, TooBig

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore


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


def test_a_session_that_never_joined_is_over(store: SegmentStore) -> None:
    async def check() -> None:
        with pytest.raises(Refused):
            await store.heartbeat(7, b"payload")
        with pytest.raises(Refused):
            await store.publish(7, b"news")
        assert not await store.kill(7, 0)
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
            assert inside.caller.client.get(inside.key("ses", "slot-1"))[2]["payload"] == b""
        else:
            assert inside._cluster.session(7).payload == b""

    run(check())


# --- records that are used again


async def over(store: SegmentStore, session: int) -> None:
    await store.resign(session)
    await store.forget_session(session)


def seen_from_elsewhere(store: SegmentStore) -> SegmentStore:
    """Return another front-end's access to the same records."""
    inside: Any = store
    if hasattr(store, "caller"):
        return AerospikeStore(inside.caller.client, inside._namespace, inside._prefix)
    return MemoryStore(inside._cluster)


def records_of_sessions(store: SegmentStore) -> int:
    """Count the records of sessions and of their news."""
    inside: Any = store
    if hasattr(store, "caller"):
        client = inside.caller.client
        return sum(len(client.query("test", inside._set(name)).results()) for name in ("ses", "news"))
    return len(inside._cluster._sessions) + len(inside._cluster._news)


def test_records_of_sessions_are_as_many_as_sessions_were_alive_at_once(store: SegmentStore) -> None:
    async def check() -> None:
        for session in range(1, 21, 2):
            for number in (session, session + 1):
                await store.join(number)
                await store.publish(number, b"news")
            await over(store, session)
            await over(store, session + 1)
        assert records_of_sessions(store) == 4

    run(check())


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_former_owner_of_a_record_is_told_that_it_is_dead_and_changes_nothing(
    store: SegmentStore, forgotten: bool
) -> None:
    async def check() -> None:
        former = seen_from_elsewhere(store)
        await former.join(7)
        await former.publish(7, b"old news")
        await store.sessions()
        await store.resign(7)
        if forgotten:
            await store.forget_session(7)
        await store.join(8)
        await store.heartbeat(8, b"payload")
        await store.publish(8, b"news")
        with pytest.raises(Refused):
            await former.heartbeat(7, b"late")
        if forgotten:
            with pytest.raises(Refused):
                await former.publish(7, b"late news")
        await former.resign(7)
        assert not await former.kill(7, -1)
        await former.forget_session(7)
        assert await listed(store) == [(8, False, b"payload")]
        assert await store.news([8]) == [b"news"]

    run(check())


def test_news_of_an_earlier_owner_are_not_taken_for_those_of_the_present_one(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        await store.publish(7, b"news")
        await store.resign(7)
        inside: Any = store
        if hasattr(store, "caller"):
            # Forgotten by somebody who died before the news were dropped.
            unlist = [map_operations.map_remove_by_key("numbers", 7, aerospike.MAP_RETURN_NONE)]
            await inside.change(inside.key("ctl", "sessions"), unlist)
            inside._joined, inside._slots = (0, 0), {}
        else:
            del inside._cluster._listed[7]
        await store.join(8)
        assert await store.news([8]) == [b""]

    run(check())


def listed_only(store: SegmentStore) -> Any:
    """Let a session be listed whose front-end dies before it has joined."""
    inside: Any = store
    if hasattr(store, "caller"):
        return inside._list_session(7)
    return inside._transport("list_session", lambda: inside._cluster.list_session(7, 1))


@pytest.mark.parametrize("used_before", [False, True])
def test_a_session_that_was_listed_and_did_not_join_can_be_killed_and_never_joins_then(
    store: SegmentStore, used_before: bool
) -> None:
    async def check() -> None:
        if used_before:
            await store.join(6)
            await over(store, 6)
        await listed_only(store)
        assert [(record.number, record.dead, record.silent_ms) for record in await store.sessions()] == [
            (7, False, NEVER_WROTE)
        ]
        assert [await store.kill(7, 10_000) for _ in range(2)] == [True, False]
        assert await listed(store) == [(7, True, b"")]
        with pytest.raises(Refused):
            await store.heartbeat(7, None)
        await store.forget_session(7)
        await store.join(8)
        assert await listed(store) == [(8, False, b"")]

    run(check())


def test_who_joins_at_the_same_time_gets_a_record_of_its_own(store: SegmentStore) -> None:
    async def check() -> None:
        stores = [seen_from_elsewhere(store) for _ in range(8)]
        await asyncio.gather(*[each.join(number) for number, each in enumerate(stores, start=1)])
        for number, each in enumerate(stores, start=1):
            await each.heartbeat(number, b"%d" % number)
        assert await listed(store) == [(number, False, b"%d" % number) for number in range(1, 9)]

    run(check())


def test_sessions_of_the_version_before_live_and_die_beside_the_others(real: AerospikeStore, client: Any) -> None:
    async def check() -> None:
        # As it made them: the record's key is the number, and the list knows no slots.
        for number in (1, 2):
            client.put(real.key("ses", number), {"dead": 0, "payload": b"old"})
            client.put(real.key("news", number), {"news": b"[1]"})
        client.put(real.key("ctl", "sessions"), {"numbers": {1: 0, 2: 0}})
        await real.join(3)
        assert await listed(real) == [(1, False, b"old"), (2, False, b"old"), (3, False, b"")]
        assert await real.news([1, 2, 3]) == [b"[1]", b"[1]", b""]
        await asyncio.sleep(0.05)
        assert await real.kill(1, 10)
        await real.forget_session(1)
        assert await listed(real) == [(2, False, b"old"), (3, False, b"")]
        assert client.get(real.key("ses", 1))[2]["dead"] == 1
        await real.heartbeat(3, b"new")

    run(check())


# --- news


def test_news_are_what_a_session_told_last(store: SegmentStore) -> None:
    async def check() -> None:
        for session in (7, 8):
            await store.join(session)
        assert await store.news([7]) == [b""]
        await store.publish(7, b"one")
        await store.publish(8, b"\x00")
        await store.publish(7, b"two")
        assert await store.news([8, 9, 7]) == [b"\x00", b"", b"two"]
        await store.publish(7, b"")
        assert (await store.news([7]), await store.news([])) == ([b""], [])

    run(check())


def test_news_that_are_known_are_waited_for_until_there_are_others(store: SegmentStore) -> None:
    async def check() -> None:
        for session in (7, 8):
            await store.join(session)
        await store.publish(7, b"old")
        listening = asyncio.ensure_future(store.news([7, 8], [b"old", b""], 60, 0.002))
        await asyncio.wait([listening], timeout=0.02)
        assert not listening.done()
        await store.publish(8, b"new")
        assert await listening == [b"old", b"new"]

    run(check())


def test_news_that_stay_as_they_are_known_are_returned_in_time(store: SegmentStore) -> None:
    async def check() -> None:
        await store.join(7)
        await store.publish(7, b"old")
        began = time.monotonic()
        assert await store.news([7], [b"old"], 0.01, 0.002) == [b"old"]
        assert time.monotonic() - began >= 0.01

    run(check())

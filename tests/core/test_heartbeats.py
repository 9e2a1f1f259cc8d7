"""What a front-end tells others with its heartbeats and news, and what it hears of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from world import World, session_of

from beanspiked.engine.aerospike.cluster import usage
from beanspiked.engine.aerospike.cluster.news import LISTEN_FOR
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.aerospike.calls import meaning_of
from beanspiked.engine.aerospike.store.seam import Busy, StoreError, TooBig
from beanspiked.engine.aerospike.tubes.takes import FOLLOW_FOR

if TYPE_CHECKING:
    import pytest

# --- what others tell


class Untold:
    """Has no record of anything."""

    def batch_operate(self, keys: list[Any], *_: Any) -> Any:
        return SimpleNamespace(batch_records=[SimpleNamespace(result=2)] * len(keys))

    def close(self) -> None:
        pass


def test_who_listens_for_news_keeps_no_store_from_leaving() -> None:
    async def check() -> None:
        store = AerospikeStore(Untold(), "test")
        listening = asyncio.ensure_future(store.news([7], [b""], 600, 0.001))
        await asyncio.sleep(0)
        await store.leave()
        assert await listening == [b""]

    asyncio.run(check())


def reads_of_news(here: World, seconds: float) -> int:
    """Count how often news are read."""
    reads = 0
    read = here.cluster.one_news

    def counting(session: int) -> bytes:
        nonlocal reads
        reads += 1
        return read(session)

    here.cluster.one_news = counting  # type: ignore[method-assign]
    here.run(seconds)
    here.cluster.one_news = read  # type: ignore[method-assign]
    return reads


def test_records_of_news_are_read_while_somebody_waits_and_less_often_when_there_are_none() -> None:
    here = World(1, links=False)
    waiting, other = here.front_end().connect(), here.front_end().connect()
    here.run(3.0)
    assert reads_of_news(here, 1.0) == 0
    waiting.post(b"watch a\r\nreserve\r\n")
    here.run(2.0)
    assert 40 < reads_of_news(here, 1.0) < 52
    other.put()
    here.run(0.1)
    assert waiting.received.count(b"RESERVED") == 1
    waiting.post(b"reserve\r\n")
    assert 80 < reads_of_news(here, 1.0) < 102
    waiting.hang_up()
    here.run(FOLLOW_FOR + LISTEN_FOR)
    assert reads_of_news(here, 1.0) == 0


# --- what a heartbeat tells


def watch_many(here: World, count: int, at_most: int = 512 << 10) -> tuple[Any, Any]:
    """Let a client of one front-end of two watch many tubes while another one holds a job; return both front-ends."""
    front_end, other = here.front_end(), here.front_end()
    # The constant itself is compiled in.
    front_end.engine.membership.telling.at_most = at_most
    holder, watcher = front_end.connect(), front_end.connect()
    here.run(3.0)
    job_id = holder.put()
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED")
    watcher.post(b"".join(b"watch %064x-%d\r\n" % (here.chance.getrandbits(256), n) for n in range(count)))
    session = front_end.engine.membership.session
    here.run(6.0)
    assert front_end.engine.membership.session is session
    assert holder.ask(b"touch %d\r\n" % job_id) == b"TOUCHED\r\n"
    return front_end, other


def told_of(other: Any) -> int:
    """Return of how many tubes the others have told a front-end."""
    return len([tube for tube in other.connect().ask(b"list-tubes\r\n").split(b"\n") if len(tube) > 60])


def test_a_front_end_that_uses_many_tubes_lives_and_tells_of_all() -> None:
    here = World(1)
    # Larger than a record before it is packed.
    here.cluster.record_max = 150_000
    _, other = watch_many(here, 2500)
    assert told_of(other) == 2500


def test_of_too_many_tubes_only_the_first_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    here = World(1)
    _, other = watch_many(here, 1000, at_most=20_000)
    assert 300 < told_of(other) < 600
    assert len([record for record in caplog.records if "first ones only" in record.message]) == 1


def test_a_heartbeat_does_not_fail_for_its_payload() -> None:
    here = World(1)
    # A store whose records hold less than by default.
    here.cluster.record_max = 20_000
    _, other = watch_many(here, 1000)
    assert 100 < told_of(other) < 600


def test_after_a_heartbeat_that_failed_one_goes_without_a_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    here = World(1)
    beat = here.cluster.heartbeat

    def heartbeat(session: int, payload: bytes | None, writes: int) -> int:
        if payload is not None and len(payload) > 100:
            raise Busy("18: the device is overloaded")
        return beat(session, payload, writes)

    monkeypatch.setattr(here.cluster, "heartbeat", heartbeat)
    front_end, _ = watch_many(here, 10)
    here.run(10.0)
    assert front_end.engine.membership.alive()


def test_a_payload_of_another_version_is_no_bug() -> None:
    here = World(1)
    front_end, other = here.front_end(), here.front_end()
    client = other.connect()
    here.run(3.0)
    session_of(here, front_end.engine.membership.session.number).payload = b"\xffof another version"
    assert client.stats("stats-tube default")["current-watching"] == "1"


def test_a_payload_that_is_too_big_is_a_refusal_of_its_own() -> None:
    assert issubclass(TooBig, StoreError)
    assert isinstance(meaning_of(13, False, ""), TooBig)


# --- how others use tubes


def test_what_others_tell_of_their_tubes_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    here = World(1)
    front_end, other = here.front_end(), here.front_end()
    client, watcher = front_end.connect(), other.connect()
    here.run(3.0)
    watcher.ask(b"watch t\r\n")
    here.run(3.0)
    parsed: list[bytes] = []
    loads = usage.json.loads

    def counted(payload: bytes) -> Any:
        parsed.append(payload)
        return loads(payload)

    monkeypatch.setattr(usage.json, "loads", counted)
    for _ in range(10):
        assert client.stats("stats-tube t")["current-watching"] == "1"
    assert len([payload for payload in parsed if payload.startswith(b"{")]) <= 1
    watcher.ask(b"use t\r\n")
    here.run(3.0)
    for _ in range(10):
        assert client.stats("stats-tube t")["current-using"] == "1"
    assert len([payload for payload in parsed if payload.startswith(b"{")]) <= 2

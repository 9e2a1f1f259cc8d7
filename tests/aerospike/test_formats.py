"""Records of a format newer than known, on both stores: left alone by this version, and for the next one to see to."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from memory import Cluster, MemoryStore
from segments import ATTACH, LEASE, OTHER, RECORDS, RENEWED, jobs, puts, run
from versions import NEXT, NEXT_FORM

from beanspiked.engine.aerospike.engine import SharedEngine
from beanspiked.engine.aerospike.segment.codec import FORMATS
from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.seam import CLOSED, FIRST, OPEN, READY, Change, Damaged, Fenced, Newer, Refused
from beanspiked.library.conn import Conn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from beanspiked.engine.aerospike.segment.codec import Formats
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.contract import TubeEngine
    from beanspiked.engine.timers import Timers
    from beanspiked.server.broker import Broker

    Both = tuple[SegmentStore, SegmentStore]


@pytest.fixture(params=["memory", "aerospike"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    """One store as this version sees it, and as the next one does."""
    if request.param == "memory":
        cluster = Cluster(lambda: int(time.time() * 1000))
        yield MemoryStore(cluster), MemoryStore(cluster, newest=NEXT_FORM)
        return
    real: AerospikeStore = request.getfixturevalue("real")
    newer = AerospikeStore(real.caller.client, "test", real._prefix, NEXT_FORM)
    yield real, newer
    newer.caller.close()


def test_a_segment_can_be_read_by_who_knows_its_format_only(both: Both) -> None:
    older, newer = both

    async def check() -> None:
        await newer.create(1, "t", LEASE, NEXT_FORM)
        await newer.apply(1, LEASE, puts(1))
        segment = await newer.read(1)
        assert segment is not None
        assert (segment.form, len(segment.ready)) == (NEXT_FORM, 1)
        with pytest.raises(Newer):
            await older.read(1)
        assert (await older.heads([1]), await older.sizes([1])) == ([None], [None])
        assert None not in (await newer.heads([1]) + await newer.sizes([1]))
        # Whose record it is by now, all formats tell alike.
        assert await older.read(1 + RECORDS) is None

    run(check())


def test_who_does_not_know_its_format_gets_no_lease_of_a_segment(both: Both) -> None:
    older, newer = both

    async def check() -> None:
        await newer.create(1, "t", LEASE, NEXT_FORM)
        with pytest.raises(Fenced):
            await older.apply(1, OTHER, ATTACH)
        with pytest.raises(Fenced):
            await older.settle_attach(1, OTHER, RENEWED)
        await newer.apply(1, OTHER, ATTACH)

    run(check())


@pytest.mark.parametrize("what", ["wipe", "close", "retire"])
def test_who_does_not_know_its_format_does_not_end_a_segment(both: Both, what: str) -> None:
    older, newer = both

    async def check() -> None:
        await newer.create(1, "t", LEASE, NEXT_FORM)
        if what == "retire":
            await newer.close(1)
        with pytest.raises(Newer):
            await getattr(older, what)(1)
        segment = await newer.read(1)
        assert segment is not None
        assert segment.state == (CLOSED if what == "retire" else OPEN)
        assert await getattr(newer, what)(1) in (0, True)

    run(check())


def test_the_record_of_a_dead_segment_is_used_again_by_who_knows_its_format_only(both: Both) -> None:
    older, newer = both

    async def check() -> None:
        await newer.create(1, "t", LEASE, NEXT_FORM)
        await newer.close(1)
        assert await newer.retire(1)
        with pytest.raises(Refused):
            await older.create(1 + RECORDS, "t", OTHER)
        await newer.create(1 + RECORDS, "t", OTHER, FIRST)
        # From now on it is of the format that it was made in.
        segment = await older.read(1 + RECORDS)
        assert segment is not None
        assert segment.form == FIRST

    run(check())


def test_a_session_announces_what_it_reads_and_tells_what_it_writes(both: Both) -> None:
    older, newer = both

    async def check() -> None:
        await older.join(1)
        await newer.join(2)
        await newer.heartbeat(2, b"told", NEXT_FORM)
        await newer.join(3, NEXT_FORM)
        told = [(record.reads, record.writes, record.newer) for record in await older.sessions()]
        assert told == [(FIRST, FIRST, False), (NEXT_FORM, NEXT_FORM, False), (NEXT_FORM, FIRST, True)]
        assert [record.newer for record in await newer.sessions()] == [False] * 3
        # A heartbeat without a payload tells it as well, and leaves the payload.
        await newer.heartbeat(2, None, FIRST)
        second = (await older.sessions())[1]
        assert (second.writes, second.payload) == (FIRST, b"told")

    run(check())


def test_news_of_a_newer_format_are_none(both: Both) -> None:
    older, newer = both

    async def check() -> None:
        await older.join(1)
        await newer.join(2)
        await older.sessions()
        await newer.sessions()
        await newer.publish(1, b"[1,[]]", NEXT_FORM)
        await newer.publish(2, b"[2,[]]")
        assert await older.news([1, 2]) == [b"", b"[2,[]]"]
        assert await newer.news([1, 2]) == [b"[1,[]]", b"[2,[]]"]

    run(check())


def test_a_body_of_a_newer_format_is_not_lost(both: Both) -> None:
    older, newer = both

    async def check() -> None:
        await newer.write_body(1, 1, b"body", NEXT_FORM)
        with pytest.raises(Newer):
            await older.read_bodies([(1, 1), (1, 2)])
        assert await newer.read_bodies([(1, 1), (1, 2)]) == [b"body", None]

    run(check())


def test_records_of_before_there_were_numbers_are_read_and_used_again(real: AerospikeStore, client: Any) -> None:
    async def check() -> None:
        await real.create(1, "t", LEASE)
        await real.apply(1, LEASE, Change(1, {READY: jobs(1)}))
        await real.join(7)
        await real.publish(7, b"[1,[]]")
        await real.write_body(1, 1, b"body")
        last = await real.reserve_numbers("segment", 5)
        for name, key in (
            ("seg", 1),
            ("ses", "slot-1"),
            ("news", "slot-1"),
            ("body", "1-1"),
            ("ctl", "counter-segment"),
        ):
            client.put(real.key(name, key), {"f": None, "reads": None, "writes": None})
        segment = await real.read(1)
        assert segment is not None
        assert (segment.form, len(segment.ready)) == (FIRST, 1)
        assert None not in (await real.heads([1]) + await real.sizes([1]))
        assert [(record.reads, record.writes) for record in await real.sessions()] == [(FIRST, FIRST)]
        assert await real.news([7]) == [b"[1,[]]"]
        assert await real.read_bodies([(1, 1)]) == [b"body"]
        assert await real.reserve_numbers("segment", 1) == last + 5
        await real.apply(1, OTHER, ATTACH)
        await real.wipe(1)
        assert await real.retire(1)
        await real.create(1 + RECORDS, "t", RENEWED)

    run(check())


@pytest.mark.parametrize("odd", [NEXT_FORM, "text"])
def test_a_counter_of_a_newer_format_counts_no_further(real: AerospikeStore, client: Any, odd: Any) -> None:
    async def check() -> None:
        await real.reserve_numbers("segment", 5)
        key = real.key("ctl", "counter-segment")
        client.put(key, {"f": odd})
        with pytest.raises(Newer):
            await real.reserve_numbers("segment", 5)
        assert client.get(key)[2]["last"] == 5
        client.put(real.key("ctl", "sessions"), {"f": odd})
        with pytest.raises(Damaged):
            await real.join(7)
        assert await real.sessions() == []

    run(check())


class FrontEnd(Conn):
    """A front-end of some version in this process."""

    def __init__(self, store: AerospikeStore, formats: Formats) -> None:
        super().__init__(None)
        self.engine: SharedEngine
        self._store = AerospikeStore(store.caller.client, "test", store._prefix, formats.newest)
        self._formats = formats

    async def _start(self, broker: Broker, timers: Timers, turn: Callable[[], None]) -> TubeEngine:
        # The client is the other tests' as well.
        self._store.leave = self._let_go  # type: ignore[method-assign]
        self.engine = SharedEngine(timers, broker, self._store, turn, time.monotonic, formats=self._formats)
        self.engine.start()
        await self.engine.membership.have_session(15.0)
        return self.engine

    async def _let_go(self) -> None:
        self._store.caller.close()

    async def writing(self, form: int) -> None:
        """Wait until a format is written here."""
        for _ in range(400):
            if self.engine.membership.agreement.writes == form:
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"format {form} is not written")


def test_two_versions_share_tubes_and_what_is_newer_waits_for_who_knows_it(real: AerospikeStore) -> None:
    large = bytes(range(256)) * 20

    async def check() -> None:
        async with FrontEnd(real, NEXT) as new:
            await new.writing(NEXT_FORM)
            for body in (b"newer", large):
                await new.use("t").put(body)
            async with FrontEnd(real, FORMATS) as old:
                # It serves once nothing newer is written.
                assert new.engine.membership.agreement.writes == FIRST
                assert await old.use("t").reserve(timeout=0.2) is None
                await new.use("t").put(b"new to old")
                job = await old.use("t").reserve(timeout=5)
                assert job is not None
                assert job.body == b"new to old"
                await job.release()
                await old.use("t").put(large[:2000])
                bodies = set()
                for _ in range(4):
                    job = await new.use("t").reserve(timeout=5)
                    assert job is not None
                    bodies.add(job.body)
                    await job.bury("seen")
                assert bodies == {b"newer", large, b"new to old", large[:2000]}
                # Of these it can read two.
                assert await old.use("t").kick(10) == 2
                assert await old.use("t").reserve(timeout=5) is not None
            await new.writing(NEXT_FORM)
            assert await new.use("t").kick(10) == 2

    run(check())

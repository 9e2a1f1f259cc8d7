"""Due jobs of many segments, beside a segment that does not answer: whoever wants one of the others gets it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from failing import for_segment
from memory import MemoryStore
from memory_segments import SegmentRecord
from world import Client, FrontEnd, World

from beanspiked.engine.aerospike.segment.codec import pack_plain
from beanspiked.engine.aerospike.store.keys import RING_MAX, due_key
from beanspiked.engine.aerospike.store.seam import CLOSED, DELAYED, FIRST, Busy, StoreError, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.seam import Head, Segment

SEGMENTS = 300
SILENT = RING_MAX + 170
DUE_IN = 20.0


def fill(here: World) -> None:
    """Make segments with one delayed job each."""
    cluster = here.cluster
    cluster.inline_max = SEGMENTS
    for number in range(RING_MAX, RING_MAX + SEGMENTS):
        record = SegmentRecord(number, "due", 999, FIRST, 0)
        record.state = CLOSED
        record.queues[DELAYED][due_key(cluster.now_ms() + round(DUE_IN * 1000), 1)] = pack_plain(0, 0, 60_000, 1, b"x")
        cluster._segments[number - RING_MAX] = record
        cluster.enlist("due", number)


def watching(front_end: FrontEnd) -> Client:
    client = front_end.connect()
    assert client.ask(b"watch due\r\n") == b"WATCHING 2\r\n"
    return client


def silence(here: World, error: StoreError) -> None:
    """Have one segment neither be read nor changed."""
    for name in ("read", "shift"):
        setattr(here.cluster, name, for_segment(SILENT, getattr(here.cluster, name), error))


@pytest.mark.slow
@pytest.mark.parametrize("error", [Busy("11: no answer"), Unknown("9: no answer")])
def test_jobs_that_come_due_are_given_though_one_segment_does_not_answer(here: World, error: StoreError) -> None:
    front_end, other = here.front_end(), here.front_end()
    fill(here)
    here.run(3.0)
    silence(here, error)
    waiting = [watching(front_end) for _ in range(5)]
    for client in waiting:
        client.post(b"reserve\r\n")
    here.run(DUE_IN)
    assert all(client.take().startswith(b"RESERVED ") for client in waiting)
    # Later clients get no error for the silent segment while other segments have jobs.
    for client in [*waiting, watching(other)]:
        for _ in range(10):
            assert client.ask(b"reserve\r\n", 5.0).startswith(b"RESERVED ")


@pytest.mark.slow
def test_jobs_of_a_segment_that_answers_again_become_ready(here: World) -> None:
    front_end = here.front_end()
    fill(here)
    here.run(3.0)
    read, shift = here.cluster.read, here.cluster.shift
    silence(here, Busy("11: no answer"))
    client = watching(front_end)
    here.run(DUE_IN)
    for _ in range(SEGMENTS - 1):
        job_id = int(client.ask(b"reserve\r\n", 5.0).split()[1])
        assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    # It is not known that there is none.
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"INTERNAL_ERROR\r\n"
    here.cluster.read, here.cluster.shift = read, shift  # type: ignore[method-assign]
    assert client.ask(b"reserve\r\n", 10.0).startswith(b"RESERVED ")


class Together(MemoryStore):
    """A store that reads many heads in the time of one, as a cluster does."""

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        heads = await asyncio.gather(*[MemoryStore.heads(self, [number]) for number in numbers])
        return [head for [head] in heads]


@pytest.fixture
def slow() -> World:
    """A cluster each of whose calls takes 100 ms, with a front-end and a tube whose jobs have been due for a while."""
    here = World(1, latency=(0.05, 0.05), store_class=Together)
    here.front_end()
    fill(here)
    here.run(DUE_IN + 1.0)
    return here


def test_a_poll_gets_a_ready_job_long_before_all_due_ones_are_ready(slow: World) -> None:
    client = watching(slow.front_ends[0])
    assert client.ask(b"reserve-with-timeout 0\r\n", 1.5).startswith(b"RESERVED ")
    # Those that come meanwhile do not wait for the rest either.
    for _ in range(5):
        assert client.ask(b"reserve-with-timeout 0\r\n", 0.5).startswith(b"RESERVED ")


def test_polls_that_are_faster_than_due_jobs_become_ready_get_all_of_them(slow: World) -> None:
    clients = [watching(slow.front_ends[0]) for _ in range(SEGMENTS // 5)]
    jobs = set()
    for _ in range(5):
        for client in clients:
            client.post(b"reserve-with-timeout 0\r\n")
        slow.run(10.0)
        jobs.update(client.take() for client in clients)
    assert all(reply.startswith(b"RESERVED ") for reply in jobs)
    assert len(jobs) == SEGMENTS
    assert clients[0].ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"


def test_waits_that_end_while_due_jobs_become_ready_get_them(slow: World) -> None:
    clients = [watching(slow.front_ends[0]) for _ in range(SEGMENTS // 4)]
    for client in clients:
        client.post(b"reserve-with-timeout 1\r\n")
    slow.run(10.0)
    assert all(client.take().startswith(b"RESERVED ") for client in clients)


@pytest.mark.parametrize("links", [True, False])
def test_a_job_that_comes_due_just_before_the_end_of_a_wait_is_given(links: bool) -> None:
    for seed in range(10):
        here = World(seed, links=links)
        client = here.front_end().connect()
        here.run(3.0)
        client.put(delay=1)
        assert client.ask(b"reserve-with-timeout 1\r\n").startswith(b"RESERVED "), seed


class Mute(Together):
    """A store in which segments of one tube do not answer; a call takes a second to notice."""

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        if number < RING_MAX + SEGMENTS:
            await asyncio.sleep(1.0)
            raise Unknown("9: no answer")
        return await super().read(number)


@pytest.mark.parametrize("command", [b"reserve\r\n", b"reserve-with-timeout 0\r\n"])
def test_due_jobs_that_cannot_be_reached_keep_no_ready_job_of_another_tube_back(command: bytes) -> None:
    here = World(1, store_class=Mute)
    producer = here.front_end().connect()
    fill(here)
    here.run(DUE_IN + 1.0)
    client = watching(here.front_ends[0])
    producer.put()
    assert client.ask(command, 1.0).startswith(b"RESERVED ")
    # They are waited for once.
    for _ in range(5):
        producer.put()
        assert client.ask(command, 0.1).startswith(b"RESERVED ")


class Faulty(Together):
    """A store that meets a bug in one segment."""

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        if number == SILENT:
            raise RuntimeError("planted")
        return await super().read(number)


@pytest.mark.planted_bug
def test_a_bug_in_one_segment_keeps_no_due_job_of_another_back() -> None:
    here = World(1, store_class=Faulty)
    front_end = here.front_end()
    fill(here)
    here.run(DUE_IN + 1.0)
    client = watching(front_end)
    for _ in range(10):
        assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED ")

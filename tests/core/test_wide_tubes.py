"""Commands that look at or change jobs of many segments, on a store that takes long for each call: many calls are made side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from memory_segments import SegmentRecord
from world import World

from beanspiked.engine.aerospike.segment.codec import pack_plain
from beanspiked.engine.aerospike.store.keys import RING_MAX, due_key, job_slot
from beanspiked.engine.aerospike.store.seam import BURIED, CLOSED, FIRST, READY
from beanspiked.engine.contract import BURIED as IS_BURIED
from beanspiked.engine.contract import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.later import Later

SEGMENTS = 100
JOBS = 50


@pytest.fixture
def slow() -> World:
    """A cluster each of whose calls takes 20 ms, with a front-end and a tube."""
    here = World(1, latency=(0.01, 0.01))
    here.front_end()
    here.run(3.0)
    fill(here)
    return here


def fill(here: World) -> None:
    """Make segments with buried jobs: the first one of each, then the second one of each, and so on."""
    cluster = here.cluster
    cluster.inline_max = SEGMENTS
    for place in range(SEGMENTS):
        record = SegmentRecord(RING_MAX + place, "wide", 999, FIRST, 0)
        record.state = CLOSED
        record.last_slot = JOBS
        for slot in range(1, JOBS + 1):
            key = due_key(cluster.now_ms() - 100_000 + slot * SEGMENTS + place, slot)
            record.queues[BURIED][key] = pack_plain(0, 0, 60_000, 1, b"x")
        cluster._segments[place] = record
        cluster.enlist("wide", RING_MAX + place)


@pytest.mark.parametrize("count", [1, 250, 10_000])
def test_jobs_of_many_segments_are_kicked_soon_and_the_oldest_first(slow: World, count: int) -> None:
    client = slow.front_ends[0].connect()
    assert client.ask(b"use wide\r\n") == b"USING wide\r\n"
    kicked = min(count, SEGMENTS * JOBS)
    assert client.ask(b"kick %d\r\n" % count, 4.0) == b"KICKED %d\r\n" % kicked
    ready = [
        (job_slot(key), place)
        for place in range(SEGMENTS)
        for key in slow.cluster.segment(RING_MAX + place).queues[READY]
    ]
    assert sorted(ready) == [(1 + number // SEGMENTS, number % SEGMENTS) for number in range(kicked)]


CHANGES: dict[str, Callable[[SharedEngine], Later | None]] = {
    "clear": lambda engine: engine.clear(engine.tube("wide"), Filter()),
    "move": lambda engine: engine.move(engine.tube("wide"), engine.tube("other"), Filter()),
    "kick": lambda engine: engine.kick_jobs(engine.tube("wide"), Filter()),
    "count": lambda engine: engine.count_jobs(engine.tube("wide"), Filter(text=b"x")),
    "list": lambda engine: engine.list_jobs(engine.tube("wide"), IS_BURIED, Filter(), "", 1000),
    "find": lambda engine: engine.find(engine.tube("wide"), "metadata"),
    "delete": lambda engine: engine.delete_tube(engine.tube("wide")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_goes_through_many_segments_ends_soon(slow: World, what: str) -> None:
    begun: list[Any] = []
    slow.front_ends[0].inside(lambda: begun.append(CHANGES[what](slow.front_ends[0].engine)))
    assert slow.run({"move": 12.0, "count": 1.0, "find": 1.0}.get(what, 4.0), lambda: begun[0].done)
    assert begun[0].error is None
    if what in ("clear", "move", "kick", "count"):
        assert begun[0].value == SEGMENTS * JOBS

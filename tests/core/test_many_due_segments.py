"""Due jobs of many segments, beside a segment that does not answer: whoever wants one of the others gets it."""

from __future__ import annotations

import pytest
from failing import for_segment
from memory_segments import SegmentRecord
from world import Client, FrontEnd, World

from beanspiked.engine.aerospike.segment.codec import pack_plain
from beanspiked.engine.aerospike.store.keys import RING_MAX, due_key
from beanspiked.engine.aerospike.store.seam import CLOSED, DELAYED, FIRST, Busy, StoreError, Unknown

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

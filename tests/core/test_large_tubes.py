"""Tubes of very many segments: what they cost a front-end, and the others that it serves meanwhile."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from depth import COMPILED, FULL
from failing import always, for_segment
from memory_directories import PageRecord
from memory_segments import SegmentRecord
from world import World

from beanspiked.engine.aerospike.segment.codec import pack_plain
from beanspiked.engine.aerospike.store.keys import RING_MAX, SLOT_BITS, due_key, ready_key
from beanspiked.engine.aerospike.store.seam import CLOSED, DELAYED, FIRST, OPEN, PAGE_MAX, READY, Busy, Head
from beanspiked.engine.aerospike.tubes.notes import note_due_ms, note_empty, note_head, note_number, note_of

if TYPE_CHECKING:
    from world import Client, FrontEnd


def fill(here: World, tube: str, segments: int, queue: str = READY) -> None:
    """Make so many segments of a tube with one job each, the last one the most urgent."""
    cluster = here.cluster
    packed = pack_plain(0, 0, 60_000, 1, b"x")
    pages = -(-segments // PAGE_MAX)
    for place in range(segments):
        record = SegmentRecord(RING_MAX + place, tube, 999, FIRST, RING_MAX + place // PAGE_MAX)
        record.state = CLOSED
        key = ready_key(segments - place, 1000 + place, 1)
        record.queues[queue][key if queue == READY else due_key(cluster.now_ms() + 60_000, 1)] = packed
        cluster._segments[place] = record
    for place in range(pages):
        page = PageRecord(RING_MAX + place, tube)
        page.segments = set(range(RING_MAX + place * PAGE_MAX, RING_MAX + min((place + 1) * PAGE_MAX, segments)))
        cluster._pages[place] = page
        cluster.list_page(tube, RING_MAX + place)
    # As if they had been made just now: two generations of a ring that has grown.
    cluster.reserve_places("segment", 1 << 14)
    while cluster.reserve_places("segment", 1).size < 4 * segments:
        cluster.grow_ring("segment", cluster.reserve_places("segment", 1).size)


def watcher(front_end: FrontEnd, tube: bytes) -> Client:
    client = front_end.connect()
    assert client.ask(b"watch %b\r\n" % tube) == b"WATCHING 2\r\n"
    return client


def test_a_note_tells_what_a_look_needs_of_a_segment() -> None:
    number = 7 << 24 | 5
    head = Head([ready_key(1, 2, 3), ready_key(4, 5, 6)], ready_key(4, 5, 6), due_key(1 << 41, 9), 2, 3, 4, 5, CLOSED)
    note = note_of(number, head)
    assert (note_number(note), note_due_ms(note), note_empty(note)) == (number, 1 << 41, False)
    told = note_head(note)
    assert (told.first_keys, told.ready, told.state) == ([ready_key(1, 2, 3)], 2, CLOSED)
    assert told.delayed + told.buried + told.held == 12
    empty = note_of(number, Head((), None, None, 0, 0, 0, 0, OPEN))
    assert (note_empty(empty), note_due_ms(empty), note_head(empty).due_key) == (True, 0, None)


def test_notes_are_in_the_order_of_their_most_urgent_jobs() -> None:
    notes = [
        note_of(number, Head([ready_key(pri, 5, 1)], None, None, 1, 0, 0, 0, CLOSED))
        for number, pri in ((RING_MAX + 9, 1), (RING_MAX + 3, 2), (RING_MAX + 5, 1 << 31))
    ]
    assert sorted(notes) == notes


@pytest.mark.parametrize(
    "segments",
    [
        3000,
        pytest.param(1_000_000 if FULL and COMPILED else 50_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_segment_that_is_not_in_use_costs_200_bytes_at_most(segments: int) -> None:
    here = World(1, latency=(0.00001, 0.00001))
    fill(here, "large", segments)
    front_end = here.front_end()
    here.run(2.0)
    tube = front_end.engine.registry.tube("large")
    client = watcher(front_end, b"large")
    reply = client.ask(b"reserve\r\n", seconds=segments)
    # The most urgent of all was found, in the last segment.
    assert int(reply.split()[1]) >> SLOT_BITS == RING_MAX + segments - 1
    assert len(tube.notes) + len(tube.committers) == segments
    assert len(tube.committers) < 100
    here.run(10.0)
    size = sys.getsizeof(tube.notes) + sys.getsizeof(tube._noted)
    size += sum(sys.getsizeof(number) + sys.getsizeof(note) for number, note in tube.notes.items())
    assert size / segments <= 200
    assert client.ask(b"put 0 0 60 1\r\nx\r\n").startswith(b"INSERTED")


def test_no_turn_of_the_loop_is_long_while_a_large_tube_is_opened() -> None:
    here = World(1, latency=(0.00001, 0.00001))
    fill(here, "large", 20_000)
    front_end = here.front_end()
    here.run(2.0)
    client = watcher(front_end, b"large")
    client.post(b"reserve\r\n")
    turns: list[int] = []
    # A store in memory answers each read by itself: steps of the loop between two looks at what else there is to do.
    steps = here.steps
    while not client.answered():
        begun = time.thread_time()
        if not here.step():
            here.time = max(here.time, here.next_time())
        turns.append(round((time.thread_time() - begun) * 1000))
    assert here.steps - steps > 20_000
    assert sorted(turns)[-3] <= 10


def test_segments_on_a_node_that_does_not_answer_become_no_objects_and_come_back_with_it() -> None:
    here = World(1, latency=(0.00001, 0.00001))
    fill(here, "large", 1500)
    front_end = here.front_end()
    here.run(2.0)
    head = here.cluster.head

    def there(number: int) -> Head | None:
        # The most urgent job is in the last segment.
        if number % 3 == (RING_MAX + 1499) % 3:
            raise Busy("11: no answer")
        return head(number)

    here.cluster.head = there  # type: ignore[method-assign]
    client = watcher(front_end, b"large")
    tube = front_end.engine.registry.tube("large")
    assert int(client.ask(b"reserve\r\n").split()[1]) >> SLOT_BITS == RING_MAX + 1498
    assert len(tube.notes) + len(tube.committers) == 1500
    assert len(tube.committers) < 10
    here.cluster.head = head  # type: ignore[method-assign]
    assert int(client.ask(b"reserve\r\n").split()[1]) >> SLOT_BITS == RING_MAX + 1499


def test_who_waits_while_a_node_does_not_answer_gets_its_jobs_once_it_does() -> None:
    here = World(1)
    fill(here, "large", 30)
    front_end, other = here.front_end(), here.front_end()
    here.run(3.0)
    head = here.cluster.head
    here.cluster.head = for_segment(RING_MAX + 29, head, Busy("11"))  # type: ignore[method-assign]
    holder = watcher(other, b"large")
    client = watcher(front_end, b"large")
    for _ in range(29):
        assert holder.ask(b"reserve\r\n").startswith(b"RESERVED")
    assert client.ask(b"reserve\r\n") == b"INTERNAL_ERROR\r\n"
    client.post(b"reserve\r\n")
    here.run(1.0)
    here.cluster.head = head  # type: ignore[method-assign]
    here.run(3.0)
    assert client.take().startswith(b"RESERVED %d " % ((RING_MAX + 29) << SLOT_BITS | 1))


def test_due_jobs_of_segments_that_are_not_in_use_become_ready() -> None:
    here = World(1)
    fill(here, "large", 300, DELAYED)
    client = watcher(here.front_end(), b"large")
    here.run(2.0)
    client.post(b"reserve-with-timeout 0\r\n")
    here.run(3.0)
    assert client.take() == b"TIMED_OUT\r\n"
    assert client.ask(b"reserve\r\n", seconds=100.0).startswith(b"RESERVED")


def test_a_segment_that_was_used_and_rests_is_put_down_and_its_lease_given_up() -> None:
    here = World(1)
    front_end, other = here.front_end(), here.front_end()
    here.run(2.0)
    producer = other.connect()
    kept = producer.put(b"kept", pri=5)
    client = front_end.connect()
    job_id = producer.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
    assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    tube = front_end.engine.registry.tube("default")
    assert [*tube.committers] == [kept >> SLOT_BITS]
    here.run(200.0)
    assert (len(tube.committers), len(tube.notes)) == (0, 1)
    leases = here.cluster.segment(kept >> SLOT_BITS).leases
    assert {lease >> 32 for lease in leases} == {other.engine.membership.session.number}
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED %d " % kept)


@pytest.mark.parametrize("command", [b"reserve\r\n", b"reserve-with-timeout 0\r\n"])
def test_a_sweep_hides_no_job_of_segments_that_do_not_answer_it(command: bytes) -> None:
    here = World(1)
    fill(here, "large", 30)
    front_end, _ = here.front_end(), here.front_end()
    here.run(3.0)
    client = watcher(front_end, b"large")
    client.ask(b"use large\r\n")
    # Its own jobs are more urgent, so nothing is asked of the other segments.
    for _ in range(3):
        client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    head = here.cluster.head
    here.cluster.head = always(Busy("11"))  # type: ignore[method-assign]
    front_end.inside(lambda: front_end.engine.tasks.spawn(front_end.engine.lifecycle.sweep()))
    here.run(0.5)
    here.cluster.head = head  # type: ignore[method-assign]
    assert [client.ask(b"reserve\r\n").split()[0] for _ in range(2)] == [b"RESERVED"] * 2
    client.post(command)
    here.run(1.0)
    assert client.take().startswith(b"RESERVED %d " % ((RING_MAX + 29) << SLOT_BITS | 1))


def test_one_who_waits_since_a_sweep_began_gets_the_due_jobs_of_segments_that_do_not_answer_it() -> None:
    here = World(1)
    fill(here, "large", 30, DELAYED)
    front_end, _ = here.front_end(), here.front_end()
    here.run(3.0)
    client = watcher(front_end, b"large")
    here.run(49.0)
    # Then it looks at what is waited for again after half a minute.
    front_end.engine.scout.look_everywhere()
    assert client.ask(b"reserve-with-timeout 3\r\n") == b"TIMED_OUT\r\n"
    head = here.cluster.head
    here.cluster.head = always(Busy("11"))  # type: ignore[method-assign]
    front_end.inside(lambda: front_end.engine.tasks.spawn(front_end.engine.lifecycle.sweep()))
    here.run(0.0002)
    client.post(b"reserve\r\n")
    here.run(0.5)
    here.cluster.head = head  # type: ignore[method-assign]
    assert here.time < 60.0
    here.run(62.0 - here.time)
    assert client.take().startswith(b"RESERVED ")


def test_jobs_of_a_segment_that_is_listed_twice_are_counted_once() -> None:
    here = World(1)
    fill(here, "large", PAGE_MAX + 1)
    # As after an entering that was not answered: the next try may go to another page.
    here.cluster._pages[1].segments.add(RING_MAX)
    client = here.front_end().connect()
    assert client.stats("stats-tube large")["current-jobs-ready"] == str(PAGE_MAX + 1)
    assert client.stats("stats")["current-jobs-ready"] == str(PAGE_MAX + 1)

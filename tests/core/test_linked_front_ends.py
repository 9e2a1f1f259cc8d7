"""Front-ends that are linked: who waits hears of its tubes at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from depth import full_depth
from memory import Cluster, MemoryStore
from world import World

from beanspiked.engine.aerospike.cluster.mesh import STRANGERS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from world import Client, FrontEnd

    from beanspiked.engine.aerospike.store.directory import Directory


class CountingStore(MemoryStore):
    """A store that counts what is asked of it, but for its front-end's own life."""

    def __init__(self, cluster: Cluster, transport: Callable[[str, Callable[[], Any]], Any]) -> None:
        self.ops: Counter[str] = Counter()

        async def counted(name: str, operation: Callable[[], Any]) -> Any:
            if name not in {"heartbeat", "sessions"}:
                self.ops[name] += 1
            return await transport(name, operation)

        super().__init__(cluster, counted)


def asked(front_end: FrontEnd) -> Counter[str]:
    """Return what a front-end has asked of its store."""
    assert isinstance(front_end.store, CountingStore)
    return front_end.store.ops


def pair(**how: Any) -> tuple[World, FrontEnd, FrontEnd]:
    here = World(1, store_class=CountingStore, **how)
    first, second = here.front_end(), here.front_end()
    here.run(3.0)
    return here, first, second


def woken(here: World, producer: Client, consumer: Client) -> float:
    """Return how long a put takes to reach one who waits elsewhere, in seconds."""
    consumer.post(b"reserve\r\n")
    here.run(0.5)
    began = here.time
    producer.put()
    assert here.run(30.0, consumer.answered)
    took = here.time - began
    job_id = int(consumer.take().split()[1])
    assert consumer.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    return took


def longest(here: World, first: FrontEnd, second: FrontEnd) -> float:
    """Return how long a put on one front-end takes at most to reach one who waits on the other, in seconds."""
    producer, consumer = first.connect(), second.connect()
    # The first one lets the others know that somebody waits.
    woken(here, producer, consumer)
    return max(woken(here, producer, consumer) for _ in range(20))


def test_who_waits_elsewhere_is_woken_at_once() -> None:
    assert longest(*pair()) < 0.01


def test_who_waits_asks_the_store_for_nothing() -> None:
    here, _, second = pair()
    consumer = second.connect()
    consumer.post(b"reserve\r\n")
    here.run(6.0)
    asked(second).clear()
    here.run(20.0)
    assert asked(second).total() <= 20.0 / 5.0 + 1


def test_news_are_written_for_nobody_who_is_linked() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    consumer.post(b"reserve\r\n")
    here.run(6.0)
    asked(first).clear()
    for _ in range(10):
        producer.put()
    here.run(1.0)
    assert asked(first)["publish"] == 0


def test_what_is_put_elsewhere_is_taken_without_a_look() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    for _ in range(2):
        woken(here, producer, consumer)
    consumer.post(b"reserve\r\n")
    here.run(0.5)
    asked(second).clear()
    producer.put()
    assert here.run(1.0, consumer.answered)
    assert set(asked(second)) == {"apply"}


@pytest.mark.parametrize("segments", [1, 300])
def test_a_poll_of_an_empty_tube_asks_the_store_for_nothing_whatever_its_size(segments: int) -> None:
    here, first, second = pair()
    producer = first.connect()
    for number in range(segments):
        producer.put(delay=1000 + number, body=b"x" * 1000)
    client = second.connect()
    for _ in range(2):
        assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
        here.run(0.5)
    asked(second).clear()
    for _ in range(10):
        assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert not asked(second)


def test_a_poll_finds_what_was_put_elsewhere_a_moment_ago() -> None:
    _, first, second = pair()
    producer, client = first.connect(), second.connect()
    for _ in range(50):
        assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
        producer.put()
        reply = client.ask(b"reserve-with-timeout 0\r\n")
        assert reply.startswith(b"RESERVED")
        client.ask(b"delete %d\r\n" % int(reply.split()[1]))


def test_a_front_end_acknowledges_nothing_before_the_others_hear_of_it() -> None:
    here = World(1, store_class=CountingStore)
    first = here.front_end()
    here.run(3.0)
    client = first.connect()
    for _ in range(2):
        assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    here.cut(here.time, 1000.0)
    late = here.front_end()
    assert here.run(1.0, lambda: not late.engine.membership.session.over)
    late.connect().put()
    assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


def test_a_front_end_lives_on_while_it_waits_for_one_that_never_hears_it() -> None:
    here = World(1, latency=(0.3, 0.4))
    first = here.front_end()
    here.run(15.0)
    if not hasattr(first.engine.membership, "__dict__"):
        pytest.skip("a compiled front-end cannot be kept from looking")

    async def see_nobody() -> None:
        """It reads no sessions any more, and goes on sending heartbeats."""

    first.engine.membership.look = see_nobody  # type: ignore[method-assign]
    here.cut(here.time, 1000.0)
    late = here.front_end().engine.membership
    assert here.run(20.0, late._joined.is_set)
    assert late.alive()


def test_a_poll_beside_a_frozen_front_end_looks_into_the_store() -> None:
    here, first, second = pair()
    producer, client = first.connect(), second.connect()
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    first.freeze(3.0)
    began = here.time
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert here.time - began < 0.2
    assert producer.put()


def test_what_a_killed_front_end_made_ready_is_found() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    holder = first.connect()
    job_id = producer.put()
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED")
    consumer.post(b"reserve\r\n")
    first.kill()
    assert here.run(30.0, consumer.answered)
    assert consumer.take().split()[1] == b"%d" % job_id


@pytest.mark.parametrize("links", [False, True])
def test_where_the_way_between_front_ends_is_cut_records_tell_the_news(links: bool) -> None:
    here, first, second = pair(links=links)
    if links:
        here.cut(here.time, 1000.0)
        here.run(10.0)
    assert longest(here, first, second) < 0.1


def test_a_link_that_was_cut_comes_back() -> None:
    here, first, second = pair()
    here.cut(here.time, 5.0)
    here.run(4.0)
    assert not second.engine.news.all_linked()
    here.run(20.0)
    assert second.engine.news.all_linked()
    assert longest(here, first, second) < 0.01


def test_a_tube_is_heard_of_no_more_some_time_after_the_last_one_waited() -> None:
    here, _, second = pair()
    client = second.connect()
    client.ask(b"watch often\r\n")
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert len(second.engine.news.mesh._wants) == 2
    client.hang_up()
    here.run(12.0)
    assert not second.engine.news.mesh._wants


def waiting_on_many() -> tuple[World, FrontEnd]:
    """Have a client wait on 200 tubes of one of two front-ends."""
    here, _, second = pair()
    client = second.connect()
    client.post(b"".join(b"watch tube-%d\r\n" % number for number in range(199)) + b"reserve\r\n")
    here.run(5.0)
    return here, second


def test_the_looks_that_no_news_call_for_are_spread_over_time() -> None:
    here, second = waiting_on_many()
    looked: Counter[str] = Counter()
    directories = second.engine.store.directories

    async def noted(tubes: Sequence[str]) -> list[Directory | None]:
        assert len(tubes) < 10
        looked.update(tubes)
        return await directories(tubes)

    second.engine.store.directories = noted  # type: ignore[method-assign]
    here.run(65.0)
    assert len(looked) == 200
    assert max(looked.values()) <= 3


def test_those_looks_reach_all_tubes_however_long_each_takes() -> None:
    here, second = waiting_on_many()
    looked: set[str] = set()
    directories = second.engine.store.directories

    async def slow(tubes: Sequence[str]) -> list[Directory | None]:
        looked.update(tubes)
        await asyncio.sleep(2.5)
        return await directories(tubes)

    second.engine.store.directories = slow  # type: ignore[method-assign]
    here.run(120.0)
    assert len(looked) == 200


@pytest.mark.parametrize("pause", [3.0, 12.0, 20.0, 70.0])
def test_a_reserve_finds_at_once_what_was_put_elsewhere_while_nobody_waited(pause: float) -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    woken(here, producer, consumer)
    for _ in range(3):
        here.run(pause)
        producer.put()
        began = here.time
        job_id = int(consumer.ask(b"reserve\r\n").split()[1])
        assert here.time - began < 0.1
        consumer.ask(b"delete %d\r\n" % job_id)


def test_what_was_put_while_a_link_was_down_is_found_when_it_is_back() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    woken(here, producer, consumer)
    consumer.post(b"reserve\r\n")
    here.run(0.5)
    for _ in range(20):
        link = first.engine.news.mesh._hearers[second.engine.membership.session.number]
        first.inside(link.wire.abort)
        # The last look of the time without a link is over.
        assert here.run(5.0, lambda: second.engine.news.mesh._dial_at and second.engine.news.mesh._sources == {})
        while not second.engine.news.mesh._sources:
            here.run(0.0005)
        producer.put()
        assert here.run(1.0, consumer.answered)
        job_id = int(consumer.take().split()[1])
        consumer.ask(b"delete %d\r\n" % job_id)
        consumer.post(b"reserve\r\n")
        here.run(3.0)


@pytest.mark.parametrize("since", [0.0, 0.25, 0.5, 0.75])
def test_one_that_was_killed_serves_again_without_an_error(here: World, since: float) -> None:
    killed = here.front_end()
    here.run(3.0 + since)
    killed.kill()
    client = here.front_end().connect()
    assert client.put()


def test_strangers_find_the_door_shut_when_too_many_stand_there() -> None:
    here, first, second = pair()
    mesh = first.engine.news.mesh
    for _ in range(STRANGERS_MAX + 50):
        first.inside(lambda: mesh._accept().connection_made(Mute()))
    assert len(mesh._strangers) == STRANGERS_MAX
    here.run(4.0)
    assert all(end.wire.aborted for end in mesh._strangers)  # type: ignore[union-attr]
    assert second.engine.news.all_linked()


class Mute:
    """A connection whose other end says and reads nothing."""

    def __init__(self) -> None:
        self.aborted = False
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def get_write_buffer_size(self) -> int:
        return self.written

    def abort(self) -> None:
        self.aborted = True


def test_who_does_not_read_its_news_is_hung_up_on() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    woken(here, producer, consumer)
    hearer = first.engine.news.mesh._hearers[second.engine.membership.session.number]
    mute = Mute()
    hearer.wire = mute
    mute.written = 2 << 20
    consumer.post(b"reserve\r\n")
    here.run(0.5)
    assert mute.aborted


@full_depth
@pytest.mark.slow
def test_one_that_waits_among_fifty_reads_nothing_but_its_own_jobs() -> None:
    here = World(1, store_class=CountingStore)
    waiting, *others = [here.front_end() for _ in range(51)]
    here.run(3.0)
    consumer = waiting.connect()
    for number in range(100):
        consumer.ask(b"watch t%d\r\n" % number)
    consumer.ask(b"ignore default\r\n")
    consumer.post(b"reserve\r\n")
    here.run(4.0)
    asked(waiting).clear()
    here.run(10.0)
    assert asked(waiting).total() <= 10.0 / 5.0 + 1
    producers = [other.connect() for other in others]
    asked(waiting).clear()
    waits = []
    for number in range(1000):
        # One in ten goes to a tube that is waited for.
        began, tube = here.time, number * 7919 % 1000
        producers[number % 50].post(b"use t%d\r\nput 0 0 60 1\r\nx\r\n" % tube)
        if tube >= 100:
            here.run(0.001)
            continue
        assert here.run(5.0, consumer.answered)
        waits.append(here.time - began)
        job_id = int(consumer.take().split()[1])
        assert consumer.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
        consumer.post(b"reserve\r\n")
    assert len(waits) == 100
    assert set(asked(waiting)) <= {"apply", "has_room"}
    assert sorted(waits)[50] < 0.01
    assert max(waits) < 0.03

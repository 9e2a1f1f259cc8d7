"""Links between front-ends: who waits hears of its tubes at once, from who proved that it belongs to the cluster."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import Cluster, MemoryStore
from world import World

from beanspiked.engine.aerospike.cluster import links
from beanspiked.engine.aerospike.cluster.links import EVERYTHING, Item, LinkError, Speaker, Subscriber, tube_hash
from beanspiked.engine.aerospike.cluster.mesh import STRANGERS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Client, FrontEnd

KEY = b"the cluster's key"
HASHES = st.integers(1, (1 << 64) - 1)
ITEMS = st.builds(
    Item, HASHES, st.integers(0, 1 << 50), st.sampled_from([0, 1, 2, 3]), st.integers(0, 65535), st.binary(max_size=14)
)


def ends(key: bytes = KEY, meant: int = 2) -> tuple[Speaker, Subscriber]:
    return Speaker(KEY, 2, b"s" * 16), Subscriber(key, 1, b"d" * 16, meant)


def opened() -> tuple[Speaker, Subscriber]:
    speaker, subscriber = ends()
    assert subscriber.receive(speaker.receive(subscriber.receive(speaker.greeting()))) == b""
    assert speaker.open
    assert subscriber.open
    return speaker, subscriber


def seen(items: list[Item]) -> list[tuple[int, int, int, int, bytes]]:
    return [(item.tube, item.segment, item.kind, item.count, item.key.ljust(14, b"\0")) for item in items]


# --- what goes over a link


def test_both_ends_know_each_other() -> None:
    speaker, subscriber = opened()
    assert (speaker.peer, subscriber.peer) == (1, 2)


def test_who_does_not_know_the_key_is_refused() -> None:
    speaker, stranger = ends(b"another key")
    with pytest.raises(LinkError, match="another cluster"):
        speaker.receive(stranger.receive(speaker.greeting()))
    assert not speaker.open


def test_who_is_dialled_has_to_know_the_key_as_well() -> None:
    _, subscriber = ends()
    stranger = Speaker(b"another key", 2, b"s" * 16)
    hello = subscriber.receive(stranger.greeting())
    stranger._key = KEY
    welcome = stranger.receive(hello)
    with pytest.raises(LinkError, match="another cluster"):
        subscriber.receive(welcome[:3] + bytes(16))
    assert not subscriber.open


def test_a_proof_is_good_for_one_link_only() -> None:
    first, subscriber = ends()
    hello = subscriber.receive(first.greeting())
    with pytest.raises(LinkError, match="another cluster"):
        Speaker(KEY, 2, b"t" * 16).receive(hello)


def test_who_is_not_the_session_that_was_meant_says_so() -> None:
    speaker, subscriber = ends(meant=3)
    with pytest.raises(LinkError, match="session 3 was meant"):
        speaker.receive(subscriber.receive(speaker.greeting()))


def test_another_format_is_hung_up_on() -> None:
    _, subscriber = ends()
    with pytest.raises(LinkError, match="another format"):
        subscriber.receive(links.frame(links.CHALLENGE, bytes([links.FORMAT + 1]) + b"s" * 16))


@given(st.data())
def test_news_arrive_as_they_were_told_however_the_bytes_are_split(data: st.DataObject) -> None:
    speaker, subscriber = opened()
    wanted = data.draw(st.lists(HASHES, unique=True))
    told = data.draw(st.lists(ITEMS))
    told += [Item(tube, 7, 0, 1, b"k") for tube in wanted]
    speaker.receive(subscriber.want(wanted, []))
    stream = speaker.tell(told)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        subscriber.receive(stream[:size])
        stream = stream[size:]
    assert seen(subscriber.heard) == seen([item for item in told if item.tube in wanted])


def test_only_wanted_tubes_are_told_of() -> None:
    speaker, subscriber = opened()
    subscriber.receive(speaker.receive(subscriber.want([5, 6], [])))
    subscriber.receive(speaker.receive(subscriber.want([], [6])))
    subscriber.receive(speaker.tell([Item(tube, 1, 0, 1, b"") for tube in (4, 5, 6)]))
    assert [item.tube for item in subscriber.heard] == [5]


def test_who_wants_everything_hears_everything() -> None:
    speaker, subscriber = opened()
    subscriber.receive(speaker.receive(subscriber.want([EVERYTHING], [])))
    subscriber.receive(speaker.tell([Item(tube, 1, 0, 1, b"") for tube in (4, 5, 6)]))
    assert [item.tube for item in subscriber.heard] == [4, 5, 6]
    assert subscriber.tells_of(7)


def test_a_tube_is_told_of_from_the_moment_that_the_other_end_says_so() -> None:
    speaker, subscriber = opened()
    wish = subscriber.want([5], [])
    assert not subscriber.tells_of(5)
    subscriber.receive(speaker.receive(wish))
    assert subscriber.tells_of(5)


def test_any_number_of_tubes_may_be_wanted() -> None:
    speaker, subscriber = opened()
    many = list(range(1, 20_001))
    subscriber.receive(speaker.receive(subscriber.want(many, [])))
    assert speaker.wants == set(many)
    speaker.receive(subscriber.want([], many))
    assert not speaker.wants


@pytest.mark.parametrize("kind", [0, links.WANT, links.ASK, links.WELCOME, links.NEWS, 200])
def test_a_frame_out_of_turn_is_an_error(kind: int) -> None:
    speaker, subscriber = ends()
    with pytest.raises(LinkError):
        speaker.receive(links.frame(kind, b"\0" * 8))
    with pytest.raises(LinkError):
        subscriber.receive(links.frame(kind, b"\0" * 33))


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_on_and_nothing_else(garbage: bytes) -> None:
    for end in (*opened(), *ends()):
        try:
            end.receive(garbage)
        except LinkError:
            continue


def test_names_are_called_otherwise_in_another_cluster() -> None:
    assert tube_hash(KEY, "default") != tube_hash(b"another key", "default")


# --- between front-ends


class CountingStore(MemoryStore):
    """A store that counts what is asked of it."""

    def __init__(self, cluster: Cluster, transport: Callable[[str, Callable[[], Any]], Any]) -> None:
        self.ops: Counter[str] = Counter()

        async def counted(name: str, operation: Callable[[], Any]) -> Any:
            self.ops[name] += 1
            return await transport(name, operation)

        super().__init__(cluster, counted)


def asked(front_end: FrontEnd, seconds: float) -> Counter[str]:
    """Count what a front-end asks of its store in a while, but for its own life."""
    store: Any = front_end.store
    store.ops.clear()
    front_end.world.run(seconds)
    return Counter({name: count for name, count in store.ops.items() if name not in ("heartbeat", "sessions")})


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


def test_who_waits_elsewhere_is_woken_at_once() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    woken(here, producer, consumer)
    assert max(woken(here, producer, consumer) for _ in range(20)) < 0.01


def test_who_waits_asks_the_store_for_nothing() -> None:
    here, _, second = pair()
    consumer = second.connect()
    consumer.post(b"reserve\r\n")
    here.run(6.0)
    assert sum(asked(second, 20.0).values()) <= 20.0 / 5.0 + 1


def test_news_are_written_for_nobody_who_is_linked() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    consumer.post(b"reserve\r\n")
    here.run(6.0)
    before = Counter(first.store.ops)  # type: ignore[attr-defined]
    for _ in range(10):
        producer.put()
    here.run(1.0)
    assert first.store.ops["publish"] == before["publish"]  # type: ignore[attr-defined]


def test_what_is_put_elsewhere_is_taken_without_a_look() -> None:
    here, first, second = pair()
    producer, consumer = first.connect(), second.connect()
    for _ in range(2):
        woken(here, producer, consumer)
    consumer.post(b"reserve\r\n")
    here.run(0.5)
    second.store.ops.clear()  # type: ignore[attr-defined]
    producer.put()
    assert here.run(1.0, consumer.answered)
    assert set(second.store.ops) - {"heartbeat", "sessions"} == {"apply"}  # type: ignore[attr-defined]


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
    second.store.ops.clear()  # type: ignore[attr-defined]
    for _ in range(10):
        assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert not set(second.store.ops) - {"heartbeat", "sessions"}  # type: ignore[attr-defined]


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
    producer, consumer = first.connect(), second.connect()
    woken(here, producer, consumer)
    assert max(woken(here, producer, consumer) for _ in range(10)) < 0.1


def test_a_link_that_was_cut_comes_back() -> None:
    here, first, second = pair()
    here.cut(here.time, 5.0)
    here.run(4.0)
    assert not second.engine.news.all_linked()
    here.run(20.0)
    assert second.engine.news.all_linked()
    producer, consumer = first.connect(), second.connect()
    woken(here, producer, consumer)
    assert max(woken(here, producer, consumer) for _ in range(10)) < 0.01


def test_a_tube_is_heard_of_no_more_some_time_after_the_last_one_waited() -> None:
    here, _, second = pair()
    client = second.connect()
    client.ask(b"watch often\r\n")
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert len(second.engine.news.mesh._wants) == 2
    client.hang_up()
    here.run(12.0)
    assert not second.engine.news.mesh._wants


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
    idle = asked(waiting, 10.0)
    assert sum(idle.values()) <= 10.0 / 5.0 + 1
    producers = [other.connect() for other in others]
    before = Counter(waiting.store.ops)  # type: ignore[attr-defined]
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
    read = Counter(waiting.store.ops)  # type: ignore[attr-defined]
    read.subtract(before)
    assert len(waits) == 100
    assert set(+read) <= {"attach", "apply", "heartbeat", "sessions", "has_room"}
    assert sorted(waits)[50] < 0.01
    assert max(waits) < 0.03

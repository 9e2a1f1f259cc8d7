"""A connection on many tubes stays in them between its reserves. Only its cost may tell."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from depth import FULL, on_source
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Wire
from world import World

if TYPE_CHECKING:
    from world import Client

TUBES = ["default", "a", "b", "c"]
CLIENTS = 4
# Each step names a client, its action, a tube, and a number: a priority, or seconds.
steps = st.tuples(
    st.integers(0, CLIENTS - 1),
    st.sampled_from(
        ["reserve", "reserve", "put", "put", "delete", "watch", "ignore", "wait", "pause", "poll", "leave"]
    ),
    st.sampled_from(TUBES),
    st.sampled_from([1, 2, 3]),
)


def replies(linger_from: int, what: list[tuple[int, str, str, int]]) -> list[bytes]:
    """Do it all on a server of its own; return what each client has received after each step."""
    wire = Wire()
    wire.broker.linger_from = linger_from
    clients = [wire.connect() for _ in range(CLIENTS)]
    for client in clients:
        client.send(b"".join(b"watch %b\r\n" % tube.encode() for tube in TUBES))
    found: list[bytes] = []
    held = dict.fromkeys(clients, b"0")
    for who, word, tube, number in what:
        client = clients[who]
        if word == "wait":
            wire.clock.time += number
            wire.broker.on_alarm()
            wire.settle()
        elif word == "leave":
            client.hang_up()
            clients[who] = wire.connect()
            held[clients[who]] = b"0"
        else:
            client.flow.receive(
                {
                    "reserve": b"reserve\r\n",
                    "poll": b"reserve-with-timeout %d\r\n" % (number - 1),
                    "put": b"use %b\r\nput %d 0 60 1\r\nx\r\n" % (tube.encode(), number),
                    "delete": b"delete %b\r\n" % held[client],
                    "watch": b"watch %b\r\n" % tube.encode(),
                    "ignore": b"ignore %b\r\n" % tube.encode(),
                    "pause": b"pause-tube %b %d\r\n" % (tube.encode(), number),
                }[word]
            )
            wire.broker.end_turn()
            wire.settle()
        for each in clients:
            reply = each.take()
            found.append(reply)
            if b"RESERVED" in reply:
                held[each] = reply.partition(b"RESERVED ")[2].split()[0]
    asker = wire.connect()
    return [*found, *[asker.send(b"stats-tube %b\r\n" % tube.encode()) for tube in TUBES]]


@given(st.lists(steps, max_size=60))
@settings(max_examples=200 if FULL else 50)
def test_the_replies_are_those_of_one_that_leaves_its_tubes(what: list[tuple[int, str, str, int]]) -> None:
    assert replies(1, what) == replies(1000, what)


def test_one_that_does_not_reserve_again_leaves_its_tubes(wire: Wire) -> None:
    wire.broker.linger_from = 1
    client = wire.connect()
    tube = wire.engine.tube("default")
    client.send(b"reserve\r\n")
    wire.connect().put()
    assert client.take().startswith(b"RESERVED")
    assert tube.waited_for()
    wire.clock.time += 2.0
    wire.broker.on_alarm()
    assert not tube.waited_for()


def test_one_that_left_is_in_no_tube(wire: Wire) -> None:
    wire.broker.linger_from = 1
    client = wire.connect()
    client.put()
    client.send(b"reserve\r\nreserve-with-timeout 1\r\n")
    tube = wire.engine.tube("default")
    assert tube.lingering is not None
    client.hang_up()
    assert tube.lingering is None


def test_so_many_connections_that_each_job_would_look_at_all_do_not_stay(wire: Wire) -> None:
    wire.broker.linger_from = 2
    clients = [wire.connect() for _ in range(40)]
    for client in clients:
        client.send(b"watch a\r\nreserve\r\n")
    assert len(wire.engine.tube("default").lingering or ()) < len(clients) == wire.engine.tube("default").waiting()


@pytest.fixture
def linger(here: World, client: Client) -> Client:
    """A client of a shared store that stays in its tubes."""
    client.front_end.broker.linger_from = 1
    here.run(3.0)
    return client


def watch_some(client: Client, kind: bytes) -> list[bytes]:
    """Watch twenty tubes and no other."""
    tubes = [b"%b%d" % (kind, number) for number in range(20)]
    for tube in tubes:
        client.ask(b"watch %b\r\n" % tube)
    client.ask(b"ignore default\r\n")
    return tubes


def test_on_a_shared_store_the_most_urgent_job_of_all_tubes_comes_first(here: World, linger: Client) -> None:
    chance = random.Random(1)
    tubes = watch_some(linger, b"t")
    producer = here.front_end().connect()
    others = linger.front_end.connect()
    # More tubes with jobs of another waiter that lingers than are passed over.
    for kind in (b"u", b"v"):
        for tube in watch_some(others, kind):
            producer.ask(b"use %b\r\n" % tube)
            producer.put(pri=5)
    assert others.ask(b"reserve\r\n").startswith(b"RESERVED")
    priorities = [chance.randrange(10, 1000) for _ in range(60)]
    for pri in priorities:
        producer.ask(b"use %b\r\n" % chance.choice(tubes))
        producer.put(b"%d" % pri, pri=pri)
    here.run(1.0)
    got = []
    for _ in priorities:
        head, body = linger.ask(b"reserve\r\n").split(b"\r\n")[:2]
        got.append(int(body))
        linger.ask(b"delete %b\r\n" % head.split()[1])
    assert got == sorted(priorities)


def test_a_job_that_comes_while_it_lingers_is_left_to_others(here: World, linger: Client) -> None:
    tubes = watch_some(linger, b"t")
    other = here.front_end().connect()
    other.ask(b"watch %b\r\n" % tubes[7])
    linger.post(b"reserve\r\n")
    here.run(1.0)
    other.ask(b"use %b\r\n" % tubes[7])
    first, second = other.put(), other.put()
    here.run(0.5)
    assert linger.take().startswith(b"RESERVED %d " % first)
    assert other.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED %d " % second)
    linger.post(b"reserve\r\n")
    here.run(0.5)
    assert linger.received == b""
    third = other.put()
    here.run(0.5)
    assert linger.take().startswith(b"RESERVED %d " % third)


def test_the_ranking_forgets_tubes_that_are_waited_for_no_more(linger: Client) -> None:
    for round_ in range(10):
        tubes = watch_some(linger, b"t%d-" % round_)
        for tube in tubes:
            linger.ask(b"use %b\r\n" % tube)
            linger.put()
        for _ in tubes[1:]:
            linger.ask(b"delete %b\r\n" % linger.ask(b"reserve\r\n").split()[1])
        linger.ask(b"watch default\r\n")
        for tube in tubes:
            linger.ask(b"ignore %b\r\n" % tube)
    assert len(linger.front_end.engine.takes._ranking._order) < 40


@on_source
def test_a_reserve_asks_only_those_tubes_of_which_not_all_is_known(here: World, linger: Client) -> None:
    tubes = watch_some(linger, b"t")
    for tube in tubes[:3]:
        linger.ask(b"use %b\r\n" % tube)
        linger.put(delay=1000)
        linger.put()
    assert linger.ask(b"reserve\r\n").startswith(b"RESERVED")
    here.run(1.0)
    takes = linger.front_end.engine.takes
    asked: list[bytes] = []
    sure = takes._sure
    takes._sure = lambda tube: asked.append(tube.name.encode()) or sure(tube)  # type: ignore[method-assign,func-returns-value]
    assert linger.ask(b"reserve\r\n").startswith(b"RESERVED")
    assert set(asked) <= set(tubes[:3])


def test_a_waiter_is_told_of_its_own_tubes_only_however_many_others_are_in_doubt(here: World, linger: Client) -> None:
    front_end, other = linger.front_end, linger.front_end.connect()
    mine = watch_some(linger, b"t")
    other.ask(b"".join(b"watch other-%d\r\n" % number for number in range(4 * len(mine))))
    for client in (linger, other):
        client.post(b"reserve\r\n")
    here.run(3.0)
    ranking = front_end.engine.takes._ranking
    front_end.inside(front_end.engine.scout.doubt_all)
    assert len(ranking.unsure) > 2 * len(mine)
    waiter, watched = linger.flow._reserve, linger.flow.session.tubes.watched
    assert {tube.name for tube in ranking.unsure_of(waiter, watched)} == {tube.name for tube in watched}

"""A front-end takes the jobs of its own segments first, unless those of others are more urgent or clearly older."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from depth import FULL
from world import World

if TYPE_CHECKING:
    from world import Client, FrontEnd

# What puts at different front-ends may lie apart without an order (README: some ten milliseconds).
UNORDERED_S = 0.010
PUT = b"put %d 0 600 1\r\nx\r\n"


def inserted(client: Client) -> int:
    return int(client.take().split()[1])


def put_at_once(here: World, *clients: Client, pri: int = 0) -> list[int]:
    """Put a job through each client, at the same time; return the ids."""
    for client in clients:
        client.post(PUT % pri)
    assert here.run(30.0, lambda: all(client.answered() for client in clients))
    return [inserted(client) for client in clients]


def reserve(client: Client) -> int:
    return int(client.ask(b"reserve-with-timeout 1\r\n").split()[1])


@pytest.fixture
def pair() -> tuple[World, Client, Client]:
    """Make two front-ends that follow each other's puts into the default tube; return a client of each."""
    here = World(1)
    here.front_end()
    here.front_end()
    here.run(3.0)
    first, second = (front_end.connect() for front_end in here.front_ends)
    for client in (first, second):
        assert client.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"
    return here, first, second


def test_clients_of_two_front_ends_that_put_at_once_get_the_jobs_of_their_own(
    pair: tuple[World, Client, Client],
) -> None:
    here, first, second = pair
    for _ in range(10):
        ids = put_at_once(here, first, second)
        here.run(1.0)
        assert [reserve(first), reserve(second)] == ids
        ids = put_at_once(here, second, first)
        here.run(1.0)
        assert [reserve(second), reserve(first)] == ids


def test_a_job_that_was_put_elsewhere_before_comes_first(pair: tuple[World, Client, Client]) -> None:
    here, first, second = pair
    early = first.put()
    here.run(2 * UNORDERED_S)
    late = second.put()
    assert [reserve(second), reserve(second)] == [early, late]


def test_a_job_that_is_more_urgent_comes_first_wherever_it_was_put(pair: tuple[World, Client, Client]) -> None:
    here, first, second = pair
    own = second.put(pri=1)
    urgent = first.put(pri=0)
    here.run(1.0)
    assert [reserve(second), reserve(second)] == [urgent, own]


@pytest.mark.parametrize("seed", range(100 if FULL else 20))
def test_a_front_end_takes_by_priority_and_then_as_jobs_were_put_but_for_some_milliseconds(seed: int) -> None:
    random = Random(seed)
    here = World(seed)
    makers = [here.front_end() for _ in range(3)]
    here.run(3.0)
    clients = [maker.connect() for maker in makers]
    put: dict[int, tuple[int, float, FrontEnd]] = {}
    for _ in range(random.randrange(2, 60)):
        place, pri = random.randrange(3), random.choice((0, 0, 0, 7))
        at = here.time
        put[clients[place].put(pri=pri)] = (pri, at, makers[place])
        here.run(random.choice((0.0, 0.001, 0.004, 0.02)))
    if random.random() < 0.5:
        # What a front-end that is gone has put is nobody's own.
        makers[0].kill()
        here.run(30.0)
    here.run(1.0)
    taker = clients[random.randrange(1, 3)]
    taken = [put[reserve(taker)] for _ in put]
    for number, (pri, at, maker) in enumerate(taken):
        for earlier_pri, earlier_at, earlier_maker in taken[:number]:
            assert earlier_pri <= pri
            if earlier_pri == pri:
                # A put takes some milliseconds, in which its time is read.
                assert earlier_at <= at + (0.0 if earlier_maker is maker else UNORDERED_S + 0.005)

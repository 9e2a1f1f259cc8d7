"""How long a reserve waits for a shared store is measured; how long it waits for a job is not."""

from __future__ import annotations

import pytest
from world import Client, World

from beanspiked.protocol import commands as verbs

# What a call to the store takes, there and back, in seconds.
CALL = 0.02


@pytest.fixture
def here() -> World:
    """A cluster that is always as quick."""
    return World(1, latency=(CALL / 2, CALL / 2))


@pytest.fixture
def worker(here: World) -> Client:
    """A client of a front-end that measures, and that knows its tube."""
    front_end = here.front_end()
    front_end.broker.measure()
    worker = front_end.connect()
    worker.ask(b"delete %d\r\n" % worker.put())
    here.run(3.0)
    return worker


@pytest.fixture
def producer(here: World) -> Client:
    """A client of another front-end."""
    return here.front_end().connect()


def measured(worker: Client, verb: int = verbs.RESERVE) -> tuple[int, float]:
    """Tell how many reserves were measured, and how long they took together, in seconds."""
    times = worker.front_end.broker.times
    assert times is not None
    return sum(times.commands.of[verb].counts), times.commands.of[verb].total


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (b"reserve\r\n", verbs.RESERVE),
        (b"reserve-with-timeout 60\r\n", verbs.RESERVE_WITH_TIMEOUT),
        (b"reserve-with-timeout 0\r\n", verbs.RESERVE_WITH_TIMEOUT),
    ],
)
def test_a_reserve_whose_job_is_ready_takes_as_long_as_the_store(
    here: World, worker: Client, words: bytes, verb: int
) -> None:
    worker.put()
    began = here.time
    assert worker.ask(words).startswith(b"RESERVED")
    assert here.time - began >= CALL
    assert measured(worker, verb) == (1, pytest.approx(here.time - began, abs=1e-6))


def test_a_reserve_that_waits_for_a_job_is_left_out(here: World, worker: Client, producer: Client) -> None:
    for client in (worker.front_end.connect(), producer):
        worker.post(b"reserve\r\n")
        here.run(30.0)
        client.put()
        here.run(1.0)
        assert worker.take().startswith(b"RESERVED")
    worker.post(b"reserve-with-timeout 5\r\n")
    here.run(6.0)
    assert worker.take() == b"TIMED_OUT\r\n"
    assert [measured(worker, verb)[0] for verb in (verbs.RESERVE, verbs.RESERVE_WITH_TIMEOUT)] == [0, 0]


def test_a_poll_that_finds_no_job_takes_as_long_as_the_look(here: World, worker: Client) -> None:
    began = here.time
    assert worker.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert here.time > began
    assert measured(worker, verbs.RESERVE_WITH_TIMEOUT) == (1, pytest.approx(here.time - began, abs=1e-6))


def test_each_of_the_reserves_that_come_together_is_measured_from_its_arrival(here: World, worker: Client) -> None:
    for _ in range(3):
        worker.put()
    began = here.time
    # One more than there are jobs: it waits.
    worker.post(b"reserve\r\n" * 4)
    here.run(5.0, lambda: worker.received.count(b"RESERVED") == 3)
    taken = here.time - began
    here.run(30.0)
    worker.front_end.connect().put()
    here.run(1.0)
    assert worker.received.count(b"RESERVED") == 4
    assert measured(worker) == (3, pytest.approx(3 * taken, abs=1e-6))


def test_reserves_that_wait_together_are_left_out(here: World, worker: Client) -> None:
    producer = worker.front_end.connect()
    worker.post(b"reserve\r\n" * 3)
    here.run(30.0)
    producer.post(b"put 0 0 60 1\r\nx\r\n" * 3)
    here.run(1.0)
    assert worker.received.count(b"RESERVED") == 3
    assert measured(worker) == (0, 0.0)

"""Changes that were made, but whose answers were lost: who waits gets the jobs as soon as that is known, here and elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from failing import busy_for
from world import World

from beanspiked.engine.aerospike.store.seam import Refused, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from world_client import Client

    from beanspiked.engine.aerospike.store.seam import Change


@pytest.fixture
def clients(here: World) -> tuple[Client, Client]:
    """Clients of two front-ends that hear each other's news."""
    found = here.front_end().connect(), here.front_end().connect()
    here.run(5.0)
    return found


def lose_answer(here: World, of: Callable[[Change], object]) -> None:
    """Lose the answer to the next change of a kind."""
    apply = here.cluster.apply

    def losing(number: int, lease: int, change: Change) -> Any:
        outcome = apply(number, lease, change)
        if not of(change):
            return outcome
        here.cluster.apply = apply  # type: ignore[method-assign]
        raise Unknown("9: no answer")

    here.cluster.apply = losing  # type: ignore[method-assign]


def waiting(here: World, client: Client) -> None:
    client.post(b"reserve\r\n")
    here.run(3.0)
    assert not client.answered()


def test_a_job_that_was_put_is_reserved_at_once_by_one_who_asks_later(
    here: World, clients: tuple[Client, Client]
) -> None:
    producer = clients[0]
    consumer = producer.front_end.connect()
    # What is known of the tube is whole: nobody has to look for what was put here.
    waiting(here, consumer)
    producer.put()
    assert consumer.take().startswith(b"RESERVED ")
    lose_answer(here, lambda change: change.puts)
    job_id = producer.put()
    assert consumer.ask(b"reserve\r\n", 1.0).startswith(b"RESERVED %d " % job_id)


@pytest.mark.parametrize("delay", [0, 2])
def test_a_job_that_was_put_is_reserved_at_once_at_another_front_end(
    here: World, clients: tuple[Client, Client], delay: int
) -> None:
    producer, consumer = clients
    waiting(here, consumer)
    lose_answer(here, lambda change: change.puts)
    job_id = producer.put(delay=delay)
    assert here.run(delay + 1.0, consumer.answered)
    assert consumer.take().startswith(b"RESERVED %d " % job_id)


def test_a_job_that_was_released_is_reserved_at_once_at_another_front_end(
    here: World, clients: tuple[Client, Client]
) -> None:
    holder, consumer = clients
    job_id = holder.put()
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED ")
    waiting(here, consumer)
    lose_answer(here, lambda change: change.moves)
    assert holder.ask(b"release %d 0 0\r\n" % job_id) == b"RELEASED\r\n"
    assert here.run(1.0, consumer.answered)
    assert consumer.take().startswith(b"RESERVED %d " % job_id)


@pytest.mark.parametrize("command", [b"put 0 0 60 1\r\nx\r\n", b"release %d 0 0\r\n"])
def test_a_change_that_never_arrives_fails_in_time_and_is_not_sent_all_the_time(
    here: World, clients: tuple[Client, Client], command: bytes
) -> None:
    client = clients[0]
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED ")
    sent: list[int] = []

    def lost(number: int, *_: Any) -> Any:
        sent.append(number)
        raise Unknown("9: no answer")

    here.cluster.apply = lost  # type: ignore[method-assign]
    # To move the lease on takes little, so that comes through each time.
    assert client.ask(command % job_id if b"%" in command else command, 3.0) == b"INTERNAL_ERROR\r\n"
    here.run(10.0)
    assert len(sent) < 200


@pytest.mark.parametrize("there", [False, True])
def test_an_end_of_a_pause_that_was_made_and_never_answered_lets_who_waits_have_jobs(
    here: World, clients: tuple[Client, Client], there: bool
) -> None:
    operator = clients[0]
    operator.put()
    assert operator.ask(b"pause-tube default 3600\r\n") == b"PAUSED\r\n"
    worker = clients[there].front_end.connect()
    waiting(here, worker)
    pause = here.cluster.pause

    def unanswered(*arguments: Any) -> None:
        pause(*arguments)
        raise Unknown("9: no answer")

    here.cluster.pause = unanswered  # type: ignore[method-assign]
    assert operator.ask(b"pause-tube default 0\r\n") == b"INTERNAL_ERROR\r\n"
    assert here.run(1.0, worker.answered)


def test_news_whose_record_is_busy_at_first_are_written_then() -> None:
    here = World(1, links=False)
    producer, consumer = here.front_end().connect(), here.front_end().connect()
    here.run(5.0)
    waiting(here, consumer)
    here.cluster.publish = busy_for(here, 0.3, here.cluster.publish)  # type: ignore[method-assign]
    producer.put()
    # Long before anybody looks without news.
    assert here.run(0.6, consumer.answered)


def test_news_that_no_record_takes_are_not_tried_for_ever() -> None:
    here = World(1, links=False)
    producer, consumer = here.front_end().connect(), here.front_end().connect()
    here.run(5.0)
    waiting(here, consumer)
    asked: list[int] = []

    def refused(*_: object) -> None:
        asked.append(1)
        raise Refused("not listed")

    here.cluster.publish = refused  # type: ignore[method-assign]
    producer.put()
    here.run(5.0)
    assert len(asked) == 1

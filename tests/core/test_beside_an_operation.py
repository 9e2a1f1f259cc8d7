"""What comes to a segment while an operation on it, or a look at it, is in flight: nothing of it is missed, or told of twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from failing import always
from memory import MemoryStore
from world import World

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import READY, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from world_client import Client

    from beanspiked.engine.aerospike.store.seam import Change, Head, Outcome


class SlowAnswers(MemoryStore):
    """A store whose answers are a fifth of a second old when they arrive, if that is asked for."""

    slow = False

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        outcome = await super().apply(number, lease, change)
        await asyncio.sleep(0.2 if self.slow else 0.0)
        return outcome

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        found = await super().heads(numbers)
        await asyncio.sleep(0.2 if self.slow else 0.0)
        return found


class SlowBodies(MemoryStore):
    """A store that takes seconds to read bodies."""

    async def read_bodies(self, names: Sequence[tuple[int, int]], *, sure: bool = False) -> list[bytes | None]:
        await asyncio.sleep(3.0)
        return await super().read_bodies(names, sure=sure)


class Pair:
    """A consumer, whose front-end knows the segment of a producer at another one, and hears of its jobs. Its answers are slow now."""

    def __init__(self) -> None:
        self.here = World(1, store_class=SlowAnswers)
        self.consumer, self.producer = self.here.front_end().connect(), self.here.front_end().connect()
        self.here.run(5.0)
        self.consumer.post(b"reserve\r\n")
        self.here.run(1.0)
        self.held = self.producer.put()
        assert self.here.run(1.0, self.consumer.answered)
        assert self.consumer.take().startswith(b"RESERVED %d " % self.held)
        store: Any = self.consumer.front_end.store
        store.slow = True

    def put_meanwhile(self, delay: int) -> int:
        """Put a job into the same segment, after the operation or look was made and before its answer comes."""
        self.here.run(0.05)
        job_id = self.producer.put(delay=delay)
        assert job_id >> SLOT_BITS == self.held >> SLOT_BITS
        self.here.run(1.0)
        return job_id


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize("delay", [0, 3])
def test_a_job_is_not_missed_whose_news_come_before_the_older_answer_to_an_operation(pair: Pair, delay: int) -> None:
    pair.consumer.post(b"delete %d\r\n" % pair.held)
    job_id = pair.put_meanwhile(delay)
    assert pair.consumer.take() == b"DELETED\r\n"
    assert pair.consumer.ask(b"reserve\r\n", delay + 1.0).startswith(b"RESERVED %d " % job_id)


def test_a_delayed_job_is_not_missed_whose_news_come_before_the_older_answer_to_a_look(pair: Pair) -> None:
    pair.consumer.post(b"reserve\r\n")
    pair.here.run(1.0)
    # Others look at a tube whose pause has changed.
    assert pair.producer.ask(b"pause-tube default 0\r\n") == b"PAUSED\r\n"
    job_id = pair.put_meanwhile(3)
    assert pair.here.run(4.0, pair.consumer.answered)
    assert pair.consumer.take().startswith(b"RESERVED %d " % job_id)


def test_a_job_that_a_take_got_first_is_not_reserved_by_its_id_too(here: World, client: Client) -> None:
    other = client.front_end.connect()
    other.post(b"reserve\r\n")
    client.put()
    assert here.run(1.0, other.answered)
    assert other.take().startswith(b"RESERVED ")
    job_id = client.put()
    read = here.cluster.read

    def beside_a_take(number: int) -> Any:
        here.cluster.read = read  # type: ignore[method-assign]
        other.post(b"reserve\r\n")
        return read(number)

    here.cluster.read = beside_a_take  # type: ignore[method-assign]
    here.cluster.shift = always(Unknown("9: it never arrived"))  # type: ignore[method-assign]
    assert client.ask(b"reserve-job %d\r\n" % job_id) == b"NOT_FOUND\r\n"
    assert other.take().startswith(b"RESERVED %d " % job_id)


def test_no_job_is_forgotten_that_is_taken_while_another_is_released_and_the_answer_is_lost(
    here: World, client: Client
) -> None:
    first, *_ = [client.put() for _ in range(3)]
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED %d " % first)
    others = [client.front_end.connect() for _ in range(3)]
    apply = here.cluster.apply

    def losing(number: int, lease: int, change: Change) -> Any:
        outcome = apply(number, lease, change)
        if any(move.queue == READY for move in change.moves):
            here.cluster.apply = apply  # type: ignore[method-assign]
            raise Unknown("9: no answer")
        return outcome

    here.cluster.apply = losing  # type: ignore[method-assign]
    client.post(b"release %d 0 0\r\n" % first)
    for other in others:
        other.post(b"reserve\r\n")
    here.run(5.0)
    assert client.take() == b"RELEASED\r\n"
    assert all(other.answered() for other in others)
    assert len({other.take() for other in others}) == len(others)


def test_a_job_that_is_lost_while_its_body_is_read_is_given_once() -> None:
    here = World(1, store_class=SlowBodies)
    clients = [here.front_end().connect()]
    clients.append(clients[0].front_end.connect())
    job_id = clients[0].put(here.chance.randbytes(5000))
    for client in clients:
        client.post(b"reserve\r\n")
    here.run(1.0)
    assert here.cluster.segment(job_id >> SLOT_BITS).head().held == 1
    # The next session has begun, and has taken the job, before the body is there.
    clients[0].front_end.inside(clients[0].front_end.engine.membership._over)
    here.run(30.0)
    holders = [client for client in clients if client.answered()]
    assert len(holders) == 1
    assert holders[0].take().startswith(b"RESERVED %d " % job_id)
    assert holders[0].ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"

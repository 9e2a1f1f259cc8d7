"""A ready job is found at once, though something else happens at the same moment: a lost race, a look, news on their way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from failing import for_segment
from memory import MemoryStore
from world import World

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Busy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from world import Client

    from beanspiked.engine.aerospike.store.directory import Directory
    from beanspiked.engine.aerospike.store.seam import Head

PUT = b"put 0 0 60 1\r\nx\r\n"
# The longest that a job may take to reach a waiter, in seconds: a few operations, and news.
AT_ONCE = 1.0
SEEDS = pytest.mark.parametrize("seed", range(8))
SLOW = (0.001, 0.02)


class SlowHeads(MemoryStore):
    """A store whose heads are a fifth of a second old when they arrive."""

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        found = await super().heads(numbers)
        await asyncio.sleep(0.2)
        return found


class SlowDirectories(MemoryStore):
    """A store whose directories are a tenth of a second old when they arrive."""

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        found = await super().directories(tubes)
        await asyncio.sleep(0.1)
        return found


def clients(here: World, count: int) -> list[Client]:
    """Connect clients, each at a front-end of its own."""
    front_ends = [here.front_end() for _ in range(count)]
    here.run(3.0)
    return [front_end.connect() for front_end in front_ends]


def paused_ms(here: World) -> int:
    directory = here.cluster.directory("default")
    assert directory is not None
    return directory.pause_ms


def watch_only(client: Client, *tubes: bytes) -> None:
    for tube in tubes:
        client.ask(b"watch %b\r\n" % tube)
    client.ask(b"ignore default\r\n")


def takes(client: Client) -> None:
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")


def all_answered(here: World, waiting: list[Client], within: float = AT_ONCE) -> bool:
    return here.run(within, lambda: all(client.answered() for client in waiting))


def holds_and_waits(here: World, worker: Client, producer: Client) -> None:
    """Have a worker hold a producer's job, so that its segment is in use there, and wait for the next one."""
    producer.put()
    takes(worker)
    worker.post(b"reserve\r\n")
    here.run(1.0)


# --- lost races


@SEEDS
@pytest.mark.parametrize("linger", [False, True])
def test_who_loses_a_race_in_one_segment_gets_the_job_of_another(seed: int, linger: bool) -> None:
    here = World(seed)
    *producers, first, second = clients(here, 4)
    for client in (first, second):
        client.front_end.broker.linger_from = 1 if linger else 100
    for producer in producers:
        producer.put()
        takes(first)
    first.post(b"reserve\r\n")
    second.post(b"reserve\r\n")
    here.run(1.0)
    for producer in producers:
        producer.post(PUT)
    assert all_answered(here, [first, second])


@SEEDS
@pytest.mark.parametrize("linger", [False, True])
def test_who_loses_a_race_in_one_tube_gets_the_job_of_another(seed: int, linger: bool) -> None:
    here = World(seed)
    to_a, first, second = clients(here, 3)
    to_b = to_a.front_end.connect()
    to_a.ask(b"use a\r\n")
    to_b.ask(b"use b\r\n")
    for client in (first, second):
        client.front_end.broker.linger_from = 1 if linger else 100
        watch_only(client, b"a", b"b")
    for producer in (to_a, to_b):
        producer.put()
        takes(first)
    first.post(b"reserve\r\n")
    second.post(b"reserve\r\n")
    here.run(1.0)
    to_a.post(PUT)
    here.run(here.chance.uniform(0, 0.001))
    to_b.post(PUT)
    assert all_answered(here, [first, second])


# --- delayed jobs


@pytest.mark.parametrize("links", [False, True])
def test_a_delayed_job_of_a_segment_in_use_here_comes_in_time(links: bool) -> None:
    here = World(1, links=links)
    worker, producer = clients(here, 2)
    holds_and_waits(here, worker, producer)
    producer.put(delay=1)
    assert all_answered(here, [worker], 1 + AT_ONCE)


def test_a_delayed_job_whose_news_were_lost_comes_in_time() -> None:
    here = World(1)
    worker, producer = clients(here, 2)
    holds_and_waits(here, worker, producer)
    here.cut(here.time, 3.0)
    here.run(0.1)
    producer.put(delay=5)
    # The links are back before it is due.
    assert all_answered(here, [worker], 6 + AT_ONCE)


@pytest.mark.parametrize("links", [False, True])
def test_due_jobs_come_though_another_segment_with_some_does_not_answer(links: bool) -> None:
    here = World(1, links=links)
    worker, *producers = clients(here, 3)
    for producer in producers:
        producer.put()
        takes(worker)
    worker.post(b"reserve\r\n")
    here.run(1.0)
    first, _ = [producer.put(delay=2) for producer in producers]
    here.run(1.0)
    here.cluster.shift = for_segment(first >> SLOT_BITS, here.cluster.shift, Busy("11"))  # type: ignore[method-assign]
    assert all_answered(here, [worker], 1 + 2 * AT_ONCE)


@SEEDS
def test_a_job_that_comes_due_in_an_outage_is_there_soon_after_it(seed: int) -> None:
    here = World(seed)
    worker, producer = clients(here, 2)
    holds_and_waits(here, worker, producer)
    producer.put(delay=2)
    here.run(1.8)
    here.down_until = here.time + 4.0
    assert all_answered(here, [worker], 8.0)


@SEEDS
def test_a_poll_waits_for_due_jobs_that_are_being_made_ready(seed: int) -> None:
    here = World(seed, latency=(0.001, 0.005))
    producer, _ = clients(here, 2)
    other, worker = producer.front_end.connect(), producer.front_end.connect()
    producer.put()
    takes(worker)
    other.post(b"reserve-with-timeout 5\r\n")
    here.run(1.0)
    for _ in range(2):
        producer.put(delay=1)
    here.run(1.0 + here.chance.uniform(0.0, 0.02))
    if other.answered():
        other.take()
    assert worker.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


@pytest.mark.parametrize("seed", range(36, 48))
def test_news_of_a_delayed_job_outlive_an_operation_that_is_in_flight(seed: int) -> None:
    here = World(seed, latency=(0.001, 0.01))
    worker, producer = clients(here, 2)
    worker.front_end.broker.linger_from = producer.front_end.broker.linger_from = 100
    other = producer.front_end.connect()
    producer.put()
    takes(worker)
    worker.post(b"reserve\r\nreserve\r\n")
    here.run(1.0)
    producer.post(PUT)
    here.run(here.chance.uniform(0, 0.03))
    other.post(b"put 0 1 60 1\r\nx\r\n")
    assert all_answered(here, [worker])
    worker.take()
    assert all_answered(here, [worker], 1 + AT_ONCE)


@SEEDS
def test_news_of_a_delayed_job_in_a_new_segment_outlive_a_look(seed: int) -> None:
    here = World(seed, store_class=SlowDirectories)
    worker, producer = clients(here, 2)
    assert worker.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"
    worker.front_end.inside(worker.front_end.engine.scout.doubt_all)
    worker.post(b"reserve\r\n")
    here.run(0.03)
    producer.post(b"put 0 1 60 1\r\nx\r\n")
    assert all_answered(here, [worker], 1 + AT_ONCE)


@SEEDS
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("where", ["here", "elsewhere", "elsewhere, in a tube that is known"])
def test_a_poll_finds_a_job_that_has_come_due(seed: int, where: str, links: bool) -> None:
    here = World(seed, latency=(0.0001, 0.005), links=links)
    worker, producer = clients(here, 2)
    for client in (worker, producer):
        client.put()
        takes(worker)
    if where.endswith("known"):
        assert worker.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    (worker if where == "here" else producer).put(delay=1)
    here.run(1.1 if where.endswith("known") else 15.0)
    assert worker.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


# --- looks that began before


@SEEDS
def test_a_poll_right_after_a_kick_elsewhere_finds_the_job(seed: int) -> None:
    here = World(seed)
    worker, operator = clients(here, 2)
    operator.buried()
    assert worker.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"
    assert worker.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert operator.ask(b"kick 1\r\n") == b"KICKED 1\r\n"
    here.run(here.chance.uniform(0, 0.001))
    assert worker.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


@SEEDS
def test_the_end_of_a_pause_during_a_look_is_not_missed(seed: int) -> None:
    here = World(seed, latency=SLOW)
    worker, operator, other = clients(here, 3)
    operator.put()
    assert operator.ask(b"pause-tube default 3600\r\n") == b"PAUSED\r\n"
    worker.post(b"reserve\r\n")
    here.run(1.0)
    # The worker's front-end looks at the tube.
    other.post(b"pause-tube default 1800\r\n")
    assert here.run(1.0, lambda: paused_ms(here) == 1_800_000)
    here.run(here.chance.uniform(0, 0.1))
    assert operator.ask(b"pause-tube default 0\r\n") == b"PAUSED\r\n"
    assert all_answered(here, [worker])


@SEEDS
def test_a_put_during_a_slow_look_is_not_missed(seed: int) -> None:
    here = World(seed, links=False, store_class=SlowHeads)
    worker, operator, producer = clients(here, 3)
    for client in (operator, producer):
        client.put()
        takes(worker)
    here.run(1.0)
    worker.post(b"reserve\r\n")
    here.run(1.0)
    operator.ask(b"pause-tube default 0\r\n")
    here.run(here.chance.uniform(0.05, 0.15))
    producer.post(PUT)
    assert all_answered(here, [worker])


def test_a_segment_that_is_looked_at_is_not_put_down(here: World) -> None:
    worker, producer = clients(here, 2)
    producer.put()
    takes(worker)
    assert worker.ask(b"delete 0\r\n") == b"NOT_FOUND\r\n"
    (committer,) = worker.front_end.engine.registry.tube("default").committers.values()
    committer.held.clear()
    since = worker.front_end.engine.agenda.step()
    assert committer.rests(since)
    worker.front_end.inside(lambda: worker.front_end.engine.scout.refresh_segment(committer))
    assert not committer.rests(since)
    here.run(1.0)
    assert committer.rests(since)


@pytest.mark.parametrize("down", [2.1, 3.0, 4.0])
@pytest.mark.parametrize("how", ["the end of a pause", "a kick"])
def test_a_look_that_failed_is_made_once_the_store_answers(how: str, down: float) -> None:
    here = World(1)
    worker, operator = clients(here, 2)
    if how == "a kick":
        operator.buried()
    else:
        operator.put()
        assert operator.ask(b"pause-tube default 3600\r\n") == b"PAUSED\r\n"
    here.run(15.0)
    worker.post(b"reserve\r\n")
    here.run(3.0)
    operator.post(b"kick 1\r\n" if how == "a kick" else b"pause-tube default 0\r\n")
    assert all_answered(here, [operator])
    here.down_until = here.time + down
    assert all_answered(here, [worker], down + 3.0)


# --- pauses


@SEEDS
def test_a_pause_made_elsewhere_a_moment_ago_outlasts_the_last_user_here(seed: int) -> None:
    here = World(seed)
    leaving, operator = clients(here, 2)
    leaving.ask(b"use t\r\n")
    assert leaving.ask(b"delete %d\r\n" % leaving.put()) == b"DELETED\r\n"
    here.run(5.3)
    operator.ask(b"use t\r\n")
    assert operator.ask(b"pause-tube t 3600\r\n") == b"PAUSED\r\n"
    leaving.hang_up()
    here.run(3.0)
    operator.put()
    assert operator.stats("stats-tube t")["pause"] == "3600"
    worker = leaving.front_end.connect()
    watch_only(worker, b"t")
    assert worker.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"


@pytest.mark.parametrize("seed", [81, 87, 91, 191])
def test_two_front_ends_that_pause_at_once_go_by_what_is_stored(seed: int) -> None:
    here = World(seed, latency=(0.001, 0.05))
    worker, operator = clients(here, 2)
    other = worker.front_end.connect()
    operator.put()
    assert operator.ask(b"pause-tube default 3000\r\n") == b"PAUSED\r\n"
    worker.post(b"reserve\r\n")
    here.run(1.0)
    first, second = (other, operator) if seed % 2 else (operator, other)
    first.post(b"pause-tube default 3600\r\n")
    here.run(here.chance.uniform(0, 0.05))
    second.post(b"pause-tube default 0\r\n")
    here.run(4.0)
    stored = here.cluster.directory("default")
    # It may also have been answered in between.
    assert worker.answered() or (stored is not None and stored.pause_ms)


@SEEDS
def test_a_look_that_began_before_a_pause_does_not_end_it(seed: int) -> None:
    here = World(seed, links=False, store_class=SlowDirectories)
    worker, _ = clients(here, 2)
    operator, third = worker.front_end.connect(), worker.front_end.connect()
    operator.put()
    assert worker.ask(b"delete %b\r\n" % worker.ask(b"reserve\r\n").split()[1]) == b"DELETED\r\n"
    worker.ask(b"reserve-with-timeout 2\r\n")
    operator.post(b"pause-tube default 60\r\n")
    here.run(here.chance.uniform(0, 0.2))
    worker.post(b"reserve-with-timeout 0\r\n")
    here.run(0.5)
    assert operator.take() == b"PAUSED\r\n"
    operator.put()
    assert third.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"


# --- links


def test_a_link_that_speaks_and_does_not_hear_is_dialled_again() -> None:
    here = World(1)
    worker, producer = clients(here, 2)
    producer.ask(b"use t\r\n")
    watch_only(worker, b"t")
    # What the worker's front-end says in this moment is lost for good.
    here.cut(here.time, 0.02)
    here.run(0.001)
    worker.post(b"reserve\r\n")
    here.run(8.0)
    producer.put()
    assert all_answered(here, [worker])

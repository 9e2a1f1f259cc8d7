"""What a front-end keeps, here and in the store, once it is over with it: nothing, however long the front-end lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from failing import always
from memory import MemoryStore
from world import Client, FrontEnd, World

from beanspiked.engine.aerospike.cluster import mesh
from beanspiked.engine.aerospike.store.keys import RING_MAX, SLOT_BITS, lease_key
from beanspiked.engine.aerospike.store.seam import CLOSED, DEAD, OPEN, Busy, StoreError, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from beanspiked.engine.aerospike.store.directory import Directory
    from beanspiked.engine.aerospike.tubes.tube import SharedTube

# Every minute a front-end sweeps: after two of them it has closed a segment, and let go of its tube.
TWO_SWEEPS = 130.0


def failing_at_first(times: int, operation: Callable[..., Any], error: StoreError) -> Callable[..., Any]:
    """Let an operation fail a few times, without effect."""
    left = [error] * times

    def maybe(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return operation(*arguments)

    return maybe


def states(here: World) -> list[int]:
    return [record.state for record in here.cluster._segments.values()]


def tube_of(front_end: FrontEnd, name: str) -> SharedTube:
    tube = front_end.engine.registry.known_tube(name)
    assert tube is not None
    return tube


def using(front_end: FrontEnd, name: bytes) -> Client:
    client = front_end.connect()
    assert client.ask(b"use %b\r\n" % name) == b"USING %b\r\n" % name
    return client


def watching(front_end: FrontEnd, name: bytes) -> Client:
    client = front_end.connect()
    assert client.ask(b"watch %b\r\n" % name) == b"WATCHING 2\r\n"
    assert client.ask(b"ignore default\r\n") == b"WATCHING 1\r\n"
    return client


def consume(client: Client) -> None:
    job_id = int(client.ask(b"reserve\r\n").split()[1])
    assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"


# --- tubes


def used_once(put_through: FrontEnd, taken_through: FrontEnd, tubes: int = 5) -> None:
    for number in range(tubes):
        name = b"reply-%d" % number
        producer, consumer = using(put_through, name), watching(taken_through, name)
        producer.put()
        consume(consumer)
        producer.hang_up()
        consumer.hang_up()


@pytest.mark.parametrize("through_the_same", [True, False])
def test_of_a_tube_used_once_no_segment_no_name_and_no_counter_is_left(here: World, through_the_same: bool) -> None:
    one, other = here.front_end(), here.front_end()
    here.run(2.0)
    used_once(one, one if through_the_same else other)
    here.run(2 * TWO_SWEEPS)
    assert set(states(here)) == {DEAD}
    assert here.cluster.tubes() == {}
    for front_end in (one, other):
        assert [tube.name for tube in front_end.engine.registry.known_tubes()] == ["default"]


def test_a_tube_with_jobs_keeps_its_segment_open(here: World) -> None:
    front_end = here.front_end()
    producer = using(front_end, b"tube")
    producer.put()
    producer.hang_up()
    here.run(2 * TWO_SWEEPS)
    assert states(here) == [OPEN]
    assert [*here.cluster.tubes()] == ["tube"]


def test_a_tube_that_is_used_again_and_again_keeps_its_segment_open(here: World) -> None:
    putting, taking = here.front_end(), here.front_end()
    here.run(2.0)
    create, made = here.cluster.create, []

    def counted(number: int, *how: Any) -> None:
        made.append(number)
        create(number, *how)

    here.cluster.create = counted  # type: ignore[method-assign]
    consumer = watching(taking, b"tube")
    for _ in range(12):
        producer = using(putting, b"tube")
        producer.put()
        producer.hang_up()
        consume(consumer)
        here.run(50.0)
    assert len(made) == 1
    consumer.hang_up()
    here.run(2 * TWO_SWEEPS)
    assert states(here) == [DEAD]
    assert here.cluster.tubes() == {}


@pytest.mark.slow
def test_many_tubes_are_forgotten_with_one_look_at_how_others_use_theirs(here: World) -> None:
    one, other = here.front_end(), here.front_end()
    here.run(2.0)
    sessions, looks = one.engine.store.sessions, []

    async def counted() -> Any:
        looks.append(here.time)
        return await sessions()

    used_once(one, other, 200)
    one.engine.store.sessions = counted  # type: ignore[method-assign]
    here.run(2 * TWO_SWEEPS)
    assert here.cluster.tubes() == {}
    # Once in three seconds it looks anyhow.
    assert len(looks) < 2 * TWO_SWEEPS / 3 + 20


def test_a_tube_that_is_over_twice_while_it_is_forgotten_counts_no_job_twice(here: World) -> None:
    front_end = here.front_end()
    here.run(2.0)
    tube = front_end.engine.registry.tube("tube")
    tube.total_jobs = 3
    front_end.inside(lambda: front_end.engine.forget(tube))
    # The first time is being looked into.
    here.run(0.0005)
    tube.total_jobs += 2
    front_end.inside(lambda: front_end.engine.forget(tube))
    here.run(1.0)
    assert tube.total_jobs == 0


def test_tubes_are_let_go_of_while_no_segment_can_be_looked_at(here: World) -> None:
    front_end = here.front_end()
    used_once(front_end, front_end)
    here.cluster.head = always(Busy("11"))  # type: ignore[method-assign]
    here.run(2 * TWO_SWEEPS)
    assert [tube.name for tube in front_end.engine.registry.known_tubes()] == ["default"]


# --- segments that others finish


def put_many(client: Client, count: int) -> None:
    """Put so many jobs that a segment takes about a hundred of them."""
    body = b"y" * 1000
    client.post(b"put 0 0 60 %d\r\n%b\r\n" % (len(body), body) * count)
    assert client.front_end.world.run(30.0, lambda: client.received.count(b"INSERTED") == count)
    client.received = b""


def test_who_only_puts_keeps_no_segment_that_others_have_emptied(here: World) -> None:
    putting, taking = here.front_end(), here.front_end()
    here.run(2.0)
    producer, consumer = using(putting, b"tube"), watching(taking, b"tube")
    put_many(producer, 400)
    tube = tube_of(putting, "tube")
    assert len(tube.committers) > 3
    for _ in range(400):
        consume(consumer)
    here.run(TWO_SWEEPS)
    assert list(tube.committers.values()) == [tube.open]


def test_a_look_drops_own_segments_that_others_have_unlisted(here: World) -> None:
    putting, taking = here.front_end(), here.front_end()
    here.run(2.0)
    producer, consumer = using(putting, b"tube"), watching(taking, b"tube")
    put_many(producer, 300)
    for _ in range(300):
        consume(consumer)
    tube = tube_of(putting, "tube")
    assert len(tube.committers) > 2
    # Too soon for a sweep; and nothing is asked of them one by one.
    here.cluster.apply = always(AssertionError("a job is asked for"))  # type: ignore[method-assign]
    assert watching(putting, b"tube").ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert list(tube.committers.values()) == [tube.open]


class SlowDirectories(MemoryStore):
    """A store whose directories are a second old when they arrive."""

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        found = await super().directories(tubes)
        await asyncio.sleep(1.0)
        return found


def test_a_look_keeps_an_own_segment_that_was_made_after_it_had_begun() -> None:
    here = World(1, store_class=SlowDirectories)
    front_end = here.front_end()
    here.run(2.0)
    worker = front_end.connect()
    worker.post(b"reserve\r\n")
    here.run(0.1)
    put_many(front_end.connect(), 200)
    tube = tube_of(front_end, "default")
    full = next(iter(tube.committers.values()))
    assert full is not tube.open
    assert here.run(1.5, lambda: worker.received.startswith(b"RESERVED "))
    assert not full.gone


def test_a_look_at_an_old_list_keeps_the_open_segment(here: World) -> None:
    front_end = here.front_end()
    here.run(2.0)
    producer = using(front_end, b"tube")
    job_id = producer.put()
    assert producer.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    here.cluster.unlist("tube", job_id >> SLOT_BITS)
    assert watching(front_end, b"tube").ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert producer.put() >> SLOT_BITS == job_id >> SLOT_BITS


def test_a_look_at_an_old_list_keeps_a_segment_with_held_jobs(here: World) -> None:
    producer = using(here.front_end(), b"tube")
    holder = watching(here.front_end(), b"tube")
    here.run(5.0)
    job_id = producer.put(ttr=1000)
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
    here.cluster.unlist("tube", job_id >> SLOT_BITS)
    other = watching(holder.front_end, b"tube")
    other.post(b"reserve-with-timeout 5\r\n")
    here.run(1.0)
    # Waiters look at a tube whose pause has changed.
    assert producer.ask(b"pause-tube tube 0\r\n") == b"PAUSED\r\n"
    here.run(5.0)
    assert other.take() == b"TIMED_OUT\r\n"
    here.cluster.enlist("tube", job_id >> SLOT_BITS)
    here.run(2 * TWO_SWEEPS)
    assert other.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert holder.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"


def test_a_segment_whose_last_job_is_deleted_by_its_id_ends(here: World) -> None:
    first, second = here.front_end(), here.front_end()
    here.run(2.0)
    job_id = using(first, b"tube").put()
    first.close()
    here.run(5.0)
    assert states(here) == [CLOSED]
    assert second.connect().ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    here.run(TWO_SWEEPS)
    assert states(here) == [DEAD]
    assert not here.cluster.listed("tube")


# --- segments whose end was interrupted


def test_a_segment_that_is_dead_is_unlisted_later_if_that_fails_at_first(here: World) -> None:
    front_end = here.front_end()
    here.cluster.unlist = failing_at_first(2, here.cluster.unlist, Busy("11"))  # type: ignore[method-assign]
    used_once(front_end, front_end)
    here.run(3 * TWO_SWEEPS)
    assert set(states(here)) == {DEAD}
    assert here.cluster.tubes() == {}


def test_a_segment_that_died_listed_is_unlisted_when_its_record_is_used_again() -> None:
    here = World(1)
    front_end = here.front_end()
    here.run(2.0)
    dead, next_user = 1, 1 + RING_MAX
    here.cluster.create(dead, "tube", lease_key(77, 1))
    here.cluster.enlist("tube", dead)
    here.cluster.close(dead)
    here.cluster.retire(dead)
    here.cluster.create(next_user, "other", lease_key(77, 2))
    assert watching(front_end, b"tube").ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    here.run(1.0)
    assert not here.cluster.listed("tube")
    assert here.cluster.segment(dead).number == next_user


def test_a_listed_segment_whose_record_cannot_be_found_stays_listed(here: World) -> None:
    # It comes back with its node.
    front_end = here.front_end()
    here.run(2.0)
    here.cluster.enlist("tube", 1)
    assert watching(front_end, b"tube").ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    here.run(TWO_SWEEPS)
    assert here.cluster.listed("tube") == {1}


def test_a_segment_whose_making_was_not_answered_ends(here: World) -> None:
    client = here.front_end().connect()
    here.run(2.0)
    create = here.cluster.create
    made: list[int] = []

    def unanswered(number: int, *arguments: Any) -> None:
        create(number, *arguments)
        made.append(number)
        if len(made) == 1:
            raise Unknown("9: applied, and not answered")

    here.cluster.create = unanswered  # type: ignore[method-assign]
    job_id = client.put()
    assert job_id >> SLOT_BITS == made[1]
    # Two audits.
    here.run(130.0)
    assert here.cluster.segment(made[0]).state == DEAD


@pytest.mark.parametrize("failing", ["close", "retire"])
def test_a_segment_whose_making_was_not_answered_ends_though_that_fails_at_first(here: World, failing: str) -> None:
    here.front_end()
    here.run(2.0)
    here.cluster.create(1 << 10, "tube", lease_key(1, 1 << 20))
    setattr(here.cluster, failing, failing_at_first(1, getattr(here.cluster, failing), Busy("11")))
    here.run(400.0)
    assert states(here) == [DEAD]


def test_an_open_segment_of_a_dead_session_is_closed_though_that_fails_at_first(here: World) -> None:
    dying, living = here.front_end(), here.front_end()
    here.run(2.0)
    using(dying, b"tube").put()
    here.cluster.close = failing_at_first(1, here.cluster.close, Busy("11"))  # type: ignore[method-assign]
    dying.kill()
    here.run(60.0)
    assert states(here) == [CLOSED]
    consume(watching(living, b"tube"))
    here.run(1.0)
    assert states(here) == [DEAD]


# --- memory


def test_the_order_of_a_tubes_segments_is_as_long_as_they_are_many_however_often_it_changes(here: World) -> None:
    putting, taking = here.front_end(), here.front_end()
    here.run(2.0)
    producer, consumer = using(putting, b"tube"), watching(taking, b"tube")
    for number in range(100):
        producer.put(pri=1000 - number)
        consume(consumer)
    assert len(tube_of(putting, "tube")._order) < 25


def test_a_link_forgets_tubes_that_were_dropped_while_all_were_wanted(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "WANTS_MAX", 20)
    front_end, other = here.front_end(), here.front_end()
    here.run(3.0)
    for turn in range(5):
        for number in range(30):
            client = watching(front_end, b"t%d-%d" % (turn, number))
            client.ask(b"reserve-with-timeout 0\r\n")
            client.hang_up()
        here.run(30.0)
    (source,) = front_end.engine.news.mesh._sources.values()
    (hearer,) = other.engine.news.mesh._hearers.values()
    assert max(len(source.subscriber._wanted), len(hearer.speaker.wants)) <= 20

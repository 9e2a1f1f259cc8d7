"""A tube is cleared while workers take its jobs: each job is deleted once, by one of both. Dead segments leave nobody waiting."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from failing import always

from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot, ready_key
from beanspiked.engine.aerospike.store.seam import DEAD, READY, Unknown
from beanspiked.engine.errors import OutcomeUnknown
from beanspiked.engine.filters import Filter

if TYPE_CHECKING:
    from world import FrontEnd, World

    from beanspiked.engine.contract import Bulk

JOBS = 400


def clear(front_end: FrontEnd, name: str) -> Bulk:
    engine = front_end.engine
    started: list[Bulk] = []
    front_end.inside(lambda: started.append(engine.clear(engine.tube(name), Filter())))
    return started[0]


def test_each_job_is_deleted_once_by_a_worker_or_by_the_clear(here: World) -> None:
    putting, taking, clearing = (here.front_end() for _ in range(3))
    here.run(3.0)
    producer = putting.connect()
    producer.post(b"put 0 0 60 1000\r\n%b\r\n" % (b"y" * 1000) * JOBS)
    assert here.run(30.0, lambda: producer.received.count(b"INSERTED") == JOBS)
    producer.received = b""
    workers = [taking.connect() for _ in range(5)]
    for worker in workers:
        worker.post(b"reserve-with-timeout 1\r\n")
    bulk = clear(clearing, "default")
    deleted = 0
    idle: set[int] = set()
    while len(idle) < len(workers):
        here.run(0.002)
        for place, worker in enumerate(workers):
            while worker.answered():
                reply = worker.take()
                if reply.startswith(b"RESERVED"):
                    worker.post(b"delete %d\r\n" % int(reply.split()[1]))
                elif reply == b"DELETED\r\n":
                    deleted += 1
                    worker.post(b"reserve-with-timeout 1\r\n")
                else:
                    assert reply == b"TIMED_OUT\r\n"
                    idle.add(place)
    assert here.run(10.0, lambda: bulk.done)
    assert bulk.error is None
    assert deleted
    assert bulk.value
    assert deleted + bulk.value == JOBS
    here.run(2.0)
    assert producer.stats("stats-tube default")["cmd-delete"] == str(JOBS)
    here.run(150.0)
    states = [record.state for record in here.cluster._segments.values()]
    assert len(states) - states.count(DEAD) <= 1
    assert not here.cluster._bodies


def test_whoever_asks_a_dying_segment_for_a_job_gets_that_of_another_one(here: World) -> None:
    putting, taking = here.front_end(), here.front_end()
    here.run(3.0)
    producer, worker, waiting = putting.connect(), taking.connect(), taking.connect()
    job_id = producer.put()
    assert worker.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
    putting.close()
    here.run(4.0)
    putting.kill()
    waiting.post(b"reserve\r\n")
    here.run(1.0)
    committer = taking.engine.registry.tube("default").committers[job_id >> SLOT_BITS]
    retire = here.cluster.retire

    def late_news(number: int) -> bool:
        dead = retire(number)
        # They tell of a job that is gone by now.
        taking.loop.call_soon(committer.hear, ready_key(0, 1, 1), 1)
        return dead

    here.cluster.retire = late_news  # type: ignore[method-assign]
    assert worker.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    here.run(1.0)
    assert committer.gone
    assert not committer.inbox.waited_for()
    assert not waiting.received
    worker.put()
    assert here.run(1.0, waiting.answered)
    assert waiting.take().startswith(b"RESERVED ")


def test_a_job_that_was_kicked_instead_of_deleted_does_not_count(here: World) -> None:
    front_end = here.front_end()
    job_id = front_end.connect().buried()
    shift = here.cluster.shift

    def unanswered(number: int, queue: str, keys: list[bytes], *_: object) -> None:
        here.cluster.shift = shift  # type: ignore[method-assign]
        (packed,) = here.cluster.segment(number).queues[queue].values()
        shift(number, queue, keys, READY, {ready_key(0, 1, job_slot(keys[0])): packed})
        raise Unknown("no answer")

    here.cluster.shift = unanswered  # type: ignore[method-assign, assignment]
    bulk = clear(front_end, "default")
    assert here.run(10.0, lambda: bulk.done)
    assert bulk.value == 0
    assert here.front_end().connect().stats(f"stats-job {job_id}")["state"] == "ready"


@pytest.mark.parametrize("applied", [True, False])
def test_a_job_counts_as_deleted_though_the_first_answer_was_lost(here: World, applied: bool) -> None:
    front_end = here.front_end()
    front_end.connect().put()
    shift = here.cluster.shift

    def unanswered(*arguments: Any) -> Any:
        here.cluster.shift = shift  # type: ignore[method-assign]
        if applied:
            shift(*arguments)
        raise Unknown("no answer")

    here.cluster.shift = unanswered  # type: ignore[method-assign]
    bulk = clear(front_end, "default")
    assert here.run(10.0, lambda: bulk.done)
    assert (bulk.error, bulk.value) == (None, 1)


def test_a_clear_that_is_never_answered_ends_in_time_and_blames_nobody(here: World) -> None:
    front_end = here.front_end()
    front_end.connect().put()
    here.cluster.shift = always(Unknown("no answer"))  # type: ignore[method-assign]
    asked_at = here.time
    bulk = clear(front_end, "default")
    assert here.run(10.0, lambda: bulk.done)
    assert isinstance(bulk.error, OutcomeUnknown)
    assert 1.9 < here.time - asked_at < 3.0


def test_one_that_is_told_to_stop_begins_with_no_more_jobs(here: World) -> None:
    front_end = here.front_end()
    producer = front_end.connect()
    producer.post(b"put 0 0 60 1\r\ny\r\n" * 700)
    assert here.run(30.0, lambda: producer.received.count(b"INSERTED") == 700)
    shift = here.cluster.shift

    def stop(*arguments: Any) -> Any:
        bulk.stopped = True
        return shift(*arguments)

    here.cluster.shift = stop  # type: ignore[method-assign]
    bulk = clear(front_end, "default")
    assert here.run(10.0, lambda: bulk.done)
    assert 0 < bulk.value < 700


def test_bodies_that_lie_outside_go_with_their_jobs(here: World) -> None:
    front_end = here.front_end()
    producer = front_end.connect()
    producer.put(random.Random(1).randbytes(5000))
    # It keeps the segment alive.
    assert producer.ask(b"reserve\r\n").startswith(b"RESERVED")
    producer.put(random.Random(2).randbytes(5000))
    assert len(here.cluster._bodies) == 2
    bulk = clear(front_end, "default")
    assert here.run(10.0, lambda: bulk.done)
    here.run(1.0)
    assert len(here.cluster._bodies) == 1


@pytest.mark.parametrize("by_id", [True, False])
def test_a_segment_ends_whose_last_job_goes_where_nobody_uses_the_tube(here: World, by_id: bool) -> None:
    putting, other = here.front_end(), here.front_end()
    here.run(3.0)
    producer = putting.connect()
    producer.ask(b"use t\r\n")
    job_id = producer.put()
    putting.leave()
    here.run(5.0)
    if by_id:
        assert other.connect().ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    else:
        bulk = clear(other, "t")
        assert here.run(10.0, lambda: bulk.done)
    here.run(130.0)
    assert here.cluster.segment(job_id >> SLOT_BITS).state == DEAD

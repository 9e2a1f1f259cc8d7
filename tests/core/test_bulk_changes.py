"""All jobs that match are deleted, moved or kicked, slice by slice: none is lost or doubled, whatever happens meanwhile."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from simulated import HandJournal

from beanspiked.engine.contract import BURIED, DELAYED, READY, RESERVED, Filter, Job
from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.errors import StoreFailed
from beanspiked.engine.filters import ANY_STATE

if TYPE_CHECKING:
    from simulated import Wire

    from beanspiked.engine.contract import Bulk, Tube

MANY = 5000


class Side:
    """An engine whose journal, if it has one, commits when it is told to."""

    def __init__(self, wire: Wire, journaled: bool) -> None:
        self.wire = wire
        self.journal = HandJournal(wire) if journaled else None
        self.engine = EmbeddedEngine(wire.timers, wire.broker, self.journal)
        wire.broker.engine = self.engine

    def tube(self, name: str) -> Tube:
        return self.engine.tube(name)

    def commit(self, error: Exception | None = None) -> None:
        """Let what is on its way to the journal be on disk."""
        if self.journal is not None:
            self.engine.flush()
            self.journal.commit(error)  # type: ignore[arg-type]

    def put(self, name: str = "t", pri: int = 0, delay: float = 0.0, body: bytes = b"x") -> Job:
        job_id = self.engine.new_id()
        self.engine.put(self.tube(name), job_id, pri, delay, 60, body)
        self.commit()
        return self.find(job_id)

    def fill(self, count: int, name: str = "t") -> list[int]:
        ids = [self.engine.new_id() for _ in range(count)]
        for job_id in ids:
            self.engine.put(self.tube(name), job_id, 0, 0, 60, b"x")
        self.commit()
        return ids

    def find(self, job_id: int) -> Job:
        job = self.engine.find_job(job_id)
        assert job is not None
        return job

    def bury(self, job: Job) -> Job:
        self.engine.take_job(job)
        self.engine.bury(job, job.pri)
        self.commit()
        return job

    def step(self) -> None:
        self.commit()
        self.wire.broker.on_alarm()

    def run(self, bulk: Bulk) -> int:
        """Let slices pass until all is done; return how many jobs were changed."""
        for _ in range(100 * MANY):
            if bulk.done:
                break
            self.step()
        assert bulk.error is None
        return bulk.value

    def there(self, name: str) -> dict[int, int]:
        """Return the states of a tube's jobs by their ids."""
        return {job.id: job.state for job in self.engine._jobs.all() if job.tube.name == name}


@pytest.fixture(params=[False, True], ids=["in memory", "with a journal"])
def side(wire: Wire, request: pytest.FixtureRequest) -> Side:
    return Side(wire, request.param)


@pytest.fixture
def journaled(wire: Wire) -> Side:
    return Side(wire, True)


# --- clear


def test_all_jobs_are_deleted_that_nobody_holds(side: Side) -> None:
    side.put()
    side.put(delay=5)
    side.bury(side.put())
    held = side.put()
    side.engine.take_job(held)
    other = side.put("other")
    assert side.run(side.engine.clear(side.tube("t"), Filter(ANY_STATE))) == 3
    assert side.there("t") == {held.id: RESERVED}
    assert side.there("other") == {other.id: READY}


def test_only_jobs_that_match_are_deleted(side: Side) -> None:
    side.put(body=b"a needle")
    hay = side.put(body=b"hay")
    late = side.put(body=b"a needle", delay=5)
    assert side.run(side.engine.clear(side.tube("t"), Filter([READY], text=b"needle"))) == 1
    assert side.there("t") == {hay.id: READY, late.id: DELAYED}


def test_a_tube_goes_with_its_last_job(side: Side) -> None:
    side.put()
    side.run(side.engine.clear(side.tube("t"), Filter()))
    assert side.engine.find_tube("t") is None


def test_many_jobs_are_deleted_in_slices(side: Side) -> None:
    side.fill(MANY)
    bulk = side.engine.clear(side.tube("t"), Filter())
    seen = []
    while not bulk.done:
        seen.append(side.engine.counts.jobs())
        side.wire.clock.tick = 0.01
        side.step()
    steps = [before - after for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 1000
    assert bulk.value == MANY
    assert side.engine.counts.jobs() == 0


def test_jobs_put_meanwhile_stay(side: Side) -> None:
    side.fill(MANY)
    bulk = side.engine.clear(side.tube("t"), Filter())
    late = side.put()
    assert side.run(bulk) == MANY
    assert side.there("t") == {late.id: READY}


def test_a_job_taken_meanwhile_stays_with_its_holder(side: Side) -> None:
    ids = side.fill(MANY)
    bulk = side.engine.clear(side.tube("t"), Filter())
    last = side.find(ids[-1])
    side.engine.take_job(last)
    assert side.run(bulk) == MANY - 1
    assert side.there("t") == {last.id: RESERVED}


def test_it_ends_when_it_is_told_to(side: Side) -> None:
    side.fill(MANY)
    bulk = side.engine.clear(side.tube("t"), Filter())
    bulk.stop()
    done = side.run(bulk)
    assert 0 < done < MANY
    assert side.engine.counts.ready == MANY - done


def test_what_was_not_written_is_there_and_the_error_is_told(journaled: Side) -> None:
    journaled.fill(MANY)
    bulk = journaled.engine.clear(journaled.tube("t"), Filter())
    journaled.step()
    journaled.commit(StoreFailed("no disk"))
    journaled.step()
    assert isinstance(bulk.error, StoreFailed)
    assert 0 < bulk.value < MANY
    assert journaled.engine.counts.ready == MANY - bulk.value
    # All of them can be had: they stand in their queue again.
    assert len(journaled.engine._tubes.make("t").ready) == MANY - bulk.value


# --- move


def test_jobs_move_with_all_that_is_said_of_them(side: Side) -> None:
    ready = side.put(pri=7, body=b"body")
    delayed = side.put(delay=5)
    buried = side.bury(side.put())
    due = delayed.key
    assert side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter())) == 3
    assert side.there("to") == {ready.id: READY, delayed.id: DELAYED, buried.id: BURIED}
    assert (ready.pri, ready.body, delayed.key, buried.buries) == (7, b"body", due, 1)
    assert side.there("t") == {}


def test_a_moved_job_leaves_the_counts_of_one_tube_for_the_other(side: Side) -> None:
    side.put()
    side.put(pri=5000)
    side.put("to")
    side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter()))
    to = side.tube("to")
    assert (to.counts.ready, to.counts.urgent, to.total_jobs) == (3, 2, 3)
    assert side.engine.find_tube("t") is None
    assert side.engine.counts.ready == 3


def test_a_held_job_does_not_move(side: Side) -> None:
    job = side.put()
    side.engine.take_job(job)
    assert side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter(ANY_STATE))) == 0
    assert side.there("t") == {job.id: RESERVED}


def test_jobs_move_by_their_ids(side: Side) -> None:
    ids = side.fill(4)
    assert side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter(ids=ids[1:3]))) == 2
    assert side.there("to").keys() == set(ids[1:3])


def test_moved_jobs_stand_among_the_others_by_priority_and_age(side: Side) -> None:
    first = side.put(pri=3)
    there = side.put("to", pri=3)
    urgent = side.put(pri=1)
    side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter()))
    tubes = [side.tube("to")]
    assert [side.engine.take(tubes) for _ in range(3)] == [urgent, first, there]


def test_who_waits_gets_a_job_that_moves_in(side: Side) -> None:
    client = side.wire.connect()
    client.send(b"watch to\r\nreserve\r\n")
    client.take()
    job = side.put(body=b"x")
    side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter()))
    side.wire.broker.end_turn()
    assert client.take() == b"RESERVED %d 1\r\nx\r\n" % job.id


def test_a_moved_delayed_job_becomes_ready_in_time(side: Side) -> None:
    job = side.put(delay=5)
    side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter()))
    side.wire.broker.end_turn()
    side.wire.advance(5)
    assert side.there("to") == {job.id: READY}


def test_the_target_stays_until_all_have_moved(side: Side) -> None:
    ids = side.fill(MANY)
    target = side.tube("to")
    bulk = side.engine.move(side.tube("t"), target, Filter())
    # Whatever arrives is taken and deleted at once.
    gone = 0
    while not bulk.done or target.counts.ready:
        while (job := side.engine.take([target])) is not None:
            side.engine.delete(job)
            gone += 1
        side.step()
        assert bulk.done or side.engine.find_tube("to") is target
    side.commit()
    assert gone == len(ids)
    assert side.engine.counts.jobs() == 0
    assert side.engine.find_tube("to") is None


def test_the_target_is_dropped_when_nothing_moved(side: Side) -> None:
    side.run(side.engine.move(side.tube("t"), side.tube("to"), Filter()))
    assert side.engine.find_tube("to") is None


def test_a_tube_is_not_moved_to_itself(side: Side) -> None:
    with pytest.raises(ValueError, match="cannot move"):
        side.engine.move(side.tube("t"), side.tube("t"), Filter())


def test_a_job_is_nobodys_while_its_move_is_on_its_way(journaled: Side) -> None:
    job = journaled.put()
    bulk = journaled.engine.move(journaled.tube("t"), journaled.tube("to"), Filter())
    assert journaled.engine.take([journaled.tube("t"), journaled.tube("to")]) is None
    assert journaled.engine.in_flight(job.id) is not None
    assert journaled.run(bulk) == 1
    assert journaled.engine.take([journaled.tube("to")]) is job


def test_a_job_whose_move_failed_is_where_it_was(journaled: Side) -> None:
    job = journaled.put()
    bulk = journaled.engine.move(journaled.tube("t"), journaled.tube("to"), Filter())
    journaled.commit(StoreFailed("no disk"))
    assert isinstance(bulk.error, StoreFailed)
    assert journaled.engine.take([journaled.tube("t")]) is job
    assert journaled.engine.find_tube("to") is None


# --- kick


def test_jobs_that_match_are_kicked_buried_and_delayed_ones(side: Side) -> None:
    late = side.put(delay=5, body=b"needle")
    buried = side.bury(side.put(body=b"needle"))
    other = side.bury(side.put(body=b"hay"))
    ready = side.put(body=b"needle")
    assert side.run(side.engine.kick_jobs(side.tube("t"), Filter(text=b"needle"))) == 2
    assert side.there("t") == {late.id: READY, buried.id: READY, other.id: BURIED, ready.id: READY}
    assert (late.kicks, buried.kicks, other.kicks, ready.kicks) == (1, 1, 0, 0)

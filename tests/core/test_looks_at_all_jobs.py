"""What looks at all jobs of an embedded engine goes on in slices, and sees those that were there when it began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from simulated import HandJournal

from beanspiked.engine.contract import Details
from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.embedded.table import SHARD_SIZE
from beanspiked.engine.errors import StoreFailed

if TYPE_CHECKING:
    from simulated import Wire

    from beanspiked.engine.contract import Tube
    from beanspiked.engine.later import Later

# More than one slice of the table holds.
MANY = 9000


def fill(engine: EmbeddedEngine, name: str, count: int = MANY) -> tuple[Tube, list[int]]:
    """Put jobs of two bytes, every third with metadata."""
    tube = engine.tube(name)
    ids = []
    for number in range(count):
        job_id = engine.new_id()
        metadata = "wanted" if number % 3 == 0 else ""
        engine.put(tube, job_id, pri=1, delay=0, ttr=60, body=b"xy", details=Details(metadata=metadata))
        ids.append(job_id)
    return tube, ids


def run(wire: Wire, later: Later | None) -> int:
    """Let turns pass until it is known; return how many."""
    assert later is not None, "it was done in one slice"
    turns = 0
    while not later.done:
        turns += 1
        wire.broker.on_alarm()
        assert turns < 100
    return turns


def test_many_jobs_are_searched_in_slices(wire: Wire) -> None:
    tube, ids = fill(wire.engine, "t")
    fill(wire.engine, "other", 10)
    # A turn ends when it has lasted for long enough.
    wire.clock.tick = 0.01
    answer = wire.engine.find(tube, "wanted")
    assert run(wire, answer) >= MANY // SHARD_SIZE
    assert sorted(answer.ids) == ids[::3]


def test_a_search_finds_nothing_that_was_put_after_it_began(wire: Wire) -> None:
    tube, ids = fill(wire.engine, "t")
    answer = wire.engine.find(tube, "wanted")
    fill(wire.engine, "t", 4000)
    run(wire, answer)
    assert sorted(answer.ids) == ids[::3]


def test_two_searches_at_the_same_time_keep_their_own(wire: Wire) -> None:
    tube, ids = fill(wire.engine, "t")
    other, others = fill(wire.engine, "other")
    first = wire.engine.find(tube, "wanted")
    second = wire.engine.find(other, "wanted")
    run(wire, first)
    run(wire, second)
    assert sorted(first.ids) == ids[::3]
    assert sorted(second.ids) == others[::3]


def test_the_sizes_of_many_jobs_are_added_up_in_slices(wire: Wire) -> None:
    tube, _ = fill(wire.engine, "t")
    fill(wire.engine, "other", 10)
    answer = wire.engine.add_up(tube)
    run(wire, answer)
    sizes = answer.sizes
    assert (sizes.raw, sizes.stored, sizes.skipped) == (2 * MANY, 2 * MANY, 0)


def test_a_tube_with_many_jobs_is_deleted_in_slices_and_no_other(wire: Wire) -> None:
    tube, _ = fill(wire.engine, "t")
    fill(wire.engine, "other", 10)
    run(wire, wire.engine.delete_tube(tube))
    assert (wire.engine.counts.jobs(), wire.engine.tube("other").counts.ready) == (10, 10)


@pytest.fixture
def deletion(wire: Wire) -> tuple[EmbeddedEngine, HandJournal, Later]:
    """An engine whose changes wait for the test, and a tube's deletion that has begun there."""
    journal = HandJournal(wire)
    engine = EmbeddedEngine(wire.timers, wire.broker, journal)
    wire.broker.engine = engine
    tube, _ = fill(engine, "t")
    engine.flush()
    journal.commit()
    later = engine.delete_tube(tube)
    assert later is not None, "it was done in one slice"
    return engine, journal, later


def test_a_tube_is_deleted_slice_by_slice_each_when_the_one_before_is_on_disk(
    wire: Wire, deletion: tuple[EmbeddedEngine, HandJournal, Later]
) -> None:
    engine, journal, later = deletion
    left = []
    while not later.done:
        engine.flush()
        assert len(journal.sent) <= 1
        journal.commit()
        wire.broker.on_alarm()
        left.append(engine.counts.jobs())
        assert len(left) < 100
    assert left[-1] == 0
    assert len(set(left)) > MANY // SHARD_SIZE


def test_deleting_a_tube_ends_with_the_error_of_its_first_slice_and_the_jobs_are_there(
    wire: Wire, deletion: tuple[EmbeddedEngine, HandJournal, Later]
) -> None:
    engine, journal, later = deletion
    engine.flush()
    journal.commit(StoreFailed("no disk"))
    wire.broker.on_alarm()
    assert isinstance(later.error, StoreFailed)
    assert engine.counts.ready == MANY


@pytest.mark.planted_bug
def test_a_bug_in_a_later_slice_is_told_to_who_waits(wire: Wire) -> None:
    tube, _ = fill(wire.engine, "t")
    later = wire.engine.find(tube, "wanted")

    no_job: Any = "planted"
    for shard in wire.engine._jobs._shards.values():
        shard.few, shard.slots = {1: no_job}, []
    wire.broker.on_alarm()
    assert isinstance(later.error, StoreFailed)
    assert "internal error" in str(later.error)

"""A move on a shared store that is interrupted: each job is in one of the two tubes, whoever dies when, and somebody finishes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from failing import always, for_segment
from killed import KILLS
from world import Faults, World

from beanspiked.engine.aerospike.segment.codec import unpack
from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
from beanspiked.engine.aerospike.store.pairs import Pair, find_leases, pair_lease, pairs_of
from beanspiked.engine.aerospike.store.seam import BURIED, DEAD, DELAYED, READY, Busy, Change, Full, Unknown
from beanspiked.engine.contract import Filter
from beanspiked.engine.errors import StoreFailed

if TYPE_CHECKING:
    from world import FrontEnd

    from beanspiked.engine.contract import Bulk

pytestmark = KILLS

# More than a move without faults needs.
STEPS_MAX = 40


def begin(front_end: FrontEnd, source: str = "default", target: str = "b") -> Bulk:
    bulks: list[Bulk] = []
    engine = front_end.engine
    front_end.inside(lambda: bulks.append(engine.move(engine.tube(source), engine.tube(target), Filter())))
    return bulks[0]


def where(here: World) -> dict[bytes, list[str]]:
    """Tell in which queues of which tubes each body stands."""
    found: dict[bytes, list[str]] = {}
    for record in here.cluster._segments.values():
        for name, entries in record.queues.items():
            for packed in entries.values():
                found.setdefault(unpack(packed).body, []).append(f"{name} in {record.tube}")
        for held in record.leases.values():
            for packed in held.values():
                found.setdefault(unpack(packed).body, []).append(f"held in {record.tube}")
    return found


def held(here: World) -> bool:
    """Tell whether any job is held, or on the move."""
    return any("held" in place for found in where(here).values() for place in found)


def fill(here: World) -> FrontEnd:
    """Put a ready, a delayed and a buried job from a front-end."""
    front_end = here.front_end()
    client = front_end.connect()
    client.buried(b"buried")
    client.put(b"ready")
    client.put(b"delayed", delay=1000)
    here.run(1.0)
    return front_end


class Counted:
    """Counts a front-end's operations on the store, and does something before one of them."""

    def __init__(self, front_end: FrontEnd, at: int, do: Any) -> None:
        self.count = 0
        self.at = at
        self.do = do
        self.front_end = front_end
        self.keep = front_end.store._transport
        front_end.store._transport = self.transport

    async def transport(self, name: str, operation: Any) -> Any:
        # Not its heartbeats and what else it does all the time.
        if name in ("create", "enlist", "shift", "apply", "settle", "reclaim", "close", "retire", "unlist"):
            self.count += 1
            if self.count == self.at:
                self.do()
        return await self.keep(name, operation)


def test_a_move_leaves_all_jobs_as_they_were_in_the_other_tube() -> None:
    here = World(1)
    bulk = begin(fill(here))
    assert here.run(10, lambda: bulk.done)
    assert (bulk.error, bulk.value) == (None, 3)
    assert where(here) == {b"buried": ["buried in b"], b"ready": ["ready in b"], b"delayed": ["delayed in b"]}


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, STEPS_MAX))
def test_a_kill_before_any_operation_of_a_move_leaves_each_job_once(step: int) -> None:
    here = World(1)
    mover = fill(here)
    other = here.front_end()
    here.run(5.0)
    counted = Counted(mover, step, mover.kill)
    bulk = begin(mover)
    here.run(45.0)
    assert bulk.done == (counted.count < step)
    places = where(here)
    assert {body: len(found) for body, found in places.items()} == {b"buried": 1, b"ready": 1, b"delayed": 1}
    assert all(found[0] in (f"{body.decode()} in b", f"{body.decode()} in default") for body, found in places.items())
    # The other one serves them, wherever they are.
    client = other.connect()
    client.ask(b"watch b\r\n")
    assert client.ask(b"reserve\r\n").endswith(b"\r\nready\r\n")


@pytest.mark.parametrize("step", range(1, STEPS_MAX, 3))
def test_a_mover_that_freezes_and_wakes_up_doubles_nothing(step: int) -> None:
    here = World(1)
    mover = fill(here)
    here.front_end()
    here.run(5.0)
    Counted(mover, step, lambda: mover.freeze(25.0))
    begin(mover)
    here.run(70.0)
    assert {body: len(found) for body, found in where(here).items()} == {b"buried": 1, b"ready": 1, b"delayed": 1}


@pytest.mark.parametrize("seed", range(40))
def test_no_operation_that_is_late_doubles_or_loses_a_job(seed: int) -> None:
    here = World(seed)
    mover = fill(here)
    here.faults = Faults(late=0.3, unanswered=0.1)
    bulk = begin(mover)
    here.run(20.0)
    here.faults = Faults()
    assert here.run(60.0, lambda: bulk.done)
    here.run(5.0)
    assert {body: len(found) for body, found in where(here).items()} == {b"buried": 1, b"ready": 1, b"delayed": 1}
    if held(here):
        # Two operations that were late together have brought jobs back under a lease: the search for leftovers finds them.
        here.run(620.0)
    assert not held(here)


def left_behind(here: World, source: int, body: bytes) -> Pair:
    """Begin a move of a job, as its maker left it before the last steps, whose own leases are gone."""
    cluster = here.cluster
    pair = Pair(source, source + 1, READY)
    for number, tube in (pair.source, "a"), (pair.target, "b"):
        cluster.create(number, tube, lease_key(99, 1))
        cluster.enlist(tube, number)
        cluster.close(number)
        cluster.reclaim(number, lease_key(99, 1))
    leaving, arriving = (pair_lease(pair, 0, leaving=leaving) for leaving in (True, False))
    cluster.attach(pair.source, leaving)
    cluster.attach(pair.target, arriving)
    job = {ready_key(0, 1, 1): b"\0" * 29 + body}
    cluster.segment(pair.source).leases[leaving] = dict(job)
    cluster.apply(pair.target, arriving, Change(last_slot=1, puts={READY: job}, take=1))
    return pair


@pytest.fixture
def at_work(here: World) -> World:
    here.front_end()
    here.run(5.0)
    return here


def test_a_move_that_nobody_has_a_lease_for_is_found_and_finished(at_work: World) -> None:
    left_behind(at_work, (1 << 24) + 70, b"body")
    at_work.run(620.0)
    assert where(at_work) == {b"body": ["ready in b"]}


def test_a_move_that_cannot_be_finished_holds_up_no_other_and_is_told_of_once(
    at_work: World, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [left_behind(at_work, (1 << 24) + 70 + 2 * move, b"%d" % move) for move in range(3)]
    cluster = at_work.cluster
    cluster.settle = for_segment(pairs[1].target, cluster.settle, Busy("14"))  # type: ignore[method-assign]
    at_work.run(620.0)
    assert where(at_work) == {
        b"0": ["ready in b"],
        b"1": ["held in a", "held in b"],
        b"2": ["ready in b"],
    }
    assert caplog.text.count("jobs on the move") == 1


def test_jobs_whose_last_step_was_made_and_not_answered_count_as_moved() -> None:
    here = World(1)
    mover = fill(here)
    apply, unanswered = here.cluster.apply, [Unknown("9: no answer")]

    def last_step(number: int, lease: int, change: Change) -> Any:
        outcome = apply(number, lease, change)
        if change.moves and change.close and unanswered:
            raise unanswered.pop()
        return outcome

    here.cluster.apply = last_step  # type: ignore[method-assign]
    bulk = begin(mover)
    assert here.run(10, lambda: bulk.done)
    assert not unanswered
    assert (bulk.error, bulk.value) == (None, 3)


def test_a_move_leaves_out_a_job_that_somebody_takes_first() -> None:
    here = World(1)
    mover = fill(here)
    client = mover.connect()
    client.put(b"last")
    shift = here.cluster.shift

    def too_late(number: int, queue: str, keys: list[bytes], *arguments: Any) -> Any:
        here.cluster.shift = shift  # type: ignore[method-assign]
        ready = here.cluster.segment(number).queues[READY]
        del ready[min(ready)]
        return shift(number, queue, keys, *arguments)

    here.cluster.shift = too_late  # type: ignore[assignment, method-assign]
    bulk = begin(mover)
    assert here.run(10, lambda: bulk.done)
    assert (bulk.error, bulk.value) == (None, 3)
    assert where(here) == {b"buried": ["buried in b"], b"delayed": ["delayed in b"], b"last": ["ready in b"]}


def test_what_a_move_made_that_could_not_begin_ends() -> None:
    here = World(1)
    mover = fill(here)
    apply = here.cluster.apply

    def full(number: int, lease: int, change: Change) -> Any:
        if lease < 0:
            raise Full("8")
        return apply(number, lease, change)

    here.cluster.apply = full  # type: ignore[method-assign]
    bulk = begin(mover)
    assert here.run(10, lambda: bulk.done)
    assert isinstance(bulk.error, Full)
    made = [record for record in here.cluster._segments.values() if record.tube == "b"]
    assert made
    here.run(130.0)
    assert [record.state for record in made] == [DEAD] * len(made)


@pytest.mark.parametrize("error", [Busy("14"), Unknown("9")])
def test_a_move_into_a_tube_that_no_segment_can_be_listed_in_ends_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    here = World(1)
    mover = fill(here)
    enlist, listed = here.cluster.enlist, []

    def into_others(tube: str, number: int) -> None:
        if tube == "b":
            listed.append(number)
            raise error
        enlist(tube, number)

    with monkeypatch.context() as patched:
        patched.setattr(here.cluster, "enlist", into_others)
        bulks = [begin(mover), begin(mover, target="c")]
        assert here.run(5.0, lambda: all(bulk.done for bulk in bulks))
    assert isinstance(bulks[0].error, StoreFailed)
    assert (bulks[1].error, bulks[1].value) == (None, 3)
    # What was made for it ends, and its number was tried again rather than given up.
    assert len(set(listed)) == 1
    here.run(1.0)
    assert here.cluster.segment(listed[0]).state == DEAD


def test_a_move_that_fails_tells_so_once_and_is_finished_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = World(1)
    mover = fill(here)
    with monkeypatch.context() as patched:
        patched.setattr(here.cluster, "settle", always(Busy("14")))
        bulk = begin(mover)
        assert here.run(30, lambda: bulk.done)
        assert isinstance(bulk.error, StoreFailed)
        here.run(60.0)
    assert len([line for line in caplog.messages if "on the move" in line]) == 1
    here.run(10.0)
    assert sorted(len(found) for found in where(here).values()) == [1, 1, 1]
    assert not held(here)


# --- the names of leases


@pytest.mark.slow
@pytest.mark.parametrize("queue", [READY, DELAYED, BURIED])
@pytest.mark.parametrize("serial", [0, (1 << 20) - 1])
def test_a_lease_of_a_pair_tells_the_other_segment_and_the_queue(queue: str, serial: int) -> None:
    pair = Pair((1 << 39) - 1, 1 << 24, queue)
    leaving, arriving = (pair_lease(pair, serial, leaving=leaving) for leaving in (True, False))
    assert -(1 << 63) < arriving < 0
    assert -(1 << 63) < leaving < 0
    assert pairs_of(pair.source, [5, leaving]) == [pair]
    assert pairs_of(pair.target, [5, arriving]) == [pair]
    assert find_leases([5, arriving, leaving], pair, leaving=True) == [leaving]
    assert find_leases([5, leaving], pair, leaving=False) == []

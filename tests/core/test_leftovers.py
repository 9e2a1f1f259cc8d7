"""What somebody had begun with and died: others finish it, though nobody ever looks at its tube."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from failing import always

from beanspiked.engine.aerospike.store.keys import RING_MAX, SLOT_BITS, lease_key, ready_key, record_of
from beanspiked.engine.aerospike.store.seam import CLOSED, DEAD, OPEN, READY, Busy, Change, Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from world import Client, World

# All tubes are looked at again by then.
A_ROUND = 800.0
# Nobody's session.
LEASE = lease_key(1 << 20, 1)
LARGE = random.Random(1).randbytes(5000)


def segment(here: World, number: int, state: int, *, listed: bool = True, jobs: int = 0) -> None:
    """Make a segment that nobody has a lease on."""
    here.cluster.create(number, "tube", LEASE)
    if listed:
        here.cluster.enlist("tube", number)
    if jobs:
        entries = {ready_key(0, slot, slot): b"a job" for slot in range(1, jobs + 1)}
        here.cluster.apply(number, LEASE, Change(last_slot=jobs, puts={READY: entries}))
    here.cluster.reclaim(number, LEASE)
    if state != OPEN:
        here.cluster.close(number)
    if state == DEAD:
        here.cluster.retire(number)


def state_of(here: World, number: int) -> int:
    return here.cluster.segment(number).state


# --- segments


@pytest.mark.slow
@pytest.mark.parametrize("state", [CLOSED, DEAD])
def test_a_segment_that_is_over_and_listed_is_unlisted_though_nobody_knows_its_tube(here: World, state: int) -> None:
    for _ in range(3):
        here.front_end()
    segment(here, 1 << 10, state)
    here.run(A_ROUND)
    assert state_of(here, 1 << 10) == DEAD
    assert "tube" not in here.cluster._directories
    assert here.cluster.tubes() == {}


@pytest.mark.parametrize(("state", "jobs"), [(OPEN, 0), (CLOSED, 1)])
def test_a_segment_that_is_open_or_has_jobs_stays(here: World, state: int, jobs: int) -> None:
    here.front_end()
    segment(here, 1 << 10, state, jobs=jobs)
    here.run(A_ROUND)
    assert state_of(here, 1 << 10) == state
    assert here.cluster._directories["tube"].segments == {1 << 10}


def test_only_one_front_end_looks_for_what_others_left(here: World) -> None:
    first = here.front_end()
    here.run(3.0)
    second, asked = here.front_end(), []
    for front_end in (first, second):
        front_end.store.tubes = lambda _, front_end=front_end: asked.append(front_end) or _nothing()  # type: ignore[method-assign]
    here.run(A_ROUND)
    assert set(asked) == {first}
    first.kill()
    here.run(A_ROUND)
    assert set(asked) == {first, second}


async def _nothing() -> dict[str, Any]:
    return {}


@contextlib.contextmanager
def none_retires(here: World) -> Iterator[None]:
    """Keep segments from being retired while the block lasts; then let a new front-end find what is left."""
    retire = here.cluster.retire
    here.cluster.retire = always(Busy("11"))  # type: ignore[method-assign]
    yield
    here.cluster.retire = retire  # type: ignore[method-assign]
    here.front_end()
    here.run(200.0)


def test_a_segment_of_a_dead_session_that_was_never_listed_ends_though_who_ended_it_dies_as_well(here: World) -> None:
    dying, second = here.front_end(), here.front_end()
    here.run(15.0)
    lease = dying.engine.membership.session.next_lease()
    here.cluster.create(1 << 10, "tube", lease)
    dying.kill()
    with none_retires(here):
        assert here.run(60.0, lambda: state_of(here, 1 << 10) == CLOSED)
        here.run(5.0)
        second.kill()
    assert state_of(here, 1 << 10) == DEAD


def test_an_own_segment_that_was_never_listed_ends_though_its_front_end_dies_meanwhile(here: World) -> None:
    dying = here.front_end()
    here.run(3.0)
    here.cluster.create(1 << 10, "tube", dying.engine.membership.session.next_lease())
    with none_retires(here):
        # Two audits.
        here.run(130.0)
        assert state_of(here, 1 << 10) == CLOSED
        dying.kill()
    assert state_of(here, 1 << 10) == DEAD


# --- bodies


def age(here: World) -> None:
    """Let all bodies be two hours old."""
    for name in here.cluster._written_ms:
        here.cluster._written_ms[name] -= 2 * 3_600_000


def delete(client: Client, job_id: int) -> None:
    assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"


def used(here: World) -> tuple[Client, int]:
    """Put and delete a large job, and let nodes restart afterwards that bring its body back."""
    here.cluster.remembers = True
    client = here.front_end().connect()
    here.run(3.0)
    job_id = client.put(LARGE)
    delete(client, job_id)
    here.run(1.0)
    assert not here.cluster._bodies
    return client, job_id


def test_a_body_that_a_restart_brings_back_is_removed_when_its_segment_is_dead(here: World) -> None:
    client, job_id = used(here)
    client.hang_up()
    here.run(200.0)
    # The segment of `default` is closed with its front-end.
    here.front_ends[0].close()
    here.run(5.0)
    here.front_end()
    here.run(200.0)
    assert state_of(here, job_id >> SLOT_BITS) == DEAD
    here.cluster.restart_cold()
    assert here.cluster._bodies
    age(here)
    here.run(70.0)
    assert not here.cluster._bodies


def test_a_body_that_a_restart_brings_back_is_removed_when_another_segment_has_the_record(here: World) -> None:
    _, job_id = used(here)
    number = job_id >> SLOT_BITS
    here.cluster.segment(number).number += RING_MAX
    here.cluster.restart_cold()
    age(here)
    here.run(70.0)
    assert not here.cluster._bodies


def test_a_body_that_a_restart_brings_back_is_removed_when_no_job_of_its_segment_refers_to_it(here: World) -> None:
    client, job_id = used(here)
    kept = client.put(LARGE)
    held = client.put(LARGE, ttr=1000)
    assert {job >> SLOT_BITS for job in (kept, held)} == {job_id >> SLOT_BITS}
    assert client.ask(b"reserve-job %d\r\n" % held).startswith(b"RESERVED")
    here.cluster.restart_cold()
    assert len(here.cluster._bodies) == 3
    age(here)
    here.run(70.0)
    assert len(here.cluster._bodies) == 2
    assert client.ask(b"peek %d\r\n" % kept).endswith(LARGE + b"\r\n")
    delete(client, held)


def test_a_young_body_that_nothing_refers_to_stays(here: World) -> None:
    # Its put is on its way.
    used(here)
    here.cluster.restart_cold()
    here.run(200.0)
    assert len(here.cluster._bodies) == 1


@pytest.mark.parametrize("error", [Busy("11"), Damaged("ready is missing")])
def test_bodies_of_a_segment_that_cannot_be_read_stay_and_those_of_others_go(here: World, error: Exception) -> None:
    used(here)
    here.cluster.restart_cold()
    here.cluster.create(1 << 12, "tube", LEASE)
    here.cluster.write_body(1 << 12, 1, LARGE)
    read = here.cluster.read
    here.cluster.read = lambda number: always(error)() if number == 1 << 12 else read(number)  # type: ignore[method-assign]
    age(here)
    here.run(70.0)
    assert list(here.cluster._bodies) == [(1 << 12, 1)]


def test_bodies_of_a_segment_with_a_damaged_job_stay(here: World) -> None:
    used(here)
    here.cluster.restart_cold()
    segment(here, 1 << 12, OPEN, jobs=1)
    here.cluster.write_body(1 << 12, 1, LARGE)
    age(here)
    here.run(70.0)
    assert list(here.cluster._bodies) == [(1 << 12, 1)]


def test_bodies_of_a_segment_whose_record_is_not_there_stay(here: World) -> None:
    # It comes back with its node.
    _, job_id = used(here)
    here.cluster.restart_cold()
    age(here)
    del here.cluster._segments[record_of(job_id >> SLOT_BITS)]
    here.run(70.0)
    assert len(here.cluster._bodies) == 1


# --- counters


def counted(here: World, name: str) -> bool:
    record = here.cluster._directories.get(name)
    return record is not None and any(record.counters.values())


@pytest.mark.parametrize("cleanly", [True, False])
def test_counters_of_a_tube_that_is_over_do_not_outlive_who_counted_them(here: World, cleanly: bool) -> None:
    here.front_end()
    here.run(15.0)
    counting = here.front_end()
    client = counting.connect()
    client.ask(b"use once\r\n")
    delete(client, client.put())
    # Its segment ends in the sweep, and then somebody uses the tube no more whose counts are published.
    here.run(2.0)
    if cleanly:
        counting.close()
        here.run(4.0)
    counting.kill()
    here.run(A_ROUND)
    assert not counted(here, "once")
    assert here.cluster.tubes() == {}


@pytest.mark.parametrize("cleanly", [True, False])
def test_counters_of_a_tube_are_kept_whose_segments_stand_in_pages_only(here: World, cleanly: bool) -> None:
    here.cluster.inline_max = 1
    counting, other = here.front_end(), here.front_end()
    here.run(3.0)
    client = counting.connect()
    client.ask(b"use large\r\n")
    ids = [client.put(b"y" * 1000) for _ in range(300)]
    (first,) = here.cluster._directories["large"].segments
    for job_id in ids:
        if job_id >> SLOT_BITS == first:
            delete(client, job_id)
    here.run(130.0)
    record = here.cluster._directories["large"]
    assert not record.segments
    assert record.pages
    client.hang_up()
    if cleanly:
        counting.close()
        here.run(4.0)
    counting.kill()
    here.run(30.0)
    assert other.connect().stats("stats-tube large")["total-jobs"] == "300"


def test_what_a_dead_front_end_has_counted_of_a_tube_without_segments_is_dropped(here: World) -> None:
    # It is not listed, so nobody would come to it.
    here.front_end()
    here.run(15.0)
    counting = here.front_end()
    client = counting.connect()
    client.ask(b"use once\r\n")
    assert client.ask(b"pause-tube once 1\r\n") == b"PAUSED\r\n"
    here.run(3.0)
    counting.kill()
    here.run(30.0)
    assert not counted(here, "once")


def test_counters_that_were_handed_over_go_with_the_last_user_who_counted_nothing(here: World) -> None:
    counting, using = here.front_end().connect(), here.front_end().connect()
    using.ask(b"use once\r\n")
    here.run(3.0)
    counting.ask(b"use once\r\n")
    delete(counting, counting.put())
    counting.hang_up()
    here.run(300.0)
    assert counted(here, "once")
    using.hang_up()
    here.run(A_ROUND)
    assert not counted(here, "once")
    assert here.cluster.tubes() == {}


def test_a_paused_tube_without_jobs_is_listed_until_its_pause_is_over(here: World) -> None:
    client = here.front_end().connect()
    client.ask(b"use once\r\n")
    delete(client, client.put())
    here.front_ends[0].close()
    here.run(4.0)
    here.front_end()
    here.run(3.0)
    here.cluster.pause("once", 1_000_000, here.cluster.now_ms() + 1_000_000)
    here.run(500.0)
    assert here.cluster._directories["once"].pause_ms
    here.run(1300.0)
    assert "once" not in here.cluster._directories
    assert here.cluster.tubes() == {}


def test_counters_that_are_handed_over_while_their_tube_is_forgotten_are_taken_off_once(here: World) -> None:
    front_end = here.front_end()
    client = front_end.connect()
    here.run(3.0)
    client.ask(b"use t\r\n")
    delete(client, client.put())
    here.run(2.0)
    engine, tube = front_end.engine, front_end.engine.registry.tube("t")
    front_end.inside(lambda: engine.tasks.spawn(engine.lifecycle._hand_over_counters(tube)) and None)
    client.ask(b"use default\r\n")
    here.run(3.0)
    assert (tube.total_jobs, tube.deletes) == (0, 0)

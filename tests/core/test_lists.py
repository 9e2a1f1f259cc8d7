"""Jobs are listed in pages, in the order of their queues, and counted, by what is asked of them; others are served meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.compression import squeeze
from beanspiked.engine.contract import BURIED, DELAYED, READY, RESERVED, Details, Filter, Job, Tube
from beanspiked.engine.embedded.table import SHARD_SIZE
from beanspiked.engine.filters import LIMIT_MAX

if TYPE_CHECKING:
    from simulated import Wire

    from beanspiked.engine.contract import Listing
    from beanspiked.engine.later import Later

ALL = Filter()
# More than are looked at in one slice.
MANY = 5000


def put(wire: Wire, body: bytes = b"x", pri: int = 0, delay: float = 0.0, details: Details | None = None) -> Job:
    job_id = wire.engine.new_id()
    wire.engine.put(wire.engine.tube("t"), job_id, pri, delay, 60, body, details)
    job = wire.engine.find_job(job_id)
    assert job is not None
    return job


def take(wire: Wire, job: Job) -> Job:
    wire.engine.take_job(job)
    return job


def bury(wire: Wire, job: Job) -> Job:
    wire.engine.bury(take(wire, job), job.pri)
    return job


def tube(wire: Wire) -> Tube:
    return wire.engine.tube("t")


def run(wire: Wire, later: Later) -> int:
    """Let turns pass until it is known; return how many."""
    turns = 0
    while not later.done:
        turns += 1
        wire.broker.on_alarm()
        assert turns < 1000
    assert later.error is None
    return turns


def page(wire: Wire, state: int, wanted: Filter = ALL, after: str = "", limit: int = 100) -> Listing:
    listing = wire.engine.list_jobs(tube(wire), state, wanted, after, limit)
    run(wire, listing)
    return listing


def pages(wire: Wire, state: int, wanted: Filter = ALL, limit: int = 100) -> list[Job]:
    """List all jobs, page by page."""
    found: list[Job] = []
    after = ""
    while True:
        listing = page(wire, state, wanted, after, limit)
        found += listing.jobs
        after = listing.after
        if not after:
            return found


def test_ready_jobs_come_by_priority_then_by_age(wire: Wire) -> None:
    jobs = [put(wire, pri=pri) for pri in (5, 3, 5, 3)]
    assert page(wire, READY).jobs == [jobs[1], jobs[3], jobs[0], jobs[2]]


def test_delayed_jobs_come_by_due_time(wire: Wire) -> None:
    jobs = [put(wire, delay=delay) for delay in (9, 3, 6)]
    assert page(wire, DELAYED).jobs == [jobs[1], jobs[2], jobs[0]]


def test_buried_jobs_come_in_the_order_of_their_burial(wire: Wire) -> None:
    jobs = [put(wire) for _ in range(3)]
    bury(wire, jobs[1])
    bury(wire, jobs[0])
    assert page(wire, BURIED).jobs == [jobs[1], jobs[0]]


def test_reserved_jobs_come_by_id(wire: Wire) -> None:
    jobs = [put(wire) for _ in range(3)]
    take(wire, jobs[2])
    take(wire, jobs[0])
    assert page(wire, RESERVED).jobs == [jobs[0], jobs[2]]


def test_other_tubes_jobs_are_not_listed(wire: Wire) -> None:
    wire.engine.put(wire.engine.tube("other"), wire.engine.new_id(), 0, 0, 60, b"x")
    job = put(wire)
    assert page(wire, READY).jobs == [job]


@pytest.mark.parametrize("count", [7, MANY])
@pytest.mark.parametrize("wanted", [Filter(), Filter(min_pri=1)])
def test_a_page_goes_on_where_the_one_before_ended(wire: Wire, count: int, wanted: Filter) -> None:
    jobs = [put(wire, pri=1 + number * 7919 % 5) for number in range(count)]
    expected = sorted(jobs, key=lambda job: (job.pri, job.id))
    assert pages(wire, READY, wanted, limit=3 if count < 10 else LIMIT_MAX) == expected


def test_a_page_goes_on_also_when_the_job_it_ended_with_is_gone(wire: Wire) -> None:
    jobs = [put(wire) for _ in range(4)]
    first = page(wire, READY, limit=2)
    wire.engine.delete(jobs[1])
    assert page(wire, READY, after=first.after, limit=2).jobs == jobs[2:]


def test_the_last_page_says_so_also_when_it_is_full(wire: Wire) -> None:
    for _ in range(4):
        put(wire)
    first = page(wire, READY, limit=2)
    assert first.after
    assert page(wire, READY, after=first.after, limit=2).after == ""


def test_the_first_page_of_very_many_is_there_at_once(wire: Wire) -> None:
    for number in range(MANY):
        put(wire, pri=number * 7919 % 1000)
    listing = wire.engine.list_jobs(tube(wire), READY, ALL)
    assert listing.done
    assert [job.pri for job in listing.jobs] == sorted(job.pri for job in listing.jobs)


def test_the_largest_page_is_there_at_once_also_where_half_of_the_jobs_came_in_order(wire: Wire) -> None:
    for job in [put(wire, pri=1) for _ in range(2 * LIMIT_MAX)][::2]:
        wire.engine.release(take(wire, job), 0, 0)
    assert wire.engine.list_jobs(tube(wire), READY, ALL, "", LIMIT_MAX).done


@pytest.mark.parametrize("limit", [0, LIMIT_MAX + 1])
def test_a_page_has_a_sensible_size(wire: Wire, limit: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        wire.engine.list_jobs(tube(wire), READY, ALL, limit=limit)


def test_nothing_is_listed_after_a_place_that_is_none(wire: Wire) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        wire.engine.list_jobs(tube(wire), READY, ALL, after="nonsense")


# --- what is asked of them


def test_jobs_are_chosen_by_their_age(wire: Wire) -> None:
    old = put(wire)
    wire.clock.time += 10
    put(wire)
    assert page(wire, READY, Filter(min_age=10)).jobs == [old]


def test_jobs_are_chosen_by_how_often_they_were_tried(wire: Wire) -> None:
    tried = put(wire)
    put(wire)
    for _ in range(2):
        wire.engine.release(take(wire, tried), 0, 0)
    assert page(wire, READY, Filter(min_tries=2)).jobs == [tried]
    assert page(wire, READY, Filter(min_tries=3)).jobs == []


def test_jobs_are_chosen_by_their_priority(wire: Wire) -> None:
    jobs = [put(wire, pri=pri) for pri in range(4)]
    assert page(wire, READY, Filter(min_pri=1, max_pri=2)).jobs == jobs[1:3]


def test_jobs_are_chosen_by_a_text_in_their_bodies(wire: Wire) -> None:
    job = put(wire, b"with a needle in it")
    put(wire, b"only hay")
    assert page(wire, READY, Filter(text=b"needle")).jobs == [job]


def test_a_text_is_found_in_a_compressed_body(wire: Wire) -> None:
    stored, raw_size, _ = squeeze(b"hay " * 1000 + b"needle" + b" hay" * 1000)
    job = put(wire, stored, details=Details(raw_size=raw_size))
    assert page(wire, READY, Filter(text=b"hay needle hay")).jobs == [job]


def test_a_damaged_body_contains_no_text(wire: Wire) -> None:
    put(wire, b"needle", details=Details(raw_size=100))
    assert page(wire, READY, Filter(text=b"needle")).jobs == []


def test_jobs_are_chosen_by_their_ids(wire: Wire) -> None:
    jobs = [put(wire) for _ in range(4)]
    assert page(wire, READY, Filter(ids=[jobs[2].id, jobs[0].id, jobs[2].id, 999])).jobs == [jobs[0], jobs[2]]


def test_jobs_are_counted_by_all_that_may_be_asked_of_them(wire: Wire) -> None:
    for number in range(6):
        put(wire, b"even" if number % 2 == 0 else b"odd", pri=number, delay=number % 3)
    take(wire, put(wire, b"even"))
    counted = wire.engine.count_jobs(tube(wire), Filter((READY, DELAYED), text=b"even", min_pri=2))
    run(wire, counted)
    assert counted.value == 2


# --- in slices


def test_many_jobs_are_gone_through_in_slices(wire: Wire) -> None:
    jobs = [put(wire, pri=1) for _ in range(MANY)]
    # A turn ends when it has lasted for long enough.
    wire.clock.tick = 0.01
    listing = wire.engine.list_jobs(tube(wire), READY, Filter(min_pri=1), limit=10)
    assert run(wire, listing) >= MANY // SHARD_SIZE
    assert listing.jobs == jobs[:10]


def test_large_bodies_are_searched_fewer_at_a_time(wire: Wire) -> None:
    for _ in range(100):
        put(wire, b"x" * 65535)
    counted = wire.engine.count_jobs(tube(wire), Filter(text=b"y"))
    wire.clock.tick = 0.01
    assert run(wire, counted) > 1
    assert counted.value == 0


def test_jobs_put_meanwhile_are_left_out(wire: Wire) -> None:
    jobs = [put(wire, pri=5) for _ in range(MANY)]
    listing = wire.engine.list_jobs(tube(wire), READY, Filter(min_pri=1), limit=2)
    assert not listing.done
    put(wire, pri=1)
    run(wire, listing)
    assert listing.jobs == jobs[:2]


def test_what_was_deleted_released_or_taken_meanwhile_is_not_listed(wire: Wire) -> None:
    jobs = [put(wire, pri=5) for _ in range(MANY)]
    listing = wire.engine.list_jobs(tube(wire), READY, Filter(min_pri=1), limit=5)
    wire.engine.delete(jobs[0])
    take(wire, jobs[1])
    wire.engine.release(take(wire, jobs[2]), 6, 0)
    run(wire, listing)
    assert listing.jobs == jobs[3:5]
    assert page(wire, READY, Filter(min_pri=1), listing.after, limit=2).jobs == jobs[5:7]

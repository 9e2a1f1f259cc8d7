"""Random runs of a cluster in which everything goes wrong, and proof that such runs see what they are for."""

from __future__ import annotations

import gc
from collections import Counter
from typing import ClassVar

import planted
import pytest
import schedule
from depth import FULL, repeated_by, seeds
from killed import KILLS
from memory import Cluster
from versions import NEXT_FORM

from beanspiked.engine.aerospike.store.seam import FIRST

pytestmark = KILLS

CHUNK = 50 if FULL else 5
SCHEDULES = 150 if FULL else 20
# Several times as much happens in each of these.
MIXED_CHUNK = 10
MIXED = 10 if FULL else 1
# Where the search for a planted fault begins that shows itself late; it goes on should the engine have changed.
SHOWN_BY = {
    "a body dropped before its entry": 464,
    "a page unlisted with segments in it": 66,
    "a kill judged by a read": 118,
    "a put is not done whatever the highest slot says": 28,
    "an attach settled by renaming": 664,
    "a move settled by a read": 24,
    "a session's end that takes jobs on the move": 24,
}


@pytest.mark.scaled
@pytest.mark.parametrize("chunk", seeds(SCHEDULES, CHUNK), ids=lambda chunk: f"{chunk.start}-{chunk.stop - 1}")
def test_no_reply_is_a_lie_and_nothing_acknowledged_is_lost(chunk: range) -> None:
    for seed in chunk:
        with repeated_by(BEANSPIKED_SEEDS=seed):
            schedule.run(seed, harsh=seed % 5 == 4)


@pytest.mark.scaled
@pytest.mark.parametrize("chunk", seeds(MIXED, MIXED_CHUNK), ids=lambda chunk: f"{chunk.start}-{chunk.stop - 1}")
def test_jobs_that_are_moved_and_cleared_are_in_one_place_or_deleted(chunk: range) -> None:
    for seed in chunk:
        with repeated_by(BEANSPIKED_SEEDS=seed):
            schedule.run(seed, harsh=seed % 5 == 4, operators=True)
    # What a killed front-end had only just begun is collected while that is expected.
    gc.collect()


class Forms(Cluster):
    """Counts the segments that are made in each format."""

    made: ClassVar[Counter[int]] = Counter()

    def create(
        self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0, newest: int = NEXT_FORM
    ) -> None:
        super().create(number, tube, lease, form, page, newest)
        self.made[form] += 1


@pytest.mark.scaled
@pytest.mark.parametrize("plan", [plan for plan in schedule.PLANS if plan != "as it is"])
@pytest.mark.parametrize("chunk", seeds(MIXED, MIXED_CHUNK), ids=lambda chunk: f"{chunk.start}-{chunk.stop - 1}")
def test_two_versions_side_by_side_lose_nothing_and_bury_nothing(chunk: range, plan: str) -> None:
    Forms.made.clear()
    for seed in chunk:
        with repeated_by(BEANSPIKED_SEEDS=seed):
            schedule.run(seed, cluster_class=Forms, harsh=seed % 5 == 4, plan=plan)
    if len(chunk) >= MIXED_CHUNK:
        # Both formats were written, and so read by somebody or left alone; side by side nobody writes the newer one while the older lives.
        assert Forms.made[FIRST] > 0
        assert plan == "side by side" or Forms.made[NEXT_FORM] > 0


@pytest.mark.slow
def test_the_same_seed_is_the_same_run() -> None:
    first, second = schedule.run(7), schedule.run(7)
    assert (first.replies, first.world.steps, first.by_id.keys()) == (
        second.replies,
        second.world.steps,
        second.by_id.keys(),
    )


@pytest.mark.scaled
def test_sessions_read_from_a_stale_copy_do_no_harm() -> None:
    for seed in range(30 if FULL else 3):
        schedule.run(seed, store_class=planted.StaleSessions)


@pytest.mark.scaled
@pytest.mark.parametrize("fault", planted.PLANTED)
def test_a_planted_fault_is_noticed(fault: str) -> None:
    store_class, cluster_class = planted.PLANTED[fault]

    first = SHOWN_BY.get(fault, 0)

    def search() -> None:
        for seed in range(first, first + 300):
            schedule.run(seed, store_class=store_class, cluster_class=cluster_class, harsh=seed % 2 == 1)

    with pytest.raises(AssertionError, match=r"seed \d+|does not hold"):
        search()


@pytest.mark.scaled
# Jobs of a move that are taken for others have keys of another length, and a look may meet them before anybody notices.
@pytest.mark.planted_bug
@pytest.mark.parametrize("fault", planted.PLANTED_IN_MOVES)
def test_a_fault_planted_in_moves_is_noticed(fault: str) -> None:
    store_class, cluster_class = planted.PLANTED_IN_MOVES[fault]

    first = SHOWN_BY.get(fault, 0)

    def search() -> None:
        for seed in range(first, first + 300):
            schedule.run(
                seed, store_class=store_class, cluster_class=cluster_class, harsh=seed % 2 == 1, operators=True
            )

    with pytest.raises(AssertionError, match=r"seed \d+|does not hold"):
        search()
    gc.collect()

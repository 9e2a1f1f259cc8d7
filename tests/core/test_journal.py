"""What a real journal gives back after a restart is what was committed to it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from journals import Stores, crash, described

from beanspiked.engine.contract import BURIED, DELAYED, RESERVED, Details, Filter

if TYPE_CHECKING:
    from pathlib import Path

    from beanspiked.engine.later import Later


@pytest.mark.parametrize("seed", range(25))
def test_any_history_is_the_same_after_a_restart(seed: int, stores: Stores) -> None:
    chooser = random.Random(seed)
    if seed % 2:
        stores.fsync_ms, stores.alone = 0, True
    store = stores.open()
    known: dict[int, tuple[object, ...]] = {}
    for _ in range(40):
        engine = store.engine
        ids = sorted(known)
        verb = chooser.choice(
            [
                "put",
                "put",
                "put",
                "take",
                "delete",
                "release",
                "bury",
                "kick",
                "kick_job",
                "update",
                "move",
                "fold",
                "open",
                "wait",
            ]
        )
        if verb == "put":
            job_id = store.put(
                tube=chooser.choice(["a", "b"]),
                pri=chooser.choice([0, 7, 4294967295]),
                delay=chooser.choice([0, 0, 5, 1000]),
                ttr=chooser.choice([0, 1, 0.5]),
                body=chooser.randbytes(chooser.choice([0, 3, 5000])),
                details=chooser.choice([None, Details(metadata="m"), Details(raw_size=9, retries=2, failed=True)]),
            )
            assert job_id not in known
            known[job_id] = described(store.job(job_id))
        elif verb == "open":
            store = stores.open()
            assert {job_id: described(store.job(job_id)) for job_id in known} == known
            assert store.engine.counts.jobs() == len(known)
            # Delayed jobs become due by the clock that the next engine is given.
        elif verb == "fold":
            assert store.fold()
        elif verb == "wait":
            stores.clock.time += chooser.choice([0.25, 10])
        elif verb == "move":
            store.wait(engine.move(engine.tube("a"), engine.tube("b"), Filter(max_pri=7)))
            moved = (job for job in map(store.job, ids) if job.state != RESERVED and job.tube.name == "b")
            known |= {job.id: (job.id, "b", *known[job.id][2:]) for job in moved}
        elif verb == "kick":
            tube = engine.tube(chooser.choice(["a", "b"]))
            count, later = engine.kick(tube, 2)
            if count:
                store.wait(later)
            known = {
                job_id: described(store.job(job_id)) for job_id in known if store.job(job_id).state != RESERVED
            } | {job_id: was for job_id, was in known.items() if store.job(job_id).state == RESERVED}
        elif ids:
            job = store.job(chooser.choice(ids))
            if verb == "take" and job.state != RESERVED:
                assert engine.take_job(job) is None
            elif verb == "delete":
                store.wait(engine.delete(job))
                del known[job.id]
            elif verb == "kick_job" and job.state in (DELAYED, BURIED):
                store.wait(engine.kick_job(job))
                known[job.id] = described(job)
            elif job.state == RESERVED and verb in ("release", "bury", "update"):
                if verb == "release":
                    store.wait(engine.release(job, chooser.choice([3, 9]), chooser.choice([0, 77.5])))
                    known[job.id] = described(job)
                elif verb == "bury":
                    store.wait(engine.bury(job, 5, chooser.choice(["", "why"])))
                    known[job.id] = described(job)
                else:
                    store.wait(engine.update(job, b"new", 3))
                    # It is still held: only what the update changed is on disk.
                    was = list(known[job.id])
                    was[8], was[-1] = b"new", 3
                    known[job.id] = tuple(was)
    store = stores.open()
    assert {job_id: described(store.job(job_id)) for job_id in known} == known


@pytest.mark.parametrize("verb", ["clear", "move"])
def test_what_was_killed_amid_many_jobs_has_changed_whole_slices(verb: str, stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    engine = store.engine
    tube, target = engine.tube("a"), engine.tube("b")
    later: Later | None = None
    for _ in range(1200):
        later = engine.put(tube, engine.new_id(), 1, 0, 60, b"x")
    store.wait(later)
    bulk = engine.clear(tube, Filter()) if verb == "clear" else engine.move(tube, target, Filter())
    engine.flush()
    assert store.news.wait(10)
    # The first slice is on disk, and nobody has heard of it.
    store.news.clear()
    assert not bulk.done
    after = Stores(crash(tmp_path, tmp_path / "crashed"), stores.wire)
    names = [job.tube.name for job in after.open().engine._jobs.all()]
    after.close()
    assert (names.count("a"), names.count("b")) == (700, 0 if verb == "clear" else 500)
    while not bulk.done:
        stores.wire.broker.on_alarm()
        engine.flush()
        store.journal.settle()
        store.engine._timers.run()
    assert bulk.value == 1200


def test_ids_are_never_used_again(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put() for _ in range(5)]
    for job_id in ids:
        store.wait(store.engine.delete(store.job(job_id)))
    assert stores.open().put() == ids[-1] + 1


def test_burials_keep_their_order(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put() for _ in range(5)]
    order = [ids[3], ids[0], ids[4]]
    for job_id in order:
        store.engine.take_job(store.job(job_id))
        store.wait(store.engine.bury(store.job(job_id), 1))
    for _ in range(2):
        store = stores.open()
    store.engine.take_job(store.job(ids[1]))
    store.wait(store.engine.bury(store.job(ids[1]), 1))
    found = []
    while (job := store.engine.peek_next(store.engine.tube("default"), BURIED)) is not None:
        found.append(job.id)
        store.wait(store.engine.delete(job))
    assert found == [*order, ids[1]]


def test_a_pause_outlasts_a_restart_while_its_tube_does(stores: Stores) -> None:
    store = stores.open()
    store.put("a")
    for name in ("a", "gone"):
        tube = store.engine.tube(name)
        tube.watching += 1
        store.wait(store.engine.pause(tube, 100))
    stores.clock.time += 40
    store = stores.open()
    tube = store.engine.find_tube("a")
    assert tube is not None
    assert (tube.pause, tube.paused_until - stores.clock.time) == (100, 60)
    assert store.engine.take([tube]) is None
    assert store.engine.find_tube("gone") is None


def test_an_ended_pause_does_not_come_back(stores: Stores) -> None:
    store = stores.open()
    store.put("a")
    tube = store.engine.tube("a")
    store.wait(store.engine.pause(tube, 100))
    store.wait(store.engine.pause(tube, 0))
    assert stores.open().engine.tube("a").pause == 0


def test_a_pause_that_was_folded_and_then_ended_does_not_come_back_after_a_crash(
    stores: Stores, tmp_path: Path
) -> None:
    store = stores.open()
    store.put("a")
    tube = store.engine.tube("a")
    store.wait(store.engine.pause(tube, 100))
    assert store.fold()
    store.wait(store.engine.pause(tube, 0))
    crashed = Stores(crash(stores.directory, tmp_path / "crashed"), stores.wire)
    assert crashed.open().engine.tube("a").pause == 0
    crashed.close()


def test_metadata_finds_jobs_but_buried_ones(stores: Stores) -> None:
    store = stores.open()
    found = [store.put("a", details=Details(metadata="order 7")) for _ in range(3)]
    store.put("a", details=Details(metadata="order 8"))
    store.put("b", details=Details(metadata="order 7"))
    store.engine.take_job(store.job(found[1]))
    store.wait(store.engine.bury(store.job(found[1]), 0, "no such order"))
    store = stores.open()
    tube = store.engine.tube("a")
    answer = store.engine.find(tube, "order 7")
    assert (answer.done, answer.ids) == (True, [found[0], found[2]])
    assert (store.job(found[1]).details or Details()).reason == "no such order"


def test_a_tube_is_deleted_with_all_its_jobs(stores: Stores) -> None:
    store = stores.open()
    ids = [store.put("a", delay=delay) for delay in (0, 0, 50)]
    kept = store.put("b")
    store.engine.take_job(store.job(ids[0]))
    store.wait(store.engine.delete_tube(store.engine.tube("a")))
    assert [store.engine.find_job(job_id) for job_id in ids] == [None] * 3
    store = stores.open()
    assert store.engine.counts.jobs() == 1
    assert store.job(kept).tube.name == "b"


DAYS = 49 * 3600.0


@pytest.mark.parametrize("set_by", [DAYS, -DAYS], ids=["forward", "back"])
def test_times_on_disk_are_the_wall_clocks_also_when_it_was_set_after_the_start(stores: Stores, set_by: float) -> None:
    clock = stores.clock
    store = stores.open()
    clock.wall_ahead = set_by
    clock.time += 100
    put = store.put("a", delay=3600)
    released = store.put("a")
    store.engine.take_job(store.job(released))
    store.wait(store.engine.release(store.job(released), 1, 1800))
    store.wait(store.engine.pause(store.engine.tube("a"), 7200))
    store.journal._folder.keep_house()
    # The next process begins with the right time.
    store.close()
    stores.now = None
    clock.time += set_by
    clock.wall_ahead = 0.0
    store = stores.open()
    assert [store.job(job_id).key - clock.time for job_id in (put, released)] == [3600, 1800]
    assert [store.job(job_id).born for job_id in (put, released)] == [clock.time, clock.time]
    assert store.engine.tube("a").paused_until - clock.time == 7200


def test_a_clock_that_runs_beside_the_wall_clock_reads_what_is_on_disk_by_that(stores: Stores) -> None:
    store = stores.open()
    delayed = store.put("a", delay=3600)
    store.wait(store.engine.pause(store.engine.tube("a"), 7200))
    stores.clock.wall_ahead = 600
    store = stores.open()
    assert store.job(delayed).key - stores.clock.time == 3000
    assert stores.clock.time - store.job(delayed).born == 600
    assert store.engine.tube("a").paused_until - stores.clock.time == 6600


def test_a_clock_that_is_behind_at_a_start_makes_no_delay_longer(stores: Stores) -> None:
    store = stores.open()
    delayed = store.put("a", delay=3600)
    store.wait(store.engine.pause(store.engine.tube("a"), 7200))
    stores.clock.wall_ahead = -DAYS
    store = stores.open()
    assert store.job(delayed).key - stores.clock.time == 3600
    assert store.engine.tube("a").paused_until - stores.clock.time == 7200


def test_a_birth_that_a_producer_names_is_by_the_wall_clock_already(stores: Stores) -> None:
    store = stores.open()
    stores.clock.wall_ahead = 600
    job_id = store.put(details=Details(born=1_600_000_000.0))
    stores.now = None
    store.close()
    stores.clock.wall_ahead = 0
    assert stores.open().job(job_id).born == 1_600_000_000.0

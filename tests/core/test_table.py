"""The table finds jobs by id, and keeps no memory for ids whose jobs are gone."""

from __future__ import annotations

import random

import pytest

from beanspiked.engine.embedded.table import SHARD_SIZE, JobTable
from beanspiked.engine.jobs import Job, Tube

TUBE = Tube(1, "t")
# The ends of three shards, and the beginnings of those that come after.
IDS = [1, SHARD_SIZE - 1, SHARD_SIZE, 3 * SHARD_SIZE - 1, 3 * SHARD_SIZE, 2**40 * SHARD_SIZE - 1, 2**40 * SHARD_SIZE]


def job(number: int) -> Job:
    return Job(number, TUBE, pri=0, delay=0, ttr=60, born=0, body=b"")


@pytest.fixture
def jobs() -> list[Job]:
    return [job(number) for number in IDS]


@pytest.fixture
def table(jobs: list[Job]) -> JobTable:
    table = JobTable()
    for each in jobs:
        table.add(each)
    return table


def test_a_job_is_found_by_its_id_only(table: JobTable, jobs: list[Job]) -> None:
    for each in jobs:
        assert table.get(each.id) is each
    assert [table.get(number) for number in (0, 2, SHARD_SIZE + 1, 7 * SHARD_SIZE, 2**63)] == [None] * 5


def test_all_jobs_are_listed_and_each_shard_lists_its_own(table: JobTable, jobs: list[Job]) -> None:
    assert table.all() == jobs
    assert table.shards() == sorted({number // SHARD_SIZE for number in IDS}, reverse=True)
    assert [each.id for each in table.shard(0)] == [1, SHARD_SIZE - 1]
    assert table.shard(1_000) == []


def test_a_removed_job_is_not_found_and_the_others_are(table: JobTable, jobs: list[Job]) -> None:
    table.remove(jobs[0])
    assert table.get(jobs[0].id) is None
    assert table.all() == jobs[1:]


def test_a_shard_goes_with_its_last_job_and_comes_again(table: JobTable, jobs: list[Job]) -> None:
    for each in jobs:
        table.remove(each)
    assert table.shards() == []
    table.add(jobs[0])
    assert table.all() == [jobs[0]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_shard_finds_and_lists_its_jobs_however_many_it_has(seed: int) -> None:
    chance = random.Random(seed)
    table = JobTable()
    there: dict[int, Job] = {}
    ids = list(range(SHARD_SIZE))
    for share in (1.0, 0.01, 0.5, 0.0, 0.2, 0.9, 0.05):
        chance.shuffle(ids)
        wanted = set(ids[: int(share * SHARD_SIZE)])
        for number in sorted(wanted - there.keys()):
            there[number] = job(number)
            table.add(there[number])
        for number in [number for number in ids if number in there.keys() - wanted]:
            table.remove(there.pop(number))
        assert [table.get(number) for number in range(SHARD_SIZE)] == [
            there.get(number) for number in range(SHARD_SIZE)
        ]
        assert sorted(each.id for each in table.shard(0)) == sorted(there)


@pytest.mark.parametrize("kept", [1, 20])
def test_few_jobs_that_stay_of_many_take_little_memory(kept: int) -> None:
    table = JobTable()
    jobs = [job(number) for number in range(SHARD_SIZE)]
    for each in jobs:
        table.add(each)
    for each in jobs[kept:]:
        table.remove(each)
    assert not table._shards[0].slots

"""After kill -9 at a random moment, and after one more, a restarted server has what it had acknowledged and nothing else."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import secrets
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
from depth import FULL, repeated_by
from lab.load import run_until_crash
from lab.model import World

if TYPE_CHECKING:
    from pathlib import Path

    from lab.process import Servers

# More rounds, or one seed again:  BEANSPIKED_CRASH_ROUNDS=500 BEANSPIKED_CRASH_SEED=... pytest tests/server/test_crash.py
ROUNDS = int(os.environ.get("BEANSPIKED_CRASH_ROUNDS") or (12 if FULL else 5))
SEED = int(os.environ.get("BEANSPIKED_CRASH_SEED") or secrets.randbits(32))

WAYS = [[], [], [], ["-f", "0"], ["-f", "50"], ["-F"]]


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_every_acknowledged_change_survives_a_crash_and_the_next(servers: Servers, journal: Path) -> None:
    chance = random.Random(SEED)
    world = World()
    for number in range(ROUNDS):
        flags = chance.choice(WAYS)
        connections = chance.randrange(1, 7)
        seconds = chance.uniform(0.02, 0.8)
        with repeated_by(BEANSPIKED_CRASH_SEED=SEED, BEANSPIKED_CRASH_ROUNDS=number + 1):
            run_until_crash(servers.start("-b", journal, *flags), world, chance, connections, seconds)
            for _ in "after the crash", "after one more":
                again = servers.start("-b", journal)
                world.reconcile(again.connect())
                again.kill()
    print(f"{world.acknowledged} changes acknowledged in {ROUNDS} rounds, {len(world.jobs)} jobs left")
    assert world.acknowledged > 20 * ROUNDS


TAMPERING = {
    "a job is lost": "DELETE FROM job WHERE id = (SELECT max(id) FROM job)",
    "a job comes back": "INSERT INTO job SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'job') + 1, tube, state, pri,"
    " delay, ttr, born, place, reserves, timeouts, releases, buries, kicks, metadata, reason, retries, failed, raw_size,"
    " body FROM job LIMIT 1",
    "a priority is lost": "UPDATE job SET pri = pri + 1 WHERE id = (SELECT min(id) FROM job WHERE releases)",
    "a delay is lost": "UPDATE job SET state = 0 WHERE id = (SELECT max(id) FROM job WHERE state = 1 AND delay > 9)",
    "a due time moves": "UPDATE job SET place = place + 3 WHERE id = (SELECT max(id) FROM job WHERE state = 1 AND delay > 9)",
    "a burial is counted twice": "UPDATE job SET buries = buries + 1 WHERE id = (SELECT min(id) FROM job WHERE state = 3)",
    "a kick is not counted": "UPDATE job SET kicks = kicks - 1 WHERE id = (SELECT min(id) FROM job WHERE kicks)",
    "the buried are in the order of their ids": "UPDATE job SET place = id WHERE state = 3",
    "a body is cut": "UPDATE job SET body = substr(body, 1, 20) WHERE id = (SELECT min(id) FROM job WHERE length(body) > 20)",
    "a pause comes back": "INSERT OR REPLACE INTO pause VALUES ('paused-0', 7000, 4e9)",
}


@pytest.mark.slow
def test_the_comparison_sees_every_kind_of_loss(servers: Servers, journal: Path, tmp_path: Path) -> None:
    world = World()
    run_until_crash(servers.start("-b", journal), world, random.Random(1), 3, 1.0)
    settled = servers.start("-b", journal)
    world.reconcile(settled.connect())
    settled.kill()
    seen = {}
    for what, statement in TAMPERING.items():
        directory = tmp_path / what.replace(" ", "-")
        shutil.copytree(journal, directory)
        with contextlib.closing(sqlite3.connect(directory / "jobs.sqlite")) as database, database:
            assert database.execute(statement).rowcount > 0, what
        again = servers.start("-b", directory)
        try:
            copy.deepcopy(world).reconcile(again.connect())
        except AssertionError as error:
            seen[what] = str(error)
        again.kill()
    assert seen.keys() == TAMPERING.keys()

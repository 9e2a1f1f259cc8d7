"""After kill -9 at a random moment, and after one more, a restarted server has what it had acknowledged and nothing else."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from depth import FULL, repeated_by
from lab.load import run_until_crash
from lab.model import World

from beanspiked.engine.embedded.backup import backup

if TYPE_CHECKING:
    from pathlib import Path

    from lab.process import Servers

# More rounds, or one seed again:  BEANSPIKED_CRASH_ROUNDS=500 BEANSPIKED_CRASH_SEED=... pytest tests/server/test_crash.py
ROUNDS = int(os.environ.get("BEANSPIKED_CRASH_ROUNDS") or (12 if FULL else 5))
SEED = int(os.environ.get("BEANSPIKED_CRASH_SEED") or secrets.randbits(32))

WAYS = [[], [], [], ["-f", "0"], ["-f", "50"], ["-F"]]


@pytest.mark.scaled
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
    "a due time moves": "UPDATE job SET place = place - 3 WHERE id = (SELECT max(id) FROM job WHERE state = 1 AND delay > 9)",
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
        directory.mkdir()
        backup(journal, directory / "jobs.sqlite")
        with contextlib.closing(sqlite3.connect(directory / "jobs.sqlite")) as database, database:
            assert database.execute(statement).rowcount > 0, what
        again = servers.start("-b", directory)
        try:
            copy.deepcopy(world).reconcile(again.connect())
        except AssertionError as error:
            seen[what] = str(error)
        again.kill()
    assert seen.keys() == TAMPERING.keys()


MANY = 20_000
# Opens a journal, fills a tube unless there are jobs, and begins to move or clear it; says so when the first slice is on disk.
BULK = f"""
import sys, threading
from beanspiked.engine.contract import Filter, ReadyListener
from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.embedded.journal import Journal
from beanspiked.engine.timers import Timers
from beanspiked.server.clock import MonotonicClock

class Nobody(ReadyListener):
    pass

news = threading.Event()
timers = Timers(MonotonicClock())
journal = Journal(sys.argv[1], timers.clock)
journal.notify = news.set
engine = EmbeddedEngine(timers, Nobody(), journal)
engine.load(journal.reading.chunks(), *journal.reading.state())
journal.start()
source, target = engine.tube(sys.argv[3]), engine.tube(sys.argv[4])

def turn():
    engine.flush()
    news.wait(0.001)
    news.clear()
    journal.settle()
    timers.run()

if not engine.counts.jobs():
    for number in range({MANY}):
        later = engine.put(source, engine.new_id(), 1, 0, 60, b"%d" % number)
    while not later.done:
        turn()
bulk = engine.clear(source, Filter()) if sys.argv[2] == "clear" else engine.move(source, target, Filter())
while not bulk.value:
    turn()
print(bulk.value, flush=True)
while not bulk.done:
    turn()
"""


def where_jobs_are(journal: Path) -> dict[int, tuple[str, bytes]]:
    copy = journal / "copy"
    copy.unlink(missing_ok=True)
    backup(journal, copy)
    with contextlib.closing(sqlite3.connect(copy)) as database:
        return {number: (tube, body) for number, tube, body in database.execute("SELECT id, tube, body FROM job")}


def kill_amid(verb: str, journal: Path, source: str, target: str, seconds: float) -> int:
    """Kill a process in the midst of a change of many jobs; return how many it knew to be changed."""
    words = [sys.executable, "-c", BULK, str(journal), verb, source, target]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        known = int(process.stdout.readline())
        time.sleep(seconds)
        process.kill()
    return known


@pytest.mark.slow
def test_a_kill_amid_moves_and_a_clear_loses_and_doubles_no_job(journal: Path) -> None:
    chance = random.Random(SEED)
    with repeated_by(BEANSPIKED_CRASH_SEED=SEED):
        source, target = "a", "b"
        for _ in range(3):
            known = kill_amid("move", journal, source, target, chance.uniform(0, 0.2))
            found = where_jobs_are(journal)
            assert {number: body for number, (_, body) in found.items()} == {
                number + 1: b"%d" % number for number in range(MANY)
            }
            assert sum(tube == target for tube, _ in found.values()) >= known
            source, target = target, source
        before = where_jobs_are(journal)
        known = kill_amid("clear", journal, source, target, chance.uniform(0, 0.2))
        left = where_jobs_are(journal)
        assert left.items() <= before.items()
        assert {number for number in before if before[number][0] == target} <= left.keys()
        assert len(before) - len(left) >= known

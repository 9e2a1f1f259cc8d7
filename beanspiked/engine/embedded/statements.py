"""The SQL of each change."""

import logging
import sqlite3
import time
from pathlib import Path
from typing import Final

from beanspiked.engine.contract import BURIED, DELAYED, PLAIN, READY, Job
from beanspiked.engine.embedded.write import BURY, DELETE, DROP, KICK, MOVE, PAUSE, PUT, RELEASE, UPDATE, Write

__all__ = ["apply", "write_given_back"]

logger = logging.getLogger(__name__)

# SQLite's limit of parameters to a statement (32,766 since 3.32) allows more, but larger statements gain nothing.
PUT_CHUNK: Final = 64
# Bodies of at least this many bytes are written in pieces of this size.
LARGE_BODY: Final = 1 << 20
BODY_PIECE: Final = 1 << 18

PUT_COLUMNS: Final = "id, tube, state, pri, delay, ttr, born, place, body, metadata, raw_size, retries, failed"
PUT_VALUES: Final = "(?,?,?,?,?,?,?,?,?,?,?,?,?)"
# How long a stop may write down counters that are only in memory, in seconds, and for how many jobs at a time.
GIVEN_BACK_SECONDS: Final = 1.0
GIVEN_BACK_CHUNK: Final = 10_000


def apply(database: sqlite3.Connection, ahead: float, batch: list[Write]) -> int:
    """Change the database; return the number of records.

    A batch has each job at most once, so changes may be grouped by kind. Times are written by the wall clock of now, however wrong it was
    when this process started: it is `ahead` of this process's clock, in seconds.
    """
    puts: list[Job] = []
    dues: list[float] = []
    gone: list[int] = []
    kicked: list[int] = []
    records = 0
    for write in batch:
        op = write.op
        if op == PUT:
            puts += write.jobs
            dues.append(write.due + ahead)
        elif op in (DELETE, DROP):
            gone += [job.id for job in write.jobs]
        elif op == KICK:
            kicked += [job.id for job in write.jobs]
        elif op == MOVE:
            ids = [job.id for job in write.jobs]
            database.execute(
                "UPDATE job SET tube = ? WHERE id IN (SELECT value FROM json_each(?))", (write.name, str(ids))
            )
            records += len(ids)
        elif op == PAUSE:
            _pause(database, write, write.until + ahead)
            records += 1
        else:
            job = write.jobs[0]
            if op == RELEASE:
                _update(
                    database,
                    job,
                    DELAYED if write.delay else READY,
                    write.pri,
                    write.delay,
                    write.due + ahead,
                    releases=1,
                )
            elif op == BURY:
                _update(
                    database, job, BURIED, write.pri, job.delay, write.burial, buries=1, reason=write.reason or None
                )
            else:
                assert op == UPDATE
                _set_body(database, job.id, write.body, write.raw_size)
            records += 1
    _insert(database, puts, dues, ahead)
    # One statement for any number of rows, so that the interpreter lock is taken and released once.
    if kicked:
        # The change that made the job delayed or buried has written the other columns.
        database.execute(
            "UPDATE job SET state = ?, place = 0, kicks = kicks + 1, reason = '' WHERE id IN (SELECT value FROM json_each(?))",
            (READY, str(kicked)),
        )
    if gone:
        database.execute("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?))", (str(gone),))
    return records + len(puts) + len(kicked) + len(gone)


def _fill(database: sqlite3.Connection, job_id: int, body: bytes) -> None:
    """Write a large body into its reserved place. SQLite copies a parameter while nothing else in this process can run."""
    with database.blobopen("job", "body", job_id) as blob, memoryview(body) as whole:
        for start in range(0, len(body), BODY_PIECE):
            blob.write(whole[start : start + BODY_PIECE])


def _insert(database: sqlite3.Connection, jobs: list[Job], dues: list[float], ahead: float) -> None:
    start = 0
    while start < len(jobs):
        # In full chunks and single rows only, so that two prepared statements are enough.
        size = PUT_CHUNK if len(jobs) - start >= PUT_CHUNK else 1
        values: list[object] = []
        for index in range(start, start + size):
            job = jobs[index]
            details = job.details
            values += (
                job.id,
                job.tube.name,
                DELAYED if job.delay else READY,
                job.pri,
                job.delay,
                job.ttr,
                # The time that its producer gave is the wall clock's already.
                job.born + ahead if details is None or details.born == 0.0 else job.born,
                dues[index],
                job.body if len(job.body) < LARGE_BODY else b"",
            )
            values += (
                ("", -1, 0, 0)
                if details is None
                else (details.metadata, details.raw_size, details.retries, int(details.failed))
            )
        rows = ",".join([PUT_VALUES] * size)
        database.execute(f"INSERT INTO job ({PUT_COLUMNS}) VALUES {rows}", values)  # noqa: S608 - constants
        start += size
    for job in jobs:
        if len(job.body) >= LARGE_BODY:
            _set_body(database, job.id, job.body, PLAIN if job.details is None else job.details.raw_size)


def _set_body(database: sqlite3.Connection, job_id: int, body: bytes, raw_size: int) -> None:
    if len(body) < LARGE_BODY:
        database.execute("UPDATE job SET body = ?, raw_size = ? WHERE id = ?", (body, raw_size, job_id))
    else:
        database.execute("UPDATE job SET body = zeroblob(?), raw_size = ? WHERE id = ?", (len(body), raw_size, job_id))
        _fill(database, job_id, body)


def _update(
    database: sqlite3.Connection,
    job: Job,
    state: int,
    pri: int,
    delay: float,
    place: float,
    releases: int = 0,
    buries: int = 0,
    reason: str | None = None,
) -> None:
    database.execute(
        "UPDATE job SET state = ?, pri = ?, delay = ?, place = ?, reserves = ?, timeouts = ?, releases = ?, buries = ?,"
        " kicks = ?, reason = ifnull(?, reason), retries = ?, failed = ? WHERE id = ?",
        (
            state,
            pri,
            delay,
            place,
            job.reserves,
            job.timeouts,
            job.releases + releases,
            job.buries + buries,
            job.kicks,
            reason,
            0 if job.details is None else job.details.retries,
            0 if job.details is None else int(job.details.failed),
            job.id,
        ),
    )


def _pause(database: sqlite3.Connection, write: Write, until: float) -> None:
    if write.delay:
        database.execute(
            "INSERT OR REPLACE INTO pause (tube, seconds, until) VALUES (?, ?, ?)",
            (write.name, write.delay, until),
        )
    else:
        database.execute("DELETE FROM pause WHERE tube = ?", (write.name,))


def write_given_back(database: sqlite3.Connection, name: Path, given_back: dict[tuple[int, int], list[int]]) -> None:
    """Write the state and the counters of jobs that were given back, as far as the time allows."""
    left = sum(len(ids) for ids in given_back.values())
    give_up_at = time.monotonic() + GIVEN_BACK_SECONDS
    try:
        for (reserves, timeouts), ids in given_back.items():
            for start in range(0, len(ids), GIVEN_BACK_CHUNK):
                if time.monotonic() >= give_up_at:
                    logger.warning(
                        "%s: the stop left no time to write the counters of %d jobs; they will be as of each job's last change",
                        name,
                        left,
                    )
                    return
                part = ids[start : start + GIVEN_BACK_CHUNK]
                database.execute(
                    "UPDATE job SET state = ?, reserves = ?, timeouts = ? WHERE id IN (SELECT value FROM json_each(?))",
                    (READY, reserves, timeouts, str(part)),
                )
                left -= len(part)
    except sqlite3.Error as error:
        logger.error(
            "%s: cannot write the counters of %d jobs: %s; they will be as of each job's last change", name, left, error
        )

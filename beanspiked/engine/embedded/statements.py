"""The SQL by which the log is folded into the database."""

import itertools
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from beanspiked.engine.contract import READY
from beanspiked.engine.embedded.records import Net
from beanspiked.engine.embedded.write import COLUMNS, Row

__all__ = ["delete", "fold", "fold_steps", "write_given_back"]

logger = logging.getLogger(__name__)

# SQLite's limit of parameters to a statement (32,766 since 3.32) allows more, but larger statements gain nothing.
PUT_CHUNK: Final = 64
CHANGE_CHUNK: Final = 64
DELETE_CHUNK: Final = 2000
# Bodies of at least this many bytes are written in pieces of this size.
LARGE_BODY: Final = 1 << 20
BODY_PIECE: Final = 1 << 18

PUT_VALUES: Final = f"({','.join('?' * len(COLUMNS.split(',')))})"
ID_AT: Final = 0
BODY_AT: Final = 8
# How long a stop may write down counters that are only in memory, in seconds, and for how many jobs at a time.
GIVEN_BACK_SECONDS: Final = 1.0
GIVEN_BACK_CHUNK: Final = 10_000


def fold(database: sqlite3.Connection, net: Net, number: int) -> None:
    """Make all changes up to frame `number` of the log, as a part of the caller's transaction."""
    for _ in fold_steps(database, net, number):
        pass


def fold_steps(database: sqlite3.Connection, net: Net, number: int) -> Iterator[None]:
    """Do as `fold`, in steps of some milliseconds."""
    for _ in delete(database, net):
        yield
    changed: list[tuple[int, dict[str, object]]] = []
    for job_id, change in net.changed.items():
        if job_id in net:
            continue
        body = change.get("body")
        rest = change
        if isinstance(body, bytes) and len(body) >= LARGE_BODY:
            _set_body(database, job_id, body)
            rest = {name: value for name, value in change.items() if name != "body"}
            yield
        changed.append((job_id, rest))
    # Neighbours in which the same columns have changed, as after a kick, go together.
    for names, alike in itertools.groupby(changed, lambda change: tuple(change[1])):
        update = f"UPDATE job SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?"  # noqa: S608 - constants
        while some := list(itertools.islice(alike, CHANGE_CHUNK)):
            database.executemany(update, [(*change.values(), job_id) for job_id, change in some])
            yield
    ids = net.put_ids()
    start = 0
    while start < len(ids):
        # In full chunks and single rows only, so that two prepared statements are enough.
        size = PUT_CHUNK if len(ids) - start >= PUT_CHUNK else 1
        _insert(database, [net.row(job_id) for job_id in ids[start : start + size]])
        start += size
        yield
    for tube, (seconds, until) in net.pauses.items():
        if seconds:
            pause = (tube, seconds, until)
            database.execute("INSERT OR REPLACE INTO pause (tube, seconds, until) VALUES (?, ?, ?)", pause)
        else:
            database.execute("DELETE FROM pause WHERE tube = ?", (tube,))
    if net.last_id:
        # The last job may have been deleted before it came here.
        database.execute(
            "INSERT INTO sqlite_sequence SELECT 'job', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'job')"
        )
        database.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'job' AND (seq < ? OR typeof(seq) <> 'integer')",
            (net.last_id, net.last_id),
        )
    database.execute("UPDATE log SET folded = ?", (number,))


def delete(database: sqlite3.Connection, net: Net, at_once: int = DELETE_CHUNK) -> Iterator[None]:
    """Delete the jobs that are gone, so many at once. This may be done before all other changes."""
    gone = sorted(net.gone)
    for start in range(0, len(gone), at_once):
        # One statement for any number of rows, so that the interpreter lock is taken and released once.
        part = str(gone[start : start + at_once])
        database.execute("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?))", (part,))
        yield


def _insert(database: sqlite3.Connection, rows: list[Row]) -> None:
    values: list[object] = []
    large: list[tuple[object, bytes]] = []
    for row in rows:
        body = row[BODY_AT]
        if isinstance(body, bytes) and len(body) >= LARGE_BODY:
            large.append((row[ID_AT], body))
            values += (*row[:BODY_AT], b"", *row[BODY_AT + 1 :])
        else:
            values += row
    places = ",".join([PUT_VALUES] * len(rows))
    database.execute(f"INSERT INTO job ({COLUMNS}) VALUES {places}", values)  # noqa: S608 - constants
    for job_id, body in large:
        _set_body(database, job_id, body)


def _set_body(database: sqlite3.Connection, job_id: object, body: bytes) -> None:
    """Write a large body into its reserved place. SQLite copies a parameter while nothing else in this process can run."""
    database.execute("UPDATE job SET body = zeroblob(?) WHERE id = ?", (len(body), job_id))
    if not database.execute("SELECT 1 FROM job WHERE id = ?", (job_id,)).fetchone():
        return
    assert isinstance(job_id, int)
    with database.blobopen("job", "body", job_id) as blob, memoryview(body) as whole:
        for start in range(0, len(body), BODY_PIECE):
            blob.write(whole[start : start + BODY_PIECE])


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

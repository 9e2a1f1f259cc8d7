"""Reads a journal when it is opened."""

import logging
import sqlite3
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from beanspiked.engine.embedded.database import name_and_folded
from beanspiked.engine.embedded.log import Found, read_log
from beanspiked.engine.embedded.records import Net
from beanspiked.engine.embedded.write import COLUMNS, Row
from beanspiked.engine.errors import StoreUnusable

__all__ = ["Reading"]

logger = logging.getLogger(__name__)

# How many jobs are read at a time, and for how many malformed ones the reason is logged.
LOAD_CHUNK: Final = 4096
ASIDE_LINES: Final = 5
MIN_ID: Final = -(1 << 63)


class Reading:
    """Reads a journal's database and its log before anything is written to them.

    Attributes:
        aside: How many rows are set aside because they are not jobs.
        name, folded: What the database says of the log.
        found: The files of the log with frames that are not folded yet.

    Raises:
        StoreUnusable: The database or the log is damaged.
    """

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self.aside: int = 0
        self._database = database
        self._path = path
        self._net = Net()
        try:
            self.name, self.folded = name_and_folded(database)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise StoreUnusable(f"{path}: {error}") from error
        self.found: list[Found] = read_log(path.parent, self.name, self.folded, self._net.take)

    def chunks(self) -> Iterator[list[Row]]:
        """Read all jobs, by id, some at a time.

        Raises:
            StoreUnusable: The database is damaged.
        """
        query = f"SELECT {COLUMNS} FROM job WHERE id > ? ORDER BY id LIMIT {LOAD_CHUNK}"  # noqa: S608 - constants
        last: object = MIN_ID
        net = self._net
        fresh = deque(net.put_ids())
        while rows := self._read(query, last):
            last = rows[-1][0]
            if net.gone or net.changed:
                rows = [net.over(row) for row in rows if row[0] not in net.gone]
            if fresh and fresh[0] < cast(int, last):
                while fresh and fresh[0] < cast(int, last):
                    rows.append(net.row(fresh.popleft()))
                rows.sort(key=_id)
            if rows:
                yield rows
        while fresh:
            yield [net.row(fresh.popleft()) for _ in range(min(LOAD_CHUNK, len(fresh)))]

    def set_aside(self, job_id: object, fault: str) -> None:
        """Set aside a row that is not a job: it stays in the file, and its id is not used again."""
        self.aside += 1
        if self.aside <= ASIDE_LINES:
            logger.error("%s: job %s is set aside: %s", self._path, job_id, fault)

    def state(self) -> tuple[list[tuple[str, float, float]], int]:
        """Read everything but the jobs: pauses as (tube, seconds, until), and the highest id ever used.

        Raises:
            StoreUnusable: The database is damaged.
        """
        pauses: list[tuple[str, float, float]] = []
        for tube, seconds, until in self._read("SELECT tube, seconds, until FROM pause"):
            if isinstance(tube, str) and isinstance(seconds, float) and isinstance(until, float):
                pauses.append((tube, seconds, until))
            else:
                logger.error("%s: a pause cannot be read and is ignored", self._path)
        changed = self._net.pauses
        pauses = [pause for pause in pauses if pause[0] not in changed]
        pauses += [(tube, seconds, until) for tube, (seconds, until) in changed.items() if seconds]
        last = self._read("SELECT max(seq) FROM sqlite_sequence WHERE name = 'job' AND typeof(seq) = 'integer'")[0][0]
        return pauses, max(self._net.last_id, last if isinstance(last, int) else 0)

    def _read(self, query: str, *values: object) -> list[Row]:
        try:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if hasattr(error, "sqlite_errorcode"):
                    raise
                # Python's module, not SQLite, refuses a text that is not UTF-8: then only that row is missing.
                self._database.text_factory = _text
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreUnusable(f"{self._path}: {error}") from error


def _id(row: Row) -> int:
    return cast(int, row[0])


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None

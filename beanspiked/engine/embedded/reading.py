"""Reads a journal when it is opened."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from beanspiked.engine.embedded.write import COLUMNS, Row
from beanspiked.engine.errors import StoreUnusable

__all__ = ["Reading"]

logger = logging.getLogger(__name__)

# How many jobs are read at a time, and for how many malformed ones the reason is logged.
LOAD_CHUNK: Final = 4096
ASIDE_LINES: Final = 5
MIN_ID: Final = -(1 << 63)


class Reading:
    """Reads a journal's database before anything is written to it.

    Attributes:
        aside: How many rows are set aside because they are not jobs.
    """

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self.aside: int = 0
        self._database = database
        self._path = path

    def chunks(self) -> Iterator[list[Row]]:
        """Read all jobs, by id, some at a time.

        Raises:
            StoreUnusable: The database is damaged.
        """
        query = f"SELECT {COLUMNS} FROM job WHERE id > ? ORDER BY id LIMIT {LOAD_CHUNK}"  # noqa: S608 - constants
        last: object = MIN_ID
        while rows := self._read(query, last):
            yield rows
            last = rows[-1][0]

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
        last = self._read("SELECT max(seq) FROM sqlite_sequence WHERE name = 'job' AND typeof(seq) = 'integer'")[0][0]
        return pauses, last if isinstance(last, int) else 0

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


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None

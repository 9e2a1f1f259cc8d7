"""The journal: a SQLite database that holds every change before its reply leaves.

One writer thread commits in groups: changes that are added while a transaction runs go into the next one. Only the last state of a job is
kept, so there is nothing to compact; the file gives pages back when many are free.

The directory also holds `lock`, beanstalkd's own name and kind of lock, so that neither server opens a directory that the other uses; and
`reserve`, space that is given up when the disk is full so that deletes still find room. Until it can be reserved again, puts are refused.
"""

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from beanspiked.engine import forks
from beanspiked.engine.contract import ALL, JournalStats
from beanspiked.engine.embedded.database import (
    FILE_NAME,
    Lock,
    failed_by,
    no_waiting,
    open_for_writing,
    open_read_only,
    prepare,
)
from beanspiked.engine.embedded.reading import Reading
from beanspiked.engine.embedded.room import Room
from beanspiked.engine.embedded.statements import apply, write_given_back
from beanspiked.engine.embedded.write import PUT, Write
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

__all__ = ["Journal"]

logger = logging.getLogger(__name__)

# Give pages back to the file system when this many, and a quarter of all, are free.
VACUUM_FREE_PAGES: Final = 1024
VACUUM_CHUNK: Final = 1024
HOUSEKEEPING_SECONDS: Final = 1.0
# A write-ahead log of more bytes is logged: it is emptied at a sixteenth of this unless another program reads it.
WAL_BYTES: Final = 64 << 20


class Journal:
    """A journal in a directory.

    Args:
        directory: Its directory, which must exist.
        clock: The clock of the times that callers give and get; in the file they are the wall clock's.
        fsync_ms: Sync at least this often, in milliseconds; 0 syncs every commit before its replies; negative syncs only at
            checkpoints.

    Attributes:
        notify: Called from the writer thread when outcomes wait for `settle`.
        stats: What it has done.
        reading: Reads what the journal holds when it is opened.

    Raises:
        StoreUnusable: The directory or the database in it cannot be used; nothing was changed.
    """

    def __init__(self, directory: str | Path, clock: Clock, fsync_ms: int = 0) -> None:
        self.directory = Path(directory)
        self.notify: Callable[[], object] = lambda: None
        self.stats: JournalStats = JournalStats(1)
        self._clock = clock
        self._fsync_seconds = fsync_ms / 1000
        self._added: list[Write] = []
        self._inbox: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[Write, EngineError | None]] = queue.SimpleQueue()
        self._closing: Later | None = None
        self._closed = False
        self._unsynced = False
        self._locked = False
        self._complained = False
        self._given_back: dict[tuple[int, int], list[int]] = {}
        self._pinned = False
        self._untidy = False
        self._wal_fd = -1
        # Held while the writer is in SQLite.
        self._writing = forks.undisturbed()
        self._lock = Lock(self.directory)
        self._room = Room(self.directory)
        try:
            self._path = self.directory / FILE_NAME
            # SQLite's name of it, also when the database's name is a link.
            self._log_path = Path(f"{self._path.resolve()}-wal")
            prepare(self._path)
            # Nothing is written before everything is read: a journal that proves to be damaged stays unchanged.
            self._database = open_read_only(self._path)
            self.reading = Reading(self._database, self._path)
            self.stats.full = not self._room.restore()
            if self.stats.full:
                logger.warning("%s: no room for the reserve; puts are refused until there is", self.directory)
        except BaseException:
            self._lock.release()
            raise
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Start the writer.

        Raises:
            StoreUnusable: The journal cannot be written.
        """
        self._database.close()
        self._database = open_for_writing(self._path)
        self._database.execute(f"PRAGMA synchronous = {'FULL' if self._fsync_seconds == 0 else 'NORMAL'}")
        self._thread.start()

    def abandon(self) -> None:
        """Close a journal that was not started."""
        self._database.close()
        self._lock.release()

    def add(self, write: Write) -> None:
        """Add a change; it goes to the writer with the next `flush`."""
        self._added.append(write)

    def flush(self) -> None:
        """Pass the changes of this turn to the writer."""
        if self._added:
            self._inbox.put(self._added)
            self._added = []

    def settle(self, most: int = ALL) -> bool:
        """Report up to `most` outcomes of the writer, in the event loop's thread.

        Returns:
            Whether more may be left.
        """
        for _ in range(most):
            try:
                write, error = self._outbox.get_nowait()
            except queue.Empty:
                break
            # A writer that failed within a batch has refused all of it, also changes that it had settled.
            if not write.done:
                write.settle(error)
        else:
            return True
        if self._closed and self._closing is not None and not self._closing.done:
            self._thread.join()
            self._closing.settle()
        return False

    def close(self, given_back: dict[tuple[int, int], list[int]] | None = None) -> Later:
        """Write the added changes, close the database and unlock the directory.

        Args:
            given_back: The ids of jobs that became ready without a change in the journal, by the number of their reserves and timeouts.
        """
        if self._closing is None:
            self._closing = Later()
            self._given_back = given_back or {}
            self.flush()
            self._inbox.put(None)
        return self._closing

    # --- the writer thread

    def _run(self) -> None:
        sync_at = 0.0
        keep_house_at = time.monotonic() + HOUSEKEEPING_SECONDS
        open_ = True
        while open_:
            batch: list[Write] = []
            wait = HOUSEKEEPING_SECONDS
            if self._unsynced and self._fsync_seconds > 0:
                wait = max(0.0, sync_at - time.monotonic())
            with contextlib.suppress(queue.Empty):
                part = self._inbox.get(timeout=wait)
                while part is not None:
                    batch += part
                    part = self._inbox.get_nowait()
                open_ = False
            if batch:
                was_synced = not self._unsynced
                try:
                    with self._writing:
                        self._commit_all(batch)
                except Exception as error:
                    logger.critical("%s: the writer failed; its batch is refused", self.directory, exc_info=error)
                    self._refuse(batch, StoreFailed("the journal's writer failed"))
                if was_synced and self._unsynced:
                    sync_at = time.monotonic() + self._fsync_seconds
                self.notify()
            now = time.monotonic()
            if self._unsynced and self._fsync_seconds > 0 and (now >= sync_at or not open_):
                self._sync()
                sync_at = now + self._fsync_seconds
            if now >= keep_house_at:
                with self._writing:
                    self._keep_house()
                keep_house_at = time.monotonic() + HOUSEKEEPING_SECONDS
        with self._writing:
            write_given_back(self._database, self.directory, self._given_back)
            self._close_database()
        self._closed = True
        self.notify()

    def _commit_all(self, batch: list[Write]) -> None:
        """Commit a batch as one transaction; if that fails, in parts, with changes that free space first."""
        if self.stats.distrusted:
            self._sync()
            if self.stats.distrusted:
                self._refuse(batch, StoreFailed("earlier changes cannot be synced"))
                return
        if self.stats.full:
            self.stats.full = not self._room.restore()
        puts = [write for write in batch if write.op == PUT]
        others = [write for write in batch if write.op != PUT]
        if self.stats.full:
            self._refuse(puts, StoreFull("the disk is full"))
            puts = []
        whole = others + puts
        error = self._commit(whole) if whole else None
        if error is None:
            self._succeed(whole)
            return
        if self._locked:
            # Each part would wait as long.
            self._refuse(whole, error)
            return
        if isinstance(error, StoreFull):
            self._make_room()
        if others and self._commit(others) is None:
            self._succeed(others)
        else:
            self._commit_each(others)
        self.stats.full = not self._room.restore()
        if self.stats.full:
            self._refuse(puts, error)
        else:
            # Perhaps only one of them is too large, or another change has failed.
            self._commit_each(puts)

    def _commit_each(self, batch: list[Write]) -> None:
        for write in batch:
            error = self._commit([write])
            if error is None:
                self._succeed([write])
            else:
                self._refuse([write], error)
                if isinstance(error, StoreFull):
                    self._make_room()
                    self.stats.full = not self._room.restore()

    def _make_room(self) -> None:
        """Give up the reserve and use its space to empty the write-ahead log, which can then be filled again."""
        self._room.release()
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Empty the write-ahead log as far as possible; tell whether another program, such as a backup, reads it.

        The writer cannot wait until that ends.
        """
        with no_waiting(self._database):
            return bool(self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    def _succeed(self, batch: list[Write]) -> None:
        if any(write.op == PUT for write in batch):
            self._complained = False
        for write in batch:
            self._outbox.put((write, None))

    def _refuse(self, batch: list[Write], error: EngineError) -> None:
        if batch and not self._complained:
            self._complained = True
            logger.error("%s: %s; changes are refused until a write succeeds", self.directory, error)
        for write in batch:
            self._outbox.put((write, error))

    def _commit(self, batch: list[Write]) -> EngineError | None:
        """Run one transaction; return its error, if any."""
        database = self._database
        self._locked = False
        began = time.monotonic()
        self.stats.commits += 1
        try:
            database.execute("BEGIN IMMEDIATE")
            records = apply(database, self._clock.ahead(), batch)
            database.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to go on and to say so
            with contextlib.suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            if failed_by(error, sqlite3.SQLITE_FULL):
                return StoreFull("the disk is full")
            if failed_by(error, sqlite3.SQLITE_IOERR) and (reason := self._room.want(self._path, self._log_path)):
                return StoreFull(f"the disk is full: {reason}")
            self._locked = failed_by(error, sqlite3.SQLITE_BUSY)
            return StoreFailed(f"the journal cannot be written: {error}")
        self.stats.records += records
        self.stats.commit_seconds += time.monotonic() - began
        if self._fsync_seconds == 0:
            self.stats.syncs += 1
        else:
            self._unsynced = True
        return None

    def _sync(self) -> None:
        """Sync all earlier commits, which stand in the write-ahead log.

        The kernel reports pages that it could not write once, and may then count them as written, so another sync of the log would prove
        nothing. Instead the log's content, which can still be read, is copied into the database, and that is synced.
        """
        try:
            if self.stats.distrusted:
                with no_waiting(self._database):
                    _, logged, copied = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if copied < logged:
                    return
            else:
                if self._wal_fd < 0:
                    self._wal_fd = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
                os.fsync(self._wal_fd)
        except (OSError, sqlite3.Error) as error:
            if not self.stats.distrusted:
                self.stats.distrusted = True
                # This line also reports the refused changes.
                self._complained = True
                logger.critical("%s: cannot sync: %s; changes are refused until a sync succeeds", self.directory, error)
            return
        self._unsynced = False
        self.stats.syncs += 1
        if self.stats.distrusted:
            self.stats.distrusted = False
            logger.warning("%s: all changes are synced again", self.directory)

    def _keep_house(self) -> None:
        """Give free pages back, a chunk at a time."""
        try:
            if self.stats.full:
                self.stats.full = not self._room.restore()
            free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
            pages = self._database.execute("PRAGMA page_count").fetchone()[0]
            while free > VACUUM_FREE_PAGES and free * 4 > pages:
                with no_waiting(self._database):
                    # Not `execute`, which makes one step only and would free one page.
                    self._database.executescript(f"PRAGMA incremental_vacuum({VACUUM_CHUNK})")
                busy = self._checkpoint()
                free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
                pages = self._database.execute("PRAGMA page_count").fetchone()[0]
                if busy or not self._inbox.empty():
                    break
            self._watch_log()
            with no_waiting(self._database):
                # Pauses whose tubes were dropped before they ended.
                self._database.execute(
                    "DELETE FROM pause WHERE until < ?", (self._clock.now() + self._clock.ahead() - 1,)
                )
            self._untidy = False
        except (sqlite3.Error, OSError) as error:
            # While the file is locked, this is tried again a second later.
            if not self._untidy and not failed_by(error, sqlite3.SQLITE_BUSY):
                self._untidy = True
                logger.warning("%s: cannot give free space back: %s; trying again later", self.directory, error)

    def _watch_log(self) -> None:
        """Log when another program keeps the write-ahead log from being emptied for long, and when that ends."""
        if self._log_bytes() <= WAL_BYTES and not self._pinned:
            return
        busy = self._checkpoint()
        if busy and not self._pinned:
            self._pinned = True
            logger.warning(
                "%s-wal has %d MB and grows, because another program reads the database; end that program",
                self._path,
                self._log_bytes() >> 20,
            )
        elif self._pinned and not busy:
            self._pinned = False
            logger.warning("%s-wal can be emptied again", self._path)

    def _log_bytes(self) -> int:
        try:
            return self._log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def _close_database(self) -> None:
        try:
            self._database.close()
        except sqlite3.Error as error:
            logger.critical("%s: %s", self.directory, error)
        if self._wal_fd >= 0:
            os.close(self._wal_fd)
        self._lock.release()

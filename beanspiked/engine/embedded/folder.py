"""Folds the log into the database and keeps that tidy, in a thread of its own, which alone uses the database."""

import contextlib
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Final

from beanspiked.engine import forks
from beanspiked.engine.contract import JournalStats
from beanspiked.engine.embedded.database import Watch, failed_by, log_paths, no_waiting
from beanspiked.engine.embedded.frames import START, LogFile
from beanspiked.engine.embedded.log import Log
from beanspiked.engine.embedded.parts import Part, read_part
from beanspiked.engine.embedded.room import Room
from beanspiked.engine.embedded.statements import delete, fold_steps, write_given_back
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull
from beanspiked.engine.timers import Clock

__all__ = ["Folder"]

logger = logging.getLogger(__name__)

# How old what is in the log may get before it is folded.
FOLD_SECONDS: Final = 5.0
HOUSEKEEPING_SECONDS: Final = 1.0
# How much is written in one transaction, in bytes: the sync of a larger one would delay those of the log.
FOLD_BYTES: Final = 1 << 19
# How many bytes are folded, and how many jobs deleted, at a time on a full disk.
PART_BYTES: Final = 1 << 20
FEW_DELETED: Final = 20
# How long a change waits for the log to be folded when that is full, in seconds.
WAIT_SECONDS: Final = 5.0
# Where filling a file takes less time than folding the other, it grows meanwhile, and each commit waits: up to so many seconds,
# and longer the larger it is. So nobody waits for the end of a fold, and changes that come in masses are slowed down.
SLOWED_SECONDS: Final = 0.03
# What a generator returns that has ended.
DONE: Final = object()
# Give pages back to the file system when this many, and a quarter of all, are free.
VACUUM_FREE_PAGES: Final = 1024
VACUUM_CHUNK: Final = 1024
VACUUM_WHEN_FULL: Final = 64
VACUUM_SECONDS: Final = 0.5
# A write-ahead log of more bytes is logged: it is emptied at a sixteenth of this unless another program reads it.
WAL_BYTES: Final = 64 << 20


class Folder:
    """The user of the database.

    Args:
        path: The database's.
        database: The connection.
        folded: The number of the last frame that is in the database.
        log: The log.
        room: The disk.
        stats: Where it is told that the disk is full.
        clock: The clock of the journal's callers.

    Attributes:
        error: Why the log cannot be folded, or None.
        lack: How the disk was found to be full for the last time, or None.
        patient: Whether the writer may wait for room in the log.
    """

    def __init__(
        self,
        path: Path,
        database: sqlite3.Connection,
        folded: int,
        log: Log,
        room: Room,
        stats: JournalStats,
        clock: Clock,
    ) -> None:
        self.error: EngineError | None = None
        self.lack: StoreFull | None = None
        self.patient: bool = True
        self._path = path
        # SQLite's name of it, also when the database's name is a link.
        self._wal_path = Path(f"{path.resolve()}-wal")
        self._database = database
        self._folded = folded
        self._log = log
        self._room = room
        self._stats = stats
        self._clock = clock
        self._woken = threading.Event()
        self._free = threading.Condition()
        self._closing = False
        self._given_back: dict[tuple[int, int], list[int]] = {}
        self._pinned = False
        self._untidy = False
        self._files = Watch([path, *log_paths(path.parent)])
        # Which frame was the first one in the log, and since when.
        self._oldest = (0, 0.0)
        # Held in SQLite.
        self._writing = forks.undisturbed()
        self._thread = threading.Thread(target=self._run, name="folder", daemon=True)

    def start(self) -> None:
        """Start the thread; it begins with what an earlier process has left."""
        self._woken.set()
        self._thread.start()

    def wake(self) -> None:
        """Have the full file folded."""
        self._woken.set()

    def wait(self, seconds: float) -> None:
        """Wait for a file to become free, or for the reason why none does."""
        self._woken.set()
        with self._free:
            self._free.wait_for(lambda: self._log.spare is not None or self.error is not None, seconds)

    def make_way(self, size: int) -> EngineError | None:
        """Go on in the other file if a frame has no room in this one; return why that is impossible."""
        log = self._log
        if log.current.room(size) or not log.has_frames():
            return None
        grows = False
        if log.spare is None and self.error is None and self.patient:
            share = log.share(size)
            grows = share <= 1.0
            self.wait(SLOWED_SECONDS * share * share if grows else WAIT_SECONDS)
            self.patient = grows or log.spare is not None
        with log.lock:
            if log.current.room(size) or not log.has_frames():
                # The folder has changed the files meanwhile.
                return None
            if log.switch():
                self.wake()
                return None
        if grows and self.error is None:
            return None
        return self.error or StoreFailed("the log is full, and folding it takes too long")

    def close(self, given_back: dict[tuple[int, int], list[int]]) -> None:
        """Fold everything, close the database and the log, and wait for that.

        Args:
            given_back: The ids of jobs that became ready without a change in the journal, by the number of their reserves and timeouts.
        """
        self._given_back = given_back
        self._closing = True
        self._woken.set()
        self._thread.join()

    # --- the thread

    def _run(self) -> None:
        keep_house_at = time.monotonic() + HOUSEKEEPING_SECONDS
        while not self._closing:
            self._woken.wait(HOUSEKEEPING_SECONDS)
            self._woken.clear()
            try:
                # On a full disk what frees space is not left for later.
                self.fold(0.0 if self._stats.full else FOLD_SECONDS)
                if time.monotonic() >= keep_house_at:
                    with self._writing:
                        self.keep_house()
                    keep_house_at = time.monotonic() + HOUSEKEEPING_SECONDS
            except Exception as error:
                self._fail(StoreFailed("the log's folder failed"))
                logger.critical("%s: the log cannot be folded", self._path, exc_info=error)
        self._end()

    def _end(self) -> None:
        folded = False
        try:
            while (folded := self.fold(0.0)) and self._log.has_frames():
                pass
            if not folded:
                logger.error("%s: the log cannot be folded: %s; the next start reads it", self._path, self.error)
                self._log.sync(again=False)
        except Exception as error:
            logger.critical("%s: the log cannot be folded; the next start reads it", self._path, exc_info=error)
        with self._writing:
            write_given_back(self._database, self._path.parent, self._given_back)
            try:
                self._database.close()
            except sqlite3.Error as error:
                folded = False
                logger.critical("%s: %s", self._path, error)
        self._log.close(remove=folded)

    def fold(self, older_than: float) -> bool:
        """Fold the full file, or the current one if that is old enough; tell whether none is left that has to be folded.

        Args:
            older_than: How many seconds are old enough.
        """
        log = self._log
        if log.full is None and self._is_due(older_than):
            try:
                with log.lock:
                    log.switch()
            except OSError as failed:
                self._fail(StoreFailed(f"the log cannot be written: {failed.strerror}"))
                return False
        file = log.full
        if file is None:
            return True
        error = self._fold_whole(file)
        if error is not None:
            self._fail(error)
            return False
        log.folded()
        self._stats.full = not self._room.restore()
        with self._free:
            self.error = None
            self._free.notify_all()
        return True

    def _is_due(self, seconds: float) -> bool:
        if not self._log.has_frames():
            return False
        first, since = self._oldest
        now = time.monotonic()
        if first != self._log.current.header.first:
            first, since = self._oldest = self._log.current.header.first, now
        return now - since >= seconds

    def _fail(self, error: EngineError) -> None:
        if isinstance(error, StoreFull):
            # The writer says so when it refuses a change.
            self.lack = error
            self._stats.full = True
        elif self.error is None:
            logger.error("%s: the log cannot be folded: %s; trying again", self._path, error)
        with self._free:
            self.error = error
            self._free.notify_all()

    def _fold_whole(self, file: LogFile) -> EngineError | None:
        """Fold a file; on a full disk in smaller parts, with changes that free space first."""
        at = START
        try:
            while self._folded < file.last:
                if self._stats.full:
                    # A transaction that fails leaves its pages in the write-ahead log, and so would eat up the reserve.
                    return self._fold_parts(file)
                part = read_part([file], self._folded, FOLD_BYTES, at)
                try:
                    self._commit(part)
                except sqlite3.Error as error:
                    told = self._told(error, 2 * (FOLD_BYTES + part.net.size()))
                    if isinstance(told, StoreFull):
                        self.lack = told
                    elif not failed_by(error, sqlite3.SQLITE_IOERR):
                        return told
                    # An I/O error may have been a lack of room, too: of more room than a probe takes.
                    return self._fold_parts(file)
                at = part.end
        except sqlite3.Error as error:
            return self._told(error, 2 * PART_BYTES)
        except OSError as error:
            return StoreFailed(f"the log cannot be read: {error.strerror or error}")
        except MemoryError:
            # It needs more than its jobs have: deletes make room, as on a full disk.
            return StoreFull("there is not enough memory to fold the log")
        return None

    def _fold_parts(self, file: LogFile) -> EngineError | None:
        """Delete what the log deletes, in the space of the reserve; then fold a file in small parts, but not in that space.

        Jobs that were put and deleted later are left out: their deletion stands in the log behind what is folded.
        """
        whole = read_part([file, self._log.current], self._folded).net
        with self._room.lend():
            self._empty_wal()
            for _ in delete(self._database, whole, FEW_DELETED):
                if self._wal_bytes() > PART_BYTES:
                    self._empty_wal()
            self._empty_wal()
        while self._folded < file.last:
            if not self._room.restore():
                return self.lack or StoreFull("the disk is full")
            part = read_part([file], self._folded, PART_BYTES)
            part.net.keep(whole)
            self._commit(part)
            if not self._empty_wal():
                # A checkpoint makes the database grow, and takes that room from the reserve.
                with self._room.lend():
                    self._empty_wal()
        return None

    def _commit(self, part: Part) -> None:
        """Run one transaction."""
        database = self._database
        steps = fold_steps(database, part.net, part.number)
        try:
            with self._writing:
                database.execute("BEGIN IMMEDIATE")
            done = False
            while not done:
                with self._writing:
                    done = next(steps, DONE) is DONE
            with self._writing:
                database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            raise
        self._folded = part.number

    def _told(self, error: sqlite3.Error, room: int) -> EngineError:
        """Return what is wrong, if so many bytes should have had room."""
        if failed_by(error, sqlite3.SQLITE_FULL):
            return StoreFull("the disk is full")
        if failed_by(error, sqlite3.SQLITE_IOERR) and (reason := self._room.want(room, self._path, self._wal_path)):
            return StoreFull(f"the disk is full: {reason}")
        return StoreFailed(f"the database cannot be written: {error}")

    # --- housekeeping

    def _empty_wal(self) -> bool:
        """Empty the write-ahead log as far as possible; tell whether there was room for that."""
        with contextlib.suppress(sqlite3.Error), self._writing:
            self.checkpoint()
            return True
        return False

    def checkpoint(self) -> bool:
        """Empty the write-ahead log as far as possible; tell whether another program, such as a backup, reads it.

        The folder cannot wait until that ends.
        """
        with no_waiting(self._database):
            return bool(self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    def keep_house(self) -> None:
        """Give free pages back, a chunk at a time, and see whether the files are still there."""
        self._files.look()
        try:
            if self._stats.full:
                # Giving pages back takes room for the write-ahead log first.
                with self._room.lend():
                    self.checkpoint()
                    self._vacuum(VACUUM_WHEN_FULL)
                if self.error is None:
                    self._stats.full = not self._room.restore()
            else:
                self._vacuum(VACUUM_CHUNK)
            self._watch_wal()
            with no_waiting(self._database):
                # Pauses whose tubes were dropped before they ended.
                self._database.execute(
                    "DELETE FROM pause WHERE until < ?", (self._clock.now() + self._clock.ahead() - 1,)
                )
            self._untidy = False
        except (sqlite3.Error, OSError) as error:
            # While the file is locked or the disk is full, which is told elsewhere, this is tried again a second later.
            known = failed_by(error, sqlite3.SQLITE_BUSY) or failed_by(error, sqlite3.SQLITE_FULL)
            if not self._untidy and not known:
                self._untidy = True
                logger.warning("%s: cannot give free space back: %s; trying again later", self._path.parent, error)

    def _vacuum(self, chunk: int) -> None:
        """Give free pages back, so many at a time, until few are left, others need the database, or a while has passed."""
        until = time.monotonic() + VACUUM_SECONDS
        busy = False
        while not busy and time.monotonic() < until and (self._stats.full or self._log.full is None):
            free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
            pages = self._database.execute("PRAGMA page_count").fetchone()[0]
            if free <= VACUUM_FREE_PAGES or free * 4 <= pages:
                break
            with no_waiting(self._database):
                # Not `execute`, which makes one step only and would free one page.
                self._database.executescript(f"PRAGMA incremental_vacuum({chunk})")
            busy = self.checkpoint()

    def _watch_wal(self) -> None:
        """Log when another program keeps the write-ahead log from being emptied for long, and when that ends."""
        if self._wal_bytes() <= WAL_BYTES and not self._pinned:
            return
        busy = self.checkpoint()
        if busy and not self._pinned:
            self._pinned = True
            logger.warning(
                "%s-wal has %d MB and grows, because another program reads the database; end that program",
                self._path,
                self._wal_bytes() >> 20,
            )
        elif self._pinned and not busy:
            self._pinned = False
            logger.warning("%s-wal can be emptied again", self._path)

    def _wal_bytes(self) -> int:
        try:
            return self._wal_path.stat().st_size
        except FileNotFoundError:
            return 0

"""The journal: a SQLite database in which every acknowledged change stands before its reply leaves.

One writer thread, group commit: whatever was added while the last transaction ran goes into the next one. Only the last state of a job
is kept, so there is nothing to compact; the file gives pages back when many are free.

The directory also holds `lock` (beanstalkd's own name and kind of lock, so that neither server opens the other's directory while
it is in use) and `reserve`, space that is let go when the disk is full so that deletes still find room; while it cannot be had back, puts
are refused.
"""

import contextlib
import errno
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from beanspiked.engine import forks
from beanspiked.engine.contract import ALL, BURIED, DELAYED, PLAIN, READY, Job
from beanspiked.engine.embedded.database import (
    BUSY_MS,
    FILE_NAME,
    PRIVATE,
    Lock,
    open_for_writing,
    open_read_only,
    prepare,
)
from beanspiked.engine.embedded.write import (
    BURY,
    COLUMNS,
    DELETE,
    DROP,
    KICK,
    PAUSE,
    PUT,
    RELEASE,
    UPDATE,
    Row,
    Write,
)
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull, StoreUnusable
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

__all__ = ["Journal"]

logger = logging.getLogger(__name__)

# Larger than the write-ahead log gets (database.WAL_PAGES): a checkpoint on a full disk copies up to all of it.
RESERVE_BYTES: Final = 8 << 20
# What the kernel says when a disk, a quota or a file can take no more, and how much is written to find out.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES: Final = 64 << 10
# Give pages back to the file system when this many, and a quarter of all, are free.
VACUUM_FREE_PAGES: Final = 1024
VACUUM_CHUNK: Final = 1024
HOUSEKEEPING_SECONDS: Final = 1.0
# For how long a stop may write down what is only known in memory, in seconds, and of how many jobs at a time.
GIVEN_BACK_SECONDS: Final = 1.0
GIVEN_BACK_CHUNK: Final = 10_000
# A write-ahead log of more bytes than this is worth a word: it is emptied at a sixteenth of that unless somebody reads from it.
WAL_BYTES: Final = 64 << 20
# SQLite's limit of parameters to a statement (32,766 since 3.32) would allow more; larger ones gain nothing.
PUT_CHUNK: Final = 64

# How many jobs are read at a time, and of how many that cannot be understood the log tells the reason.
LOAD_CHUNK: Final = 4096
ASIDE_LINES: Final = 5
MIN_ID: Final = -(1 << 63)

# Bodies of so many bytes are written in pieces of so many.
LARGE_BODY: Final = 1 << 20
BODY_PIECE: Final = 1 << 18

PUT_COLUMNS: Final = "id, tube, state, pri, delay, ttr, born, place, body, metadata, raw_size, retries, failed"
PUT_VALUES: Final = "(?,?,?,?,?,?,?,?,?,?,?,?,?)"


def _is(error: BaseException, kind: int) -> bool:
    """Tell whether SQLite failed in this way; of an extended code the lowest byte is the kind."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == kind


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


class Journal:
    """A journal in a directory.

    Args:
        directory: Where it lives; must exist.
        clock: What the times in it are told by to others; in the file they are the wall clock's.
        fsync_ms: Sync at least this often, in milliseconds; 0 syncs every commit before its replies; negative never syncs but
            at checkpoints.

    Attributes:
        notify: Called from the writer thread when outcomes are waiting for `settle`.
        records_written: Changes committed by this process.
        syncs: How often the writer made sure that all commits are on disk.
        aside: How many rows were found that are no jobs.

    Raises:
        StoreUnusable: The directory or the database in it cannot be used; nothing was changed.
    """

    def __init__(self, directory: str | Path, clock: Clock, fsync_ms: int = 0) -> None:
        self.directory = Path(directory)
        self.notify: Callable[[], object] = lambda: None
        self.records_written: int = 0
        self.syncs: int = 0
        self.aside: int = 0
        self._clock = clock
        self._fsync_seconds = fsync_ms / 1000
        self._added: list[Write] = []
        self._inbox: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[Write, EngineError | None]] = queue.SimpleQueue()
        self._closing: Later | None = None
        self._closed = False
        self._unsynced = False
        self._full = False
        self._locked = False
        self._distrusted = False
        self._complained = False
        self._given_back: dict[tuple[int, int], list[int]] = {}
        self._pinned = False
        self._untidy = False
        self._wal_fd = -1
        # Held while the writer is in SQLite.
        self._writing = forks.undisturbed()
        self._lock = Lock(self.directory)
        try:
            self._path = self.directory / FILE_NAME
            # Where SQLite has it, also when the database's name is a link.
            self._log_path = Path(f"{self._path.resolve()}-wal")
            prepare(self._path)
            # Nothing is written before everything was read: a journal that turns out to be damaged stays as it is.
            self._database = open_read_only(self._path)
            if not self._restore_reserve():
                self._full = True
                logger.warning("%s: no room for the reserve; puts are refused until there is", self.directory)
        except BaseException:
            self._lock.release()
            raise
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

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
        """Note a row that is no job: it stays in the file, and its id is not used again."""
        self.aside += 1
        if self.aside <= ASIDE_LINES:
            logger.error("%s: job %s is set aside: %s", self._path, job_id, fault)

    def state(self) -> tuple[list[tuple[str, float, float]], int]:
        """Read what is no job: pauses as (tube, seconds, until), and the highest id ever used.

        Raises:
            StoreUnusable: The database is damaged.
        """
        pauses: list[tuple[str, float, float]] = []
        for tube, seconds, until in self._read("SELECT tube, seconds, until FROM pause"):
            if isinstance(tube, str) and isinstance(seconds, float) and isinstance(until, float):
                pauses.append((tube, seconds, until))
            else:
                logger.error("%s: a pause is left out: it cannot be read", self._path)
        last = self._read("SELECT max(seq) FROM sqlite_sequence WHERE name = 'job' AND typeof(seq) = 'integer'")[0][0]
        return pauses, last if isinstance(last, int) else 0

    def _read(self, query: str, *values: object) -> list[Row]:
        try:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if hasattr(error, "sqlite_errorcode"):
                    raise
                # Not SQLite, but its module in Python complains, of a text that is not UTF-8: let only that one be missing.
                self._database.text_factory = _text
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreUnusable(f"{self._path}: {error}") from error

    def start(self) -> None:
        """Begin to write.

        Raises:
            StoreUnusable: The journal cannot be written.
        """
        self._database.close()
        self._database = open_for_writing(self._path)
        self._database.execute(f"PRAGMA synchronous = {'FULL' if self._fsync_seconds == 0 else 'NORMAL'}")
        self._thread.start()

    def abandon(self) -> None:
        """Let go of a journal that was not started."""
        self._database.close()
        self._lock.release()

    def add(self, write: Write) -> None:
        """Take a change; it goes out with the next `flush`."""
        self._added.append(write)

    def flush(self) -> None:
        """Hand the changes of this turn to the writer."""
        if self._added:
            self._inbox.put(self._added)
            self._added = []

    def settle(self, most: int = ALL) -> bool:
        """Make known up to so many of the outcomes that the writer has left, in the thread of the event loop.

        Returns:
            Whether more may be left.
        """
        for _ in range(most):
            try:
                write, error = self._outbox.get_nowait()
            except queue.Empty:
                break
            # A writer that failed amid a batch has refused all of it, also what it had settled.
            if not write.done:
                write.settle(error)
        else:
            return True
        if self._closed and self._closing is not None and not self._closing.done:
            self._thread.join()
            self._closing.settle()
        return False

    def close(self, given_back: dict[tuple[int, int], list[int]] | None = None) -> Later:
        """Write what was added, close the database and let go of the directory.

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
                    logger.critical("%s: the writer failed", self.directory, exc_info=error)
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
            self._write_given_back()
            self._close_database()
        self._closed = True
        self.notify()

    def _commit_all(self, batch: list[Write]) -> None:
        """Commit a batch as one transaction; if that fails, in parts, what shrinks the store first."""
        if self._distrusted:
            self._sync()
            if self._distrusted:
                self._refuse(batch, StoreFailed("earlier changes cannot be synced"))
                return
        if self._full:
            self._full = not self._restore_reserve()
        puts = [write for write in batch if write.op == PUT]
        others = [write for write in batch if write.op != PUT]
        if self._full:
            self._refuse(puts, StoreFull("the disk is full"))
            puts = []
        whole = others + puts
        error = self._commit(whole) if whole else None
        if error is None:
            self._succeed(whole)
            return
        if self._locked:
            # Each part would wait as long again.
            self._refuse(whole, error)
            return
        if isinstance(error, StoreFull):
            self._make_room()
        if others:
            self._commit_apart(others)
        self._full = not self._restore_reserve()
        if self._full:
            self._refuse(puts, error)
        else:
            # Perhaps only one of them was too large, or it was another change that failed.
            self._commit_each(puts)

    def _commit_apart(self, batch: list[Write]) -> None:
        error = self._commit(batch)
        if error is None:
            self._succeed(batch)
        else:
            self._commit_each(batch)

    def _commit_each(self, batch: list[Write]) -> None:
        for write in batch:
            error = self._commit([write])
            if error is None:
                self._succeed([write])
            else:
                self._refuse([write], error)
                if isinstance(error, StoreFull):
                    self._make_room()
                    self._full = not self._restore_reserve()

    def _make_room(self) -> None:
        """Let the reserve go, and use it to empty the write-ahead log, whose space can then be used again."""
        self._release_reserve()
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Empty the write-ahead log as far as possible; tell whether somebody, a backup, reads from it.

        The writer has no time to wait for that one's end.
        """
        with self._no_waiting():
            return bool(self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    @contextlib.contextmanager
    def _no_waiting(self) -> Iterator[None]:
        """Give up at once where another program has locked the database."""
        self._database.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self._database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _succeed(self, batch: list[Write]) -> None:
        if any(write.op == PUT for write in batch):
            self._complained = False
        for write in batch:
            self._outbox.put((write, None))

    def _refuse(self, batch: list[Write], error: EngineError) -> None:
        if batch and not self._complained:
            self._complained = True
            logger.error("%s: %s; changes are refused", self.directory, error)
        for write in batch:
            self._outbox.put((write, error))

    def _commit(self, batch: list[Write]) -> EngineError | None:
        """Run one transaction; return what went wrong."""
        database = self._database
        self._locked = False
        try:
            database.execute("BEGIN IMMEDIATE")
            records = self._apply(batch)
            database.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to go on and to say so
            with contextlib.suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            if _is(error, sqlite3.SQLITE_FULL):
                return StoreFull("the disk is full")
            if _is(error, sqlite3.SQLITE_IOERR) and (reason := self._want_of_room()):
                return StoreFull(f"the disk is full: {reason}")
            self._locked = _is(error, sqlite3.SQLITE_BUSY)
            return StoreFailed(f"the journal cannot be written: {error}")
        self.records_written += records
        if self._fsync_seconds == 0:
            self.syncs += 1
        else:
            self._unsynced = True
        return None

    def _apply(self, batch: list[Write]) -> int:
        """Change the database; each job is in a batch at most once, so that changes may be grouped by kind."""
        puts: list[Job] = []
        dues: list[float] = []
        gone: list[int] = []
        kicked: list[int] = []
        records = 0
        # Times are written as the wall clock will show them, however wrong it was when this process started.
        ahead = self._clock.ahead()
        for write in batch:
            op = write.op
            if op == PUT:
                puts += write.jobs
                dues.append(write.due + ahead)
            elif op in (DELETE, DROP):
                gone += [job.id for job in write.jobs]
            elif op == KICK:
                kicked += [job.id for job in write.jobs]
            elif op == PAUSE:
                self._pause(write, write.until + ahead)
                records += 1
            else:
                job = write.jobs[0]
                if op == RELEASE:
                    self._update(
                        job, DELAYED if write.delay else READY, write.pri, write.delay, write.due + ahead, releases=1
                    )
                elif op == BURY:
                    self._update(job, BURIED, write.pri, job.delay, write.burial, buries=1, reason=write.reason or None)
                else:
                    assert op == UPDATE
                    self._set_body(job.id, write.body, write.raw_size)
                records += 1
        self._insert(puts, dues, ahead)
        # One statement for any number: the GIL is taken and let go once, not once a row.
        if kicked:
            # Whatever else is in such a row was written with the change that made the job delayed or buried.
            self._database.execute(
                "UPDATE job SET state = ?, place = 0, kicks = kicks + 1, reason = '' WHERE id IN (SELECT value FROM json_each(?))",
                (READY, str(kicked)),
            )
        if gone:
            self._database.execute("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?))", (str(gone),))
        return records + len(puts) + len(kicked) + len(gone)

    def _fill(self, job_id: int, body: bytes) -> None:
        """Write a large body into the room made for it. As a parameter SQLite would copy it while nothing else in this process runs."""
        with self._database.blobopen("job", "body", job_id) as blob, memoryview(body) as whole:
            for start in range(0, len(body), BODY_PIECE):
                blob.write(whole[start : start + BODY_PIECE])

    def _insert(self, jobs: list[Job], dues: list[float], ahead: float) -> None:
        start = 0
        while start < len(jobs):
            # Full chunks and single rows only, so that two prepared statements serve.
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
                    # What its producer says is a time of the wall clock already.
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
            self._database.execute(f"INSERT INTO job ({PUT_COLUMNS}) VALUES {rows}", values)  # noqa: S608 - constants
            start += size
        for job in jobs:
            if len(job.body) >= LARGE_BODY:
                self._set_body(job.id, job.body, PLAIN if job.details is None else job.details.raw_size)

    def _set_body(self, job_id: int, body: bytes, raw_size: int) -> None:
        if len(body) < LARGE_BODY:
            self._database.execute("UPDATE job SET body = ?, raw_size = ? WHERE id = ?", (body, raw_size, job_id))
        else:
            self._database.execute(
                "UPDATE job SET body = zeroblob(?), raw_size = ? WHERE id = ?", (len(body), raw_size, job_id)
            )
            self._fill(job_id, body)

    def _update(
        self,
        job: Job,
        state: int,
        pri: int,
        delay: float,
        place: float,
        releases: int = 0,
        buries: int = 0,
        reason: str | None = None,
    ) -> None:
        self._database.execute(
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

    def _pause(self, write: Write, until: float) -> None:
        if write.delay:
            self._database.execute(
                "INSERT OR REPLACE INTO pause (tube, seconds, until) VALUES (?, ?, ?)",
                (write.name, write.delay, until),
            )
        else:
            self._database.execute("DELETE FROM pause WHERE tube = ?", (write.name,))

    def _write_given_back(self) -> None:
        """Write where the jobs are that were given back, and their counters, as far as the time allows."""
        left = sum(len(ids) for ids in self._given_back.values())
        give_up_at = time.monotonic() + GIVEN_BACK_SECONDS
        try:
            for (reserves, timeouts), ids in self._given_back.items():
                for start in range(0, len(ids), GIVEN_BACK_CHUNK):
                    if time.monotonic() >= give_up_at:
                        logger.warning(
                            "%s: no time to write how often %d jobs were reserved since their last change",
                            self.directory,
                            left,
                        )
                        return
                    part = ids[start : start + GIVEN_BACK_CHUNK]
                    self._database.execute(
                        "UPDATE job SET state = ?, reserves = ?, timeouts = ? WHERE id IN (SELECT value FROM json_each(?))",
                        (READY, reserves, timeouts, str(part)),
                    )
                    left -= len(part)
        except sqlite3.Error as error:
            logger.error("%s: cannot write how often %d jobs were reserved: %s", self.directory, left, error)

    def _sync(self) -> None:
        """Sync all earlier commits: what they wrote stands in the write-ahead log.

        The kernel tells once of pages that it could not write, and may then take them for written: after that another sync of the log would
        prove nothing. What the log holds, which can still be read, is copied into the database instead, and that is synced.
        """
        try:
            if self._distrusted:
                with self._no_waiting():
                    _, logged, copied = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if copied < logged:
                    return
            else:
                if self._wal_fd < 0:
                    self._wal_fd = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
                os.fsync(self._wal_fd)
        except (OSError, sqlite3.Error) as error:
            if not self._distrusted:
                self._distrusted = True
                # This line is the one about refused changes, too.
                self._complained = True
                logger.critical("%s: cannot sync: %s; changes are refused until it works", self.directory, error)
            return
        self._unsynced = False
        self.syncs += 1
        if self._distrusted:
            self._distrusted = False
            logger.warning("%s: all changes are synced again", self.directory)

    def _keep_house(self) -> None:
        """Give free pages back, a chunk at a time."""
        try:
            if self._full:
                self._full = not self._restore_reserve()
            free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
            pages = self._database.execute("PRAGMA page_count").fetchone()[0]
            while free > VACUUM_FREE_PAGES and free * 4 > pages:
                with self._no_waiting():
                    # Not `execute`, which makes one step only: it would free one page.
                    self._database.executescript(f"PRAGMA incremental_vacuum({VACUUM_CHUNK})")
                busy = self._checkpoint()
                free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
                pages = self._database.execute("PRAGMA page_count").fetchone()[0]
                if busy or not self._inbox.empty():
                    break
            self._watch_log()
            with self._no_waiting():
                # Pauses whose tubes went before they ended.
                self._database.execute(
                    "DELETE FROM pause WHERE until < ?", (self._clock.now() + self._clock.ahead() - 1,)
                )
            self._untidy = False
        except (sqlite3.Error, OSError) as error:
            # What is locked is not tidied now, but a second later.
            if not self._untidy and not _is(error, sqlite3.SQLITE_BUSY):
                self._untidy = True
                logger.warning("%s: cannot give space back: %s", self.directory, error)

    def _watch_log(self) -> None:
        """Say so when somebody keeps the write-ahead log from being emptied for long, and when that is over."""
        if self._log_bytes() <= WAL_BYTES and not self._pinned:
            return
        busy = self._checkpoint()
        if busy and not self._pinned:
            self._pinned = True
            logger.warning(
                "%s-wal: %d MB and growing: a program that reads the database keeps it from being emptied",
                self._path,
                self._log_bytes() >> 20,
            )
        elif self._pinned and not busy:
            self._pinned = False
            logger.warning("%s-wal: nobody keeps it from being emptied any more", self._path)

    def _log_bytes(self) -> int:
        try:
            return self._log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def _want_of_room(self) -> str:
        """Tell which want of room, if any, is behind what SQLite calls an I/O error: of those it knows ENOSPC alone."""
        path = self.directory / "probe"
        size = max(self._log_bytes(), self._path.stat().st_size)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
            try:
                left = b"probe---" * (PROBE_BYTES // 8)
                while left:
                    left = left[os.write(fd, left) :]
                # One byte more than the largest file has. Not to that file: who closes any descriptor of it loses SQLite's locks.
                os.pwrite(fd, b"-", size)
                # Some file systems only tell then.
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            return error.strerror or "no room" if error.errno in NO_ROOM else ""
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        return ""

    def _restore_reserve(self) -> bool:
        """Set space aside for deletes on a full disk; tell whether it stands."""
        path = self.directory / "reserve"
        try:
            if path.exists() and path.stat().st_size == RESERVE_BYTES:
                return True
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._release_reserve()
                return False
            # A file system that cannot set space aside: deletes on a full disk are then refused like puts.
            logger.debug("%s: no reserve: %s", path, error)
        return True

    def _release_reserve(self) -> None:
        with contextlib.suppress(OSError):
            (self.directory / "reserve").unlink()

    def _close_database(self) -> None:
        try:
            self._database.close()
        except sqlite3.Error as error:
            logger.critical("%s: %s", self.directory, error)
        if self._wal_fd >= 0:
            os.close(self._wal_fd)
        self._lock.release()

"""The journal: a log that holds every change before its reply leaves, and a SQLite database into which the log is folded.

A commit is one frame that a writer thread appends to the log and syncs; changes that are added meanwhile go into the next frame. While the
disk is quick, the event loop waits a moment for that; while one client is alone, it does it itself. The folder, another thread, brings the
database up to date: only the last state of jobs that still live goes there, so there is nothing to compact.

The directory also holds `lock`, beanstalkd's own name and kind of lock, so that neither server opens a directory that the other uses; and
`reserve`, space that is given up when the disk is full so that deletes still find room. Until it can be reserved again, puts are refused.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from beanspiked.engine.contract import ALL
from beanspiked.engine.embedded.database import FILE_NAME, Lock, open_for_writing, open_read_only, prepare
from beanspiked.engine.embedded.folder import Folder
from beanspiked.engine.embedded.keeper import Keeper
from beanspiked.engine.embedded.log import Log
from beanspiked.engine.embedded.reading import Reading
from beanspiked.engine.embedded.records import encode
from beanspiked.engine.embedded.rendezvous import Rendezvous
from beanspiked.engine.embedded.room import NO_ROOM, Room
from beanspiked.engine.embedded.write import PUT, Write
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull, StoreUnusable
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

__all__ = ["SETTLED_AT_ONCE", "Journal"]

logger = logging.getLogger(__name__)

# After a commit of the event loop that took so many seconds, the writer commits for a while: somebody may come meanwhile.
TOO_LONG_SECONDS: Final = 0.002
SLOW_FOR_SECONDS: Final = 0.1
# How many outcomes are reported before others have their turn.
SETTLED_AT_ONCE: Final = 500


class Journal(Keeper):
    """A journal in a directory.

    Args:
        directory: Its directory, which must exist.
        clock: The clock of the times that callers give and get; in the file they are the wall clock's.
        fsync_ms: Sync at least this often, in milliseconds; 0 syncs every commit before its replies; negative syncs only what is folded.

    Attributes:
        notify: Called when outcomes wait for `settle`, usually from the writer thread.
        alone: Tells whether nobody waits for the event loop but whoever asked for the changes of this turn.
        reading: Reads what the journal holds when it is opened.

    Raises:
        StoreUnusable: The directory or the files in it cannot be used; nothing was changed.
    """

    def __init__(self, directory: str | Path, clock: Clock, fsync_ms: int = 0) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.notify: Callable[[], object] = lambda: None
        self.alone: Callable[[], bool] = lambda: False
        self._clock = clock
        self._fsync_seconds = fsync_ms / 1000
        self._added: list[Write] = []
        self._inbox: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        # What the writer has done, a batch and its error each. Of the first one some may be settled.
        self._outbox: deque[tuple[list[Write], EngineError | None]] = deque()
        self._settled: int = 0
        # How many batches the writer was given, and how many it has done.
        self._given: int = 0
        self._done: int = 0
        self._slow_until = 0.0
        self._rendezvous = Rendezvous()
        self._closing: Later | None = None
        self._closed = False
        # Since when there are commits that are not synced; 0 if there are none.
        self._unsynced_at = 0.0
        self._complained = False
        self._given_back: dict[tuple[int, int], list[int]] = {}
        self._lock = Lock(self.directory)
        self._room = Room(self.directory)
        try:
            self._path = self.directory / FILE_NAME
            try:
                self._read()
            except StoreUnusable:
                # SQLite makes a small file before it reads, and there may be no room for it.
                if not self._room.release():
                    raise
                try:
                    self._read()
                finally:
                    self._room.restore()
            self.stats.full = not self._room.restore()
            if self.stats.full:
                logger.warning("%s: no room for the reserve; puts are refused until there is", self.directory)
        except BaseException:
            self._lock.release()
            raise
        self._writer = threading.Thread(target=self._run, name="journal", daemon=True)

    def _read(self) -> None:
        prepare(self._path)
        # Nothing is written before everything is read: a journal that proves to be damaged stays unchanged.
        self._database = open_read_only(self._path)
        try:
            self.reading = Reading(self._database, self._path)
        except BaseException:
            self._database.close()
            raise

    def start(self) -> None:
        """Start the writer and the folder.

        Raises:
            StoreUnusable: The journal cannot be written.
        """
        self._database.close()
        reading = self.reading
        try:
            self._database = open_for_writing(self._path)
            try:
                self._log = Log(self.directory, reading.name, reading.folded, reading.found)
            except StoreUnusable:
                # There may be no room for a log, but deletes need one.
                if not self._room.release():
                    raise
                self.stats.full = True
                self._log = Log(self.directory, reading.name, reading.folded, reading.found)
        except StoreUnusable:
            self.abandon()
            raise
        self._folder = Folder(
            self._path, self._database, reading.folded, self._log, self._room, self.stats, self._clock
        )
        self._writer.start()
        self._folder.start()

    def abandon(self) -> None:
        """Close a journal that was not started, or whose folder was not."""
        self._database.close()
        self._lock.release()

    def add(self, write: Write) -> None:
        """Add a change; it is written with the next `flush`."""
        self._added.append(write)

    def gathers(self) -> bool:
        """Tell whether the next `flush` takes so long that more changes should come before it."""
        return len(self._added) > 0 and self._given == self._done and not self.alone()

    def flush(self) -> None:
        """Write the changes of this turn, or pass them to the writer."""
        while self._added:
            batch, self._added = self._added, []
            here = self._given == self._done and self.alone() and self._commit_here(batch)
            if (here or self._written_soon(batch)) and self.settle(SETTLED_AT_ONCE):
                self.notify()

    def _written_soon(self, batch: list[Write]) -> bool:
        """Pass a batch to the writer. While that is quick and has no other, wait a moment for it; tell whether the batch is done."""
        awaited = self._given == self._done and not self._fsync_seconds and self._rendezvous.expect()
        self._given += 1
        self._inbox.put(batch)
        if awaited:
            self._rendezvous.wait()
        return awaited and self._given == self._done

    def _commit_here(self, batch: list[Write]) -> bool:
        """Commit a batch in the event loop's thread, while the writer has nothing to do; return False if the writer has to."""
        log, stats = self._log, self.stats
        began = time.monotonic()
        if self._fsync_seconds or stats.full or began < self._slow_until:
            return False
        try:
            pieces = encode(batch, self._clock.ahead())
            if not log.current.room(sum(map(len, pieces))) or not log.lock.acquire(blocking=False):
                return False
            try:
                log.append(pieces, sync=True)
            finally:
                log.lock.release()
        except Exception as error:  # noqa: BLE001 - whatever it is, each change gets a reply
            # The writer tries again, in parts, and reports what fails.
            logger.info("%s: the writer has to commit: %s", self.directory, error)
            return False
        finally:
            if time.monotonic() - began > TOO_LONG_SECONDS:
                self._slow_until = began + SLOW_FOR_SECONDS
        self._count(batch, began)
        self._succeed(batch)
        return True

    def settle(self, most: int = ALL) -> bool:
        """Report up to `most` outcomes of the writer, in the event loop's thread.

        Returns:
            Whether more may be left.
        """
        # The writer sets this after its last outcome.
        closed = self._closed
        outbox = self._outbox
        while outbox:
            batch, error = outbox[0]
            start = self._settled
            end = min(start + most, len(batch))
            most -= end - start
            for write in batch[start:end]:
                self._settled += 1
                # A writer that failed within a batch has refused all of it, also changes that it had settled.
                if not write.done:
                    write.settle(error)
            if end < len(batch):
                return True
            outbox.popleft()
            self._settled = 0
        if closed and self._closing is not None and not self._closing.done:
            self._writer.join()
            self._closing.settle()
        return False

    def set_aside(self, row_id: object, fault: str) -> None:
        """Count a row that is not a valid job, and leave it where it is."""
        self.reading.set_aside(row_id, fault)

    def close(self, given_back: dict[tuple[int, int], list[int]] | None = None) -> Later:
        """Write the added changes, fold the log, close the files and unlock the directory.

        Args:
            given_back: The ids of jobs that became ready without a change in the journal, by the number of their reserves and timeouts.
        """
        if self._closing is None:
            self._closing = Later()
            self._given_back = given_back or {}
            self.flush()
            self._inbox.put(None)
        return self._closing

    def _run(self) -> None:
        open_ = True
        while open_:
            part = self._next()
            batch = part or []
            taken = int(len(batch) > 0)
            while part is not None and not self._inbox.empty():
                part = self._inbox.get_nowait()
                if part:
                    batch = batch + part
                    taken += 1
            open_ = part is not None
            if batch:
                try:
                    self._commit_all(batch)
                except Exception as error:
                    logger.critical("%s: the writer failed; its batch is refused", self.directory, exc_info=error)
                    self._refuse(batch, StoreFailed("the journal's writer failed"))
                self._done += taken
                if not self._rendezvous.meet():
                    self.notify()
            if self._until_sync() == 0.0 or (self._unsynced_at and self._fsync_seconds > 0 and not open_):
                self._sync()
        self._folder.close(self._given_back)
        self._lock.release()
        self._closed = True
        self.notify()

    def _next(self) -> list[Write] | None:
        """Wait for the next batch, or until it is time to sync; return None once there will be no more."""
        try:
            return self._inbox.get(timeout=self._until_sync())
        except queue.Empty:
            return []

    def _until_sync(self) -> float | None:
        """Return how many seconds are left until the next sync; None if none is needed."""
        if self._fsync_seconds <= 0 or not self._unsynced_at:
            return None
        return max(0.0, self._unsynced_at + self._fsync_seconds - time.monotonic())

    def _commit_all(self, batch: list[Write]) -> None:
        """Commit a batch as one frame; if that fails, in parts, with changes that free space first."""
        if self.stats.distrusted:
            self._sync()
            if self.stats.distrusted:
                self._refuse(batch, StoreFailed("earlier changes cannot be synced"))
                return
        if self.stats.full and self._folder.error is None:
            self.stats.full = not self._room.restore()
        if self.stats.full:
            puts = [write for write in batch if write.op == PUT]
            batch = [write for write in batch if write.op != PUT]
            self._refuse(puts, self._folder.lack or StoreFull("the disk is full"))
            if not batch:
                return
        # A log that stays full is waited for once, and not for each part.
        self._folder.patient = True
        error = self._commit(batch)
        if error is None:
            self._succeed(batch)
            return
        puts = [write for write in batch if write.op == PUT]
        others = [write for write in batch if write.op != PUT]
        if isinstance(error, StoreFull):
            self._room.release()
        if others and self._commit(others) is None:
            self._succeed(others)
        else:
            self._commit_each(others)
        self.stats.full = not self._room.restore() or isinstance(self._folder.error, StoreFull)
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
                    self._room.release()
                    self.stats.full = not self._room.restore()

    def _succeed(self, batch: list[Write]) -> None:
        if self._complained and any(write.op == PUT for write in batch):
            self._complained = False
        self._outbox.append((batch, None))

    def _refuse(self, batch: list[Write], error: EngineError) -> None:
        if batch and not self._complained:
            self._complained = True
            logger.error("%s: %s; changes are refused until a write succeeds", self.directory, error)
        self._outbox.append((batch, error))

    def _commit(self, batch: list[Write]) -> EngineError | None:
        """Append one frame; return its error, if any."""
        began = time.monotonic()
        try:
            pieces = encode(batch, self._clock.ahead())
            size = sum(map(len, pieces))
            # Nearly each frame has room; the folder, which is not compiled, is asked about the others.
            error = None if self._log.current.room(size) else self._folder.make_way(size)
            # The log grows for what frees space.
            if error is not None and any(write.op == PUT for write in batch):
                return error
            with self._log.lock:
                began = time.monotonic()
                self._log.append(pieces, self._fsync_seconds == 0)
        except OSError as failed:
            if failed.errno in NO_ROOM:
                return StoreFull(
                    "the disk is full" if failed.errno == NO_ROOM[0] else f"the disk is full: {failed.strerror}"
                )
            return StoreFailed(f"the journal cannot be written: {failed.strerror or failed}")
        except Exception as failure:  # noqa: BLE001 - whatever it is, this thread has to go on and to say so
            return StoreFailed(f"the journal cannot be written: {failure}")
        self._count(batch, began)
        return None

    def _count(self, batch: list[Write], began: float) -> None:
        stats = self.stats
        now = time.monotonic()
        self._rendezvous.took(now - began)
        stats.commits += 1
        stats.records += sum([len(write.jobs) or 1 for write in batch])
        stats.commit_seconds += now - began
        if self._fsync_seconds == 0:
            stats.syncs += 1
        elif not self._unsynced_at:
            self._unsynced_at = now

    def _sync(self) -> None:
        """Sync all earlier commits; after a sync that failed, write them again."""
        try:
            with self._log.lock:
                self._log.sync(again=self.stats.distrusted)
                self._unsynced_at = 0.0
        except OSError as error:
            self._unsynced_at = time.monotonic()
            if not self.stats.distrusted:
                self.stats.distrusted = True
                # This line also reports the refused changes.
                self._complained = True
                logger.critical("%s: cannot sync: %s; changes are refused until a sync succeeds", self.directory, error)
            return
        self.stats.syncs += 1
        if self.stats.distrusted:
            self.stats.distrusted = False
            logger.warning("%s: all changes are synced again", self.directory)

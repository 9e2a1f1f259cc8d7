"""Starts the embedded engine, with a journal or without."""

from __future__ import annotations

import gc
import logging
import time
from typing import TYPE_CHECKING, Final

from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.errors import StoreUnusable
from beanspiked.engine.memory import FOR_CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from beanspiked.engine.contract import ReadyListener
    from beanspiked.engine.embedded.journal import Journal
    from beanspiked.engine.embedded.write import Row
    from beanspiked.engine.timers import Timers

__all__ = ["start"]

logger = logging.getLogger(__name__)

# About what the jobs of a chunk take.
CHUNK_BYTES: Final = 1 << 19
# How often a long load is reported, in seconds: to the caller, and in the log.
PROGRESS_SECONDS: Final = 1.0
LOG_SECONDS: Final = 5.0


def start(
    directory: str | None,
    fsync_ms: int,
    timers: Timers,
    listener: ReadyListener,
    turn: Callable[[], None],
    soon: Callable[[Callable[[], None]], object],
    progress: Callable[[], None] = lambda: None,
) -> EmbeddedEngine:
    """Make an engine and load its journal.

    Args:
        directory: The journal's directory, or None to keep jobs in memory only.
        fsync_ms: How long a change may wait to be synced, in milliseconds; 0 syncs it before it is acknowledged.
        timers: The timer queue, for delays and pauses, and the clock.
        listener: Told when a job becomes ready.
        turn: Called when changes are on disk.
        soon: Has something called in the event loop, from any thread.
        progress: Called about each second while jobs are loaded.

    Raises:
        StoreUnusable: The journal cannot be used.
    """
    if directory is None:
        return EmbeddedEngine(timers, listener)
    try:
        return _start_with_journal(directory, fsync_ms, timers, listener, turn, soon, progress)
    except MemoryError as error:
        raise StoreUnusable(f"{directory}: there is not enough memory for its jobs") from error


def _start_with_journal(
    directory: str,
    fsync_ms: int,
    timers: Timers,
    listener: ReadyListener,
    turn: Callable[[], None],
    soon: Callable[[Callable[[], None]], object],
    progress: Callable[[], None],
) -> EmbeddedEngine:
    from beanspiked.engine.embedded.journal import SETTLED_AT_ONCE, Journal  # noqa: PLC0415 - SQLite is only loaded where it is used

    journal = Journal(directory, timers.clock, fsync_ms)
    engine = EmbeddedEngine(timers, listener, journal)
    try:
        _load(engine, journal, progress)
    except BaseException:
        journal.abandon()
        raise
    logger.info("%s: %d jobs are loaded", directory, engine.counts.jobs())
    if journal.reading.aside:
        logger.error(
            "%s: %d rows are not valid jobs; they stay in the file and are not served",
            directory,
            journal.reading.aside,
        )

    def settle() -> None:
        if journal.settle(SETTLED_AT_ONCE):
            soon(settle)
        turn()

    journal.notify = lambda: soon(settle)
    journal.alone = listener.alone
    try:
        journal.start()
    except RuntimeError as error:
        # The process can have no more threads.
        journal.abandon()
        raise StoreUnusable(f"{directory}: {error}") from error
    return engine


def _load(engine: EmbeddedEngine, journal: Journal, progress: Callable[[], None]) -> None:
    # Nothing that is made here is garbage, but the collector would visit all of it again and again, which takes half of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        engine.load(_watched(journal, progress), *journal.reading.state())
    finally:
        if collects:
            gc.enable()


def _watched(journal: Journal, progress: Callable[[], None]) -> Iterator[list[Row]]:
    """Pass the journal's jobs on, and report the progress now and then."""
    count = 0
    progress_at = time.monotonic() + PROGRESS_SECONDS
    log_at = time.monotonic() + LOG_SECONDS
    for rows in journal.reading.chunks():
        # Puts leave more than this, so jobs that were accepted under a limit load under it again.
        if not FOR_CLIENTS.stays_free(CHUNK_BYTES):
            raise MemoryError
        yield rows
        count += len(rows)
        now = time.monotonic()
        if now >= progress_at:
            progress()
            progress_at = now + PROGRESS_SECONDS
        if now >= log_at:
            logger.warning("%s: %d jobs read so far", journal.directory, count)
            log_at = now + LOG_SECONDS

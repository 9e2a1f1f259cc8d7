"""Begins to serve tubes that live in this process, and in a journal where one is given."""

from __future__ import annotations

import gc
import logging
import time
from typing import TYPE_CHECKING, Final

from beanspiked.engine.embedded.engine import EmbeddedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from beanspiked.engine.contract import ReadyListener
    from beanspiked.engine.embedded.journal import Journal
    from beanspiked.engine.embedded.write import Row
    from beanspiked.engine.timers import Timers

__all__ = ["start"]

logger = logging.getLogger(__name__)

# How many changes that are on disk are made known before others have their turn.
AT_ONCE: Final = 500
# How often a long loading is told of, in seconds: to who asked for it, and in the log.
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
    """Make an engine with what its journal holds.

    Args:
        directory: Where the journal lies, or None to keep jobs in memory only.
        fsync_ms: How long a change may wait to be on disk, in milliseconds; 0 means that it is before it is told of.
        timers: Where delays and pauses wait, and the clock.
        listener: Whom to tell when a job becomes ready.
        turn: What to call when changes are on disk.
        soon: What has something called in the event loop, from any thread.
        progress: What to call about each second while jobs are loaded.

    Raises:
        StoreUnusable: The journal cannot be used.
    """
    if directory is None:
        return EmbeddedEngine(timers, listener)
    from beanspiked.engine.embedded.journal import Journal  # noqa: PLC0415 - SQLite is only loaded where it is used

    journal = Journal(directory, timers.clock, fsync_ms)
    engine = EmbeddedEngine(timers, listener, journal)
    try:
        _load(engine, journal, progress)
    except BaseException:
        journal.abandon()
        raise
    logger.info("%s: %d jobs", directory, engine.counts.jobs())
    if journal.reading.aside:
        logger.error(
            "%s: %d jobs are set aside: they cannot be understood, stay in the file and are not served",
            directory,
            journal.reading.aside,
        )

    def settle() -> None:
        if journal.settle(AT_ONCE):
            soon(settle)
        turn()

    journal.notify = lambda: soon(settle)
    journal.start()
    return engine


def _load(engine: EmbeddedEngine, journal: Journal, progress: Callable[[], None]) -> None:
    # Nothing of what is made here is garbage, but a collector would look through all of it again and again: half of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        engine.load(_watched(journal, progress), *journal.reading.state())
    finally:
        if collects:
            gc.enable()


def _watched(journal: Journal, progress: Callable[[], None]) -> Iterator[list[Row]]:
    """Pass the journal's jobs on, and tell at times that and how far they were read."""
    count = 0
    progress_at = time.monotonic() + PROGRESS_SECONDS
    log_at = time.monotonic() + LOG_SECONDS
    for rows in journal.reading.chunks():
        yield rows
        count += len(rows)
        now = time.monotonic()
        if now >= progress_at:
            progress()
            progress_at = now + PROGRESS_SECONDS
        if now >= log_at:
            logger.warning("%s: %d jobs read so far", journal.directory, count)
            log_at = now + LOG_SECONDS

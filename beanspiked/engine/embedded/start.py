"""Begins to serve tubes that live in this process, and in a journal where one is given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.embedded.engine import EmbeddedEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.contract import ReadyListener
    from beanspiked.engine.timers import Timers

__all__ = ["start"]

logger = logging.getLogger(__name__)

# How many changes that are on disk are made known before others have their turn.
AT_ONCE: Final = 500


def start(
    directory: str | None,
    fsync_ms: int,
    timers: Timers,
    listener: ReadyListener,
    turn: Callable[[], None],
    soon: Callable[[Callable[[], None]], object],
) -> EmbeddedEngine:
    """Make an engine with what its journal holds.

    Args:
        directory: Where the journal lies, or None to keep jobs in memory only.
        fsync_ms: How long a change may wait to be on disk, in milliseconds; 0 means that it is before it is told of.
        timers: Where delays and pauses wait, and the clock.
        listener: Whom to tell when a job becomes ready.
        turn: What to call when changes are on disk.
        soon: What has something called in the event loop, from any thread.

    Raises:
        StoreUnusable: The journal cannot be used.
    """
    if directory is None:
        return EmbeddedEngine(timers, listener)
    from beanspiked.engine.embedded.journal import Journal  # noqa: PLC0415 - SQLite is only loaded where it is used

    journal = Journal(directory, fsync_ms)
    engine = EmbeddedEngine(timers, listener, journal)
    try:
        engine.load(journal.rows(), *journal.state())
    except BaseException:
        journal.abandon()
        raise
    logger.info("%s: %d jobs", directory, engine.counts.jobs())

    def settle() -> None:
        if journal.settle(AT_ONCE):
            soon(settle)
        turn()

    journal.notify = lambda: soon(settle)
    journal.start()
    return engine

"""Begins to serve tubes that live in this process, and in a journal where one is given."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from beanspiked.engine.embedded.engine import EmbeddedEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.contract import ReadyListener
    from beanspiked.engine.timers import Timers

__all__ = ["start"]

logger = logging.getLogger(__name__)


def start(
    directory: str | None, fsync_ms: int, timers: Timers, listener: ReadyListener, turn: Callable[[], None]
) -> EmbeddedEngine:
    """Make an engine with what its journal holds; needs a running event loop.

    Args:
        directory: Where the journal lies, or None to keep jobs in memory only.
        fsync_ms: How long a change may wait to be on disk, in milliseconds; 0 means that it is before it is told of.
        timers: Where delays and pauses wait, and the clock.
        listener: Whom to tell when a job becomes ready.
        turn: What to call when changes are on disk.

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
    loop = asyncio.get_running_loop()

    def settle() -> None:
        journal.settle()
        turn()

    def notify() -> None:
        loop.call_soon_threadsafe(settle)

    journal.notify = notify
    journal.start()
    return engine

"""Metrics: two methods by which a program counts and times what the library does."""

from __future__ import annotations

import logging
from typing import Protocol

__all__ = ["Guarded", "Metrics", "NoMetrics"]

logger = logging.getLogger(__name__)


class Metrics(Protocol):
    """A program's counters and timers. The event loop's thread calls them, so neither may block.

    Events are `put`, `reserve`, `touch`, `release`, `bury`, `delete`, `kick`, `update`, `pause`, `delete_tube`, `lost` (jobs that this
    program does not hold any more), `put.retry`, and `ids.low` (two thirds of all ids of 63 bits are used up).
    """

    def count(self, event: str, tube: str, number: int) -> None:
        """Count an event that happened to `number` jobs of a tube."""

    def timing(self, event: str, tube: str, seconds: float) -> None:
        """Note how long an operation of this kind took, in seconds."""


class NoMetrics:
    """Counts nothing."""

    def count(self, event: str, tube: str, number: int) -> None:
        """Do nothing."""

    def timing(self, event: str, tube: str, seconds: float) -> None:
        """Do nothing."""


class Guarded:
    """Wraps a program's metrics, and logs the errors that they raise."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def count(self, event: str, tube: str, number: int) -> None:
        """Pass on."""
        try:
            self._metrics.count(event, tube, number)
        except Exception:
            logger.exception("the program's metrics failed to count %s", event)

    def timing(self, event: str, tube: str, seconds: float) -> None:
        """Pass on."""
        try:
            self._metrics.timing(event, tube, seconds)
        except Exception:
            logger.exception("the program's metrics failed to time %s", event)

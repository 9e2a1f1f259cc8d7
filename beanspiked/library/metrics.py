"""How a program learns what the library does: two methods for whatever counts and times there."""

from __future__ import annotations

import logging
from typing import Protocol

__all__ = ["Guarded", "Metrics", "NoMetrics"]

logger = logging.getLogger(__name__)


class Metrics(Protocol):
    """What a program gives to count and to time; called in the thread of the event loop, so neither may block.

    Events are `put`, `reserve`, `touch`, `release`, `bury`, `delete`, `kick`, `update`, `pause`, `delete_tube`, `lost` (jobs that this
    program does not hold any more), `put.retry`, and `ids.low` (two thirds of the numbers that 63 bits have are used up).
    """

    def count(self, event: str, tube: str, number: int) -> None:
        """Something happened to so many jobs of a tube."""

    def timing(self, event: str, tube: str, seconds: float) -> None:
        """An operation of this kind took so long."""


class NoMetrics:
    """Counts nothing."""

    def count(self, event: str, tube: str, number: int) -> None:
        """Do nothing."""

    def timing(self, event: str, tube: str, seconds: float) -> None:
        """Do nothing."""


class Guarded:
    """Whatever a program counts with, so that its faults harm nobody else."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def count(self, event: str, tube: str, number: int) -> None:
        """Pass on."""
        try:
            self._metrics.count(event, tube, number)
        except Exception:
            logger.exception("counting %s failed", event)

    def timing(self, event: str, tube: str, seconds: float) -> None:
        """Pass on."""
        try:
            self._metrics.timing(event, tube, seconds)
        except Exception:
            logger.exception("timing %s failed", event)

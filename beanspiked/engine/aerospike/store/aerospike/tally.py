"""Counts how long the cluster takes to answer, and how operations end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aerospike.exception import AerospikeError

from beanspiked.engine.aerospike.store.seam import StoreError
from beanspiked.engine.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Tally"]

Result = TypeVar("Result")

# From an operation in a node's memory to the longest query, in seconds.
BOUNDS: Final = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0]


class Tally:
    """Counts calls and their outcomes, from any thread.

    Args:
        meaning: Tells what an error means for the record.

    Attributes:
        calls: How long calls lasted, by their kind.
        outcomes: How many operations there were, by their kind and end: `done`, or the name of the error.
    """

    def __init__(self, meaning: Callable[[Any], Exception]) -> None:
        self._meaning = meaning
        self.calls: dict[str, Histogram] = {}
        self.outcomes: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def timed(self, kind: str, function: Callable[[], Result]) -> Result:
        """Make a call of one operation, and count it."""
        began = time.monotonic()
        outcome: object = None
        try:
            return function()
        except AerospikeError as error:
            outcome = self._meaning(error)
            raise
        except Exception as error:
            outcome = error
            raise
        finally:
            self.add(kind, time.monotonic() - began, (outcome,))

    def add(self, kind: str, seconds: float, outcomes: Sequence[object]) -> None:
        """Count a call with its length and the outcome of each of its operations."""
        with self._lock:
            if kind not in self.calls:
                self.calls[kind] = Histogram(BOUNDS)
            self.calls[kind].add(seconds)
            for outcome in outcomes:
                key = (kind, _name(outcome))
                self.outcomes[key] = self.outcomes.get(key, 0) + 1

    def copy(self) -> Tally:
        """Return the counts."""
        copied = Tally(self._meaning)
        with self._lock:
            copied.outcomes = dict(self.outcomes)
            for kind, measured in self.calls.items():
                copied.calls[kind] = Histogram(BOUNDS)
                copied.calls[kind].counts = list(measured.counts)
                copied.calls[kind].total = measured.total
        return copied


def _name(outcome: object) -> str:
    if isinstance(outcome, StoreError):
        return type(outcome).__name__.lower()
    return "failed" if isinstance(outcome, Exception) else "done"

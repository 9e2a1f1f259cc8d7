"""The deadline of writes.

A frozen node that wakes finds writes in its sockets that were sent meanwhile. The cluster may have gone on without it. Then a write to its
old copy of a record would win over everything written since, because the cluster keeps the younger copy. So every write carries a filter
that holds until a moment of the node's own clock. By then the sender has given up.
"""

from __future__ import annotations

import time
from typing import Any, Final

from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp

from beanspiked.engine.aerospike.store.aerospike.conditions import both, compiled

__all__ = ["NODE_NOW_MS", "Deadline"]

NODE_NOW_MS: Final = arithmetic.Add(arithmetic.Div(exp.LastUpdateTime(), 1_000_000), exp.SinceUpdateTime())
# All writes of this many ms share a filter, since to make one costs as much as a write.
STEP_MS: Final = 100
FORGET_AFTER_MS: Final = 60_000


class Deadline:
    """The deadlines of writes, by the clock of the node that is ahead of the others.

    A node whose clock is behind has that much longer.

    Args:
        within_ms: How long a sender waits for a write.
    """

    def __init__(self, within_ms: int) -> None:
        self._within_ms = within_ms
        self._ahead_ms: int | None = None
        self._latest_ms: int | None = None
        self._before_ms: int | None = None
        self._since_ms: int = _local_ms()
        self._filter: tuple[int, Any] = (0, None)

    def seen(self, node_ms: int) -> bool:
        """Note a node's time, which it has just told; tell whether its clock is ahead of all others by more than a step."""
        now_ms = _local_ms()
        ahead = node_ms - now_ms
        if now_ms - self._since_ms > FORGET_AFTER_MS:
            # Clocks drift, and people set them back, so only this period and the one before count.
            self._before_ms = self._latest_ms
            self._latest_ms = None
            self._since_ms = now_ms
        if self._latest_ms is None or ahead > self._latest_ms:
            self._latest_ms = ahead
        known = self._ahead_ms
        self._ahead_ms = max(self._latest_ms, self._latest_ms if self._before_ms is None else self._before_ms)
        if known != self._ahead_ms:
            self._filter = (0, None)
        return known is not None and ahead > known + STEP_MS

    def filter(self, guard: Any = None) -> tuple[int, Any]:
        """Return the deadline of a write that is sent now, in ms of a node's clock, and the compiled filter, with a guard if given.

        While no node's time is known, these are 0 and the guard alone. The guard may be compiled.
        """
        if self._ahead_ms is None:
            return 0, None if guard is None else compiled(guard)
        until_ms = _local_ms() + self._ahead_ms + self._within_ms
        until_ms += STEP_MS - until_ms % STEP_MS
        known, in_time = self._filter
        if known != until_ms:
            in_time = exp.LE(NODE_NOW_MS, until_ms).compile()
            self._filter = (until_ms, in_time)
        return until_ms, in_time if guard is None else both(in_time, guard)


def _local_ms() -> int:
    return time.monotonic_ns() // 1_000_000

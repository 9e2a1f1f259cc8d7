"""What this front-end tells the others of its tubes with a heartbeat. For many tubes it is made beside the heartbeat."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.cluster.chores import Chores
from beanspiked.engine.aerospike.cluster.listener import LocalTubes
from beanspiked.engine.aerospike.cluster.usage import PAYLOAD_MAX, SLICE, pack_many, pack_usage

__all__ = ["Telling"]

logger = logging.getLogger(__name__)

# For at most this many tubes it is made at each heartbeat.
TOLD_AT_ONCE: Final = 500
# For more tubes it is made only so often that making it takes one part in this many of the time.
SHARE: Final = 50


class Telling:
    """Makes what a heartbeat tells.

    Args:
        tubes: This front-end's tubes.
        chores: Run beside the heartbeat.
        monotonic: A clock in seconds.

    Attributes:
        at_most: The size limit, in bytes.
    """

    def __init__(self, tubes: LocalTubes, chores: Chores, monotonic: Callable[[], float]) -> None:
        self.at_most: int = PAYLOAD_MAX
        self._tubes = tubes
        self._chores = chores
        self._monotonic = monotonic
        # What was last made for many tubes, and when to make it anew.
        self._made = b""
        self._make_at: float = 0.0
        self._told_all: bool = True

    def forget(self) -> None:
        """Forget what was made: a new session has told nothing yet."""
        self._made = b""

    def payload(self) -> bytes:
        """Return how this front-end uses its tubes, packed for the others."""
        if self._tubes.count() <= TOLD_AT_ONCE:
            payload = pack_usage(self._tubes.usage())
            if len(payload) <= self.at_most:
                return payload
        if self._monotonic() >= self._make_at:
            self._chores.begin("telling", self._make)
        return self._made or pack_usage({})

    async def _make(self) -> None:
        began = self._monotonic()
        self._made, whole = await pack_many(self._tubes.usage_slices(SLICE), self.at_most)
        if self._told_all and not whole:
            logger.warning("too many tubes are used here: other front-ends learn the users of the first ones only")
        self._told_all = whole
        self._make_at = self._monotonic() + SHARE * (self._monotonic() - began)

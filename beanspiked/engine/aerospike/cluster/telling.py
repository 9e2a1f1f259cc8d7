"""What this front-end tells the others of its tubes with a heartbeat, made beside it where there are many."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.cluster.chores import Chores
from beanspiked.engine.aerospike.cluster.listener import LocalTubes
from beanspiked.engine.aerospike.cluster.usage import PAYLOAD_MAX, SLICE, pack_many, pack_usage

__all__ = ["Telling"]

logger = logging.getLogger(__name__)

# How so many tubes are used is packed with the heartbeat.
TOLD_AT_ONCE: Final = 500
# To tell how more are used may take this part of the time.
SHARE: Final = 20


class Telling:
    """Makes what is told.

    Args:
        tubes: What is told of.
        chores: What makes it beside the heartbeat.
        monotonic: A clock in seconds.

    Attributes:
        at_most: How many bytes there is room for.
    """

    def __init__(self, tubes: LocalTubes, chores: Chores, monotonic: Callable[[], float]) -> None:
        self.at_most: int = PAYLOAD_MAX
        self._tubes = tubes
        self._chores = chores
        self._monotonic = monotonic
        # What was made last of many tubes, and when it is made anew.
        self._made = b""
        self._make_at: float = 0.0
        self._told_all: bool = True

    def forget(self) -> None:
        """There is a new session, which has told nothing."""
        self._made = b""

    def payload(self) -> bytes:
        """Return what the others should know of how this front-end uses its tubes."""
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

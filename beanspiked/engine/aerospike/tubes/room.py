"""Whether the store takes more jobs."""

import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.store.seam import StoreError
from beanspiked.engine.aerospike.store.tasks import Tasks

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Room"]

logger = logging.getLogger(__name__)

# The store is asked whether it has room this often, in seconds, and whenever so many bytes were put: a small one fills up within seconds.
ASK_EVERY: Final = 5.0
ASK_AFTER_BYTES: Final = 4 << 20


class Room:
    """Asks the store whether it has room.

    Args:
        store: The store.
        tasks: What runs coroutines.

    Attributes:
        left: Whether there is room, as far as known.
    """

    def __init__(self, store: "SegmentStore", tasks: Tasks) -> None:
        self.left: bool = True
        self._store = store
        self._tasks = tasks
        self._asked_at: float = 0.0
        self._unseen_bytes: int = 0
        self._asking: bool = False

    def used(self, size: int) -> None:
        """Take note that so many bytes were put."""
        self._unseen_bytes += size
        if self._unseen_bytes > ASK_AFTER_BYTES and not self._asking:
            self._ask()

    def tick(self, now: float) -> None:
        """Ask if that is due."""
        if now - self._asked_at >= ASK_EVERY and not self._asking:
            self._asked_at = now
            self._ask()

    def _ask(self) -> None:
        # From now on: more puts come before the question is sent.
        self._asking = True
        self._unseen_bytes = 0
        self._tasks.spawn(self._do_ask())

    async def _do_ask(self) -> None:
        try:
            left = await self._store.has_room()
        except StoreError as error:
            logger.info("whether there is room is not known: %s", error)
        else:
            if self.left and not left:
                logger.warning("the store is nearly full; puts are refused")
            self.left = left
        finally:
            self._asking = False

    def found_full(self, error: StoreError) -> None:
        """The store refused a write for want of room: no more puts until it takes one."""
        if self.left:
            logger.warning("the store has no room; puts are refused: %s", error)
        self.left = False

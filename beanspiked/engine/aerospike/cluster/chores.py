"""Work beside the heartbeat: several things at once, but each only once."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from beanspiked.engine.aerospike.store.seam import StoreError

__all__ = ["Chores"]

logger = logging.getLogger(__name__)


class Chores:
    """Does work that may take long, so that no heartbeat waits for it.

    Args:
        spawn: Runs a coroutine beside everything else until this front-end ends.
    """

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._names: set[str] = set()
        self._ended = False

    def end(self) -> None:
        """Begin no more work."""
        self._ended = True

    def begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin some work, unless work of this name is in progress."""
        if name not in self._names and not self._ended:
            self._names.add(name)
            self._spawn(self._do(name, work))

    async def _do(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except StoreError as error:
            # The next pass begins it again.
            logger.info("%r failed, and begins again with the next pass: %s", name, error)
        finally:
            self._names.discard(name)

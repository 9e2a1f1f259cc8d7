"""What is done beside the heartbeat, each thing once at a time."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from beanspiked.engine.aerospike.store.seam import StoreError

__all__ = ["Chores"]

logger = logging.getLogger(__name__)


class Chores:
    """Does things that may take long, and must not keep a heartbeat waiting.

    Args:
        spawn: Runs a coroutine beside everything else until this front-end ends.
    """

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._names: set[str] = set()
        self._ended = False

    def end(self) -> None:
        """Begin nothing any more."""
        self._ended = True

    def begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something, unless it is being done."""
        if name not in self._names and not self._ended:
            self._names.add(name)
            self._spawn(self._do(name, work))

    async def _do(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except StoreError as error:
            # It is begun again.
            logger.info("%s: %s", name, error)
        finally:
            self._names.discard(name)

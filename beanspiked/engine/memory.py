"""Memory that stays free: without any, not even a delete works.

A lack of memory can show at any place, and there a change would stay half made; compiled code even ends the process where it cannot make a
number. So whatever makes the process grow asks before.
"""

import logging
import mmap
import time
from typing import Final

__all__ = ["FOR_CLIENTS", "FOR_JOBS", "Reserve"]

logger = logging.getLogger(__name__)

# How many bytes may be taken before the system is asked again.
UNASKED: Final = 1 << 20
# While there is a lack of memory, how often to look whether it is over, and how often to log it, in seconds.
ASK_EVERY: Final = 0.1
SAID_EVERY: Final = 60.0
# No other allocation of the server is larger, apart from bodies and answers about very many tubes.
PIECE: Final = 65536


class Reserve:
    """So many bytes that stay free.

    Args:
        size: How many; much more than UNASKED.
        each: How many bytes at most are taken at a time, a body left out.
        lack: What to log when the reserve would not stay free.
    """

    def __init__(self, size: int, each: int, lack: str) -> None:
        self._size: int = size
        self._each: int = each
        self._lack: str = lack
        self._taken: int = UNASKED
        self._lacking: bool = False
        self._asked_at: float = 0.0
        self._quiet_until: float = 0.0

    def stays_free(self, body: int = 0) -> bool:
        """Tell whether the reserve stays free if one more is taken, with a body of so many bytes."""
        self._taken += self._each + body
        return self._taken < UNASKED or self._ask()

    def _ask(self) -> bool:
        now = time.monotonic()
        if self._lacking and now < self._asked_at + ASK_EVERY:
            return False
        self._asked_at = now
        self._lacking = not _is_free(self._size)
        if not self._lacking:
            self._taken = 0
        elif now >= self._quiet_until:
            self._quiet_until = now + SAID_EVERY
            logger.warning("memory is used up: %s", self._lack)
        return not self._lacking


def _is_free(size: int) -> bool:
    """Tell whether there is so much memory: with the system, or else among what was freed and the process has kept."""
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        try:
            _ = [bytes(PIECE) for _ in range(size // PIECE)]
        except MemoryError:
            return False
    return True


# Jobs leave more than clients and tubes do, so that workers can still come for them.
FOR_JOBS: Final = Reserve(16 << 20, 1024, "puts are refused until there is some")
FOR_CLIENTS: Final = Reserve(8 << 20, 16384, "new clients wait, and new tubes are refused, until there is some")

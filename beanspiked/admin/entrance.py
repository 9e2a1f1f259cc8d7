"""Accepts the clients of the admin port."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.server.descriptors import OUT_OF_DESCRIPTORS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["Entrance"]

logger = logging.getLogger(__name__)

# How many clients are accepted in one turn.
ACCEPTS_PER_TURN: Final = 16
# How long to wait before the next try to accept after a failure, in seconds.
ACCEPT_AGAIN_AFTER: Final = 0.1


class Entrance:
    """Accepts clients in the running event loop.

    asyncio's own listener, without descriptors, tries as often in a turn as the backlog is long and logs a traceback each time.

    Args:
        sock: The listening socket, not blocking.
        welcome: Takes each client.
    """

    def __init__(self, sock: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
        self._sock = sock
        self._welcome = welcome
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._refusing = False

    def open(self) -> None:
        """Accept clients from now on."""
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more clients."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _ = self._sock.accept()
            except BlockingIOError:
                if self._refusing:
                    # No client waits any more.
                    self._refusing = False
                    logger.warning("admin port: new connections are accepted again")
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._refuse(error)
                    return
                logger.debug("admin port: accept: %s", error)
                continue
            self._welcome(client)

    def _refuse(self, error: OSError) -> None:
        """Let clients wait in the backlog for a while. Logs it once."""
        if not self._refusing:
            self._refusing = True
            logger.warning("admin port: cannot accept connections: %s; new clients wait until one ends", error.strerror)
        self._loop.remove_reader(self._sock)
        self._again = self._loop.call_later(ACCEPT_AGAIN_AFTER, self._try_again)

    def _try_again(self) -> None:
        self.open()
        # Perhaps no client waits, so that no event would tell that it is over.
        self._accept()

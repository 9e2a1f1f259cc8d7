"""Event loops after a fork."""

from __future__ import annotations

import os
import select
import selectors
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["part_from"]


def part_from(loop: asyncio.AbstractEventLoop) -> None:
    """Give the copy of an event loop in the child of a fork a selector and a pipe of its own.

    asyncio leaves the parent's selector and pipe in the copy. `asyncio.run` closes the copy at its end, which would remove the parent's
    pipe from the selector that both share. Then nothing, not even the journal, could wake the parent's loop any more. The parent would
    also read the bytes that the child writes to the pipe.

    uvloop's descriptors cannot be reached. A child that is forked in a coroutine there must leave by `os._exit`; otherwise its copy of
    the loop takes the parent's wake-ups.
    """
    if not isinstance(loop, BaseSelectorEventLoop) or loop.is_closed():
        return
    # asyncio has no public names for these.
    own: dict[str, Any] = vars(loop)
    pipe = (own["_ssock"], own["_csock"])
    for old, new in zip(pipe, socket.socketpair(), strict=True):
        new.setblocking(False)
        os.dup2(new.fileno(), old.fileno(), inheritable=False)
        new.close()
    if isinstance(own["_selector"], selectors.EpollSelector):
        with select.epoll() as epoll:
            epoll.register(pipe[0].fileno(), select.EPOLLIN)
            os.dup2(epoll.fileno(), own["_selector"].fileno(), inheritable=False)

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
    """Give the copy of an event loop in a child of a fork a selector and a pipe of its own.

    asyncio leaves it the parent's. Closing the copy, as `asyncio.run` does on the way out, would take the parent's pipe out of the
    selector that both share: nothing would wake the parent's loop any more, not even its journal. What the child writes to the pipe
    the parent would read.

    uvloop's descriptors cannot be had. A child of a coroutine there must leave by `os._exit`: its copy, once it runs again, takes the
    parent's wake-ups.
    """
    if not isinstance(loop, BaseSelectorEventLoop) or loop.is_closed():
        return
    # asyncio has no word for these.
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

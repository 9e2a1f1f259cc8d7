"""Lets asyncio wait in the epoll set of the jobs' sockets, so that a server with an admin port needs no second set."""

from __future__ import annotations

import selectors
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from beanspiked.server.poller import READABLE, WRITABLE, Poller, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PollerSelector"]


class Watched(Ready):
    """A descriptor that asyncio watches."""

    def __init__(self, key: selectors.SelectorKey, found: dict[int, tuple[selectors.SelectorKey, int]]) -> None:
        self.key = key
        self._found = found

    def on_ready(self, events: int) -> None:
        """Note whether it can be read and written now. Both are true after a fault."""
        mask = 0
        if events & ~WRITABLE:
            mask |= selectors.EVENT_READ
        if events & ~READABLE:
            mask |= selectors.EVENT_WRITE
        self._found[self.key.fd] = (self.key, mask & self.key.events)


class PollerSelector(selectors.BaseSelector):
    """The selector of asyncio's own event loop.

    Args:
        poller: The jobs' sockets, which are heard while asyncio waits.
        hear: Hears them.
    """

    def __init__(self, poller: Poller, hear: Callable[[], None]) -> None:
        self._poller = poller
        self._hear = hear
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._found: dict[int, tuple[selectors.SelectorKey, int]] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor."""
        key = selectors.SelectorKey(fileobj, _descriptor(fileobj), events, data)
        self._poller.add(key.fd, Watched(key, self._found), _epoll(events))
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching it."""
        key = self._keys.pop(_descriptor(fileobj))
        self._found.pop(key.fd, None)
        self._poller.remove(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch it for other events."""
        self.unregister(fileobj)
        return self.register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait this many seconds and hear the jobs' sockets; return the other descriptors that are ready, with their events."""
        if self._poller.wait(-1.0 if timeout is None else max(0.0, timeout)):
            self._hear()
        found = [(key, mask) for key, mask in self._found.values() if mask]
        self._found.clear()
        return found

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the watched objects by their descriptors."""
        return MappingProxyType(self._keys)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return the key of a descriptor. Raises KeyError."""
        return self._keys[_descriptor(fileobj)]

    def close(self) -> None:
        """Stop watching all descriptors."""
        for fd in list(self._keys):
            self.unregister(fd)


def _descriptor(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _epoll(events: int) -> int:
    return (READABLE if events & selectors.EVENT_READ else 0) | (WRITABLE if events & selectors.EVENT_WRITE else 0)

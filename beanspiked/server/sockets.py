"""The ways to the kernel, which wait for sockets, receive and send. There are two, and they do the same.

`native` is a C function that hears all sockets in one call (`_epoll.c`). `python` uses Python's functions, and is always there.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from types import ModuleType
from typing import Final

from mypy_extensions import mypyc_attr

__all__ = ["EVENTS_AT_ONCE", "NativeMissingError", "NativeSockets", "Sockets", "open_sockets"]

# How many events one wait returns at most. `_epoll.c` has the same number.
EVENTS_AT_ONCE: Final = 1024


def _load() -> ModuleType | None:
    """Import the C function if it is installed."""
    try:
        from beanspiked.server import _epoll  # noqa: PLC0415 - without a compiler there is none
    except ImportError:
        return None
    return _epoll


# Imported with this module, since the process may later belong to a user who may not read the file.
NATIVE: Final = _load()


class NativeMissingError(Exception):
    """The settings ask for the C function, and it is not installed."""

    def __str__(self) -> str:
        return (
            "native sockets are not installed; they need a C compiler and Python's headers when beanspiked is installed"
        )


@mypyc_attr(allow_interpreted_subclasses=True)
class Sockets:
    """One epoll set, by Python's functions.

    Attributes:
        name: Its name in `--io` and `stats`.
    """

    def __init__(self, name: str = "python") -> None:
        self.name: str = name
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """Return a descriptor that is readable when `wait` would find events."""
        return self._epoll.fileno()

    def add(self, fd: int, events: int) -> None:
        """Wait for these events from now on."""
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events than before."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop waiting. Call this before the descriptor is closed."""
        self.set_early(fd, early=False)
        self._epoll.unregister(fd)

    def set_early(self, fd: int, early: bool) -> None:
        """Say whether `wait` may receive bytes from a stream early. It does not before this is called."""

    def wait(
        self, seconds: float, most: int = EVENTS_AT_ONCE, awake: float = 0.0
    ) -> list[tuple[int, int, bytes | None]]:
        """Wait for events.

        Args:
            seconds: How long, or -1 for ever.
            most: How many events to return at most.
            awake: For how many seconds to look again and again before the thread sleeps; then it sleeps for `seconds`.

        Returns:
            Descriptors, what happened to each, and what was received early.
        """
        found: list[tuple[int, int]] = []
        until = time.monotonic() + awake if awake > 0.0 else 0.0
        while until and not found and time.monotonic() < until:
            found = self._epoll.poll(0, most)
            if not found:
                os.sched_yield()
        return [(fd, events, None) for fd, events in found or self._epoll.poll(seconds, most)]

    def sender(self, sock: socket.socket) -> Callable[[memoryview | bytes], int]:
        """Return a function that sends to a socket as `socket.send` does. It raises an OSError if that would wait or fail."""
        return sock.send

    def close(self) -> None:
        """Close the epoll set."""
        self._epoll.close()


@mypyc_attr(allow_interpreted_subclasses=True)
class NativeSockets(Sockets):
    """One epoll set, by a C function.

    Raises:
        NativeMissingError: It is not installed.
    """

    def __init__(self) -> None:
        super().__init__("native")
        if NATIVE is None:
            self.close()
            raise NativeMissingError
        ears = NATIVE.Ears(self._epoll.fileno())
        self._wait: Callable[[float, int, float], list[tuple[int, int, bytes | None]]] = ears.wait
        self._set_early: Callable[[int, bool], None] = ears.set_early
        self._sender: Callable[[int], Callable[[memoryview | bytes], int]] = NATIVE.sender

    def set_early(self, fd: int, early: bool) -> None:
        """Say whether `wait` may receive bytes from a stream early."""
        self._set_early(fd, early)

    def wait(
        self, seconds: float, most: int = EVENTS_AT_ONCE, awake: float = 0.0
    ) -> list[tuple[int, int, bytes | None]]:
        """Wait for events, as `Sockets.wait` does."""
        return self._wait(seconds, most, awake)

    def sender(self, sock: socket.socket) -> Callable[[memoryview | bytes], int]:
        """Return a function that sends to a socket."""
        return self._sender(sock.fileno())


def open_sockets(how: str = "auto") -> Sockets:
    """Open an epoll set: `native`, `python`, or the better one that is installed (`auto`).

    Raises:
        NativeMissingError: `native` is not installed.
    """
    if how == "python":
        return Sockets()
    try:
        return NativeSockets()
    except NativeMissingError:
        if how == "native":
            raise
        return Sockets()

"""What a fork does to whatever only one process may use.

A child has a copy of its parent's memory and shares its descriptors, but has none of its threads: only that which forked goes on. What it
copied must neither be used nor cleaned up there. Who has such a thing has it watched; in each child it is told.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Watched", "keep_for_ever", "let_go", "undisturbed", "watch"]

logger = logging.getLogger(__name__)


class Watched(Protocol):
    """What belongs to one process."""

    def forked(self, owner: int) -> None:
        """Know that this process is a child, and that process `owner` goes on using what this is a copy of; wait for nothing here."""


_pid = os.getpid()
_watched: WeakSet[Watched] = WeakSet()
_locks: WeakSet[threading.Lock] = WeakSet()
# One fork at a time, and what it holds meanwhile.
_forking = threading.Lock()
_taken: list[threading.Lock] = []


def watch(thing: Watched) -> None:
    """Have something told in every child that is forked while it exists."""
    _watched.add(thing)


def undisturbed() -> threading.Lock:
    """Return a lock while which is held nobody forks: for calls of a library whose own locks a child would find taken for ever."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def keep_for_ever(thing: object) -> None:
    """Never let something be destroyed, not even when the interpreter exits: its destructor would reach what the parent uses."""
    import ctypes  # noqa: PLC0415 - only who forks needs it

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def let_go(descriptors: Iterable[int]) -> None:
    """Close what a child shares with its parent, but keep the numbers taken: their copies' owners will close those."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _before() -> None:
    _forking.acquire()
    if _watched:
        # An import that another thread is amid could never end in the child.
        import ctypes  # noqa: F401, PLC0415 - see above
    for lock in list(_locks):
        lock.acquire()
        _taken.append(lock)


def _after() -> None:
    while _taken:
        _taken.pop().release()
    if _forking.locked():
        _forking.release()


def _after_in_child() -> None:
    global _pid
    _after()
    owner, _pid = _pid, os.getpid()
    for thing in list(_watched):
        try:
            thing.forked(owner)
        except Exception:
            logger.exception("%r does not know that it was copied by a fork", thing)
    _watched.clear()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)

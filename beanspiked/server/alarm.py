"""Lets an event loop call the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from beanspiked.engine.timers import NEVER
from beanspiked.server.broker import Broker
from beanspiked.server.contract import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.server.poller import Poller

__all__ = ["AnyLoop", "LoopAlarm"]


class AnyTimer(Protocol):
    """A call that is due at a time."""

    def cancel(self) -> None:
        """Cancel the call."""


class AnyLoop(Protocol):
    """The part of an event loop that a server needs. asyncio's and our own have it."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call in the next turn."""

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> object:
        """Call in the next turn; from any thread."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> AnyTimer:
        """Call after this many seconds."""


class LoopAlarm(Alarm):
    """Calls the broker from an event loop.

    Attributes:
        pollers: The sockets that are read before due timers run.
    """

    def __init__(self, loop: AnyLoop, broker: Broker) -> None:
        self.pollers: list[Poller] = []
        self._loop = loop
        self._broker = broker
        self._timer: AnyTimer | None = None

    def set(self, at: float) -> None:
        """Call at this time; replaces an earlier one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at < NEVER:
            # Some loops round to milliseconds. A call that comes too early would find nothing due.
            self._timer = self._loop.call_later(max(0.0, at - self._broker.now()) + 0.0006, self._broker.on_alarm)

    def soon(self) -> None:
        """Call in the next turn."""
        self._loop.call_soon(self._broker.on_alarm)

    def hear(self) -> None:
        """Read all sockets."""
        for poller in self.pollers:
            poller.hear_all()

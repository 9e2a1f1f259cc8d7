"""How an asyncio event loop calls the broker."""

import asyncio

from beanspiked.engine.timers import NEVER
from beanspiked.server.broker import Alarm, Broker

__all__ = ["LoopAlarm"]


class LoopAlarm(Alarm):
    """Calls the broker from an asyncio event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, broker: Broker) -> None:
        self._loop = loop
        self._broker = broker
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Call at this time; replaces an earlier one."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if at < NEVER:
            # Loops of milliseconds round: a call that comes early would find nothing due.
            self._handle = self._loop.call_later(max(0.0, at - self._broker.now()) + 0.0006, self._broker.on_alarm)

    def soon(self) -> None:
        """Call in the next turn."""
        self._loop.call_soon(self._broker.on_alarm)

"""One front-end's event loop, clock, alarm and network in a simulated cluster."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from beanspiked.engine.timers import NEVER, Clock
from beanspiked.server.broker import Broker
from beanspiked.server.contract import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import FrontEnd, World


class SimHandle:
    """A call that a loop will make. Nothing here uses contexts, so it keeps none."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback, self.args = None, ()


class SimLoop(asyncio.AbstractEventLoop):
    """The part of an event loop that tasks, futures and timers need."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ready: deque[SimHandle] = deque()
        self.later: list[tuple[float, int, SimHandle]] = []
        self.frozen_until = 0.0
        self.dead = False
        self.errors: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.world.time

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> SimHandle:  # noqa: ARG002
        handle = SimHandle(callback, args)
        self.ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> SimHandle:  # noqa: ARG002
        handle = SimHandle(callback, args)
        heapq.heappush(self.later, (when, self.world.next(), handle))
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> SimHandle:  # noqa: ARG002
        return self.call_at(self.world.time + delay, callback, *args)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)


class SimClock(Clock):
    """A front-end's own clock, which differs a little from the world's."""

    def __init__(self, world: World, skew: float) -> None:
        self.world = world
        self.skew = skew

    def now(self) -> float:
        return 1_700_000_000.0 + self.world.time + self.skew


class SimAlarm(Alarm):
    """Calls the broker from a simulated loop."""

    def __init__(self, loop: SimLoop, broker: Broker, clock: SimClock) -> None:
        self.loop = loop
        self.broker = broker
        self.clock = clock
        self.handle: SimHandle | None = None

    def set(self, at: float) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        if at < NEVER:
            self.handle = self.loop.call_later(max(0.0, at - self.clock.now()) + 0.0006, self.broker.on_alarm)

    def soon(self) -> None:
        self.loop.call_soon(self.broker.on_alarm)


class SimWire:
    """One end of a connection between two front-ends. Bytes arrive later, in order, unless the way is cut."""

    def __init__(self, front_end: FrontEnd, end: Any) -> None:
        self.front_end = front_end
        self.end = end
        self.other: SimWire
        self.closed = False
        self.silent = False
        self._arrives_at = 0.0

    def write(self, data: bytes) -> None:
        world = self.front_end.world
        if self.closed or self.silent or world.time < world.cut_until:
            # A connection hangs after its first loss: nothing more arrives.
            self.silent = True
            return
        self._arrives_at = max(self._arrives_at, world.time + world.link_chance.uniform(0.00005, 0.0004))
        world.at(self._arrives_at, partial(self.other.deliver, data))

    def deliver(self, data: bytes) -> None:
        if not self.closed:
            self.front_end.loop.call_soon(self._received, data)

    def _received(self, data: bytes) -> None:
        if not self.closed:
            self.end.data_received(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        if not self.closed:
            self.lose()
            if not self.silent:
                self.front_end.world.at(self.front_end.world.time + 0.0002, self.other.lose)

    def lose(self) -> None:
        if not self.closed:
            self.closed = True
            self.front_end.loop.call_soon(self.end.connection_lost, None)


class SimNetwork:
    """One front-end's way to the others; see Network."""

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self.accept: Callable[[], Any] | None = None
        self.wires: list[SimWire] = []

    async def listen(self, accept: Callable[[], Any]) -> str:
        world = self.front_end.world
        if not world.links:
            return ""
        self.accept = accept
        address = f"front-end-{len(world.listeners)}"
        world.listeners[address] = self
        return address

    async def dial(self, address: str, end: Callable[[], Any]) -> None:
        world = self.front_end.world
        await asyncio.sleep(world.link_chance.uniform(0.0001, 0.0008))
        called = world.listeners.get(address)
        if called is None or called.accept is None or called.front_end.loop.dead or world.time < world.cut_until:
            raise OSError(f"{address} does not answer")
        mine, theirs = SimWire(self.front_end, end()), SimWire(called.front_end, called.accept())
        mine.other, theirs.other = theirs, mine
        for wire in (mine, theirs):
            network = wire.front_end.network
            network.wires = [kept for kept in network.wires if not kept.closed]
            network.wires.append(wire)
        mine.end.connection_made(mine)
        called.front_end.loop.call_soon(theirs.end.connection_made, theirs)

    def close(self) -> None:
        self.accept = None

    def die(self) -> None:
        """End after a kill: the kernel hangs up, or the whole machine is gone."""
        world = self.front_end.world
        silent = world.link_chance.random() < 0.5
        for wire in self.wires:
            if not wire.closed and not silent:
                world.at(world.time + 0.0002, wire.other.lose)
            wire.closed = True

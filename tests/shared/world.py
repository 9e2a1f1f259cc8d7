"""A whole cluster in one thread: front-ends with their clients, a store, a network that fails, and a virtual clock.

Every front-end has an event loop of its own, so that a test can kill or freeze it between any two steps. One seeded source of chance
decides which step runs next, how long it takes and which step fails. So the same seed is the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from memory import Cluster, MemoryStore
from world_client import Client
from world_loop import SimAlarm, SimClock, SimLoop, SimNetwork

from beanspiked.engine.aerospike.engine import SharedEngine
from beanspiked.engine.aerospike.segment.codec import FORMATS, Formats
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot
from beanspiked.engine.aerospike.store.seam import READY, Busy, Outcome, StoreError, Unknown
from beanspiked.engine.timers import NEVER, Timers
from beanspiked.server.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memory_sessions import SessionState


TIMEOUT = 0.3
# A record takes about ten writes in a millisecond, and twenty may wait for it.
PENDING_MAX = 30


class Faults:
    """The faults on the way to the store and back, each as a chance for one operation.

    Attributes:
        lost: Never applied, and not answered.
        unanswered: Applied, and not answered.
        late: Not answered, and applied up to `latest` seconds later.
        busy: Refused.
    """

    def __init__(
        self, lost: float = 0.0, unanswered: float = 0.0, late: float = 0.0, busy: float = 0.0, latest: float = 3.0
    ) -> None:
        self.lost = lost
        self.unanswered = unanswered
        self.late = late
        self.busy = busy
        self.latest = latest


class World:
    """The clock, the source of chance, the store, and all front-ends and clients."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        records: int = 1 << 14,
        store_class: type[MemoryStore] = MemoryStore,
        cluster_class: type[Cluster] = Cluster,
        latency: tuple[float, float] = (0.0001, 0.0008),
        links: bool = True,
    ) -> None:
        self.links = links
        self.link_chance = random.Random(seed + 1)
        self.listeners: dict[str, SimNetwork] = {}
        self.cut_until = 0.0
        self.latency = latency
        self.seed = seed
        self.store_class = store_class
        self.chance = random.Random(seed)
        self.time = 0.0
        self.faults = faults or Faults()
        self.cluster = cluster_class(
            lambda: round(1_700_000_000_000 + self.time * 1000), records, pending_max=PENDING_MAX
        )
        self.front_ends: list[FrontEnd] = []
        self.loops: list[SimLoop] = []  # of those that live
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.down_until = 0.0
        self.steps = 0
        self.left: dict[int, float] = {}
        self._sequence = 0
        self._running: SimLoop | None = None

    def next(self) -> int:
        self._sequence += 1
        return self._sequence

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, self.next(), event))

    def front_end(self, skew: float = 0.0, formats: Formats = FORMATS) -> FrontEnd:
        made = FrontEnd(self, skew, formats)
        if len(self.front_ends) % 2:
            made.broker.linger_from = 1  # its clients stay in their tubes between reserves
        self.front_ends.append(made)
        self.loops.append(made.loop)
        return made

    # --- the network

    def cut(self, when: float, seconds: float) -> None:
        """Lose the bytes between front-ends for a while. Connections that are used meanwhile hang."""

        def begin() -> None:
            self.cut_until = max(self.cut_until, self.time + seconds)

        self.at(when, begin)

    def send(self, loop: SimLoop, name: str, operation: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = loop.create_future()
        chance = self.chance
        faults = self.faults
        there = chance.uniform(*self.latency)
        back = chance.uniform(*self.latency)

        def answer(value: Any, error: BaseException | None) -> None:
            if not loop.dead and not future.done():
                loop.call_soon(_answer, future, value, error)

        def arrive() -> None:
            if self.time < self.down_until:
                if chance.random() < 0.5:
                    self.at(self.time + back, lambda: answer(None, Busy("the node is down")))
                else:
                    self.at(self.time + TIMEOUT, lambda: answer(None, Unknown("no answer")))
                return
            value, error = self.apply(operation)
            self.at(self.time + back, lambda: answer(value, error))

        draw = chance.random()
        if draw < faults.lost:
            self.at(self.time + TIMEOUT, lambda: answer(None, Unknown(f"{name} was lost")))
        elif draw < faults.lost + faults.unanswered:
            self.at(self.time + there, lambda: self.apply(operation))
            self.at(self.time + TIMEOUT, lambda: answer(None, Unknown(f"{name} was not answered")))
        elif draw < faults.lost + faults.unanswered + faults.late:
            self.at(self.time + TIMEOUT, lambda: answer(None, Unknown(f"{name} is late")))
            self.at(self.time + TIMEOUT + chance.uniform(0, faults.latest), lambda: self.apply(operation))
        elif draw < faults.lost + faults.unanswered + faults.late + faults.busy:
            self.at(self.time + back, lambda: answer(None, Busy(f"{name} found it busy")))
        else:
            self.at(self.time + there, arrive)
        return future

    def apply(self, operation: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """Apply an operation to the store, and note which ready jobs it takes."""
        value, error = _apply(partial(self._arrive, operation))
        if isinstance(operation, partial) and error is None:
            arguments = operation.args
            keys: list[bytes] = []
            if isinstance(value, Outcome):
                keys = [key for key, _ in value.taken]
            elif len(arguments) > 2 and arguments[1] == READY:
                keys = arguments[2] if isinstance(arguments[2], list) else [arguments[2]]
            for key in keys:
                self.left[arguments[0] << SLOT_BITS | job_slot(key)] = self.time
        return value, error

    def _arrive(self, operation: Callable[[], Any]) -> Any:
        self.cluster.arrive(operation)
        return operation()

    # --- time

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stop early when `until` holds, and tell whether it did."""
        end = self.time + seconds
        with self._loops_in_turn():
            while True:
                while self._step():
                    pass
                if until is not None and until():
                    return True
                when = self.next_time()
                if when > end:
                    self.time = end
                    return until is not None and until()
                self.time = max(self.time, when)

    def next_time(self) -> float:
        when = self.events[0][0] if self.events else NEVER
        for loop in self.loops:
            if loop.ready:
                when = min(when, max(loop.frozen_until, self.time))
            elif loop.later and loop.later[0][0] < when:
                when = min(when, max(loop.later[0][0], loop.frozen_until))
        return when

    def step(self) -> bool:
        """Run one step that can run now; tell whether there was one."""
        with self._loops_in_turn():
            return self._step()

    @contextlib.contextmanager
    def _loops_in_turn(self) -> Iterator[None]:
        """Restore the running loop in the end. To change it is a system call, so steps of the same loop leave it."""
        before, self._running = asyncio._get_running_loop(), None
        try:
            yield
        finally:
            asyncio._set_running_loop(before)
            self._running = None

    def _step(self) -> bool:
        now = self.time
        events = self.events
        while events and events[0][0] <= now:
            heapq.heappop(events)[2]()
        able = []
        for loop in self.loops:
            if loop.frozen_until > now:
                continue
            later = loop.later
            while later and later[0][0] <= now:
                loop.ready.append(heapq.heappop(later)[2])
            if loop.ready:
                able.append(loop)
        if not able:
            return False
        loop = able[0] if len(able) == 1 else self.chance.choice(able)
        handle = loop.ready.popleft()
        if handle.callback is not None:
            self.steps += 1
            if loop is not self._running:
                asyncio._set_running_loop(loop)
                self._running = loop
            try:
                handle.callback(*handle.args)
            except Exception as error:
                raise AssertionError(f"seed {self.seed}: {handle.callback}") from error
            if loop.errors:
                raise AssertionError(f"seed {self.seed}: {loop.errors[0]}")
        return True


def _apply(operation: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return operation(), None
    except StoreError as error:
        return None, error
    except KeyError as error:
        raise AssertionError("a front-end moves what its lease does not hold") from error


def _answer(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


class FrontEnd:
    """One server without sockets, which knows some formats."""

    def __init__(self, world: World, skew: float, formats: Formats = FORMATS) -> None:
        self.world = world
        self.formats = formats
        self.loop = SimLoop(world)
        self.clock = SimClock(world, skew)
        self.timers = Timers(self.clock)
        self.broker = Broker(self.timers, 65535, "test")
        self.broker.alarm = SimAlarm(self.loop, self.broker, self.clock)
        self.store = world.store_class(world.cluster, self._transport)
        self.store.newest = formats.newest
        self.network = SimNetwork(self)
        self.clients: list[Client] = []
        self.leaving = False
        self.engine: SharedEngine
        self.inside(self._start)

    def _start(self) -> None:
        self.engine = SharedEngine(
            self.timers,
            self.broker,
            self.store,
            self.broker.end_turn,
            lambda: self.world.time,
            random.Random(self.world.chance.random()),
            self.network,
            self.formats,
        )
        self.broker.engine = self.engine
        self.engine.start()

    async def _transport(self, name: str, operation: Callable[[], Any]) -> Any:
        return await self.world.send(self.loop, name, operation)

    def inside(self, function: Callable[[], None]) -> None:
        """Make a call as this front-end's event loop would."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            function()
        finally:
            asyncio._set_running_loop(before)

    def connect(self) -> Client:
        made = Client(self)
        self.clients.append(made)
        return made

    def kill(self) -> None:
        if not self.loop.dead:
            self.loop.dead = True
            self.world.loops.remove(self.loop)
        self.network.die()
        for client in self.clients:
            client.is_closed = True

    def freeze(self, seconds: float) -> None:
        self.loop.frozen_until = self.world.time + seconds

    def befall(self, what: str, chance: random.Random) -> None:
        """Let something fail for a while: this front-end ("freeze", "long freeze") or the store of all ("store")."""
        if what == "freeze":
            self.freeze(chance.uniform(0.1, 3))
        elif what == "long freeze":
            self.freeze(chance.uniform(5, 25))
        else:
            self.world.down_until = self.world.time + chance.uniform(0.1, 9)

    def leave(self) -> None:
        """Hang up on all clients, and stop in order; then the process ends."""
        for client in self.clients:
            if not client.is_closed:
                client.hang_up()
        self.close()
        self.world.at(self.world.time + 2.0, self.kill)

    def close(self) -> None:
        """Stop in order."""
        self.leaving = True
        self.inside(lambda: self.engine.close() and None)


def session_of(world: World, number: int) -> SessionState:
    """Return the record of the session, which must have one."""
    record = world.cluster.session(number)
    assert record is not None
    return record

"""The inside of a program's connection to a store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from beanspiked.engine import forks
from beanspiked.engine.compression import squeeze
from beanspiked.engine.contract import GIVEN_UP, PLAIN, Answer
from beanspiked.engine.futures import end_of, seen_by, value_of
from beanspiked.engine.timers import NEVER, Timers
from beanspiked.library.errors import ConnClosed, ConnForked
from beanspiked.library.job_info import checked_whole
from beanspiked.library.loops import part_from
from beanspiked.library.metrics import Guarded, Metrics
from beanspiked.server.alarm import LoopAlarm
from beanspiked.server.broker import Broker
from beanspiked.server.clock import MonotonicClock
from beanspiked.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.contract import TubeEngine
    from beanspiked.engine.later import Later

__all__ = ["Core", "OfOneProcess"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Looked = TypeVar("Looked", bound=Answer | None)


class OfOneProcess:
    """Base of objects that cannot be sent to another process."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: connect in the process that needs one")


class Held(Protocol):
    """A job that this program holds, as its connection sees it."""

    def give_back(self) -> None:
        """Make the job ready as it was, at once and without an outcome."""

    def tell_lost(self) -> None:
        """Tell the program that the job is lost."""

    def forked(self) -> None:
        """Learn that the job belongs to the parent, which this process was forked from."""


class Waiting(Protocol):
    """A call that waits for jobs, as its connection sees it."""

    def stop(self, error: Exception) -> None:
        """Learn that the connection is closed."""


class Core:
    """A broker and an engine in an event loop, with this program's held jobs and waiting calls.

    Args:
        client_id: The connection's name in logs.
        metrics: Counts and times the operations.
        max_job_size: The largest body, in bytes.

    Attributes:
        broker: Shared by all users of the connection in this process; set once the connection is open.
        loop: The event loop; likewise.
        alarm: Calls the broker from the event loop; likewise.
        held: The jobs that this program holds.
        waiting: The calls that wait for jobs.
        closed: Whether the connection is closed.
        owner: In the child of a fork, the process that the connection belongs to; 0 in that process itself.
    """

    broker: Broker
    loop: asyncio.AbstractEventLoop
    alarm: LoopAlarm

    def __init__(self, client_id: str, metrics: Metrics, max_job_size: int) -> None:
        self.client_id: str = client_id
        self.metrics: Metrics = Guarded(metrics)
        self.held: dict[Held, None] = {}
        self.waiting: dict[Waiting, None] = {}
        self.closed: bool = False
        self.owner: int = 0
        self._max_job_size = max_job_size
        self._ready = False
        self._turning = False
        self._ids_low = False
        self._closers: dict[Callable[[], Awaitable[None]], None] = {}
        self._closing: asyncio.Task[None] | None = None
        # Whether the store is being left. `closed` may be true before, if `close` came while it was opened.
        self._leaving = False
        self._awaited: set[asyncio.Future[Any]] = set()

    # --- opening and closing

    async def open(self, start: Callable[[Broker, Timers, Callable[[], None]], Awaitable[TubeEngine]]) -> None:
        """Make an engine and start it.

        Raises:
            StoreUnusable: The caller may try again.
            ConnClosed: The connection was closed before this, or meanwhile.
        """
        self._check_not_closed()
        self.loop = asyncio.get_running_loop()
        timers = Timers(MonotonicClock())
        self.broker = Broker(timers, self._max_job_size, __version__)
        self.alarm = LoopAlarm(self.loop, self.broker)
        forks.watch(self)
        self.broker.alarm = self.alarm
        self.broker.engine = await start(self.broker, timers, self._news)
        self._ready = True
        self.broker.on_alarm()
        if self.closed:
            await self.close()
            self._check_not_closed()

    def check_open(self) -> None:
        """Raise ConnClosed unless the connection is open, and RuntimeError in another event loop."""
        self.check_usable()
        self._check_loop()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(f"{self.client_id} belongs to the event loop in which it was opened")

    def check_usable(self) -> None:
        """Raise ConnClosed unless the connection is open."""
        self._check_not_closed()
        if not self._ready:
            raise ConnClosed(f"{self.client_id}: not open yet")

    def _check_not_closed(self) -> None:
        if self.closed:
            self.check_process()
            raise ConnClosed(f"{self.client_id}: closed")

    def check_process(self) -> None:
        """Raise ConnForked in another process."""
        if self.owner:
            raise ConnForked(self.client_id, self.owner)

    def before_close(self, closer: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Call a function at the beginning of `close`; return a function that undoes this."""
        self._closers[closer] = None

        def forget() -> None:
            self._closers.pop(closer, None)

        return forget

    async def close(self) -> None:
        """Give all held jobs back, end the waiting calls, finish the changes on their way, and leave the store.

        In the child of a fork do nothing.
        """
        if self.owner:
            return
        if not self._ready:
            self.closed = True
            return
        self._check_loop()
        if self._closing is None:
            # In a task of its own: a caller may be cancelled, or this may close the caller itself.
            self._closing = self.loop.create_task(self._close())
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            # The end of asyncio.run cancels all tasks, that one as well, and perhaps before it begins.
            if self._closing.cancelling() and not self._leaving:
                await self._close()
            raise

    async def _close(self) -> None:
        while self._closers:
            closer = next(iter(self._closers))
            self._closers.pop(closer)
            try:
                await closer()
            except Exception:
                logger.exception("%s: what was to be called before its close failed", self.client_id)
        self.check_process()
        if self._leaving:
            return
        self.closed = self._leaving = True
        for call in list(self.waiting):
            call.stop(ConnClosed(f"{self.client_id}: closed"))
        for hold in list(self.held):
            hold.give_back()
            hold.tell_lost()
        self.broker.end_turn()
        closed = self.broker.engine.close()
        if closed is not None:
            await self.wait(value_of(closed, self.loop))
        self.broker.alarm = None

    def forked(self, owner: int) -> None:
        """See forks.Watched. In the child, end everything that would go on by itself."""
        self.owner = owner
        self.closed = True
        part_from(self.loop)
        if self.broker.alarm is not None:
            self.broker.alarm.set(NEVER)
            self.broker.alarm = None
        for hold in self.held:
            hold.forked()
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._forsake)

    def _forsake(self) -> None:
        """End the waiting calls: only the parent gets their answers, and a child may go on with its copy of the event loop."""
        for future in list(self._awaited):
            if not future.done():
                future.set_exception(ConnForked(self.client_id, self.owner))
        for hold in list(self.held):
            hold.tell_lost()

    # --- turns

    def turn(self) -> None:
        """Send the requests to the store once all tasks that are ready have run."""
        if not self._turning:
            self._turning = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self.broker.end_turn()

    def _news(self) -> None:
        """Run a turn because outcomes have come from the store. Before the connection is open, no call waits for any."""
        if self._ready:
            self.broker.end_turn()

    # --- outcomes

    async def wait(self, future: asyncio.Future[Result]) -> Result:
        """Wait for the store's answer. Raises ConnForked in the child of a fork."""
        self._awaited.add(future)
        try:
            return await future
        finally:
            self._awaited.discard(future)

    async def ended(self, later: Later) -> None:
        """Wait until an outcome is known. Another call reports it."""
        future = end_of(later, self.loop)
        self.turn()
        await self.wait(future)

    async def done(self, later: Later | None, event: str, tube: str) -> int:
        """Wait for an outcome and count it; return its value, or 0 without one. Raises EngineError."""
        self.turn()
        began = self.loop.time()
        value = 0 if later is None else await self.wait(value_of(later, self.loop))
        if event:
            self.metrics.count(event, tube, 1)
            self.metrics.timing(event, tube, self.loop.time() - began)
        return value

    async def look(self, look: Looked, read: Callable[[Looked], Result]) -> Result:
        """Read the answer of a look as soon as it is there; the answer may be None. Raises StoreFailed."""
        self.check_open()
        if look is None:
            return read(look)
        self.turn()
        return await self.wait(seen_by(look, self.loop, lambda: read(look)))

    async def by_id(self, job_id: int, need: int, read: Callable[[EngineJob | None], Result]) -> Result:
        """Read a job, or the needed part of it, once this process has no change of it on its way."""
        self.check_open()
        engine = self.broker.engine
        job_id = checked_whole(job_id, "job_id")
        while (change := engine.in_flight(job_id)) is not None:
            await self.ended(change)
            if engine.shared and change.error is not None:
                raise change.error
        look = engine.look_job(job_id, need)
        return await self.look(look, lambda answer: read(engine.find_job(job_id) if answer is None else answer.job))

    # --- bodies and ids

    def stored(self, body: bytes, compress: bool) -> tuple[bytes, int]:
        """Return a body as it is stored, and its size before compression as engines note it. Raises ValueError."""
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        if len(body) > self._max_job_size:
            raise ValueError(f"body: at most {self._max_job_size} bytes, not {len(body)}")
        if not compress:
            return body, PLAIN
        stored, raw_size, skipped = squeeze(body)
        return stored, GIVEN_UP if skipped else raw_size

    def ids_low(self, tube: str, job_id: int) -> None:
        """Warn that two thirds of all ids are used up."""
        self.metrics.count("ids.low", tube, 1)
        if not self._ids_low:
            self._ids_low = True
            logger.warning(
                "%s: two thirds of all ids are used up, the last one is %d; move the jobs to a new store in good time",
                self.client_id,
                job_id,
            )

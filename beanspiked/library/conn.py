"""A program's connection to a store, and how it is made."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, TypeVar, Unpack

from beanspiked import __version__
from beanspiked.engine.compression import squeeze
from beanspiked.engine.contract import BURIED, DELAYED, GIVEN_UP, PLAIN, RESERVED
from beanspiked.engine.errors import JobGone, StoreUnusable
from beanspiked.engine.timers import Timers
from beanspiked.library.errors import ConnClosed, JobNotFound
from beanspiked.library.job import Hold, Job, JobInfo
from beanspiked.library.metrics import Metrics, NoMetrics
from beanspiked.library.retry import Retry
from beanspiked.library.tube import Tube, not_kickable
from beanspiked.protocol.parser import valid_tube_name
from beanspiked.server.alarm import LoopAlarm
from beanspiked.server.broker import Broker
from beanspiked.server.clock import MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from types import TracebackType

    from beanspiked.engine.aerospike.url import StoreAddress
    from beanspiked.engine.contract import Job as EngineJob
    from beanspiked.engine.contract import TubeEngine
    from beanspiked.engine.later import Later
    from beanspiked.library.reservation import Reservation

__all__ = ["Conn", "connect", "dial", "dial_default"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MEMORY: Final = "memory:"
SQLITE: Final = "sqlite:"
# What go-beanspike falls back to.
DEFAULT_HOST: Final = "aerospike"
# As much as a namespace takes whose max-record-size is the default of 1 MiB.
MAX_JOB_SIZE: Final = 960 * 1024
NO_RETRY: Final = Retry(attempts=1)
# A store that cannot be reached is complained of once in so many tries.
COMPLAIN_EVERY: Final = 20
_numbers = itertools.count(1)


def connect(
    url: str,
    *,
    client_id: str | None = None,
    retry: Retry | None = None,
    put_retry: Retry | None = None,
    metrics: Metrics | None = None,
    max_job_size: int = MAX_JOB_SIZE,
) -> Conn:
    """Connect to a store: to be entered with `async with`, or awaited and closed later.

    Args:
        url: `memory:` (jobs of this process, gone with it), `sqlite:DIR` (a durable journal in a directory, of one process at a time) or
            `aerospike://[USER:PASS@]HOST[:PORT][,HOST...]/NAMESPACE[?prefix=NAME&tls=true]` (shared by any number of processes).
        client_id: What this client is called in logs; host, process and a number by default.
        retry: How often to try to connect; once by default. Cancelling the wait ends it.
        put_retry: How often to try a put; once by default.
        metrics: What counts and times what is done.
        max_job_size: The largest body, in bytes.

    Raises:
        ValueError: The URL cannot be understood.
    """
    return Conn(_store_of(url), client_id, retry, put_retry, metrics, max_job_size)


def dial(host: str, port: int = 3000, namespace: str = "beanspike", **options: Unpack[Options]) -> Conn:
    """Connect to an Aerospike cluster by one of its nodes; options as with `connect`."""
    return connect(f"aerospike://{f'[{host}]' if ':' in host else host}:{port}/{namespace}", **options)


def dial_default(environ: Mapping[str, str] | None = None, **options: Unpack[Options]) -> Conn:
    """Connect as go-beanspike's DialDefault does: where AEROSPIKE_HOST and AEROSPIKE_PORT say, else at `aerospike:3000`.

    The port may be what Docker sets for a linked container, `tcp://172.17.0.5:3000`. AEROSPIKE_NAMESPACE names another namespace than
    `beanspike`. Options as with `connect`.

    Raises:
        ValueError: A variable cannot be understood; the text names it.
    """
    from beanspiked.engine.aerospike.url import from_environment  # noqa: PLC0415 - loaded where it is used

    address = from_environment(os.environ if environ is None else environ, DEFAULT_HOST)
    assert address is not None
    return Conn(address, **options)


class Options(TypedDict, total=False):
    """What every way to connect takes; see `connect`."""

    client_id: str | None
    retry: Retry | None
    put_retry: Retry | None
    metrics: Metrics | None
    max_job_size: int


class Conn:
    """A connection to a store; made by `connect`, `dial` or `dial_default`.

    It belongs to the event loop in which it was opened. Its tubes may be used by any number of tasks at once; what they ask for at the
    same moment goes to the store together.

    Attributes:
        client_id: What it is called in logs.
        put_retry: How often a put is tried; None for once.
        metrics: What counts and times what is done.
        broker: What everything in this process that uses the store shares.
        held: The jobs that this program holds.
        waiting: The calls that wait for jobs.
    """

    broker: Broker
    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        store: StoreAddress | str | None,
        client_id: str | None = None,
        retry: Retry | None = None,
        put_retry: Retry | None = None,
        metrics: Metrics | None = None,
        max_job_size: int = MAX_JOB_SIZE,
    ) -> None:
        self.client_id: str = client_id or f"{socket.gethostname()}:{os.getpid()}:{next(_numbers)}"
        self.put_retry: Retry | None = put_retry
        self.metrics: Metrics = metrics or NoMetrics()
        self.held: dict[Job, None] = {}
        self.waiting: dict[Reservation, None] = {}
        self._store = store
        self._retry = retry or NO_RETRY
        self._max_job_size = max_job_size
        self._tubes: dict[str, Tube] = {}
        self._turning = False
        self._opened = False
        self._ready = False
        self._closed = False
        self._ids_low = False
        self._closers: list[Callable[[], Awaitable[None]]] = []

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._ready else "not open yet"
        return f"<Conn {self.client_id}, {state}>"

    # --- its life

    def __await__(self) -> Generator[Any, None, Conn]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Conn:
        """Connect, as often as it was asked for.

        Raises:
            StoreUnusable: The store cannot be reached or used.
        """
        if self._opened:
            raise ValueError("a connection is opened once")
        self._opened = True
        self.loop = asyncio.get_running_loop()
        timers = Timers(MonotonicClock())
        self.broker = Broker(timers, self._max_job_size, __version__)
        self.broker.alarm = LoopAlarm(self.loop, self.broker)
        tries = 0
        while True:
            tries += 1
            try:
                self.broker.engine = await self._start(timers)
            except StoreUnusable as error:
                if not self._retry.more(tries):
                    raise
                if tries % COMPLAIN_EVERY == 1:
                    logger.warning("%s: not connected after %d tries: %s", self.client_id, tries, error)
                await asyncio.sleep(self._retry.pause(tries))
            else:
                self._ready = True
                self.broker.on_alarm()
                return self

    async def _start(self, timers: Timers) -> TubeEngine:
        broker = self.broker
        if self._store is None or isinstance(self._store, str):
            from beanspiked.engine.embedded.start import start  # noqa: PLC0415 - only the store that is used is loaded

            return start(_made(self._store), 0, timers, broker, self._now)
        from beanspiked.engine.aerospike.start import connect  # noqa: PLC0415 - likewise

        return await connect(self._store, timers, broker, self._now, self._max_job_size)

    @property
    def closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self._closed

    def check_open(self) -> None:
        """Raise ConnClosed unless it is open."""
        if self._closed or not self._ready:
            raise ConnClosed(f"{self.client_id}: {'closed' if self._closed else 'not open yet'}")

    async def close(self) -> None:
        """Give all held jobs back, end the calls that wait, finish what is on its way, and leave the store."""
        if self._closed or not self._ready:
            return
        closers, self._closers = self._closers, []
        for closer in closers:
            await closer()
        self._closed = True
        for reservation in list(self.waiting):
            reservation.stop(ConnClosed(f"{self.client_id}: closed"))
        for job in list(self.held):
            job.give_back()
            job.told_lost()
        engine = self.broker.engine
        for tube in self._tubes.values():
            tube.state.using -= 1
            engine.forget(tube.state)
        self.broker.end_turn()
        closed = engine.close()
        if closed is not None:
            await self._future(closed)
        self.broker.alarm = None

    def before_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Have something done first when the connection is closed."""
        self._closers.append(closer)

    # --- turns

    def turn(self) -> None:
        """Have what was asked for sent on when all tasks that can run now have run."""
        if not self._turning:
            self._turning = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self.broker.end_turn()

    def _now(self) -> None:
        """The store has news; before the connection is open nobody waits for any."""
        if self._ready:
            self.broker.end_turn()

    def _future(self, later: Later) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self.loop.create_future()

        def settled(outcome: Later) -> None:
            if not future.done():
                if outcome.error is None:
                    future.set_result(outcome.value)
                else:
                    future.set_exception(outcome.error)

        later.then(settled)
        return future

    async def done(self, later: Later | None, event: str, tube: str) -> int:
        """Wait for an outcome and count it; return its value, 0 where there is none. Raises EngineError."""
        self.turn()
        began = self.loop.time()
        value = 0 if later is None else await self._future(later)
        if event:
            self.metrics.count(event, tube, 1)
            self.metrics.timing(event, tube, self.loop.time() - began)
        return value

    async def look(self, look: Later | None, read: Callable[[], Result]) -> Result:
        """Return what is read when a look has ended: it holds no longer than its callback. Raises StoreFailed."""
        self.check_open()
        if look is None:
            return read()
        self.turn()
        future: asyncio.Future[Result] = self.loop.create_future()

        def looked(outcome: Later) -> None:
            if future.done():
                return
            try:
                if outcome.error is not None:
                    raise outcome.error
                future.set_result(read())
            except Exception as error:  # noqa: BLE001 - it is raised where the look was asked for
                future.set_exception(error)

        look.then(looked)
        return await future

    # --- bodies and ids

    def stored(self, body: bytes, compress: bool) -> tuple[bytes, int]:
        """Return a body as it is to be stored, and its size before compression as engines note it. Raises ValueError."""
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        if len(body) > self._max_job_size:
            raise ValueError(f"body: at most {self._max_job_size} bytes, not {len(body)}")
        if not compress:
            return body, PLAIN
        stored, raw_size, skipped = squeeze(body)
        return stored, GIVEN_UP if skipped else raw_size

    def ids_low(self, tube: str, job_id: int) -> None:
        """Warn: two thirds of all ids are gone."""
        self.metrics.count("ids.low", tube, 1)
        if not self._ids_low:
            self._ids_low = True
            logger.warning("%s: ids come near their end: %d", self.client_id, job_id)

    # --- tubes and jobs

    def use(self, name: str) -> Tube:
        """Return a tube; it exists from then on, for as long as this connection or a job needs it.

        Raises:
            ValueError: A name is 1 to 200 letters, digits or any of `-+/;.$_()`, and does not begin with `-` (protocol.txt).
        """
        self.check_open()
        tube = self._tubes.get(name)
        if tube is None:
            if not valid_tube_name(name.encode("utf-8", "replace")):
                raise ValueError(f"not a tube's name: {name!r}")
            state = self.broker.engine.tube(name)
            state.using += 1
            tube = Tube(self, name, state)
            self._tubes[name] = tube
        return tube

    async def tubes(self) -> list[str]:
        """List the names of all tubes that exist."""
        engine = self.broker.engine
        self.check_open()
        return await self.look(engine.look_all(), lambda: [tube.name for tube in engine.tubes()])

    async def delete_tube(self, name: str) -> None:
        """Delete all jobs of a tube, reserved ones included: their holders learn it as for any lost job.

        Raises:
            StoreFull, StoreFailed: Some may be left.
        """
        tube = self.use(name)
        await self.done(self.broker.engine.delete_tube(tube.state), "delete_tube", name)

    async def peek(self, job_id: int) -> JobInfo | None:
        """Look at a job of any state; None when there is none with this id."""
        return await self._by_id(job_id, lambda job: None if job is None else JobInfo.of(job, self.broker.now()))

    async def delete(self, job_id: int) -> bool:
        """Remove a job that this program holds or that nobody does. Returns whether that was this call's doing."""

        def delete(job: EngineJob | None) -> tuple[Later | None, Job | None, str]:
            if job is None:
                return None, None, ""
            if isinstance(job.holder, Hold) and job.holder.job in self.held:
                return None, job.holder.job, job.tube.name
            if job.state == RESERVED:
                return None, None, ""
            return self.broker.engine.delete(job), None, job.tube.name

        later, mine, tube = await self._by_id(job_id, delete)
        if mine is not None:
            return await mine.delete()
        if not tube:
            return False
        try:
            await self.done(later, "delete", tube)
        except JobGone:
            return False
        return True

    async def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready. Raises NotKickable and JobNotFound."""

        def kick(job: EngineJob | None) -> tuple[Later | None, str]:
            if job is None or job.state not in (BURIED, DELAYED):
                raise not_kickable(job, job_id)
            return self.broker.engine.kick_job(job), job.tube.name

        later, tube = await self._by_id(job_id, kick)
        try:
            await self.done(later, "kick", tube)
        except JobGone as error:
            raise JobNotFound(str(error)) from error

    async def _by_id(self, job_id: int, read: Callable[[EngineJob | None], Result]) -> Result:
        """Return what is made of a job, once no change of it is on its way that this process knows of."""
        engine = self.broker.engine
        self.check_open()
        while (change := engine.in_flight(job_id)) is not None:
            self.turn()
            # Its outcome is another's business.
            await asyncio.wait([self._future(change)])
        return await self.look(engine.look_job(job_id), lambda: read(engine.find_job(job_id)))


def _made(directory: str | None) -> str | None:
    """Return a journal's directory, made where it was missing; None for memory."""
    if directory is not None:
        try:
            Path(directory).mkdir(exist_ok=True)
        except OSError as error:
            raise StoreUnusable(f"{directory}: {error.strerror}") from error
    return directory


def _store_of(url: str) -> StoreAddress | str | None:
    """Read a store's URL: a cluster, a journal's directory, or None for memory. Raises ValueError."""
    if url == MEMORY:
        return None
    if url.startswith(SQLITE) and url != SQLITE:
        return url.removeprefix(SQLITE)
    from beanspiked.engine.aerospike.url import SCHEME, parse_address  # noqa: PLC0415 - loaded where it is used

    if not url.startswith(SCHEME):
        raise ValueError("a store is memory:, sqlite:DIR or aerospike://HOST/NAMESPACE")
    return parse_address(url)

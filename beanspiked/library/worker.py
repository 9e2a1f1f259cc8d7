"""A worker: reserves jobs, lets a handler work on them, and then deletes, releases or buries each."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
import signal
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from beanspiked.engine import forks
from beanspiked.library.core import OfOneProcess
from beanspiked.library.errors import ConnClosed, ConnForked, DecodingError, EngineError, JobLost
from beanspiked.library.job_info import MAX_SECONDS
from beanspiked.library.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType

    from beanspiked.library.job import Job
    from beanspiked.library.tube import Tube

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

Task = TypeVar("Task")

# go-beanspike's longest pause before another try is 2**10 seconds.
BACKOFF: Final = Retry(first=1.0, multiplier=2.0, longest=1024.0)
# The pause between two tries when the store fails, in seconds.
STORE_AGAIN: Final = Retry(first=0.1, longest=5.0)
MAX_REASON: Final = 1000
# These end the program. Any other error is the job's, even one that is no Exception: a panic of a module in Rust, for example.
NO_FAULTS: Final = (KeyboardInterrupt, SystemExit)

# The workers of this process that a signal stops, by signal.
_stoppers: dict[int, list[Callable[[], None]]] = {}
# The handlers that these signals had before.
_before: dict[int, Any] = {}


@contextlib.contextmanager
def _stopped_by(signals: tuple[signal.Signals, ...], stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when one of the signals comes. Only the main thread can do this."""
    loop = asyncio.get_running_loop()
    asked: list[int] = []
    for number in map(int, signals):
        with contextlib.suppress(ValueError, RuntimeError):
            if not _stoppers.get(number):
                # An event loop's handler cannot be put back: only its placeholder would be, which does nothing.
                loop.remove_signal_handler(number)
                before = signal.getsignal(number) or signal.SIG_DFL
                loop.add_signal_handler(number, _stop_all, number)
                _before[number] = before
            _stoppers.setdefault(number, []).append(stop)
            asked.append(number)
    try:
        yield
    finally:
        for number in asked:
            if stop in _stoppers.get(number, ()):
                _stoppers[number].remove(stop)
                if not _stoppers[number]:
                    loop.remove_signal_handler(number)
                    signal.signal(number, _before[number])


def _stop_all(number: int) -> None:
    for stop in list(_stoppers[number]):
        stop()


def _said(error: BaseException) -> str:
    """Return an error's kind and text. The text may be made by the program's own code, which may fail."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - whatever it is, it must not end the worker
        return type(error).__name__


def _leave_signals() -> None:
    """Give signals their default effect in the child of a fork. Otherwise they would only stop the parent's workers."""
    if any(_stoppers.values()):
        # Before 3.12 the child's signals are written to the parent's event loop.
        signal.set_wakeup_fd(-1)
    for number, stoppers in _stoppers.items():
        if stoppers:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _stoppers.clear()


class Worker(OfOneProcess, Generic[Task]):
    """Works on the jobs of a tube, several at a time.

    The decoder turns a job's body into the handler's argument, in the event loop. If it fails, the worker buries the job with the reason.
    When the handler returns, the worker deletes the job. When the handler raises, the worker releases the job for another try, with a
    longer delay each time; after `max_attempts` tries it buries the job with the reason. A handler may also delete, release or bury the
    job itself. While the handler works, the worker touches the job at half of its time to run. If the job is lost, it cancels the handler.
    Each handler runs in a task of its own; to cancel this task is to let the handler fail.

    Args:
        tube: The tube.
        handler: Called with the decoder's result and the job. One that is not `async` holds up the event loop, and with it the touches.
        decoder: Called with the body; raises DecodingError, or any other error, if the body is malformed. By default the handler gets
            the body.
        concurrency: How many handlers work at a time.
        max_attempts: How many tries a job has before the worker buries it, tries that timed out included; None for no limit.
        backoff: How long a job waits for its next try, by the number of its tries. The worker does not use its `attempts`.
        chance: Makes the pauses random.

    Raises:
        TypeError: The handler yields. Nobody would take what it yields, and so it would do nothing.
    """

    def __init__(
        self,
        tube: Tube,
        handler: Callable[[Task, Job], Awaitable[object]],
        *,
        decoder: Callable[[bytes], Task] | None = None,
        concurrency: int = 1,
        max_attempts: int | None = None,
        backoff: Retry = BACKOFF,
        chance: random.Random | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency: at least 1, not {concurrency}")
        if max_attempts is not None and max_attempts < 1:
            raise ValueError(f"max_attempts: at least 1, not {max_attempts}")
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError("handler: a function that yields does nothing when it is called; take out the yield")
        self._tube = tube
        self._handler = handler
        self._decoder = decoder
        self._concurrency = concurrency
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._chance = chance
        self._forget: Callable[[], None] = lambda: None
        self._takers: set[asyncio.Task[None]] = set()
        self._reserving: set[asyncio.Task[None]] = set()
        # Each handler's task, and the taker that waits for it.
        self._handling: dict[asyncio.Task[Any] | None, asyncio.Task[Any]] = {}
        self._stopping = asyncio.Event()
        self._started = False
        self._loop: asyncio.AbstractEventLoop

    # --- start and stop

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(grace=0.0 if kind is not None else None)

    def start(self) -> None:
        """Start the worker's tasks."""
        if self._started:
            raise ValueError("a worker is started once")
        self._check_open()
        self._started = True
        self._loop = asyncio.get_running_loop()
        forks.watch(self)
        self._forget = self._tube.conn.before_close(self._close_at_once)
        for number in range(self._concurrency):
            taker = asyncio.create_task(self._work_on(), name=f"worker of {self._tube.name} {number}")
            self._takers.add(taker)
            taker.add_done_callback(self._takers.discard)

    def _check_open(self) -> None:
        conn = self._tube.conn
        if conn.owner:
            raise ConnForked(conn.client_id, conn.owner)
        if conn.closed:
            raise ConnClosed(f"{conn.client_id}: closed")

    async def run(self, *, signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)) -> None:
        """Work until `stop` is called or a signal comes, then give the held jobs back.

        Args:
            signals: The signals that end it; only the main thread can ask for any. Afterwards their former handlers are back.
        """
        self._check_open()
        with _stopped_by(signals, self.stop):
            self.start()
            try:
                await self._stopping.wait()
                if self._tube.conn.owner:
                    self._check_open()
            finally:
                await self.close(grace=0.0)

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    async def close(self, grace: float | None = None) -> None:
        """Take no more jobs and let the handlers finish. Cancel handlers that take too long, and give their jobs back at once.

        Args:
            grace: How long handlers may take, in seconds; None for no limit. The call still waits for a handler that suppresses its
                cancellation.
        """
        if self._tube.conn.owner:
            return
        self._stopping.set()
        for taker in list(self._reserving):
            taker.cancel()
        # A handler may close its own worker, which must not wait for that handler.
        takers = self._takers - {self._handling.get(asyncio.current_task())}
        if takers and grace != 0:
            await asyncio.wait(takers, timeout=grace)
        for taker in takers:
            taker.cancel()
        if takers:
            await asyncio.wait(takers)
        # Only now: if this call is cancelled, the close of the connection ends the handlers.
        self._forget()

    def forked(self, owner: int) -> None:  # noqa: ARG002 - its connection says who it is
        """See forks.Watched. The parent's worker goes on, and the child's copy ends."""
        _leave_signals()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def _close_at_once(self) -> None:
        await self.close(grace=0.0)

    # --- jobs

    async def _work_on(self) -> None:
        """Reserve jobs and work on them, one at a time."""
        this = asyncio.current_task()
        assert this is not None
        failures = 0
        while not self._stopping.is_set():
            try:
                self._reserving.add(this)
                try:
                    job = await self._tube.reserve()
                finally:
                    self._reserving.discard(this)
                failures = 0
            except ConnClosed:
                return
            except EngineError as error:
                failures += 1
                logger.warning("%s: cannot reserve a job: %s; trying again", self._tube.name, error)
                self._reserving.add(this)
                try:
                    await asyncio.sleep(STORE_AGAIN.pause(failures, self._chance))
                finally:
                    self._reserving.discard(this)
                continue
            assert job is not None
            try:
                # A store in memory never waits, so other tasks get their turn here.
                await asyncio.sleep(0)
                await self._work(job)
            except ConnClosed:
                return
            finally:
                # No handler works on it any more.
                job.give_back()

    async def _work(self, job: Job) -> None:
        task: Any = job.body
        tried = job.retries + job.timeouts
        if self._max_attempts is not None and tried >= self._max_attempts:
            # Its last tries timed out, perhaps because workers died.
            await self._bury(job, f"tried {tried} times, of which {job.timeouts} took longer than its time to run")
            return
        if self._decoder is not None:
            try:
                task = self._decoder(job.body)
            except NO_FAULTS:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the decoder raises, the body is to blame
                text = str(error) if isinstance(error, DecodingError) else _said(error)
                logger.warning("job %d of %s cannot be decoded: %s", job.id, self._tube.name, text)
                await self._bury(job, text)
                return
        this = asyncio.current_task()
        assert this is not None
        # In a task of its own: whoever cancels a handler's task must not end this one.
        handling = asyncio.create_task(self._handle(task, job), name=f"job {job.id} of {self._tube.name}")
        self._handling[handling] = this
        stopped: asyncio.CancelledError | None = None
        try:
            await asyncio.wait([handling])
        except asyncio.CancelledError as error:
            stopped = error
            handling.cancel()
            await asyncio.wait([handling])
        finally:
            del self._handling[handling]
        if not handling.cancelled():
            # Its outcome counts though this task is to end: what it has done is not to be done again.
            await self._ended(job, handling.exception())
        elif stopped is None:
            # The handler was cancelled, or awaited something that was; this worker was not.
            await self._failed(job, asyncio.CancelledError())
        if stopped is not None:
            raise stopped

    async def _ended(self, job: Job, error: BaseException | None) -> None:
        """Delete a job whose handler has ended, or let it be tried again."""
        if isinstance(error, ConnForked):
            # The parent's handler has the job.
            raise error
        if isinstance(error, NO_FAULTS):
            # The event loop has raised it already. Raised again, it would end `asyncio.run` before that has ended the other tasks.
            raise asyncio.CancelledError
        if error is not None:
            await self._failed(job, error)
        elif job.held:
            await self._insist(job, job.delete)

    async def _handle(self, task: Task, job: Job) -> None:
        async with job.keep_alive():
            result: object = self._handler(task, job)
            # A function that is not `async` has done its work by now. To fail here would do it again.
            if inspect.isawaitable(result):
                await result

    async def _failed(self, job: Job, error: BaseException) -> None:
        """Release a job for another try, or bury it after its last try."""
        if not job.held:
            if isinstance(error, JobLost):
                logger.warning(
                    "job %d of tube %s was lost while a handler worked on it; another worker may have it",
                    job.id,
                    self._tube.name,
                )
            else:
                logger.warning(
                    "the handler of job %d of tube %s failed after it had deleted, released or buried the job",
                    job.id,
                    self._tube.name,
                    exc_info=error,
                )
            return
        tries = job.retries + job.timeouts + 1
        logger.warning("job %d of tube %s failed in try %d", job.id, self._tube.name, tries, exc_info=error)
        if self._max_attempts is not None and tries >= self._max_attempts:
            await self._bury(job, _said(error))
        else:
            pause = min(self._backoff.pause(tries, self._chance), MAX_SECONDS)
            await self._insist(job, lambda: job.release(pause, count_retry=True, failed=True))

    async def _bury(self, job: Job, reason: str) -> None:
        # A reason that is not valid UTF-8 must not prevent the burial.
        text = reason[:MAX_REASON].encode("utf-8", "backslashreplace").decode()
        await self._insist(job, lambda: job.bury(text))

    async def _insist(self, job: Job, change: Callable[[], Awaitable[object]]) -> None:
        """Change a job, and try again while the store fails and the job is held."""
        tries = 0
        while True:
            try:
                await change()
                return
            except JobLost:
                logger.warning(
                    "job %d of tube %s was lost before its outcome was stored; another worker may do it again",
                    job.id,
                    self._tube.name,
                )
                return
            except EngineError as error:
                tries += 1
                logger.warning("the outcome of job %d of tube %s is not stored: %s", job.id, self._tube.name, error)
                if not job.held:
                    return
                await asyncio.sleep(STORE_AGAIN.pause(tries, self._chance))

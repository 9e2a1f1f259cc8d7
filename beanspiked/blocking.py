"""The library for programs without an event loop: the same calls, each of which waits.

    from beanspiked import blocking

    with blocking.connect("sqlite:./jobs") as conn:
        tube = conn.use("testtube")
        tube.put(b"hello", ttr=30)
        job = tube.reserve(timeout=1)
        if job is not None:
            job.delete()

A connection has an event loop of its own in a thread of its own, so jobs time out and are kept alive whatever the program does. Its
objects may be used from any thread. Arguments, results and errors are those of the asynchronous calls of the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from beanspiked.library import conn as asynchronous
from beanspiked.library.core import OfOneProcess
from beanspiked.library.errors import ConnClosed, ConnForked, JobLost
from beanspiked.library.job import Job as AsyncJob
from beanspiked.library.job import touch_on

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Unpack

    from beanspiked.library.job import JobInfo, Seconds
    from beanspiked.library.tube import Tube as AsyncTube
    from beanspiked.library.tube import TubeStats

__all__ = ["Conn", "Job", "Tube", "connect", "dial", "dial_default"]

Result = TypeVar("Result")

# How long a call that was interrupted may take to end, in seconds.
INTERRUPTED_WITHIN: Final = 5.0


def connect(url: str, **options: Unpack[asynchronous.Options]) -> Conn:
    """Connect to a store; see `beanspiked.connect`. Raises StoreUnusable."""
    return Conn(asynchronous.connect(url, **options))


def dial(host: str, port: int = 3000, namespace: str = "beanspike", **options: Unpack[asynchronous.Options]) -> Conn:
    """Connect to an Aerospike cluster by one of its nodes; see `beanspiked.dial`. Raises StoreUnusable."""
    return Conn(asynchronous.dial(host, port, namespace, **options))


def dial_default(environ: Mapping[str, str] | None = None, **options: Unpack[asynchronous.Options]) -> Conn:
    """Connect as go-beanspike's DialDefault does; see `beanspiked.dial_default`. Raises StoreUnusable."""
    return Conn(asynchronous.dial_default(environ, **options))


class Conn(OfOneProcess):
    """A connection to a store, opened; see `beanspiked.Conn`."""

    def __init__(self, conn: asynchronous.Conn) -> None:
        self._conn = conn
        self._lock = threading.Lock()
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"beanspiked {conn.client_id}", daemon=True)
        self._thread.start()
        try:
            self.run(conn.open())
        except BaseException:
            self._end()
            raise

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Wait for a coroutine in this connection's event loop.

        Raises:
            ConnClosed: It was closed, or ends with the program, whose other threads stand still by now.
            RuntimeError: Called in the thread of the event loop, by a callback; it would wait for itself.
        """
        if threading.get_ident() == self._thread.ident and not self.owner:
            coroutine.close()
            raise RuntimeError(
                f"{self.client_id}: a call that waits cannot be made in the thread of its own event loop"
            )
        if sys.is_finalizing():
            coroutine.close()
            raise ConnClosed(f"{self.client_id}: the program ends")
        task: asyncio.Task[Result] | None = None

        async def main() -> Result:
            nonlocal task
            task = asyncio.current_task()
            return await coroutine

        try:
            future = self.start(main())
        except ConnClosed:
            coroutine.close()
            raise
        try:
            return future.result()
        except BaseException as error:
            if self._ended and isinstance(error, CancelledError):
                raise ConnClosed(f"{self._conn.client_id}: closed") from None
            if future.done() and not future.cancelled() and future.exception() is error:
                raise
            if self.owner:
                raise
            # Ctrl-C: what was waited for must not get a job that nobody takes.
            self._loop.call_soon_threadsafe(lambda: None if task is None else task.cancel())
            with contextlib.suppress(BaseException):
                _give_back(self._loop, future.result(INTERRUPTED_WITHIN))
            raise

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine in this connection's event loop without waiting for it. Raises ConnClosed."""
        if self.owner:
            # Its event loop has no thread here, and whoever had the lock may be gone.
            coroutine.close()
            raise ConnForked(self.client_id, self.owner)
        with self._lock:
            if self._ended:
                coroutine.close()
                raise ConnClosed(f"{self._conn.client_id}: closed")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Give all held jobs back and leave the store; calls of other threads end with ConnClosed."""
        if not self._ended:
            try:
                self.run(self._conn.close())
            except ConnClosed:
                # Another thread was faster, or it is another process's.
                return
            self._end()

    def _end(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self._conn.closed

    @property
    def owner(self) -> int:
        """In the child of a fork the process that it belongs to; 0 in that process itself."""
        return self._conn.owner

    @property
    def client_id(self) -> str:
        """What it is called in logs."""
        return self._conn.client_id

    def use(self, name: str) -> Tube:
        """Return a tube; see `beanspiked.Conn.use`."""

        async def use() -> AsyncTube:
            return self._conn.use(name)

        return Tube(self, self.run(use()))

    def tubes(self) -> list[str]:
        """List the names of all tubes that exist."""
        return self.run(self._conn.tubes())

    def delete_tube(self, name: str) -> None:
        """Delete all jobs of a tube; see `beanspiked.Conn.delete_tube`."""
        self.run(self._conn.delete_tube(name))

    def peek(self, job_id: int) -> JobInfo | None:
        """Look at a job of any state."""
        return self.run(self._conn.peek(job_id))

    def delete(self, job_id: int) -> bool:
        """Remove a job that this program holds or that nobody does; returns whether that was this call's doing."""
        return self.run(self._conn.delete(job_id))

    def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready."""
        self.run(self._conn.kick_job(job_id))

    def serve(self, *addresses: str) -> list[str]:
        """Serve wire clients until the connection is closed; see `beanspiked.serve`. Returns where it listens."""
        return self.run(self._conn.serve(*addresses)).addresses


class Tube(OfOneProcess):
    """A tube; see `beanspiked.Tube`."""

    def __init__(self, conn: Conn, tube: AsyncTube) -> None:
        self.conn: Conn = conn
        self.name: str = tube.name
        self._tube = tube

    def put(
        self,
        body: bytes,
        *,
        delay: Seconds = 0,
        ttr: Seconds | None = None,
        priority: int = 1024,
        compress: bool = True,
        metadata: str = "",
        born: float | None = None,
    ) -> int:
        """Add a job; returns its id."""
        put = self._tube.put(
            body, delay=delay, ttr=ttr, priority=priority, compress=compress, metadata=metadata, born=born
        )
        return self.conn.run(put)

    def reserve(self, timeout: Seconds | None = None) -> Job | None:
        """Take the most urgent ready job; None when the time is up."""
        job = self.conn.run(self._tube.reserve(timeout))
        return None if job is None else Job(self, job)

    def reserve_many(self, number: int, timeout: Seconds | None = None) -> list[Job]:
        """Take up to so many jobs."""
        return [Job(self, job) for job in self.conn.run(self._tube.reserve_many(number, timeout))]

    def peek(self, job_id: int) -> JobInfo | None:
        """Look at a job of any state."""
        return self.conn.run(self._tube.peek(job_id))

    def peek_ready(self) -> JobInfo | None:
        """Look at the job that would be reserved next."""
        return self.conn.run(self._tube.peek_ready())

    def peek_delayed(self) -> JobInfo | None:
        """Look at the delayed job that is due first."""
        return self.conn.run(self._tube.peek_delayed())

    def peek_buried(self) -> JobInfo | None:
        """Look at the job that was buried first."""
        return self.conn.run(self._tube.peek_buried())

    def stats(self) -> TubeStats:
        """Count its jobs and add up their sizes."""
        return self.conn.run(self._tube.stats())

    def find(self, metadata: str) -> list[int]:
        """List the ids of its jobs that were put with this metadata."""
        return self.conn.run(self._tube.find(metadata))

    def kick(self, number: int) -> int:
        """Make up to so many buried jobs ready, or delayed ones; returns their number."""
        return self.conn.run(self._tube.kick(number))

    def delete(self, job_id: int) -> bool:
        """Remove a job that this program holds or that nobody does; returns whether that was this call's doing."""
        return self.conn.run(self._tube.delete(job_id))

    def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready."""
        self.conn.run(self._tube.kick_job(job_id))

    def pause(self, duration: Seconds) -> None:
        """Let nobody get its jobs for a time."""
        self.conn.run(self._tube.pause(duration))


class Job(OfOneProcess):
    """A job that this program has reserved; see `beanspiked.Job`."""

    def __init__(self, tube: Tube, job: AsyncJob) -> None:
        self.tube: Tube = tube
        self.id: int = job.id
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def body(self) -> bytes:
        """Its body."""
        return self._job.body

    @property
    def held(self) -> bool:
        """Whether it is this program's still."""
        return self._job.held

    @property
    def priority(self) -> int:
        """0 (most urgent) to 2**32 - 1."""
        return self._job.priority

    @property
    def ttr(self) -> float:
        """Time to run, in seconds; 0 means that it never times out."""
        return self._job.ttr

    @property
    def born(self) -> float:
        """When it was made, in seconds since the epoch."""
        return self._job.born

    @property
    def retries(self) -> int:
        """How often it was released to be tried again."""
        return self._job.retries

    @property
    def timeouts(self) -> int:
        """How often the time to run of a holder was over."""
        return self._job.timeouts

    @property
    def failed(self) -> bool:
        """Whether its last try failed."""
        return self._job.failed

    @property
    def metadata(self) -> str:
        """What its producer wrote to find it by."""
        return self._job.metadata

    @property
    def time_left(self) -> float:
        """How long until its time to run is over, in seconds."""
        return self._job.time_left

    def touch(self) -> None:
        """Let its time to run begin anew."""
        self.tube.conn.run(self._job.touch())

    def delete(self) -> bool:
        """Remove it; returns whether that was this call's doing."""
        return self.tube.conn.run(self._job.delete())

    def give_back(self) -> None:
        """Make it ready as it was, without an outcome."""

        async def give_back() -> None:
            self._job.give_back()

        self.tube.conn.run(give_back())

    def release(
        self, delay: Seconds = 0, *, priority: int | None = None, count_retry: bool = False, failed: bool = False
    ) -> None:
        """Put it back for others."""
        self.tube.conn.run(self._job.release(delay, priority=priority, count_retry=count_retry, failed=failed))

    def bury(self, reason: str = "", *, priority: int | None = None) -> None:
        """Set it aside until somebody kicks it."""
        self.tube.conn.run(self._job.bury(reason, priority=priority))

    def update(self, body: bytes, *, compress: bool = True) -> None:
        """Replace its body; it stays held."""
        self.tube.conn.run(self._job.update(body, compress=compress))

    @contextlib.contextmanager
    def keep_alive(self) -> Iterator[Job]:
        """Touch it at half of its time to run for as long as the block lasts, and at once.

        A block that blocks cannot be cancelled: whether the job was lost meanwhile is told at its end, by JobLost, and by `held`.
        """
        lost = threading.Event()
        conn = self.tube.conn

        async def begin() -> Callable[[], None]:
            await self._job.touch()
            return self._job.when_lost(lost.set)

        async def end() -> None:
            forget()

        forget = conn.run(begin())
        touching = conn.start(touch_on(self._job))
        try:
            yield self
        finally:
            if not conn.owner:
                touching.cancel()
                # Not waited for: this may be the garbage collection's doing, in any thread, or as the program ends.
                conn.start(end())
        if conn.owner:
            raise ConnForked(conn.client_id, conn.owner)
        if lost.is_set():
            raise JobLost(f"job {self.id} of {self.tube.name} is not held any more")


async def _cancel_all() -> None:
    """End everything else that runs in this event loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _give_back(loop: asyncio.AbstractEventLoop, result: object) -> None:
    """Make jobs ready again that nobody is going to take."""
    for job in result if isinstance(result, list) else [result]:
        if isinstance(job, AsyncJob):
            loop.call_soon_threadsafe(job.give_back)

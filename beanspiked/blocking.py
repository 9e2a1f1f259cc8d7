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

import contextlib
import threading
from typing import TYPE_CHECKING

from beanspiked.library import conn as asynchronous
from beanspiked.library.core import OfOneProcess
from beanspiked.library.errors import ConnClosed, ConnForked, JobLost
from beanspiked.library.job import Job as AsyncJob
from beanspiked.library.job import touch_on
from beanspiked.library.threaded import ThreadedConn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Unpack

    from beanspiked.library.job_info import JobInfo, Seconds
    from beanspiked.library.tube import Tube as AsyncTube
    from beanspiked.library.tube_base import TubeStats

__all__ = ["Conn", "Job", "Tube", "connect", "dial", "dial_default"]


def connect(url: str, **options: Unpack[asynchronous.Options]) -> Conn:
    """Connect to a store; see `beanspiked.connect`. Raises StoreUnusable."""
    return Conn(asynchronous.connect(url, **options))


def dial(host: str, port: int = 3000, namespace: str = "beanspike", **options: Unpack[asynchronous.Options]) -> Conn:
    """Connect to an Aerospike cluster through one of its nodes; see `beanspiked.dial`. Raises StoreUnusable."""
    return Conn(asynchronous.dial(host, port, namespace, **options))


def dial_default(environ: Mapping[str, str] | None = None, **options: Unpack[asynchronous.Options]) -> Conn:
    """Connect as go-beanspike's DialDefault does; see `beanspiked.dial_default`. Raises StoreUnusable."""
    return Conn(asynchronous.dial_default(environ, **options))


class Conn(ThreadedConn):
    """An open connection to a store; see `beanspiked.Conn`."""

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
        """Return a copy of a job of any state."""
        return self.run(self._conn.peek(job_id))

    def delete(self, job_id: int) -> bool:
        """Delete a job that this program or nobody holds; returns whether this call deleted it."""
        return self.run(self._conn.delete(job_id))

    def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready."""
        self.run(self._conn.kick_job(job_id))

    def serve(self, *addresses: str) -> list[str]:
        """Serve wire clients until the connection is closed; see `beanspiked.serve`. Returns the addresses it listens on."""
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
        """Wait for a job, and take up to `number` that are ready then."""
        return [Job(self, job) for job in self.conn.run(self._tube.reserve_many(number, timeout))]

    def peek(self, job_id: int) -> JobInfo | None:
        """Return a copy of a job of any state."""
        return self.conn.run(self._tube.peek(job_id))

    def peek_ready(self) -> JobInfo | None:
        """Return a copy of the ready job that is reserved next."""
        return self.conn.run(self._tube.peek_ready())

    def peek_delayed(self) -> JobInfo | None:
        """Return a copy of the delayed job that is due first."""
        return self.conn.run(self._tube.peek_delayed())

    def peek_buried(self) -> JobInfo | None:
        """Return a copy of the job that was buried first."""
        return self.conn.run(self._tube.peek_buried())

    def stats(self) -> TubeStats:
        """Count its jobs and add up their sizes."""
        return self.conn.run(self._tube.stats())

    def find(self, metadata: str) -> list[int]:
        """List the ids of its jobs that were put with this metadata."""
        return self.conn.run(self._tube.find(metadata))

    def kick(self, number: int) -> int:
        """Make up to `number` buried jobs ready, or delayed ones if none is buried; returns how many."""
        return self.conn.run(self._tube.kick(number))

    def delete(self, job_id: int) -> bool:
        """Delete a job that this program or nobody holds; returns whether this call deleted it."""
        return self.conn.run(self._tube.delete(job_id))

    def kick_job(self, job_id: int) -> None:
        """Make a buried or delayed job ready."""
        self.conn.run(self._tube.kick_job(job_id))

    def pause(self, duration: Seconds) -> None:
        """Pause the tube; 0 ends the pause."""
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
        """Whether this program still holds it."""
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
        """How often it timed out."""
        return self._job.timeouts

    @property
    def failed(self) -> bool:
        """Whether its last try failed."""
        return self._job.failed

    @property
    def metadata(self) -> str:
        """The text that `find` finds it by."""
        return self._job.metadata

    @property
    def time_left(self) -> float:
        """How long until its time to run is over, in seconds."""
        return self._job.time_left

    def touch(self) -> None:
        """Start its time to run again."""
        self.tube.conn.run(self._job.touch())

    def delete(self) -> bool:
        """Delete it; returns whether this call deleted it."""
        return self.tube.conn.run(self._job.delete())

    def give_back(self) -> None:
        """Make it ready as it was, without an outcome."""

        async def give_back() -> None:
            self._job.give_back()

        self.tube.conn.run(give_back())

    def release(
        self, delay: Seconds = 0, *, priority: int | None = None, count_retry: bool = False, failed: bool = False
    ) -> None:
        """Make it ready or delayed again."""
        self.tube.conn.run(self._job.release(delay, priority=priority, count_retry=count_retry, failed=failed))

    def bury(self, reason: str = "", *, priority: int | None = None) -> None:
        """Bury it until somebody kicks it."""
        self.tube.conn.run(self._job.bury(reason, priority=priority))

    def update(self, body: bytes, *, compress: bool = True) -> None:
        """Replace its body; it stays held."""
        self.tube.conn.run(self._job.update(body, compress=compress))

    @contextlib.contextmanager
    def keep_alive(self) -> Iterator[Job]:
        """Touch it at once, and at half of its time to run for as long as the block lasts.

        A blocking block cannot be cancelled: if the job is lost meanwhile, `held` is False, and JobLost is raised at the end.
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
                # Without waiting: the garbage collector may call this in any thread, or as the program ends.
                with contextlib.suppress(ConnClosed):
                    conn.start(end())
        if conn.owner:
            raise ConnForked(conn.client_id, conn.owner)
        if lost.is_set():
            raise JobLost(f"job {self.id} of {self.tube.name} is not held any more")

"""One measured run with all its connections, from the first connect to the result."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from beanspiked.bench.connection import KINDS, LoadConnection
from beanspiked.bench.latency import Histogram
from beanspiked.bench.replies import Reader, read_any, reader_of_own

if TYPE_CHECKING:
    from beanspiked.bench.options import Mode, Options
    from beanspiked.client.address import Address

NO_REPLY_SECONDS = 30.0
"""A connection that waits longer for a reply ends the run."""

CLEANING_SECONDS = 5.0
"""How long it may take to delete the jobs of a run that failed."""

TICK_SECONDS = 0.2
"""Seconds between two reports of progress and two searches for silent connections."""

_FOREVER = 1 << 62
_CONNECTING_AT_ONCE = 64

_HINTS = {
    b"JOB_TOO_BIG": "the body is larger than the server's max-job-size; lower --body or start the server with a higher -z",
    b"DRAINING": "the server is in drain mode and takes no jobs",
    b"OUT_OF_MEMORY": "the server has no memory, or no space in its journal, for another job",
    b"BURIED": "the server had no memory to make the job ready",
    b"TIMED_OUT": "there was no job to reserve; another client reserves from this tube",
    b"DEADLINE_SOON": "a job reserved here is about to time out",
    b"NOT_FOUND": "a job reserved here timed out before it was deleted, or another client deleted it",
}

ProgressHook = Callable[[int, float], None]
"""Called with the jobs done and the seconds since the start, every TICK_SECONDS."""


class BenchError(Exception):
    """The run failed; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of one run."""

    jobs: int
    commands: int
    seconds: float
    cpu_seconds: float
    """Seconds of processor time that the generator used."""
    ran_empty: bool
    """Whether a drain stopped because there were no more jobs."""
    latency: dict[str, Histogram] = field(repr=False)


class Load:
    """One run against one server."""

    def __init__(self, server: Address, options: Options, progress: ProgressHook | None = None) -> None:
        self.server = server
        self.options = options
        self.histograms = [Histogram() for _ in KINDS]
        """Latencies, by kind of command."""
        self.ran_empty = False
        """Whether a drain found its tube empty."""
        body = b"x" * options.body
        self.first_command = b"put 1024 0 60 %d\r\n%b\r\n" % (len(body), body)
        """The command that begins a job."""
        if options.mode == "drain":
            self.first_command = b"reserve-with-timeout 0\r\n"
        # At depth 1 a buffer has one reply, which read_any handles faster.
        self.reader: Reader = reader_of_own(body) if options.own_tubes and options.depth > 1 else read_any
        """The reader of the replies."""
        self._progress = progress
        self._connections: list[LoadConnection] = []
        self._waiting_for = options.connections
        self._started_at = math.nan
        self._ended_at = math.nan
        self._cpu_at_start = self._cpu_at_end = 0.0
        self._stage: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def started(self) -> bool:
        """Whether the measurement has begun."""
        return not math.isnan(self._started_at)

    async def run(self) -> None:
        """Connect, choose the tubes, and load the server until the work is done.

        Raises:
            BenchError: The server cannot be reached, closed a connection, gave an unexpected reply or none.

        """
        loop = asyncio.get_running_loop()
        try:
            await self._connect()
            await self._until_stage_ends(math.nan)
            self._stage = loop.create_future()
            self._begin()
            if self.options.seconds is not None:
                loop.call_later(self.options.seconds, self.stop)
            await self._until_stage_ends(self._started_at)
        finally:
            self._note_end()
            self._settle(None)
            self._stage.exception()  # asyncio logs an error that nobody has retrieved.
            for connection in self._connections:
                connection.close()

    def stop(self) -> None:
        """Begin no more jobs. The run ends when the jobs that it has begun are finished."""
        for connection in self._connections:
            connection.todo = 0

    def result(self) -> RunResult:
        """Return the result, also of a run that was cut short."""
        jobs = sum(connection.jobs for connection in self._connections)
        per_job = {"cycle": 3, "put": 1, "drain": 2}[self.options.mode]
        return RunResult(
            jobs=jobs,
            commands=jobs * per_job,
            seconds=self._ended_at - self._started_at,
            cpu_seconds=self._cpu_at_end - self._cpu_at_start,
            ran_empty=self.ran_empty,
            latency={kind: h for kind, h in zip(KINDS, self.histograms, strict=True) if h.count},
        )

    def fail(self, message: str) -> None:
        """End the run with an error. Ignore later errors, since they follow from the first."""
        self._settle(BenchError(message))

    def explain(self, reply: bytes) -> str:
        """Return the message for an unexpected reply."""
        word = reply.split(b" ", 1)[0]
        shown = ascii(reply[:80].decode("ascii", "backslashreplace"))[1:-1]
        hint = _HINTS.get(word, "this reply fits no command that was sent; is it a beanstalkd-compatible server?")
        return f"{self.server} answered {shown or 'an empty line'}: {hint}"

    def connection_ready(self) -> None:
        """Learn that one more connection has chosen its tube."""
        self._waiting_for -= 1
        if not self._waiting_for:
            self._settle(None)

    def lanes_ended(self) -> None:
        """Learn that the lanes of one more connection have ended."""
        self._waiting_for -= 1
        if not self._waiting_for:
            self._note_end()
            self._settle(None)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._connections = [LoadConnection(self, number) for number in range(self.options.connections)]

        async def connect(connection: LoadConnection) -> None:
            if self.server.path:
                await loop.create_unix_connection(lambda: connection, self.server.path)
            else:
                await loop.create_connection(lambda: connection, self.server.host, self.server.port)

        for first in range(0, len(self._connections), _CONNECTING_AT_ONCE):
            some = self._connections[first : first + _CONNECTING_AT_ONCE]
            try:
                async with asyncio.timeout(NO_REPLY_SECONDS):
                    outcomes = await asyncio.gather(*map(connect, some), return_exceptions=True)
            except TimeoutError:
                raise BenchError(f"{self.server}: no connection within {NO_REPLY_SECONDS:g} s") from None
            for outcome in outcomes:
                if isinstance(outcome, OSError | ValueError):  # ValueError: no host can have this name.
                    raise BenchError(f"cannot connect to {self.server}: {_reason(outcome)}") from outcome
                if isinstance(outcome, BaseException):
                    raise outcome

    def _begin(self) -> None:
        options = self.options
        shares = [_FOREVER] * options.connections
        if options.jobs is not None:
            each, more = divmod(options.jobs, options.connections)
            shares = [each + (number < more) for number in range(options.connections)]
        self._waiting_for = options.connections
        self._cpu_at_start = time.process_time()
        self._started_at = time.perf_counter()
        for connection, share in zip(self._connections, shares, strict=True):
            connection.start(share)

    def _note_end(self) -> None:
        if math.isnan(self._ended_at):
            self._ended_at = time.perf_counter()
            self._cpu_at_end = time.process_time()

    def _settle(self, error: BenchError | None) -> None:
        if self._stage.done():
            return
        if error is None:
            self._stage.set_result(None)
        else:
            self._stage.set_exception(error)

    async def _until_stage_ends(self, started_at: float) -> None:
        """Wait, report progress, and look for connections that have been silent too long."""
        silent_since = dict.fromkeys(self._connections, time.perf_counter())
        replied = dict.fromkeys(self._connections, -1)
        while not (await asyncio.wait({self._stage}, timeout=TICK_SECONDS))[0]:
            now = time.perf_counter()
            for connection in self._connections:
                if not connection.busy or connection.replied != replied[connection]:
                    replied[connection] = connection.replied
                    silent_since[connection] = now
            silent = sum(now - since > NO_REPLY_SECONDS for since in silent_since.values())
            if silent:
                self.fail(
                    f"{self.server}: no reply for {NO_REPLY_SECONDS:g} s"
                    f" on {silent} of {len(self._connections)} connections"
                )
            if self._progress is not None and not math.isnan(started_at):
                self._progress(sum(connection.jobs for connection in self._connections), now - started_at)
        self._stage.result()


def _reason(error: OSError | ValueError) -> str:
    """Return the system's words for an error, on one line."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())


async def remove_jobs(server: Address, options: Options) -> bool:
    """Delete the jobs that a failed or interrupted run left in its own tubes.

    Returns:
        Whether the tubes are known to be empty.

    """
    await asyncio.sleep(0.05)  # The server first has to give back the jobs of closed connections.
    emptying = replace(options, mode="drain", connections=len(options.tubes), depth=16, jobs=None, seconds=None)
    try:
        async with asyncio.timeout(CLEANING_SECONDS):
            await Load(server, emptying).run()
    except (BenchError, TimeoutError):
        return False
    return True


def filling(options: Options) -> Options:
    """Return the options of the run that puts the jobs for a drain."""
    mode: Mode = "put"
    return replace(options, mode=mode, depth=max(options.depth, 16))

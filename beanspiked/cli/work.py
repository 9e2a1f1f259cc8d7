"""`beanspiked work`: runs a command for each job."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from beanspiked.cli.arguments import Parser, at_least_one, number, seconds, tube
from beanspiked.cli.command import Failed, number_of, run, unreachable
from beanspiked.cli.terminal import say
from beanspiked.client import requests
from beanspiked.client.conn import Conn
from beanspiked.client.errors import ClientError, JobLost, ServerGone

if TYPE_CHECKING:
    import argparse

    from beanspiked.client.documents import Stats
    from beanspiked.client.requests import Job

__all__ = ["main", "parser"]

# How long a reserve waits, in seconds. The next one then shows whether the server is still there.
RESERVE_SECONDS: Final = 60
# How long a command may take to end after TERM, in seconds.
GRACE_SECONDS: Final = 5.0
# The first and the longest pause between two tries to connect again, in seconds.
RECONNECT_SECONDS: Final = 0.5
MAX_RECONNECT_SECONDS: Final = 15.0
MAX_BACKOFF: Final = 3600
# The part of the time to run after which the worker touches a job.
TOUCH_AFTER: Final = 0.4


def parser() -> Parser:
    """Return the parser of the arguments before the `--`."""
    words = Parser(
        "work",
        "Run a command for each job of a tube, with the body on its standard input. If it exits with\n"
        "0, the job is deleted. Otherwise the job is buried, or with --retry released for another try\n"
        "later. The job is touched while the command runs. The command's environment has\n"
        "BEANSPIKED_JOB_ID, BEANSPIKED_TUBE and BEANSPIKED_RELEASES (how often the job was released).\n"
        "TERM, INT, QUIT and HUP (the terminal was closed) end the running commands and make their\n"
        "jobs ready again, unchanged. A second signal ends everything at once. When the server goes\n"
        "away, other workers may get the jobs, so the worker ends its commands. It then tries to\n"
        "connect until the server is back.",
        "  beanspiked work emails -- ./send-email\n"
        "  beanspiked work thumbnails -j 4 --retry 5 --timeout 2m -- sh -c 'convert - \"out/$BEANSPIKED_JOB_ID.png\"'",
        usage="beanspiked work [OPTIONS] TUBE [TUBE ...] -- COMMAND [ARG ...]",
    )
    words.add_argument("tubes", nargs="+", type=tube, metavar="TUBE")
    words.add_argument(
        "-j", "--jobs", type=at_least_one, default=1, metavar="N", help="work on this many jobs at a time (1)"
    )
    words.add_argument(
        "-r",
        "--retry",
        type=number,
        default=0,
        metavar="N",
        help="release a failed job up to N times before it is buried (0)",
    )
    words.add_argument(
        "-b",
        "--backoff",
        type=seconds,
        default=5,
        metavar="TIME",
        help="delay of the first retry; it doubles each time, up to an hour (5)",
    )
    words.add_argument(
        "-t",
        "--timeout",
        type=seconds,
        default=0,
        metavar="TIME",
        help="end a command that takes longer, and count it as failed (never)",
    )
    words.add_argument("-u", "--until-empty", action="store_true", help="exit when no job is ready")
    words.add_argument("-v", "--verbose", action="store_true", help="also report jobs that are done")
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    ours, dashes, command = words, "", []
    if "--" in words:
        place = words.index("--")
        ours, dashes, command = words[:place], "--", words[place + 1 :]
    words_parser = parser()

    def work(options: argparse.Namespace) -> int:
        if not dashes or not command:
            words_parser.error("work: the command is missing; give it after --")
        if shutil.which(command[0]) is None:
            raise Failed(f"{command[0]}: command not found")
        return asyncio.run(_Working(options, command).run())

    return run(words_parser, ours, work)


class _Working:
    """Runs the slots. Each has a connection of its own and works on one job at a time."""

    def __init__(self, options: argparse.Namespace, command: list[str]) -> None:
        self._options = options
        self._command = command
        self._slots: list[asyncio.Task[None]] = []
        self._processes: set[asyncio.subprocess.Process] = set()
        self._ended_by = 0
        # Whether a slot has ever reached the server. From then on, slots wait for its return.
        self._connected = False
        # The last message about the server, so that each slot does not repeat it.
        self._said = ""

    async def run(self) -> int:
        """Work until a signal comes, or until the tubes are empty; return the exit code.

        Raises:
            ClientError: There is no server.
            Failed: The command cannot be run.
        """
        loop = asyncio.get_running_loop()
        for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number_, self._end, number_)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup lets it be ignored.
            loop.add_signal_handler(signal.SIGHUP, self._end, signal.SIGHUP)
        self._slots = [asyncio.create_task(self._slot()) for _ in range(self._options.jobs)]
        await asyncio.wait(self._slots, return_when=asyncio.FIRST_EXCEPTION)
        failed = [slot for slot in self._slots if slot.done() and not slot.cancelled() and slot.exception()]
        if failed and not self._ended_by:
            self._cancel()
        # Each slot ends its command before it ends.
        await asyncio.wait(self._slots)
        for slot in failed:
            slot.result()
        return 0 if self._ended_by in (0, signal.SIGTERM) else 128 + self._ended_by

    def _end(self, number_: int) -> None:
        """End the commands and give their jobs back. The second call does so at once."""
        if self._ended_by and number_ == signal.SIGHUP:
            # When a terminal is closed, its shell sends this, and so does the kernel.
            return
        if self._ended_by:
            for process in self._processes:
                _signal(process, signal.SIGKILL)
            os._exit(128 + number_)
        self._ended_by = number_
        self._cancel()

    def _cancel(self) -> None:
        """Cancel each slot once. It may need some seconds to end its command."""
        for slot in self._slots:
            slot.cancel()

    async def _slot(self) -> None:
        pause = RECONNECT_SECONDS
        while True:
            try:
                async with await Conn.connect(self._options.address) as conn:
                    await self._watch(conn)
                    if self._said:
                        say(f"connected again to {conn.address}")
                    self._said, pause, self._connected = "", RECONNECT_SECONDS, True
                    while (job := await self._next(conn)) is not None:
                        await self._work(conn, *job)
                    return
            except ClientError as error:
                if not self._connected:
                    if isinstance(error, ServerGone):
                        raise unreachable(error) from error
                    raise
                if not self._said:
                    say(f"{error}; trying again until it is back")
                self._said = str(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RECONNECT_SECONDS)

    async def _watch(self, conn: Conn) -> None:
        for name in self._options.tubes:
            await conn.ask(requests.watch(name))
        if "default" not in self._options.tubes:
            await conn.ask(requests.ignore("default"))

    async def _next(self, conn: Conn) -> tuple[Job, Stats] | None:
        """Wait for a job; return None when there is nothing more to do."""
        while True:
            job = await conn.ask(requests.reserve_with_timeout(0 if self._options.until_empty else RESERVE_SECONDS))
            if job is None:
                if self._options.until_empty:
                    return None
                continue
            told = await conn.ask(requests.stats_job(job.id))
            if told is not None:
                return job, told

    async def _work(self, conn: Conn, job: Job, told: Stats) -> None:
        touching = asyncio.create_task(_touch(conn, job.id, number_of(told, "ttr")))
        touching.add_done_callback(_retrieve)
        began = time.monotonic()
        try:
            why = await self._carried_out(job, told, touching)
        except JobLost:
            say(
                f"job {job.id}: its time to run was over before a touch; its command was ended, and another worker may have the job"
            )
            return
        finally:
            touching.cancel()
        try:
            await self._finish(conn, job, told, why, time.monotonic() - began)
        except ClientError as error:
            say(
                f"job {job.id}: {why or 'done'}, but the server did not learn it ({error}); another worker may do it again"
            )
            raise

    async def _carried_out(self, job: Job, told: Stats, touching: asyncio.Task[None]) -> str:
        """Run the command for a job; return why it failed, or nothing.

        Raises:
            ClientError: The job is lost.
            Failed: The command cannot be run.
        """
        environ = {
            "BEANSPIKED_JOB_ID": str(job.id),
            "BEANSPIKED_TUBE": str(told["tube"]),
            "BEANSPIKED_RELEASES": str(told["releases"]),
        }
        process = await self._started(environ)
        self._processes.add(process)
        try:
            return await self._watched(job, process, touching)
        finally:
            # This also runs when the slot is cancelled or the server is gone: the job then goes to another worker.
            await _ended(process)
            self._processes.discard(process)

    async def _started(self, environ: dict[str, str]) -> asyncio.subprocess.Process:
        """Start a command. Raises Failed."""
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                env={**os.environ, **environ},
                # The command has a process group of its own: Ctrl-C reaches only us, and our signals reach all its processes.
                process_group=0,
            )
        )
        try:
            return await asyncio.shield(starting)
        except OSError as error:
            raise Failed(f"{self._command[0]}: {error.strerror}") from error
        except asyncio.CancelledError:
            # The command may run already. asyncio would kill it, but not the processes that it has started.
            process = await starting
            self._processes.add(process)
            await _ended(process)
            raise

    async def _watched(self, job: Job, process: asyncio.subprocess.Process, touching: asyncio.Task[None]) -> str:
        """Wait for the end of a command, or of its time; return why the command failed, or nothing.

        Raises:
            ClientError: The job is lost.
        """
        ends: asyncio.Task[Any] = asyncio.create_task(process.communicate(job.body))
        # This task ends with its command, which `_ended` ends.
        ends.add_done_callback(_retrieve)
        await asyncio.wait({ends, touching}, timeout=self._options.timeout or None, return_when=asyncio.FIRST_COMPLETED)
        if ends.done():
            return _failure(process.returncode)
        if touching.done():
            touching.result()
        return f"took longer than {self._options.timeout} s"

    async def _finish(self, conn: Conn, job: Job, told: Stats, why: str, took: float) -> None:
        priority, releases = number_of(told, "pri"), number_of(told, "releases")
        if not why:
            if not await conn.ask(requests.delete(job.id)):
                say(f"job {job.id}: done, but after its time to run; another worker may do it again")
            elif self._options.verbose:
                say(f"job {job.id}: done in {took:.1f} s")
            return
        try:
            if releases < self._options.retry:
                delay = min(MAX_BACKOFF, self._options.backoff * 2 ** min(releases, 32))
                await conn.ask(requests.release(job.id, priority=priority, delay=delay))
                say(f"job {job.id}: {why}; it is tried again in {delay} s")
            else:
                await conn.ask(requests.bury(job.id, priority=priority))
                say(f"job {job.id}: {why}; buried")
        except JobLost:
            say(f"job {job.id}: {why}, after its time to run; another worker may have it")


async def _touch(conn: Conn, job_id: int, ttr: int) -> None:
    """Touch a job from time to time, until this is cancelled. Raises ClientError when the job is lost."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ttr * TOUCH_AFTER):
                await conn.wait_closed()
        # If the connection is closed, this raises the reason.
        await conn.ask(requests.touch(job_id))


def _failure(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}"
        except ValueError:
            # Most real-time signals have no name.
            return f"ended by signal {-code}"
    return f"exit code {code}" if code else ""


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve a task's exception when nothing waits for the task any more, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


def _signal(process: asyncio.subprocess.Process, number_: int) -> None:
    """Signal a command and all processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number_)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a command that still runs, by TERM, and after a grace period by KILL."""
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()

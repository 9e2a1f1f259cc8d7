"""Scripts that fork, and functions for them. They run apart from the tests, since a process with threads should not fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import beanspiked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stores import Stores

__all__ = ["calls", "connect", "ended", "forked", "raised", "raised_in_child", "refused", "run", "work"]

Error = TypeVar("Error", bound=BaseException)

# A child that hangs is ended after this time, in seconds.
HANGS_AFTER = 10
# How long a script may take, in seconds.
WITHIN = 30

PREAMBLE = f"""
import asyncio, gc, linecache, os, signal, socket, sqlite3, subprocess, sys, threading, time, traceback, warnings
# A failure quotes the script's lines.
linecache.cache["<string>"] = (0, None, sys.orig_argv[2].splitlines(keepends=True), "<string>")
sys.excepthook = traceback.print_exception
sys.path.insert(0, {str(Path(__file__).parent)!r})
# What the scripts are about: processes with threads that fork.
warnings.filterwarnings("ignore", category=DeprecationWarning)
import beanspiked
from beanspiked import blocking
from forking import calls, connect, ended, forked, raised, raised_in_child, refused, work
url, tube_name, directory = sys.argv[1:]
me = os.getpid()
"""


def connect(url: str, **options: Any) -> beanspiked.Conn:
    """Make a connection. Without a URL it goes to a cluster in this process."""
    if url:
        return beanspiked.connect(url, **options)
    # The other stores' scripts start faster without it.
    from memory import Cluster
    from stores import SimulatedConn

    return SimulatedConn(Cluster(lambda: int(time.time() * 1000)), **options)


def forked(work: Callable[[], object] = lambda: None, leave: Callable[[int], object] = os._exit) -> int:
    """Fork, and let the child do something and leave; return its process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANGS_AFTER)
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
            raise
        finally:
            if leave is os._exit:
                sys.stdout.flush()
                os._exit(code)
        leave(0)
    return pid


async def raised_in_child(error: type[BaseException], waiting: Awaitable[object]) -> int:
    """Fork, have the child wait for what must raise an error there, and leave; return its number."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(HANGS_AFTER)
        try:
            await waiting
        except error:
            os._exit(0)
        os._exit(1)
    return pid


def ended(pid: int) -> None:
    """Wait for a child, which must end with success."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child ended with {code}"


def raised(error: type[Error], call: Callable[[], object]) -> Error:
    """Return the error that a call must raise."""
    try:
        call()
    except error as told:
        return told
    raise AssertionError(f"no {error.__name__} was raised")


def refused(call: Callable[[], object], owner: int) -> None:
    """Check that a call raises an error at once that names the connection's process."""
    began = time.monotonic()
    told = raised(beanspiked.ConnForked, call)
    assert f"belongs to process {owner}, which this one was forked from" in str(told), told
    assert told.owner == owner
    assert time.monotonic() - began < 1


def calls(conn: Any, tube: Any, job: Any, other: int) -> list[Callable[[], Any]]:
    """Return the calls that wait on any connection: its own, a tube's, a held job's, and those for another job."""
    return [
        lambda: tube.put(b""),
        tube.reserve,
        lambda: tube.reserve(0),
        lambda: tube.reserve_many(3),
        lambda: tube.peek(other),
        tube.peek_ready,
        tube.peek_delayed,
        tube.peek_buried,
        tube.stats,
        lambda: tube.find("m"),
        lambda: tube.kick(1),
        lambda: tube.delete(other),
        lambda: tube.kick_job(other),
        lambda: tube.pause(0),
        conn.tubes,
        lambda: conn.delete_tube(tube.name),
        lambda: conn.peek(other),
        lambda: conn.delete(other),
        lambda: conn.kick_job(other),
        lambda: conn.serve("127.0.0.1:0"),
        job.touch,
        job.delete,
        job.release,
        job.bury,
        lambda: job.update(b""),
    ]


async def work(
    conn: beanspiked.Conn,
    tube_name: str,
    handle: Callable[[beanspiked.Worker[bytes], beanspiked.Job], Awaitable[None]],
    jobs: int = 1,
    **options: Any,
) -> None:
    """Have a worker handle jobs whose bodies are their numbers; the handler is told the worker, which it has to stop."""

    async def handle_one(_: bytes, job: beanspiked.Job) -> None:
        await handle(worker, job)

    async with conn:
        tube = conn.use(tube_name)
        for number in range(jobs):
            await tube.put(b"%d" % number, ttr=60)
        worker = beanspiked.Worker(tube, handle_one, **options)
        await worker.run()
        assert (await tube.stats()).jobs == 0


def run(script: str, stores: Stores | None = None, directory: Path | None = None) -> None:
    """Run a script that must succeed and say so."""
    url, tube = ("memory:", "testtube") if stores is None else (stores.url, stores.tube)
    text = PREAMBLE + textwrap.dedent(script) + "\nassert os.getpid() == me\nprint('well')\n"
    command = [sys.executable, "-c", text, url, tube, str(directory or "")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stdout + done.stderr

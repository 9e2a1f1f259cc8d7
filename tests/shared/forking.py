"""Scripts that fork, and functions for them. They run apart from the tests, since a process with threads should not fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from memory import Cluster
from stores import SimulatedConn

import beanspiked

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores import Stores

__all__ = ["connect", "ended", "forked", "refused", "run"]

# A child that hangs is ended after this time, in seconds.
HANGS_AFTER = 10
# How long a script may take, in seconds.
WITHIN = 30

PREAMBLE = f"""
import asyncio, gc, os, signal, socket, sqlite3, subprocess, sys, threading, time, warnings
sys.path.insert(0, {str(Path(__file__).parent)!r})
# What the scripts are about: processes with threads that fork.
warnings.filterwarnings("ignore", category=DeprecationWarning)
import beanspiked
from beanspiked import blocking
from forking import connect, ended, forked, refused
url, tube_name, directory = sys.argv[1:]
me = os.getpid()
"""


def connect(url: str, **options: Any) -> beanspiked.Conn:
    """Make a connection. Without a URL it goes to a cluster in this process."""
    if url:
        return beanspiked.connect(url, **options)
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


def ended(pid: int) -> None:
    """Wait for a child, which must end with success."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child ended with {code}"


def refused(call: Callable[[], object], owner: int) -> None:
    """Check that a call raises an error at once that names the connection's process."""
    began = time.monotonic()
    with pytest.raises(
        beanspiked.ConnForked, match=f"belongs to process {owner}, which this one was forked from"
    ) as told:
        call()
    assert told.value.owner == owner
    assert time.monotonic() - began < 1


def run(script: str, stores: Stores | None = None, directory: Path | None = None) -> None:
    """Run a script that must succeed and say so."""
    url, tube = ("memory:", "testtube") if stores is None else (stores.url, stores.tube)
    text = PREAMBLE + textwrap.dedent(script) + "\nassert os.getpid() == me\nprint('well')\n"
    command = [sys.executable, "-c", text, url, tube, str(directory or "")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stdout + done.stderr

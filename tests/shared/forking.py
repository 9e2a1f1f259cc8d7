"""Functions for scripts that fork. They run apart from the tests, since a process with threads should not fork."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from memory import Cluster
from stores import SimulatedConn

import beanspiked

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["connect", "ended", "forked", "refused"]

# A child that hangs is ended by then, in seconds.
HANGS_AFTER = 10


def connect(url: str, **options: Any) -> beanspiked.Conn:
    """Make a connection; one without a URL to a cluster in this process."""
    if url:
        return beanspiked.connect(url, **options)
    return SimulatedConn(Cluster(lambda: int(time.time() * 1000)), **options)


def forked(work: Callable[[], object] = lambda: None, leave: Callable[[int], object] = os._exit) -> int:
    """Fork, have the child do something and leave; return its number."""
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
    """Wait for a child, which must have ended well."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child ended with {code}"


def refused(call: Callable[[], object], owner: int) -> None:
    """Check that a call says at once which process the connection belongs to."""
    began = time.monotonic()
    with pytest.raises(
        beanspiked.ConnForked, match=f"belongs to process {owner}, which this one was forked from"
    ) as told:
        call()
    assert told.value.owner == owner
    assert time.monotonic() - began < 1

"""A small event loop for an embedded server: asyncio and uvloop take longer to load than everything else together.

Its methods have asyncio's names, so that the same code runs here and in asyncio.
"""

import contextlib
import heapq
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.server.poller import READABLE, Poller, Ready

__all__ = ["Loop", "Timer"]

logger = logging.getLogger(__name__)

WAKE_BYTES: Final = 4096
MOST_CANCELLED: Final = 100
# The longest wait, in seconds, since epoll takes some weeks at most.
LONGEST_WAIT: Final = 86400.0


class Timer:
    """A call that is due at a time."""

    __slots__ = ("_loop", "at", "callback", "number")

    def __init__(self, loop: "Loop", at: float, number: int, callback: Callable[[], object]) -> None:
        self._loop = loop
        self.at = at
        self.number = number
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return (self.at, self.number) < (other.at, other.number)

    def cancel(self) -> None:
        """Cancel the call."""
        if self.callback is not None:
            self.callback = None
            self._loop.cancelled()


@mypyc_attr(allow_interpreted_subclasses=True)
class Loop(Ready):
    """Waits for sockets, times, threads and signals, and makes the calls that were registered for them.

    Args:
        poller: The sockets.
    """

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[Timer] = []
        self._numbers = 0
        self._cancelled = 0
        self._running = False
        # A byte in this pipe ends a wait. Another thread or the interpreter's signal handler writes it.
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        poller.add(self._wake_out, self, READABLE)
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)

    def time(self) -> float:
        """Return the time of its timers, in seconds."""
        return time.monotonic()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call in the next turn."""
        self._soon.append(callback)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Call in the next turn; from any thread."""
        self._soon.append(callback)
        # If the pipe is full, its bytes end the wait.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_in, b"\0")

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call after this many seconds."""
        self._numbers += 1
        timer = Timer(self, self.time() + delay, self._numbers, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def cancelled(self) -> None:
        """Count a cancelled timer, and now and then drop all of them, since their times may be years away."""
        self._cancelled += 1
        if self._cancelled > MOST_CANCELLED and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def add_signal_handler(self, number: int, callback: Callable[[], object]) -> None:
        """Call when a signal comes."""
        signal.signal(number, lambda _, __: self.call_soon_threadsafe(callback))

    def stop(self) -> None:
        """End `run_forever` after this turn."""
        self._running = False

    def run_forever(self) -> None:
        """Wait and call until `stop`."""
        self._running = True
        while self._running:
            self._poller.turn(self._how_long())
            # Calls that these register run after the sockets' new bytes.
            for _ in range(len(self._soon)):
                self._call(self._soon.popleft())
            while self._timers and (self._timers[0].callback is None or self._timers[0].at <= self.time()):
                callback = self._pop()
                if callback is not None:
                    self._call(callback)

    def close(self) -> None:
        """Close the pipe that ends a wait."""
        signal.set_wakeup_fd(-1)
        self._poller.remove(self._wake_out)
        os.close(self._wake_out)
        os.close(self._wake_in)

    def on_ready(self, events: int) -> None:  # noqa: ARG002 - the poller's signature
        """Empty the pipe that ended the wait."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_out, WAKE_BYTES)) == WAKE_BYTES:
                pass

    def _how_long(self) -> float:
        """Return how long to wait for the sockets, in seconds; -1 for ever."""
        if self._soon:
            return 0.0
        while self._timers and self._timers[0].callback is None:
            self._pop()
        return min(max(0.0, self._timers[0].at - self.time()), LONGEST_WAIT) if self._timers else -1.0

    def _pop(self) -> Callable[[], object] | None:
        """Remove the first timer; return what it calls, or None if it was cancelled."""
        timer = heapq.heappop(self._timers)
        callback, timer.callback = timer.callback, None
        self._cancelled -= callback is None
        return callback

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception as error:
            logger.error("internal error in a call of the event loop", exc_info=error)

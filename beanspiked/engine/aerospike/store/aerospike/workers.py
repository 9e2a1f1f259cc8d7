"""Threads for calls that block. The thread that worked last works next, since its caches and its connection are warm."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Workers", "hand_over", "look_until"]

Result = TypeVar("Result")


class Workers:
    """A few threads that make calls.

    They cost half as much as an executor and its futures.

    Args:
        count: How many threads.
        name: Their name.
    """

    def __init__(self, count: int, name: str) -> None:
        self._calls: deque[Callable[[], None] | None] = deque()
        # Each idle thread waits for its lock.
        self._idle: list[threading.Lock] = []
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[[], None]) -> None:
        """Let a thread make a call that raises nothing."""
        self._add(call)

    async def do(self, function: Callable[[], Result]) -> Result:
        """Let a thread make a call; return its result or raise its error."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._add(partial(_carry_out, function, future))
        try:
            return await future
        finally:
            # An error refers to this frame by its traceback, and the future to the error: a cycle that only the collector would find.
            del future

    def close(self) -> None:
        """Wait until the threads have made all calls, and end them."""
        for _ in self._threads:
            self._add(None)
        for thread in self._threads:
            thread.join()

    def _add(self, call: Callable[[], None] | None) -> None:
        self._calls.append(call)
        with contextlib.suppress(IndexError):
            self._idle.pop().release()

    def _work(self) -> None:
        woken = threading.Lock()
        woken.acquire()
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                self._rest(woken)
                continue
            if call is None:
                return
            call()

    def _rest(self, woken: threading.Lock) -> None:
        """Wait for a call. Each side first publishes its own state and then looks at the other's, so no call is missed."""
        self._idle.append(woken)
        if self._calls:
            try:
                self._idle.remove(woken)
            except ValueError:
                # A caller is about to wake this thread.
                pass
            else:
                return
        woken.acquire()


def _carry_out(function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - it is raised where the call was asked for
        hand_over(future.get_loop(), _fail, future, error)
    else:
        hand_over(future.get_loop(), _succeed, future, result)
    finally:
        # See Workers.do.
        del function, future


def hand_over(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: object) -> None:
    """Let an event loop make a call. If the loop has ended, nothing waits for the outcome any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def look_until(look: Callable[[], Result], done: Callable[[Result], bool], within: float, every: float) -> Result:
    """Look again and again until the result is as wanted or the time is over; return the last result. Blocks.

    Args:
        look: Looks once.
        done: Tells whether a result is as wanted.
        within: How long to go on, in seconds. There is one look in any case.
        every: How long to sleep between two looks, in seconds.
    """
    until = time.monotonic() + within
    while True:
        seen = look()
        if done(seen) or time.monotonic() >= until:
            return seen
        time.sleep(every)

"""A connection whose event loop runs in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from beanspiked.library.core import OfOneProcess
from beanspiked.library.errors import ConnClosed, ConnForked
from beanspiked.library.job import Job

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future
    from types import TracebackType

    from beanspiked.library.conn import Conn

__all__ = ["ThreadedConn"]

Result = TypeVar("Result")

# How long a call that was interrupted may take to end, in seconds.
INTERRUPTED_WITHIN: Final = 5.0


class ThreadedConn(OfOneProcess):
    """An open connection with a thread for its event loop; calls run there while their callers wait."""

    def __init__(self, conn: Conn) -> None:
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
            ConnClosed: The connection is closed, or the program is ending and its other threads have stopped.
            RuntimeError: A callback calls this in the event loop's thread, which would wait for itself.
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
            # Ctrl-C: the interrupted call must not reserve a job that nobody takes.
            self._loop.call_soon_threadsafe(lambda: None if task is None else task.cancel())
            with contextlib.suppress(BaseException):
                _give_back(self._loop, future.result(INTERRUPTED_WITHIN))
            raise

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine in this connection's event loop without waiting for it. Raises ConnClosed."""
        if self.owner:
            # In the child the event loop has no thread, and the lock's owner may be gone.
            coroutine.close()
            raise ConnForked(self.client_id, self.owner)
        with self._lock:
            if self._ended:
                coroutine.close()
                raise ConnClosed(f"{self._conn.client_id}: closed")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Give all held jobs back and leave the store. Calls of other threads end with ConnClosed."""
        if not self._ended:
            try:
                self.run(self._conn.close())
            except ConnClosed:
                # Another thread has closed it, or it belongs to another process.
                return
            self._end()

    def _end(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _leave(self) -> None:
        """Cancel all other tasks of the event loop, and leave the store if a call that was interrupted has opened it."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self._conn.closed

    @property
    def owner(self) -> int:
        """In the child of a fork, the process that the connection belongs to; 0 in that process itself."""
        return self._conn.owner

    @property
    def client_id(self) -> str:
        """The connection's name in logs."""
        return self._conn.client_id


def _give_back(loop: asyncio.AbstractEventLoop, result: object) -> None:
    """Make jobs ready again that no caller takes."""
    for job in result if isinstance(result, list) else [result]:
        if isinstance(job, Job):
            loop.call_soon_threadsafe(job.give_back)

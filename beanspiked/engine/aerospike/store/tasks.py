"""A front-end's own coroutines, which run beside the commands, and operations that it tries again."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from typing import Any, Final, TypeVar

from beanspiked.engine.aerospike.store.seam import Damaged, Fenced, Refused, StoreError, TooBig
from beanspiked.engine.errors import EngineError, StoreFailed

__all__ = ["ANSWER_WITHIN", "LANES", "Tasks", "side_by_side"]

logger = logging.getLogger(__name__)

# How long a store has to answer before commands fail, in seconds.
ANSWER_WITHIN: Final = 2.0
# Pauses between tries of the same operation, in seconds: the first and the longest.
TRY_AGAIN_AFTER: Final = 0.02
TRY_AGAIN_LATER: Final = 0.5
# With how many of many things something is done side by side.
LANES: Final = 16
# How long a permanent coroutine pauses after a bug, in seconds.
BUG_STOPS_FOR: Final = 1.0

# The failures that another try cannot cure.
FINAL: Final = (Fenced, Refused, TooBig, Damaged)

Item = TypeVar("Item")
Result = TypeVar("Result")


async def side_by_side(
    items: Sequence[Item], work: Callable[[Item], Coroutine[Any, Any, None]], most: int = LANES
) -> None:
    """Do something with each of many things, with some of them at the same time; begin with no more after a failure, which is raised."""
    rest = iter(items)

    async def lane() -> None:
        try:
            for item in rest:
                await work(item)
        except BaseException:
            for _ in rest:
                pass
            raise

    lanes = [lane() for _ in range(min(most, len(items)))]
    for outcome in await asyncio.gather(*lanes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


class Tasks:
    """The coroutines of one front-end, and its tries of operations that fail.

    Args:
        now: Tells this process's time, in seconds since the epoch.
        chance: Makes the pauses between tries differ.

    Attributes:
        closing: Whether the front-end is about to end.
    """

    def __init__(self, now: Callable[[], float], chance: random.Random | None = None) -> None:
        self.closing: bool = False
        self._now = now
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries
        self._tasks: set[asyncio.Task[Any]] = set()
        # The tasks that only end with the front-end.
        self._lasting: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Run a coroutine beside everything else."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def spawn_lasting(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine until the front-end ends. No command waits for it."""
        task = self.spawn(coroutine)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine until the front-end ends, and start it again after a bug. A bug in the heartbeats must not end the service."""
        self.spawn_lasting(self._keep(work))

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self.closing:
            try:
                await work()
            except Exception as bug:
                logger.error("internal error; going on", exc_info=bug)
            else:
                continue
            await asyncio.sleep(BUG_STOPS_FOR)

    def _reap(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("internal error", exc_info=task.exception())

    async def end(self) -> None:
        """Wait for the coroutines that commands wait for, as long as a store has to answer; then cancel the rest."""
        this = asyncio.current_task()
        lasting = self._lasting
        doing = [task for task in self._tasks if task is not this and task not in lasting]
        if doing:
            await asyncio.wait(doing, timeout=ANSWER_WITHIN)
        left = [task for task in self._tasks if task is not this]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=ANSWER_WITHIN)

    # --- tries

    async def pause_between_tries(self, failing_since: float = 0.0) -> None:
        """Pause before another try, for a random time. It grows with the time since the first failure."""
        failing = self._now() - failing_since if failing_since else 0.0
        await asyncio.sleep(min(TRY_AGAIN_AFTER + failing / 5, TRY_AGAIN_LATER) * (0.5 + self._chance.random()))

    async def repeat(
        self,
        operation: Callable[[], Coroutine[Any, Any, Result]],
        until: Callable[[], float],
        *final: type[StoreError],
    ) -> Result:
        """Repeat an operation that may be repeated, until it succeeds.

        Args:
            operation: The operation.
            until: Tells after each failure until when to try again.
            final: Failures that another try cannot cure, besides those of FINAL.

        Raises StoreError: the final failure, or the last one when it is too late for another try.
        """
        while True:
            try:
                return await operation()
            except StoreError as error:
                if isinstance(error, (*FINAL, *final)) or self._now() >= until():
                    raise
            # Outside the `except`: otherwise compiled code makes this error the context of every error that happens during the wait.
            await self.pause_between_tries()

    def for_a_while(self) -> Callable[[], float]:
        """Return until when to try again, for `repeat`: for as long as a store has to answer, from now on."""
        until = self._now() + ANSWER_WITHIN
        return lambda: until

    async def try_for_a_while(
        self, operation: Callable[[], Coroutine[Any, Any, Result]], *final: type[StoreError]
    ) -> Result:
        """Repeat an operation for as long as a store has to answer. After that raises StoreFailed. Raises final failures as they are."""
        try:
            return await self.repeat(operation, self.for_a_while(), *final)
        except StoreError as error:
            if isinstance(error, (*FINAL, *final)):
                raise
            raise StoreFailed(str(error)) from error

    async def try_while_it_lasts(
        self, operation: Callable[[], Coroutine[Any, Any, Result]], over: Callable[[], bool]
    ) -> Result:
        """Repeat an operation however long it takes until `over` holds, and after that for as long as a store has to answer.

        Raises StoreError: a final failure, or the last one.
        """
        end = inf

        def until() -> float:
            nonlocal end
            if end == inf and over():
                end = self._now() + ANSWER_WITHIN
            return end

        return await self.repeat(operation, until)

    async def failure(self, work: Callable[[], Coroutine[Any, Any, None]]) -> EngineError | None:
        """Do something that a command waits for; return the error for the command if it fails, for whatever reason."""
        try:
            await work()
        except EngineError as error:
            return error
        except Exception as bug:
            logger.error("internal error", exc_info=bug)
            return StoreFailed("internal error")
        return None

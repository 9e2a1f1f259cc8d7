"""How a command that has to look into the store, or changes what nobody here holds, gets its answer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from beanspiked.engine.aerospike.store.tasks import ANSWER_WITHIN
from beanspiked.engine.contract import Answer
from beanspiked.engine.errors import OutcomeUnknown
from beanspiked.engine.later import Later

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.cluster.membership import Membership
    from beanspiked.engine.aerospike.store.tasks import Tasks

__all__ = ["Asking"]


class Asking:
    """Does what commands ask for, each in a task of its own.

    Args:
        tasks: What runs it.
        membership: What has the session.
        turn_over: What lets sessions go on.
    """

    def __init__(self, tasks: "Tasks", membership: "Membership", turn_over: Callable[[], None]) -> None:
        self._tasks = tasks
        self._membership = membership
        self._turn_over = turn_over

    def ask(self, work: Callable[[Answer], Coroutine[Any, Any, None]]) -> Answer:
        """Have something done that writes what it learns into the answer; return that answer, which is done when the work is."""
        answer = Answer()
        self.do(lambda: work(answer), answer)
        return answer

    def do(self, work: Callable[[], Coroutine[Any, Any, None]], outcome: Later) -> None:
        """Have something done, and make its outcome known."""
        self._tasks.spawn(self._do(work, outcome))

    async def _do(self, work: Callable[[], Coroutine[Any, Any, None]], outcome: Later) -> None:
        async def do() -> None:
            # Without a session the server's time is not known.
            await self._membership.have_session(ANSWER_WITHIN)
            await work()

        try:
            error = await self._tasks.failure(do)
        except asyncio.CancelledError:
            outcome.settle(OutcomeUnknown("closed while it was on its way"))
            raise
        outcome.settle(error)
        self._turn_over()

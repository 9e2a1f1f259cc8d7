"""The broker and its engine, for coroutines: how they look, change, and hear what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from beanspiked.engine.contract import WHOLE
from beanspiked.engine.futures import end_of, seen_by, value_of
from beanspiked.engine.later import Later

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.contract import Job, Tube
    from beanspiked.server.broker import Broker

__all__ = ["Outcomes"]

Result = TypeVar("Result")
Seen = TypeVar("Seen", bound=Later)


class Outcomes:
    """Asks an engine, in turns of the broker.

    Args:
        broker: Whose engine it is; it may get one later.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._turning = False

    def turn(self) -> None:
        """End the broker's turn once all tasks that are ready have run: requests are sent on, and their clients served."""
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self.broker.end_turn()

    async def done(self, later: Later | None) -> int:
        """Wait for an outcome; return its value, 0 where there is none. Raises EngineError."""
        self.turn()
        if later is None:
            return 0
        return await value_of(later, asyncio.get_running_loop())

    async def ended(self, later: Later) -> None:
        """Wait until a change is over that somebody else asked for, whatever came of it."""
        self.turn()
        await end_of(later, asyncio.get_running_loop())

    async def look(self, look: Seen | None, read: Callable[[Seen | None], Result]) -> Result:
        """Return what is read of the answer of a look at once when it has ended: jobs change after its callbacks.

        `read` gets None where there was nothing to look for: the engine tells at once.

        Raises:
            EngineError: The look failed, or `read` did.
        """
        if look is None:
            return read(None)
        self.turn()
        return await seen_by(look, asyncio.get_running_loop(), lambda: read(look))

    async def tube(self, name: str, read: Callable[[Tube | None], Result]) -> Result:
        """Return what is read of a tube. Raises EngineError."""
        engine = self.broker.engine
        return await self.look(
            engine.look_tube(name), lambda answer: read(engine.find_tube(name) if answer is None else answer.tube)
        )

    async def job(self, job_id: int, read: Callable[[Job | None], Result], need: int = WHOLE) -> Result:
        """Return what is read of a job, once no change of it is on its way. Raises EngineError."""
        engine = self.broker.engine
        while (change := engine.in_flight(job_id)) is not None:
            await self.ended(change)
            if engine.shared and change.error is not None:
                raise change.error
        return await self.look(
            engine.look_job(job_id, need),
            lambda answer: read(engine.find_job(job_id) if answer is None else answer.job),
        )

    async def next_job(self, name: str, state: int, read: Callable[[Job | None], Result]) -> Result:
        """Return what is read of the job of a tube that leaves a state next. Raises EngineError."""
        engine = self.broker.engine
        tube = await self.tube(name, lambda found: found)
        if tube is None:
            return read(None)
        return await self.look(
            engine.look_next(tube, state),
            lambda answer: read(engine.peek_next(tube, state) if answer is None else answer.job),
        )

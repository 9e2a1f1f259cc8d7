"""Lets coroutines look at jobs and change them through the broker and its engine, and wait for the outcomes."""

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
    """Sends requests to an engine, in turns of the broker.

    Args:
        broker: The engine's broker; it may get its engine later.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._turning = False

    def turn(self) -> None:
        """End the broker's turn once all tasks that are ready have run. This sends requests to the engine and replies to clients."""
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self.broker.end_turn()

    async def done(self, later: Later | None) -> int:
        """Wait for an outcome; return its value, or 0 if it has none. Raises EngineError."""
        self.turn()
        if later is None:
            return 0
        return await value_of(later, asyncio.get_running_loop())

    async def ended(self, later: Later) -> None:
        """Wait until somebody else's change is over, whatever its outcome."""
        self.turn()
        await end_of(later, asyncio.get_running_loop())

    async def look(self, look: Seen | None, read: Callable[[Seen | None], Result]) -> Result:
        """Read the answer of a look as soon as it has ended, since jobs change after its callbacks; return the result of `read`.

        `read` gets None if no look is needed, since the engine then knows the answer.

        Raises:
            EngineError: The look failed, or `read` did.
        """
        if look is None:
            return read(None)
        self.turn()
        return await seen_by(look, asyncio.get_running_loop(), lambda: read(look))

    async def tube(self, name: str, read: Callable[[Tube | None], Result]) -> Result:
        """Read a tube. Raises EngineError."""
        engine = self.broker.engine
        return await self.look(
            engine.look_tube(name), lambda answer: read(engine.find_tube(name) if answer is None else answer.tube)
        )

    async def job(self, job_id: int, read: Callable[[Job | None], Result], need: int = WHOLE) -> Result:
        """Read a job, once no change of it is on its way. Raises EngineError."""
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
        """Read the next job of a tube in a state. Raises EngineError."""
        engine = self.broker.engine
        tube = await self.tube(name, lambda found: found)
        if tube is None:
            return read(None)
        return await self.look(
            engine.look_next(tube, state),
            lambda answer: read(engine.peek_next(tube, state) if answer is None else answer.job),
        )

"""What happens in a tube by itself: delayed jobs become due, and a pause ends."""

import logging
from typing import TYPE_CHECKING

from beanspiked.engine.aerospike import looks
from beanspiked.engine.aerospike.store import key_ms
from beanspiked.engine.errors import EngineError
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.tubes import SharedTube

__all__ = ["Timetable"]

logger = logging.getLogger(__name__)


class Timetable:
    """Makes due jobs ready where somebody waits for them, and keeps pauses.

    Args:
        engine: Whose it is.
        timers: Where tubes wait.
    """

    def __init__(self, engine: "SharedEngine", timers: Timers) -> None:
        self._engine = engine
        self._timers = timers

    def tube_time(self, tube: "SharedTube", now: float) -> None:
        """Make a tube's due jobs ready if somebody waits for them, end its pause, and wait for the next of both."""
        if tube.pause and tube.paused_until <= now:
            tube.pause = 0.0
            tube.paused_until = 0.0
            self._engine.takes.restless(tube)
        if tube.pause:
            self._timers.schedule(tube, tube.paused_until)
        self.wait_for_due(tube)

    def apply_pause(self, tube: "SharedTube", pause_ms: int, until_ms: int) -> None:
        """Take note of a pause."""
        until = self._engine.membership.local_time(until_ms) if until_ms else 0.0
        if pause_ms and until > self._engine.now():
            tube.pause = pause_ms / 1000
            tube.paused_until = until
            self._timers.schedule(tube, until)
        elif tube.pause:
            tube.pause = 0.0
            tube.paused_until = 0.0
            self._engine.takes.restless(tube)

    def wait_for_due(self, tube: "SharedTube") -> None:
        """Promote due jobs now, or when the first is due, if somebody waits for them."""
        if tube.next_due and tube.waiters and not tube.promoting:
            if tube.next_due <= self._engine.membership.server_ms():
                tube.promoting = True
                self._engine.spawn(self._promote(tube))
            else:
                self._timers.schedule(tube, self._engine.membership.local_time(tube.next_due))

    async def _promote(self, tube: "SharedTube") -> None:
        try:
            await self._engine.try_for_a_while(lambda: self.promote_due(tube))
        except EngineError as error:
            logger.info("tube %s: due jobs wait: %s", tube.name, error)
            await self._engine.pause_between_tries()
        finally:
            tube.promoting = False
        self.wait_for_due(tube)
        self._engine.turn_over()

    async def promote_due(self, tube: "SharedTube") -> None:
        """Make all due jobs of a tube ready."""
        tube.next_due = 0
        for committer in list(tube.committers.values()):
            head = committer.head
            while head is not None and head.due_key is not None and not committer.gone:
                if key_ms(head.due_key) > self._engine.membership.server_ms():
                    tube.expect(head.due_key)
                    break
                head = await looks.promote(self._engine, committer)

"""What becomes of the tubes when a session begins or ends, with each second, and when jobs become ready without an operation of theirs."""

from typing import TYPE_CHECKING

from beanspiked.engine.aerospike.cluster.listener import SessionListener

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.engine import SharedEngine

__all__ = ["SessionEvents"]


class SessionEvents(SessionListener):
    """Hands on what a session tells.

    Args:
        engine: Whose it is.
    """

    def __init__(self, engine: "SharedEngine") -> None:
        self._engine = engine

    def session_began(self) -> None:
        """Go on with what waited for a session."""
        self._engine.session_began()

    def session_over(self) -> None:
        """Give up every held job; what was not sent goes with the next session."""
        self._engine.session_over()

    def tick(self) -> None:
        """Fail what waits for a store that does not answer, and look at tubes that are waited for."""
        self._engine.tick()

    def others_changed(self) -> None:
        """Doubt what is known: until now the news of new front-ends were not heard, nor are the last ones of those that have ended."""
        self._engine.scout.stop_following()
        self._engine.scout.look_everywhere()

    def became_ready(self, tube: str, segment: int) -> None:
        """Look at a tube with new ready jobs if somebody waits, and tell the others."""
        self._engine.scout.segment_changed(tube, segment)

    async def sweep(self) -> None:
        """Let go of tubes that nobody here uses, and of segments that are finished."""
        await self._engine.registry.sweep()

    async def look_through(self) -> None:
        """Finish a part of what others have left behind. Raises StoreError."""
        await self._engine.leftovers.look_through()

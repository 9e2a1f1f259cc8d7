"""The gate of a connection: whether its next command may be executed, and if not, why."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.later import Later
from beanspiked.server.broker import Broker
from beanspiked.server.contract import TurnTaker

__all__ = ["CHANGE", "CLOSED", "LOOK", "OPEN", "OWN_CHANGES", "QUIT", "RESERVING", "Gate"]

logger = logging.getLogger(__name__)

# The next command may be executed.
OPEN: Final = 0
# The next command waits for the reserve in progress.
RESERVING: Final = 1
# The next command depends on changes of earlier commands, which are on their way to the store.
OWN_CHANGES: Final = 2
# The next command names a job whose change is on its way.
CHANGE: Final = 3
# A shared engine is reading the jobs or figures for the command.
LOOK: Final = 4
# No more commands run; replies may still leave.
QUIT: Final = 5
# The connection is gone.
CLOSED: Final = 6


class Gate:
    """Says why a connection's next command waits, and lets the broker call the connection when it may go on.

    Attributes:
        broker: The broker of all connections.
        why: Why the next command waits: one of this module's numbers.
        queued: Whether the broker is about to call the connection.
        at_rest: Whether a call would do nothing: there is no input, and nothing to end.
        owner: The connection's side of the protocol; None once it is closed. The two refer to each other, and there are no full garbage
            collections to find that.
    """

    def __init__(self, broker: Broker, owner: TurnTaker) -> None:
        self.broker: Broker = broker
        self.why: int = OPEN
        self.queued: bool = False
        self.at_rest: bool = True
        self.owner: TurnTaker | None = owner

    def wake(self) -> None:
        """Let the broker call the connection before this turn ends, or in the next one, unless it is at rest."""
        owner = self.owner
        if owner is not None and not self.queued and not self.at_rest:
            self.queued = True
            self.broker.runnable.append(owner)

    def when(self, later: Later, callback: Callable[[Later], None]) -> None:
        """Call back when an outcome is known. A bug in the callback ends this connection."""

        def called(outcome: Later) -> None:
            try:
                callback(outcome)
            except Exception as error:  # noqa: BLE001 - every command of this connection needs a reply
                self.fail(error)

        later.then(called)

    def fail(self, error: Exception) -> None:
        """End the connection after a bug."""
        if self.owner is None:
            logger.error("internal error in a connection that is closed already", exc_info=error)
        else:
            self.owner.fail(error)

    def close(self) -> None:
        """Learn that the connection is gone."""
        self.why = CLOSED
        self.owner = None

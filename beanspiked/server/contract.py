"""What the broker needs of the event loop, of each connection, and of the other workers."""

from mypy_extensions import mypyc_attr

from beanspiked.engine.later import Later

__all__ = ["Alarm", "Siblings", "TurnTaker"]


@mypyc_attr(allow_interpreted_subclasses=True)
class Alarm:
    """The part of an event loop that the broker calls."""

    def set(self, at: float) -> None:
        """Call `Broker.on_alarm` at this time, in seconds since the epoch; replaces an earlier one."""
        raise NotImplementedError

    def soon(self) -> None:
        """Call `Broker.on_alarm` in the next turn."""
        raise NotImplementedError

    def hear(self) -> None:
        """Read all sockets. A client that spoke in time must not miss a deadline because this process was late."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Siblings:
    """The other workers of a server, for the broker.

    Attributes:
        workers: How many workers the server has, this one included.
        answered: How many of the others answered when they were last asked.
        counters: The sums of their counters (`Broker.counters`); empty if none answered.
    """

    def __init__(self, workers: int) -> None:
        self.workers: int = workers
        self.answered: int = 0
        self.counters: list[int] = []

    def ask(self) -> Later:
        """Ask them for their counters. The outcome is known when these have come or the time is up."""
        raise NotImplementedError


class TurnTaker:
    """One connection's side of the protocol, for the broker."""

    def run(self) -> None:
        """Execute received commands until one has to wait or the connection has had its share of the turn."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send the replies that are known."""
        raise NotImplementedError

    def is_settled(self) -> bool:
        """Tell whether no change of the connection is on its way to the store."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """End this connection after a bug."""
        raise NotImplementedError

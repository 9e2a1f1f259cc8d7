"""A change of a segment on its way to the store and back."""

from collections.abc import Callable

from beanspiked.engine.aerospike.store.seam import Change, Outcome

__all__ = ["Request", "Told"]


class Request:
    """A change of a segment.

    Args:
        change: The change.

    Attributes:
        number, lease: The segment, and the lease that the change is made under; set before it is sent.
        outcome: What came of it, or the error that it ended with; None while it is on its way.
    """

    def __init__(self, change: Change) -> None:
        self.change: Change = change
        self.number: int = 0
        self.lease: int = 0
        self.outcome: Outcome | Exception | None = None


# Is called with requests whose outcomes have become known.
Told = Callable[[list[Request]], None]

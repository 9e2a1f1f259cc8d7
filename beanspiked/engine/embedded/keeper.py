"""What the embedded engine needs of its journal."""

from mypy_extensions import mypyc_attr

from beanspiked.engine.contract import JournalStats
from beanspiked.engine.embedded.write import Write
from beanspiked.engine.later import Later

__all__ = ["Keeper"]


@mypyc_attr(allow_interpreted_subclasses=True)
class Keeper:
    """Keeps changes: each `Write` is settled once it is on disk, or has failed.

    Attributes:
        stats: What it has done.
    """

    def __init__(self) -> None:
        self.stats: JournalStats = JournalStats(1)

    def add(self, write: Write) -> None:
        """Add a change; it is written with the next `flush`."""
        raise NotImplementedError

    def gathers(self) -> bool:
        """Tell whether the next `flush` takes so long that more changes should come before it."""
        return False

    def flush(self) -> None:
        """Start to write the changes of this turn."""
        raise NotImplementedError

    def set_aside(self, row_id: object, fault: str) -> None:
        """Count a row that is not a valid job, and leave it where it is."""
        raise NotImplementedError

    def close(self, given_back: dict[tuple[int, int], list[int]] | None = None) -> Later:
        """Write the added changes and close everything.

        Args:
            given_back: The ids of jobs that became ready without a change in the journal, by the number of their reserves and timeouts.
        """
        raise NotImplementedError

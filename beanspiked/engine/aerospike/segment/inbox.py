"""What waits for the next operation on one segment."""

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, HeldChange, Put, Steal
from beanspiked.engine.aerospike.store.seam import READY
from beanspiked.engine.contract import Waiter

__all__ = ["Inbox"]


class Inbox:
    """What has come in while an operation is in flight.

    Attributes:
        puts, held_changes, steals: In the order in which they came.
        asks: Who asks for how many jobs.
        wanted: How many that are in all.
        close: Whether the segment is to accept no more puts.
    """

    def __init__(self) -> None:
        self.puts: list[Put] = []
        self.held_changes: list[HeldChange] = []
        self.steals: list[Steal] = []
        self.asks: list[tuple[Waiter, int]] = []
        self.wanted: int = 0
        self.close: bool = False

    def pending(self) -> bool:
        """Tell whether there is anything to be done."""
        return bool(self.puts or self.held_changes or self.asks or self.steals or self.close)

    def waited_for(self) -> bool:
        """Tell whether anybody waits for what is to be done."""
        return bool(self.puts or self.held_changes or self.asks or self.steals)

    def only_asks(self) -> bool:
        """Tell whether jobs are asked for and nothing else is to be done."""
        return bool(self.asks) and not (self.puts or self.held_changes or self.steals or self.close)

    def count(self) -> int:
        """Count what one operation can carry."""
        return len(self.puts) + len(self.held_changes) + self.wanted

    def ask(self, waiter: Waiter, count: int) -> None:
        """Somebody asks for jobs."""
        self.asks.append((waiter, count))
        self.wanted += count

    def next_batch(self, slots: int, *, few: bool, takes: bool, attach: bool = False) -> Batch:
        """Make one change of what came first, and of all that was asked for.

        Args:
            slots: The highest slot that was given to earlier puts; the new ones get the next (segment-protocol H4).
            few: Whether few jobs are expected in the segment besides.
            takes: Whether it may take jobs.
            attach: Whether it makes the lease first.
        """
        puts = self.puts[:BATCH_MAX]
        self.puts = self.puts[BATCH_MAX:]
        held_changes = self.held_changes[:BATCH_MAX]
        self.held_changes = self.held_changes[BATCH_MAX:]
        asks: list[tuple[Waiter, int]] = []
        wanted = 0
        if takes and not any(change.queue == READY for change in held_changes):
            # A job that is given back and taken again in one operation could not be told from one that never moved.
            wanted = self.wanted
            asks = self.take_asks()
        close = self.close and not self.puts
        if close:
            self.close = False
        return Batch(puts, held_changes, asks, wanted, close, slots, few, attach=attach)

    def take_puts(self) -> list[Put]:
        """Take out all puts."""
        puts, self.puts = self.puts, []
        return puts

    def take_held_changes(self) -> list[HeldChange]:
        """Take out all changes of held jobs."""
        held_changes, self.held_changes = self.held_changes, []
        return held_changes

    def take_steals(self) -> list[Steal]:
        """Take out all reservations of certain jobs."""
        steals, self.steals = self.steals, []
        return steals

    def take_asks(self) -> list[tuple[Waiter, int]]:
        """Take out all that was asked for."""
        asks, self.asks = self.asks, []
        self.wanted = 0
        return asks

    def take_late(self, now: float) -> tuple[list[Put], list[HeldChange], list[Steal]]:
        """Take out what has waited for too long."""
        puts = [put for put in self.puts if put.until <= now]
        held_changes = [change for change in self.held_changes if change.until <= now and not change.insists]
        steals = [steal for steal in self.steals if steal.until <= now]
        if puts:
            self.puts = [put for put in self.puts if put.until > now]
        if held_changes:
            self.held_changes = [change for change in self.held_changes if change.until > now or change.insists]
        if steals:
            self.steals = [steal for steal in self.steals if steal.until > now]
        return puts, held_changes, steals

"""What one operation on a segment carries, and for whom."""

from beanspiked.engine.aerospike.segment.jobs import Leave, Put
from beanspiked.engine.aerospike.store.keys import due_key, ready_key
from beanspiked.engine.aerospike.store.seam import DELAYED, READY, Change, Move, Settlement
from beanspiked.engine.contract import Waiter

__all__ = ["Batch"]


class Batch:
    """Changes of one segment that are done together or not at all.

    Args:
        puts, leaves: The changes. The puts get their slots here (segment-protocol H4).
        asks: Who asked for how many jobs.
        take: How many that are in all.
        close: Whether the segment accepts no more puts afterwards.
        slots: The highest slot that was given to earlier puts.
        few: Whether few jobs are expected in the segment; see Change.

    Attributes:
        puts, leaves, asks: As given, less what was told already.
        change: All of it, as the store takes it.
        mark: The engine's step at which it began.
        until: When it is given up if no command waits for it and its segment is busy, in seconds since the epoch.
    """

    def __init__(
        self,
        puts: list[Put],
        leaves: list[Leave],
        asks: list[tuple[Waiter, int]],
        take: int = 0,
        close: bool = False,
        slots: int = 0,
        few: bool = False,
    ) -> None:
        self.puts: list[Put] = puts
        self.leaves: list[Leave] = leaves
        self.asks: list[tuple[Waiter, int]] = asks
        self._slots: int = slots
        self.change: Change = _change(puts, leaves, take, close, slots, few)
        self.mark: int = 0
        self.until: float = 0.0

    def drop_puts(self) -> list[Put]:
        """Leave the puts out from now on, and return them; only of a batch that was not applied."""
        puts = self.puts
        self.puts = []
        self._change_again()
        return puts

    def drop_late(self, now: float) -> tuple[list[Put], list[Leave]]:
        """Leave out, and return, what has waited for too long; only of a batch that was not applied."""
        puts = [put for put in self.puts if put.until <= now]
        leaves = [leave for leave in self.leaves if leave.until <= now and not leave.insists]
        if puts or leaves:
            self.puts = [put for put in self.puts if put.until > now]
            self.leaves = [leave for leave in self.leaves if leave.until > now or leave.insists]
            self._change_again()
        return puts, leaves

    def drop_leaves(self) -> list[Leave]:
        """Leave out, and return, the changes of held jobs that need not be made."""
        leaves = [leave for leave in self.leaves if not leave.insists]
        self.leaves = [leave for leave in self.leaves if leave.insists]
        self._change_again()
        return leaves

    def empty(self) -> bool:
        """Tell whether nothing is left of it."""
        return not (self.puts or self.leaves or self.asks or self.change.close)

    def only_asks(self) -> bool:
        """Tell whether it only asks for jobs."""
        return not (self.puts or self.leaves or self.change.close)

    def waited_for(self) -> bool:
        """Tell whether a command waits for it, other than for a job."""
        return bool(self.puts) or any(not leave.insists for leave in self.leaves)

    def _change_again(self) -> None:
        change = self.change
        self.change = _change(self.puts, self.leaves, change.take, change.close, self._slots, change.few)

    def applied(self, settlement: Settlement, took: bool) -> bool:
        """Tell by what its segment holds whether it was applied; `took` tells whether the lease holds new jobs."""
        if self.puts:
            return settlement.last_slot >= self.change.last_slot
        if self.change.moves:
            return self.change.moves[0].key not in settlement.held
        # New values may be written again; what was taken is there.
        return took or not self.leaves


def _change(puts: list[Put], leaves: list[Leave], take: int, close: bool, slots: int, few: bool) -> Change:
    queues: dict[str, dict[bytes, bytes]] = {}
    slot = slots
    if puts:
        ready: dict[bytes, bytes] = {}
        delayed: dict[bytes, bytes] = {}
        for put in puts:
            slot += 1
            put.slot = slot
            if put.due_ms:
                delayed[due_key(put.due_ms, slot)] = put.packed
            else:
                ready[ready_key(put.pri, put.put_us, slot)] = put.packed
        if ready:
            queues[READY] = ready
        if delayed:
            queues[DELAYED] = delayed
    moves = [Move(leave.job.place, leave.queue, leave.new_key, leave.packed) for leave in leaves if not leave.stays]
    replaced = {leave.job.place: leave.packed for leave in leaves if leave.stays}
    return Change(slot if puts else 0, queues, replaced, moves, take, close, few)

"""What one operation on a segment carries, and for whom."""

from beanspiked.engine.aerospike.segment.jobs import Command, HeldChange, Put, Steal
from beanspiked.engine.aerospike.store.keys import due_key, ready_key
from beanspiked.engine.aerospike.store.request import Request
from beanspiked.engine.aerospike.store.seam import DELAYED, READY, Change, Move, Settlement
from beanspiked.engine.contract import Waiter

__all__ = ["Batch"]


class Batch(Request):
    """Changes of one segment that are done together or not at all.

    Args:
        puts, held_changes: The changes. The puts get their slots here (segment-protocol H4).
        asks: Who asked for how many jobs.
        take: How many that are in all.
        close: Whether the segment accepts no more puts afterwards.
        slots: The highest slot that was given to earlier puts.
        few: Whether few jobs are expected in the segment; see Change.
        steal: The one reservation that it consists of, or None.
        attach: Whether it makes the lease first.

    Attributes:
        puts, held_changes, asks, steal: As given, less what was told already.
        change, number, lease, outcome: See Request.
        mark: The engine's step at which it began.
        until: When it is given up if no command waits for it and its segment is busy, in seconds since the epoch.
        settled_in_vain: Whether a settle has told that it was not applied.
    """

    def __init__(
        self,
        puts: list[Put],
        held_changes: list[HeldChange],
        asks: list[tuple[Waiter, int]],
        take: int = 0,
        close: bool = False,
        slots: int = 0,
        few: bool = False,
        steal: Steal | None = None,
        attach: bool = False,
    ) -> None:
        super().__init__(_change(puts, held_changes, take, close, slots, few, attach))
        self.puts: list[Put] = puts
        self.held_changes: list[HeldChange] = held_changes
        self.asks: list[tuple[Waiter, int]] = asks
        self.steal: Steal | None = steal
        self._slots: int = slots
        self.mark: int = 0
        self.until: float = 0.0
        self.settled_in_vain: bool = False

    def drop_puts(self) -> list[Put]:
        """Leave the puts out from now on, and return them; only of a batch that was not applied."""
        puts = self.puts
        self.puts = []
        self._change_again()
        return puts

    def take_puts(self) -> list[Put]:
        """Take out the puts; only of a batch that is not sent any more."""
        puts, self.puts = self.puts, []
        return puts

    def take_commands(self) -> list[Command]:
        """Take out the changes of held jobs and the reservation; only of a batch that is not sent any more."""
        commands: list[Command] = [*self.held_changes]
        self.held_changes = []
        if self.steal is not None:
            commands.append(self.steal)
            self.steal = None
        return commands

    def drop_late(self, now: float) -> list[Command]:
        """Leave out, and return, what has waited for too long; only of a batch that was not applied."""
        late: list[Command] = [put for put in self.puts if put.until <= now]
        late += [change for change in self.held_changes if change.until <= now and not change.insists]
        if late:
            self.puts = [put for put in self.puts if put.until > now]
            self.held_changes = [change for change in self.held_changes if change.until > now or change.insists]
            self._change_again()
        if self.steal is not None and self.steal.until <= now:
            late.append(self.steal)
            self.steal = None
        return late

    def drop_held_changes(self) -> list[HeldChange]:
        """Leave out, and return, the changes of held jobs that need not be made."""
        held_changes = [change for change in self.held_changes if not change.insists]
        self.held_changes = [change for change in self.held_changes if change.insists]
        self._change_again()
        return held_changes

    def empty(self) -> bool:
        """Tell whether nothing is left of it."""
        return not (self.puts or self.held_changes or self.asks or self.change.close or self.steal)

    def only_asks(self) -> bool:
        """Tell whether it only asks for jobs."""
        return not (self.puts or self.held_changes or self.change.close or self.steal)

    def waited_for(self) -> bool:
        """Tell whether a command waits for it, other than for a job."""
        return bool(self.puts or self.steal) or any(not change.insists for change in self.held_changes)

    def _change_again(self) -> None:
        change = self.change
        self.change = _change(
            self.puts, self.held_changes, change.take, change.close, self._slots, change.few, change.attach
        )

    def applied(self, settlement: Settlement, took: bool) -> bool:
        """Tell by what its segment holds whether it was applied; `took` tells whether the lease holds new jobs."""
        if self.steal is not None:
            return self.steal.key in settlement.held
        if self.puts:
            return settlement.last_slot >= self.change.last_slot
        if self.change.moves:
            return self.change.moves[0].key not in settlement.held
        # New values may be written again, and a segment be closed again; what was taken is there.
        return took or not (self.held_changes or self.change.close)


def _change(
    puts: list[Put], held_changes: list[HeldChange], take: int, close: bool, slots: int, few: bool, attach: bool
) -> Change:
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
    moves = [
        Move(change.job.place, change.queue, change.new_key, change.packed)
        for change in held_changes
        if not change.stays
    ]
    replaced = {change.job.place: change.packed for change in held_changes if change.stays}
    return Change(slot if puts else 0, queues, replaced, moves, take, close, few, attach)

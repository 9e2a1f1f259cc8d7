"""One step in the course of a batch: what the driver tells everybody, and what it does next."""

from collections.abc import Sequence
from typing import Final

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.jobs import Command, HeldChange, Put
from beanspiked.engine.contract import Waiter
from beanspiked.engine.errors import EngineError

__all__ = ["DONE", "END", "READ", "SEND", "SETTLE", "WAIT", "Step"]

# What the driver does next.
SEND: Final = "send"
# Pause, then ask what is next.
WAIT: Final = "wait"
# Move the lease on.
SETTLE: Final = "settle"
# Read the segment, whose lease is gone.
READ: Final = "read"
END: Final = "end"


class Step:
    """What the driver tells everybody, and what it does then.

    Args:
        action: SEND, WAIT, SETTLE, READ or END.
        reason: Why nothing comes through at present, or None: it holds for the commands that wait behind the batch, too.

    Attributes:
        done: Whether the whole batch was applied.
        failed: Commands that fail, and why.
        put: Puts that were applied, of a batch that was not done as a whole.
        elsewhere: Puts that were surely not applied, for another segment.
        leave: Whether the segment takes no more puts.
        asks: Requests for jobs that come to nothing.
        asks_error: What those learn who made them and ask for nothing else; None if they just ask again.
        later: Changes of held jobs that go along with the next batch.
        close: Whether the next batch is to close the segment.
        abandon: Why the segment is given up, or None.
    """

    def __init__(self, action: str, reason: EngineError | None = None) -> None:
        self.action: str = action
        self.reason: EngineError | None = reason
        self.done: bool = False
        self.failed: list[tuple[Command, EngineError]] = []
        self.put: list[Put] = []
        self.elsewhere: list[Put] = []
        self.leave: bool = False
        self.asks: list[tuple[Waiter, int]] = []
        self.asks_error: EngineError | None = None
        self.later: list[HeldChange] = []
        self.close: bool = False
        self.abandon: EngineError | None = None

    def fail(self, commands: Sequence[Command], reason: EngineError) -> None:
        """Have commands told that they failed."""
        for command in commands:
            self.failed.append((command, reason))

    def drop(self, batch: Batch, reason: EngineError) -> None:
        """Take a batch apart: its puts, which were surely not applied, go elsewhere, all else fails."""
        self.move(batch)
        self.asks, batch.asks = batch.asks, []
        self.fail(batch.take_commands(), reason)

    def move(self, batch: Batch) -> None:
        """Have the puts of a batch that was not applied put elsewhere."""
        self.elsewhere = batch.drop_puts()


# The batch was applied; made once, since nearly every batch ends so.
DONE: Final = Step(END)
DONE.done = True

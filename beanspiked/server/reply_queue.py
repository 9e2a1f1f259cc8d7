"""The replies of one connection, in the order of its commands."""

from collections import deque
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.errors import JobGone, OutcomeUnknown, StoreFull
from beanspiked.engine.later import Later
from beanspiked.protocol import replies
from beanspiked.server.gate import OPEN, OWN_CHANGES, Gate

__all__ = ["WRITE_CHUNK", "ReplyQueue", "Sink"]

# Replies are handed to the sink before the end of a turn when they are this many bytes.
WRITE_CHUNK: Final = 262144
# Bodies of this many bytes are passed on uncopied; the rest of a turn's replies leaves as one piece.
LARGE_PIECE: Final = 65536
# How many changes of one connection may be on their way to the store at once.
UNSETTLED_MAX: Final = 1000


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink:
    """Takes a connection's replies and says when it reads; this base class drops everything."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def close(self) -> None:
        """Close the connection once everything is sent."""

    def pause_reading(self) -> None:
        """Stop reading, but keep watching for a hang-up."""

    def resume_reading(self) -> None:
        """Read again."""

    def trace_command(self, verb: int) -> None:
        """Log a command (`-VV`)."""


class Slot:
    """The place of one reply in its connection's order; empty until the reply is known."""

    def __init__(self, reply: bytes) -> None:
        self.reply: bytes = reply


class ReplyQueue:
    """Sends replies in the order of their commands, each once it and all before it are known.

    Args:
        gate: The connection's gate.
        sink: Takes the replies.

    Attributes:
        sink: Takes the replies.
        size: The bytes that leave with the next `flush`.
        unsettled: How many changes are on their way to the store; their replies are not known yet.
        choked: Whether the client does not read.
    """

    def __init__(self, gate: Gate, sink: Sink) -> None:
        self.sink: Sink = sink
        self.size: int = 0
        self.unsettled: int = 0
        self.choked: bool = False
        self._gate = gate
        self._known: list[bytes] = []
        self._dirty: bool = False
        # The first reply that is not known, and all after it.
        self._slots: deque[Slot] = deque()
        # Micro-optimization: whether that list is not empty.
        self._behind: bool = False
        self._slot_bytes: int = 0

    def full(self) -> bool:
        """Tell whether no more commands may be executed until replies have left or changes are settled."""
        return self.choked or self.unsettled >= UNSETTLED_MAX or self._slot_bytes > WRITE_CHUNK

    def all_known(self) -> bool:
        """Tell whether all replies leave with the next `flush`."""
        return not self._behind

    def add(self, reply: bytes) -> None:
        """Reply to a command."""
        if self._behind:
            self._slots.append(Slot(reply))
            self._slot_bytes += len(reply)
            return
        self._known.append(reply)
        self.size += len(reply)
        if not self._dirty:
            self._mark()

    def add_job(self, header: bytes, body: bytes) -> None:
        """Reply with a job, whose body is not copied unless it has to wait."""
        if self._behind:
            self.add(b"".join((header, body, replies.CRLF)))
            return
        self._known.append(header)
        self._known.append(body)
        self.size += len(header) + len(body)
        self.add(replies.CRLF)

    def add_later(
        self,
        later: Later | None,
        reply: bytes,
        *,
        made: Callable[[Later], bytes] | None = None,
        undo: Callable[[], None] | None = None,
        failure: bytes = replies.INTERNAL_ERROR,
    ) -> None:
        """Reply when a change is settled.

        Args:
            later: The change; None when it is done.
            reply: The reply to one that succeeded.
            made: Makes the reply from the outcome instead.
            undo: Called when the change is known to have failed; after an unknown outcome the session has lost the job.
            failure: The reply when the store failed but is not full.
        """
        if later is None:
            self.add(reply)
            return
        slot = Slot(b"")
        self._slots.append(slot)
        self._behind = True
        self.unsettled += 1

        def settled(outcome: Later) -> None:
            error = outcome.error
            if error is None:
                slot.reply = reply if made is None else made(outcome)
            elif isinstance(error, JobGone):
                slot.reply = replies.NOT_FOUND
            else:
                slot.reply = replies.OUT_OF_MEMORY if isinstance(error, StoreFull) else failure
                if undo is not None and not isinstance(error, OutcomeUnknown):
                    undo()
            self.unsettled -= 1
            self._slot_bytes += len(slot.reply)
            self._drain()

        self._gate.when(later, settled)

    def _drain(self) -> None:
        """Let the replies leave that are next in order, and let the connection go on."""
        slots = self._slots
        while slots and slots[0].reply:
            data = slots.popleft().reply
            self._slot_bytes -= len(data)
            self._known.append(data)
            self.size += len(data)
        self._behind = len(slots) > 0
        if self._known and not self._dirty:
            self._mark()
        gate = self._gate
        if not self.unsettled and gate.why == OWN_CHANGES:
            gate.why = OPEN
        gate.wake()

    def _mark(self) -> None:
        owner = self._gate.owner
        if owner is not None:
            self._dirty = True
            self._gate.broker.dirty.append(owner)

    def flush(self) -> None:
        """Send the known replies in one write, except for large bodies, which are not copied."""
        self._dirty = False
        known = self._known
        if not known:
            return
        small = self.size <= LARGE_PIECE
        self._known = []
        self.size = 0
        if small:
            self.sink.write(known[0] if len(known) == 1 else b"".join(known))
        else:
            self._send_pieces(known)

    def _send_pieces(self, pieces: list[bytes]) -> None:
        small: list[bytes] = []
        for piece in pieces:
            if len(piece) < LARGE_PIECE:
                small.append(piece)
                continue
            if small:
                self.sink.write(b"".join(small))
                small = []
            self.sink.write(piece)
        if small:
            self.sink.write(b"".join(small))

    def close(self) -> None:
        """Drop the replies that have not left, and all later ones."""
        self.sink = NO_SINK
        self._known = []


NO_SINK: Final = Sink()

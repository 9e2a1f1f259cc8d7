"""The replies of one connection, in the order of its commands."""

from collections import deque
from typing import Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.errors import JobGone, OutcomeUnknown, StoreFull
from beanspiked.engine.later import Later, Listener
from beanspiked.protocol import replies
from beanspiked.server.gate import OPEN, OWN_CHANGES, Gate
from beanspiked.server.times import Latencies

__all__ = ["WRITE_CHUNK", "PendingReply", "ReplyQueue", "Sink", "TimedReplyQueue"]

# With this many bytes, replies go to the sink before the end of the turn.
WRITE_CHUNK: Final = 262144
# Bodies of at least this many bytes are not copied. The rest of a turn's replies leaves as one piece.
LARGE_PIECE: Final = 65536
# How many changes of one connection may be on their way to the store at once.
UNSETTLED_MAX: Final = 1000
# How many replies that have left may stand before those that have not.
LEFT_MAX: Final = 100


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink:
    """Takes a connection's replies, and starts and stops its reading. This base class drops everything."""

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


class Slot(Listener):
    """The place of one reply among those of its connection. It is empty until the reply is known."""

    def __init__(self, reply: bytes) -> None:
        self.reply: bytes = reply


class PendingReply(Slot):
    """The reply to a change that is on its way to the store.

    Args:
        queue: The queue in which it stands.
        success: The reply if the change was made.
        failure: The reply if the store failed but is not full.
    """

    def __init__(self, queue: "ReplyQueue", success: bytes, failure: bytes = replies.INTERNAL_ERROR) -> None:
        super().__init__(b"")
        self._queue: ReplyQueue = queue
        self._success: bytes = success
        self._failure: bytes = failure

    def made(self, outcome: Later) -> bytes:  # noqa: ARG002 - for those that tell more
        """Return the reply to a change that was made."""
        return self._success

    def undo(self) -> None:
        """Learn that the change was not made. After an unknown outcome nothing is undone, since the job went with the session."""

    def settled(self, later: Later) -> None:
        """Take the outcome. A bug here ends this connection."""
        queue = self._queue
        try:
            error = later.error
            if error is None:
                self.reply = self.made(later)
            elif isinstance(error, JobGone):
                self.reply = replies.NOT_FOUND
            else:
                self.reply = replies.OUT_OF_MEMORY if isinstance(error, StoreFull) else self._failure
                broker = queue.gate.broker
                if broker.engine.shared and not isinstance(error, StoreFull):
                    # An embedded engine logs the trouble of its disk itself.
                    broker.failures.count(error)
                if not isinstance(error, OutcomeUnknown):
                    self.undo()
            queue.filled(self)
        except Exception as bug:  # noqa: BLE001 - no reply of this connection may stay out for ever
            queue.gate.fail(bug)


class ReplyQueue:
    """Sends replies in the order of their commands. Each leaves once it and all before it are known.

    Args:
        gate: The connection's gate.
        sink: Takes the replies.

    Attributes:
        gate, sink: As given.
        size: The bytes that leave with the next `flush`.
        unsettled: How many changes are on their way to the store. Their replies are not known yet.
        choked: Whether the client does not read.
    """

    def __init__(self, gate: Gate, sink: Sink) -> None:
        self.gate: Gate = gate
        self.sink: Sink = sink
        self.size: int = 0
        self.unsettled: int = 0
        self.choked: bool = False
        self._known: list[bytes] = []
        self._dirty: bool = False
        # The first reply that is not known, and all after it, behind some that have left; None if all are known.
        self._slots: list[Slot] | None = None
        self._left: int = 0
        self._slot_bytes: int = 0

    def full(self) -> bool:
        """Tell whether no more commands may be executed until replies have left or changes are settled."""
        return self.choked or self.unsettled >= UNSETTLED_MAX or self._slot_bytes > WRITE_CHUNK

    def all_known(self) -> bool:
        """Tell whether all replies leave with the next `flush`."""
        return self._slots is None

    def add(self, reply: bytes) -> None:
        """Reply to a command."""
        if self._slots is not None:
            self._slots.append(Slot(reply))
            self._slot_bytes += len(reply)
            return
        self._known.append(reply)
        self.size += len(reply)
        if not self._dirty:
            self._mark()

    def add_job(self, header: bytes, body: bytes) -> None:
        """Reply with a job. Its body is copied only if it has to wait."""
        if self._slots is not None:
            self.add(b"".join((header, body, replies.CRLF)))
            return
        self._known.append(header)
        self._known.append(body)
        self.size += len(header) + len(body)
        self.add(replies.CRLF)

    def add_later(self, later: Later, pending: PendingReply) -> None:
        """Reply when a change is settled."""
        if self._slots is None:
            self._slots = []
        self._slots.append(pending)
        self.unsettled += 1
        later.tell(pending)

    def filled(self, pending: PendingReply) -> None:
        """Note that a reply is known."""
        self.unsettled -= 1
        self._slot_bytes += len(pending.reply)
        self._drain()

    def _drain(self) -> None:
        """Send the replies that are next in order, and let the connection go on."""
        slots = self._slots
        assert slots is not None, "a reply becomes known once"
        known = self._known
        left = self._left
        count = len(slots)
        while left < count:
            slot = slots[left]
            data = slot.reply
            if not data:
                break
            slot.reply = b""
            left += 1
            self._slot_bytes -= len(data)
            self.size += len(data)
            known.append(data)
        if left == count:
            self._slots = None
            left = 0
        elif left > LEFT_MAX:
            del slots[:left]
            left = 0
        self._left = left
        if known and not self._dirty:
            self._mark()
        gate = self.gate
        if not self.unsettled and gate.why == OWN_CHANGES:
            gate.why = OPEN
        gate.wake()

    def _mark(self) -> None:
        owner = self.gate.owner
        if owner is not None:
            self._dirty = True
            self.gate.broker.dirty.append(owner)

    def flush(self) -> None:
        """Send the known replies in one write. Large bodies are not copied and leave by themselves."""
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

    def time(self, verb: int, began: float) -> None:
        """Measure the time from `began` until the last reply leaves, for a verb. Only a TimedReplyQueue does so."""

    def close(self) -> None:
        """Drop the replies that have not left, and all later ones."""
        self.sink = NO_SINK


class Timed:
    """A command whose reply is measured.

    Attributes:
        verb, began: The verb under which it counts, and when it was parsed.
        place: The place of its reply among those that had to wait.
        stands_for: How many commands it stands for.
    """

    def __init__(self, verb: int, began: float, place: int, stands_for: int) -> None:
        self.verb: int = verb
        self.began: float = began
        self.place: int = place
        self.stands_for: int = stands_for


class TimedReplyQueue(ReplyQueue):
    """Measures how long some commands take: until their replies are handed to the socket.

    Args:
        gate, sink: As of any.
        latencies: Counts the times.
    """

    def __init__(self, gate: Gate, sink: Sink, latencies: Latencies) -> None:
        super().__init__(gate, sink)
        self._latencies: Latencies = latencies
        self._timed: deque[Timed] = deque()
        # How many of the replies that had to wait are known by now.
        self._waited: int = 0

    def time(self, verb: int, began: float) -> None:
        """Measure the time from `began` until the last reply leaves, for a verb."""
        self._timed.append(Timed(verb, began, self._waited + self._waiting(), self._latencies.stands_for))

    def _waiting(self) -> int:
        return 0 if self._slots is None else len(self._slots) - self._left

    def _drain(self) -> None:
        before = self._waiting()
        super()._drain()
        self._waited += before - self._waiting()

    def flush(self) -> None:
        """Send the known replies, and count the times of the measured ones."""
        super().flush()
        timed = self._timed
        if timed and timed[0].place <= self._waited:
            now = self.gate.broker.now()
            while timed and timed[0].place <= self._waited:
                one = timed.popleft()
                self._latencies.of[one.verb].add(max(0.0, now - one.began), one.stands_for)


NO_SINK: Final = Sink()

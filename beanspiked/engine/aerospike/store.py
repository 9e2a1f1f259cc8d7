"""The seam: what the Aerospike engine asks of its store, in its own terms.

A *segment* is one record that holds up to some hundred jobs of one tube; every operation here on one segment is atomic, and none
touches two. A job never leaves its segment. A *lease* is one front-end's share of a segment's reserved jobs, and its fence: every
operation under a lease fails as a whole once the lease is gone. No lease is ever used twice, so an operation of unknown outcome is
decided by moving its lease on to a new one: what it has not done by then it never will, and the highest slot tells what it put.

What is written never comes undone by a restart of a node because nothing that matters is ever removed: segment records are claimed
again under higher numbers, tubes and sessions stay. Only bodies are removed.

An operation ends in one of five ways: it returns (it was applied), or it raises `Fenced`, `Refused` or `Busy` (it was not applied, and
never will be), `Full` (likewise; the store has no room), or `Unknown` (it was applied, or not, or will be at some later time).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from beanspiked.engine.errors import EngineError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BURIED",
    "CLOSED",
    "DEAD",
    "DELAYED",
    "OPEN",
    "READY",
    "Busy",
    "Change",
    "Entry",
    "Fenced",
    "Full",
    "Head",
    "Move",
    "Outcome",
    "Refused",
    "Segment",
    "SegmentStore",
    "SessionRecord",
    "Settlement",
    "StoreError",
    "Unknown",
    "due_key",
    "job_slot",
    "lease_key",
    "lease_session",
    "ready_key",
]

# A segment's queues, by the names of their bins.
READY: Final = "ready"
DELAYED: Final = "delayed"
BURIED: Final = "buried"

# A segment's life: puts go to an open one; a closed one is emptied; a dead one may be claimed under a higher number.
OPEN: Final = 0
CLOSED: Final = 1
DEAD: Final = 2

# A lease is session << SERIAL_BITS | serial; every attach and every settling takes the session's next serial.
SERIAL_BITS: Final = 32


class StoreError(EngineError):
    """An operation was not applied, or may not have been."""


class Fenced(StoreError):  # noqa: N818 - names an outcome
    """Not applied: the lease or the segment is not there (any more)."""


class Refused(StoreError):  # noqa: N818 - likewise
    """Not applied: what the operation is guarded by does not hold."""


class Busy(StoreError):  # noqa: N818 - likewise
    """Not applied: too many operations wait for the record, or the node does not own it now. Worth another try."""


class Full(StoreFull, StoreError):  # noqa: N818 - likewise
    """Not applied: the store has no room, which also deletes may be told."""


class Unknown(StoreError):  # noqa: N818 - likewise
    """Applied, or not, or still to be applied."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One job as a segment holds it.

    Attributes:
        slot: Its number in the segment, from 1.
        packed: Everything else about it, which the store does not look into.
    """

    slot: int
    packed: bytes


@dataclass(frozen=True, slots=True)
class Move:
    """A job leaves the lease.

    Attributes:
        key: Its key in the lease.
        queue: Where it goes, or None to delete it.
        new_key: Its key there.
        entry: What stands there.
    """

    key: bytes
    queue: str | None = None
    new_key: bytes = b""
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What one operation under a lease does, in this order.

    Attributes:
        last_slot: The highest slot of the puts, 0 without any.
        puts: New entries by queue and key.
        held: New entries that go straight into the lease.
        moves: Jobs that leave the lease; they must be in it, which only their holder can change.
        revive: Keys of jobs that go back from the lease to the ready ones as they are; they, too, must be in it.
        take: How many of the first ready ones to move into the lease.
    """

    last_slot: int = 0
    puts: Mapping[str, Mapping[bytes, Entry]] = field(default_factory=dict)
    held: Mapping[bytes, Entry] = field(default_factory=dict)
    moves: Sequence[Move] = ()
    revive: Sequence[bytes] = ()
    take: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What a segment would give next.

    Attributes:
        ready_key, due_key, buried_key: The first key of each queue, or None.
        ready, delayed, buried: How many jobs there are of each.
    """

    ready_key: bytes | None
    due_key: bytes | None
    buried_key: bytes | None
    ready: int
    delayed: int
    buried: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation under a lease gave.

    Attributes:
        taken: The entries that were moved into the lease, in order, with their keys.
        head: The segment afterwards.
    """

    taken: Sequence[tuple[bytes, Entry]]
    head: Head


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an operation of unknown outcome has done; what it has not done it never will.

    Attributes:
        last_slot: The highest slot that was ever put.
        held: What the renewed lease holds.
    """

    last_slot: int
    held: Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Segment:
    """A whole segment, read at one moment."""

    number: int
    tube: str
    state: int
    last_slot: int
    ready: Mapping[bytes, Entry]
    delayed: Mapping[bytes, Entry]
    buried: Mapping[bytes, Entry]
    leases: Mapping[int, Mapping[bytes, Entry]]

    def queue(self, name: str) -> Mapping[bytes, Entry]:
        """Return one of the queues by its name."""
        return {READY: self.ready, DELAYED: self.delayed, BURIED: self.buried}[name]


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A front-end, as the others see it.

    Attributes:
        number: Its session number, never used twice.
        dead: Whether it was killed or has ended.
        silent_ms: How long ago it last wrote, by the server's clock.
        payload: What it published with its last heartbeat.
    """

    number: int
    dead: bool
    silent_ms: int
    payload: bytes


class SegmentStore(Protocol):
    """What implements the seam. Every method is one atomic operation on one record unless it says otherwise."""

    # --- segments

    async def create(self, number: int, tube: str) -> None:
        """Make an empty, open segment. Raises Refused where another one, not dead or of a higher number, has its record."""

    async def attach(self, number: int, lease: int) -> None:
        """Give a session an empty lease, once. Raises Fenced unless the segment is there and not dead, Refused if the lease exists."""

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease. Raises Fenced without the lease."""

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """Move a lease on to a new one and read it, in one write; may be repeated. Raises Fenced with neither of them there."""

    async def read(self, number: int) -> Segment | None:
        """Read a whole segment; None unless it is there under this very number."""

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """Read the heads of many segments, each at a moment of its own."""

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int, entries: Mapping[bytes, Entry]
    ) -> None:
        """Take keys out of a queue and put entries into another, or into a lease. Raises Refused unless all keys are there."""

    async def delete_slot(self, number: int, slot: int) -> bool:
        """Delete the job in a slot if it is ready, delayed or buried; tell whether it was."""

    async def reclaim(self, number: int, lease: int) -> int:
        """Make a lease's jobs ready as they are and remove it; return their number, 0 if it was gone."""

    async def close(self, number: int) -> bool:
        """Accept no more puts; tell whether the segment was open until now."""

    async def retire(self, number: int) -> bool:
        """Let a closed segment die if no job is in it, its empty leases with it; tell whether it is dead now."""

    async def leased_by(self, session: int) -> list[int]:
        """Find the segments in which a session has a lease. A query: may miss some while data moves between nodes."""

    # --- directories

    async def enlist(self, tube: str, number: int) -> None:
        """Enter a segment in its tube's directory, before its first put."""

    async def unlist(self, tube: str, number: int) -> None:
        """Take a dead segment out of its tube's directory; may be repeated."""

    async def directory(self, tube: str) -> list[int]:
        """List the segments of a tube, in the order of their numbers."""

    async def tubes(self) -> list[str]:
        """List the tubes that ever had a segment."""

    # --- sessions

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """Take `count` numbers off a counter for good; return the first. After Unknown they are given up."""

    async def heartbeat(self, session: int, payload: bytes) -> int:
        """Say that a session lives, the first time also making it; return the server's time in ms. Raises Refused if it was killed."""

    async def kill(self, session: int, silent_ms: int) -> bool:
        """Declare a session dead that has been silent for longer; tell whether it is dead now."""

    async def sessions(self) -> list[SessionRecord]:
        """List the sessions that are not forgotten. One operation a session."""

    async def forget_session(self, session: int) -> None:
        """List a dead session no more, when nothing of it is left to reclaim; may be repeated."""

    # --- bodies

    async def write_body(self, number: int, body_number: int, body: bytes) -> None:
        """Keep a large body outside its segment, before its entry is put."""

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read bodies by segment and body number."""

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """Remove bodies; those that are gone already are no error."""


def ready_key(pri: int, put_ms: int, slot: int) -> bytes:
    """Make the key of a ready job: by priority, then by the time of its put, then by slot."""
    return pri.to_bytes(4, "big") + put_ms.to_bytes(6, "big") + slot.to_bytes(2, "big")


def due_key(at_ms: int, slot: int) -> bytes:
    """Make the key of a delayed job, by when it is due, or of a buried one, by when it was buried."""
    return at_ms.to_bytes(6, "big") + slot.to_bytes(2, "big")


def job_slot(key: bytes) -> int:
    """Return the slot that a key of any queue ends with."""
    return int.from_bytes(key[-2:], "big")


def lease_key(session: int, serial: int) -> int:
    """Name a lease of a session."""
    return session << SERIAL_BITS | serial


def lease_session(lease: int) -> int:
    """Return the session that a lease is of."""
    return lease >> SERIAL_BITS

"""The terms of the seam between the Aerospike engine and its store; contract.py has the operations.

A *segment* is one record with up to a thousand jobs of one tube. Every operation on a segment is atomic, and none touches two. A job
never leaves its segment. A *lease* is one front-end's share of a segment's reserved jobs, and its fence: every operation under a lease
fails as a whole once the lease is gone. No lease is used twice. So to rename a lease decides an operation of unknown outcome: the
operation can do nothing any more, and the highest slot tells what it put.

A restart of a node brings removed records back. So the engine removes no record that matters: later segments, pages and sessions use the
records again under higher numbers. Only bodies are removed.

An operation returns if it was applied. It raises `Fenced`, `Refused` or `Busy` if it was not and never will be, `Full` if the store has no
room as well, and `Unknown` if it was applied, or not, or will be later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    # Packed jobs by their keys. The store does not unpack them.
    Entries: TypeAlias = Mapping[bytes, bytes]

__all__ = [
    "BURIED",
    "CLOSED",
    "DEAD",
    "DELAYED",
    "FIRST",
    "HEAD_KEYS",
    "INLINE_MAX",
    "NEVER_WROTE",
    "OPEN",
    "OVER",
    "PAGE_MAX",
    "PARTS",
    "READY",
    "Busy",
    "Change",
    "Damaged",
    "Fenced",
    "Full",
    "Head",
    "Leases",
    "Move",
    "Newer",
    "Outcome",
    "Page",
    "Refused",
    "Ring",
    "Segment",
    "SessionRecord",
    "Settlement",
    "Sizes",
    "StoreError",
    "TooBig",
    "Unknown",
]

# A segment's queues, by the names of their bins.
READY: Final = "ready"
DELAYED: Final = "delayed"
BURIED: Final = "buried"

# A segment's states: an open one takes puts, a closed one takes none any more, and a dead one's record may be used again.
OPEN: Final = 0
CLOSED: Final = 1
DEAD: Final = 2

# The first format of records and jobs. Records and jobs without a format number have it. A session that announces nothing reads no other.
FIRST: Final = 1
# How many segments a tube's entry lists before pages are made.
INLINE_MAX: Final = 128
# In how many parts the entries of all tubes can be read.
PARTS: Final = 64
# How many segments a page lists.
PAGE_MAX: Final = 512

# How many of its first ready keys a head has, so that a take over several segments knows how many are next.
HEAD_KEYS: Final = 16

# Stands for the silence, in ms, of a listed session that has no record.
NEVER_WROTE: Final = 1 << 40


class StoreError(EngineError):
    """An operation was not applied, or may not have been."""


class Fenced(StoreError):  # noqa: N818 - names an outcome
    """Not applied: the lease or the segment is not there (any more)."""


class Refused(StoreError):  # noqa: N818 - likewise
    """Not applied: the operation's guard does not hold."""


class Busy(StoreError):  # noqa: N818 - likewise
    """Not applied: too many operations wait for the record, or its node cannot be trusted now. Try again."""


class Full(StoreFull, StoreError):  # noqa: N818 - likewise
    """Not applied: the store has no room. Even deletes may fail with this."""


class TooBig(StoreFull, StoreError):  # noqa: N818 - likewise
    """Not applied: the record would be too large. Another try would not help until it has shrunk."""


class Damaged(StoreFailed, StoreError):  # noqa: N818 - likewise
    """A record does not have the shape that this version writes, and is set aside. Another try would not help."""


class Newer(Damaged):
    """A record is of a format that this version does not know. Front-ends that know the format look after it."""


class Unknown(StoreError):  # noqa: N818 - likewise
    """Applied, not applied, or still to be applied."""


class Move(NamedTuple):
    """A job leaves the lease.

    Attributes:
        key: Its key in the lease.
        queue: The queue that it goes to, or None to delete it.
        new_key: Its key there.
        packed: The packed job there.
    """

    key: bytes
    queue: str | None = None
    new_key: bytes = b""
    packed: bytes = b""


@dataclass(slots=True)
class Change:
    """The parts of one operation under a lease, in this order. It is not frozen: each operation makes one, and that would take 1 us more.

    Attributes:
        last_slot: The highest slot of the puts, 0 without any.
        puts: New jobs by queue and key.
        replaced: New packed forms of jobs that stay in the lease, by key.
        moves: Jobs that leave the lease. They must be in it.
        take: How many of the first ready jobs to move into the lease.
        close: Whether to close the segment.
        attach: Whether to make the lease first. Then the operation raises Fenced if the segment is gone, dead or of an unknown format, and
            Refused if the lease exists.
        few: Whether each queue will probably have fewer than HEAD_KEYS jobs. If one has more, the head may count only its first
            HEAD_KEYS.
    """

    last_slot: int = 0
    puts: Mapping[str, Entries] = field(default_factory=dict)
    replaced: Entries = field(default_factory=dict)
    moves: Sequence[Move] = ()
    take: int = 0
    close: bool = False
    few: bool = False
    attach: bool = False


class Head(NamedTuple):
    """The first jobs of a segment, and how many there are.

    Attributes:
        first_keys: The first keys of the ready jobs, at most HEAD_KEYS.
        last_key: The last of them, or None.
        due_key: The first key of the delayed jobs, or None.
        ready, delayed, buried, held: How many jobs there are of each.
        state: OPEN, CLOSED or DEAD.
    """

    first_keys: Sequence[bytes]
    last_key: bytes | None
    due_key: bytes | None
    ready: int
    delayed: int
    buried: int
    held: int
    state: int


# The head of a segment whose record a later segment has by now.
OVER: Final = Head((), None, None, 0, 0, 0, 0, DEAD)


class Sizes(NamedTuple):
    """How many jobs a segment holds in each state.

    Attributes:
        ready, delayed, buried, held: How many there are of each.
        urgent: How many ready jobs have a priority below 1024 (protocol.txt: current-jobs-urgent).
        ready_key, due_key, buried_key: The first key of each queue, or None.
        last_slot: The highest slot that was ever put.
    """

    ready: int
    delayed: int
    buried: int
    held: int
    urgent: int
    ready_key: bytes | None
    due_key: bytes | None
    buried_key: bytes | None
    last_slot: int


class Leases(NamedTuple):
    """The leases on a segment.

    Attributes:
        number: The segment.
        tube: Its tube.
        owner: The session that made it.
        leases: The leases.
    """

    number: int
    tube: str
    owner: int
    leases: Sequence[int]


class Outcome(NamedTuple):
    """The result of an operation under a lease.

    Attributes:
        taken: The jobs moved into the lease, in order, with their keys.
        head: The segment's head after the operation.
    """

    taken: Sequence[tuple[bytes, bytes]]
    head: Head


class Settlement(NamedTuple):
    """What an operation of unknown outcome has done. It can do nothing any more.

    Attributes:
        last_slot: The highest slot that was ever put.
        held: What the renewed lease holds.
    """

    last_slot: int
    held: Entries


@dataclass(frozen=True, slots=True)
class Segment:
    """A whole segment, read at one moment.

    Attributes:
        owner: The session that made it. Only this session puts into it.
        bodies: The highest number that a body of it may have.
        page: The page in which it is probably listed; 0 for its tube's entry.
        held: How many jobs its leases hold together.
        form: The format of its record. No job in it has a newer format.
    """

    number: int
    tube: str
    owner: int
    state: int
    last_slot: int
    bodies: int
    held: int
    ready: Entries
    delayed: Entries
    buried: Entries
    leases: Mapping[int, Entries]
    form: int = FIRST
    page: int = 0

    def queue(self, name: str) -> Entries:
        """Return a queue by its name."""
        return {READY: self.ready, DELAYED: self.delayed, BURIED: self.buried}[name]

    def empty(self) -> bool:
        """Tell whether it has no job in any state."""
        return not (self.ready or self.delayed or self.buried or self.held)

    def has_slot(self, slot: int) -> bool:
        """Tell whether the job in a slot is there, in any state."""
        return self.has_any({slot})

    def has_any(self, slots: set[int]) -> bool:
        """Tell whether a job in one of these slots is there, in any state."""
        places = (self.ready, self.delayed, self.buried, *self.leases.values())
        return any(job_slot(key) in slots for entries in places for key in entries)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A front-end's session, as the others see it.

    Attributes:
        number: Its session number, never used twice.
        dead: Whether it was declared dead or has ended.
        silent_ms: How long ago it last wrote, by the server's clock; NEVER_WROTE if it has no record.
        payload: The payload of its last heartbeat that had one.
        reads: The newest format that it can read and write.
        writes: The newest format that it writes now, or is about to write.
        newer: Whether its record is of an unknown format. Then only the number, the silence and the two formats are known.
        address: The address where others connect to hear its news; empty if they cannot.
        listens: The sessions whose news it reads from their records; None means all.
        tells: Whether it writes its news to a record.
    """

    number: int
    dead: bool
    silent_ms: int
    payload: bytes
    reads: int = FIRST
    writes: int = FIRST
    newer: bool = False
    address: str = ""
    listens: Sequence[int] | None = None
    tells: bool = True


class Page(NamedTuple):
    """A page of a tube's directory.

    Attributes:
        number: Its number, never used twice.
        tube: Its tube.
        segments: The segments listed in it.
    """

    number: int
    tube: str
    segments: Sequence[int]


class Ring(NamedTuple):
    """How the records of segments, or of pages, are used again; see store/keys.py.

    Attributes:
        first: The first count taken.
        size: How many records there are, a power of two.
        base: The generation of count 0.
    """

    first: int
    size: int
    base: int

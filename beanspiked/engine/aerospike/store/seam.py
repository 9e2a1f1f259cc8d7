"""The seam between the Aerospike engine and its store: what is told over it. What is asked stands in contract.py.

A *segment* is one record that holds up to some hundred jobs of one tube; every operation here on one segment is atomic, and none
touches two. A job never leaves its segment. A *lease* is one front-end's share of a segment's reserved jobs, and its fence: every
operation under a lease fails as a whole once the lease is gone. No lease is ever used twice, so an operation of unknown outcome is
decided by moving its lease on to a new one: what it has not done by then it never will, and the highest slot tells what it put.

What is written never comes undone by a restart of a node because nothing that matters is ever removed: segment records are claimed
again under higher numbers, and so are the pages of directories and the records of sessions. Only bodies are removed.

An operation ends in one of five ways: it returns (it was applied), or it raises `Fenced`, `Refused` or `Busy` (it was not applied, and
never will be), `Full` (likewise; the store has no room), or `Unknown` (it was applied, or not, or will be at some later time).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    # Packed jobs by their keys. A key ends with the job's slot; what is packed the store does not look into.
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
    "Directory",
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

# A segment's life: puts go to an open one; a closed one is emptied; a dead one may be claimed under a higher number.
OPEN: Final = 0
CLOSED: Final = 1
DEAD: Final = 2

# The first format of records and jobs. What carries no number is of it, and who announces nothing reads no other.
FIRST: Final = 1
# How many segments stand in a tube's own entry before pages are made, and in a page.
INLINE_MAX: Final = 128
# Into how many parts all tubes are divided for those that look through them.
PARTS: Final = 64
PAGE_MAX: Final = 512

# How many of its first ready keys a head tells: a take over several segments knows so how many of them are next.
HEAD_KEYS: Final = 16

# How long a session has been silent, in ms, that is listed and has not joined yet, or does not any more.
NEVER_WROTE: Final = 1 << 40


class StoreError(EngineError):
    """An operation was not applied, or may not have been."""


class Fenced(StoreError):  # noqa: N818 - names an outcome
    """Not applied: the lease or the segment is not there (any more)."""


class Refused(StoreError):  # noqa: N818 - likewise
    """Not applied: what the operation is guarded by does not hold."""


class TooBig(Refused):
    """Not applied: no record may be as large as this one would be."""


class Busy(StoreError):  # noqa: N818 - likewise
    """Not applied: too many operations wait for the record, or the node does not own it now. Worth another try."""


class Full(StoreFull, StoreError):  # noqa: N818 - likewise
    """Not applied: the store has no room, which also deletes may be told."""


class Damaged(StoreFailed, StoreError):  # noqa: N818 - likewise
    """A record cannot be read, whoever tries how often: it does not have the shape that this version writes. It is left alone."""


class Newer(Damaged):
    """A record is of a format that this version does not know. It is not damaged; whoever knows the format sees to it."""


class Unknown(StoreError):  # noqa: N818 - likewise
    """Applied, or not, or still to be applied."""


class Move(NamedTuple):
    """A job leaves the lease.

    Attributes:
        key: Its key in the lease.
        queue: Where it goes, or None to delete it.
        new_key: Its key there.
        packed: What stands there.
    """

    key: bytes
    queue: str | None = None
    new_key: bytes = b""
    packed: bytes = b""


@dataclass(frozen=True, slots=True)
class Change:
    """What one operation under a lease does, in this order.

    Attributes:
        last_slot: The highest slot of the puts, 0 without any.
        puts: New jobs by queue and key.
        replaced: New values of jobs that stay in the lease, by key.
        moves: Jobs that leave the lease; they must be in it, which only their holder can change.
        take: How many of the first ready ones to move into the lease.
        close: Whether the segment accepts no more puts from now on.
        few: Whether less than HEAD_KEYS jobs are expected in each queue afterwards. If there are more all the same, the head may be that
            of the first HEAD_KEYS of a queue.
    """

    last_slot: int = 0
    puts: Mapping[str, Entries] = field(default_factory=dict)
    replaced: Entries = field(default_factory=dict)
    moves: Sequence[Move] = ()
    take: int = 0
    close: bool = False
    few: bool = False


class Head(NamedTuple):
    """What a segment would give next, and how much there is in it.

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


# What is known of a segment whose record another one has by now.
OVER: Final = Head((), None, None, 0, 0, 0, 0, DEAD)


class Sizes(NamedTuple):
    """How many jobs a segment holds in each state.

    Attributes:
        ready, delayed, buried, held: How many there are of each.
        urgent: How many of the ready ones are more urgent than 1024 (protocol.txt: current-jobs-urgent).
        ready_key, due_key, buried_key: The first key of each queue, or None.
    """

    ready: int
    delayed: int
    buried: int
    held: int
    urgent: int
    ready_key: bytes | None
    due_key: bytes | None
    buried_key: bytes | None


class Leases(NamedTuple):
    """Who has leases on a segment.

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
    """What an operation under a lease gave.

    Attributes:
        taken: The jobs that were moved into the lease, in order, with their keys.
        head: The segment afterwards.
    """

    taken: Sequence[tuple[bytes, bytes]]
    head: Head


class Settlement(NamedTuple):
    """What an operation of unknown outcome has done; what it has not done it never will.

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
        owner: The session that made it, and alone puts into it.
        bodies: The highest number that a body of it may have.
        page: The page in which it was to be listed; 0 for the entry of its tube.
        held: How many jobs its leases hold together.
        form: The format of its record; no job in it is of a newer one.
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
        """Return one of the queues by its name."""
        return {READY: self.ready, DELAYED: self.delayed, BURIED: self.buried}[name]

    def empty(self) -> bool:
        """Tell whether no job is in it, in whatever state."""
        return not (self.ready or self.delayed or self.buried or self.held)

    def has_slot(self, slot: int) -> bool:
        """Tell whether the job in a slot is there, in whatever state."""
        places = (self.ready, self.delayed, self.buried, *self.leases.values())
        return any(job_slot(key) == slot for entries in places for key in entries)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A front-end, as the others see it.

    Attributes:
        number: Its session number, never used twice.
        dead: Whether it was killed or has ended.
        silent_ms: How long ago it last wrote, by the server's clock; NEVER_WROTE if it is listed and no more.
        payload: What it published last with a heartbeat.
        reads: The newest format that it reads and writes.
        writes: The newest format that it writes now, or is about to write.
        newer: Whether its record is of a format that this version does not know: only the number, the silence and the two formats are
            told then.
        address: What the others dial to hear its news, empty if they cannot.
        listens: The sessions whose news it reads from their records; None if it does not say: then all of them.
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


@dataclass(frozen=True, slots=True)
class Directory:
    """A tube's entry. It exists while it says anything.

    Attributes:
        segments: Its segments that are not dead and stand in the entry itself, in the order of their numbers.
        pause_ms: How long the last pause was to last.
        paused_until_ms: When it ends, by the server's clock; 0 without one.
        counters: What sessions that are gone have counted here.
        pages: Its pages, with all other segments.
    """

    segments: Sequence[int]
    pause_ms: int = 0
    paused_until_ms: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    pages: Sequence[int] = field(default_factory=list)

    def first(self) -> int:
        """Return its oldest segment that stands in the entry, or page; 0 without any."""
        return min([*self.segments[:1], *self.pages[:1]], default=0)


class Page(NamedTuple):
    """A page of a tube's directory.

    Attributes:
        number: Its number, never used twice.
        tube: The tube that it is of.
        segments: The segments that are entered in it.
    """

    number: int
    tube: str
    segments: Sequence[int]


class Ring(NamedTuple):
    """How the records of segments, or of pages, are used again; see store/keys.py.

    Attributes:
        first: The first of the counts that were taken.
        size: How many records there are in use or were, a power of two.
        base: The generation of the first count.
    """

    first: int
    size: int
    base: int

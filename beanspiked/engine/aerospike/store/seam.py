"""The seam: what the Aerospike engine asks of its store, in its own terms.

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
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.contract import TubeSizes

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
    "SegmentStore",
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


class SegmentStore(Protocol):
    """What implements the seam. Every method is one atomic operation on one record unless it says otherwise.

    A record of a format newer than `newest` is never changed: only its number and its format are understood. Where a method raises
    Damaged, it raises Newer for such a record.

    Attributes:
        newest: The newest format of records that is read and written here.
    """

    newest: int

    # --- segments

    async def create(self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0) -> None:
        """Make an empty, open segment of a format, with an empty lease of its owner; note in which page it will most probably be listed.

        Raises Refused where another segment, not dead, of a higher number or of a newer format, has its record.
        """

    async def attach(self, number: int, lease: int) -> None:
        """Give a session an empty lease, once.

        Raises Fenced unless the segment is there, not dead, and of a format that is known; Refused if the lease exists.
        """

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease. Raises Fenced without the lease."""

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """Move a lease on to a new one and read it, in one write; may be repeated. Raises Fenced with neither of them there."""

    async def read(self, number: int) -> Segment | None:
        """Read a whole segment; None unless it is there under this very number. Raises Damaged."""

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """Read the heads of many segments, each at a moment of its own; None of one that is not there, or cannot be read.

        One whose record was claimed under a higher number is DEAD and empty: it was dead before.
        """

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """Count the jobs of many segments, each at a moment of its own; None also for one that cannot be read."""

    async def leases(self, numbers: Sequence[int]) -> list[Leases | None]:
        """Read the leases on many segments and not their jobs, each at a moment of its own; None also for one that cannot be read."""

    async def shift(self, number: int, source: str, keys: Sequence[bytes], target: str | int, entries: Entries) -> Head:
        """Take keys out of a queue and put entries into another, or into a lease.

        Raises Refused unless all keys are there, and then Fenced without the lease.
        """

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """Delete a job that no one holds; tell whether it was there. Raises Fenced where the segment is gone."""

    async def reclaim(self, number: int, lease: int) -> int:
        """Make a lease's jobs ready as they are and remove it; return their number, 0 if it was gone."""

    async def close(self, number: int) -> bool:
        """Accept no more puts; tell whether the segment was open until now. Raises Fenced where it is gone."""

    async def retire(self, number: int) -> bool:
        """Let a closed segment die if no job is in it, its empty leases with it; tell whether it is dead now.

        Raises Fenced where it is gone.
        """

    async def leased_by(self, session: int) -> list[int]:
        """Find the segments in which a session has a lease. A query: may miss some while data moves between nodes."""

    async def wipe(self, number: int) -> int:
        """Close a segment and remove all its jobs and leases; return how many jobs there were. May be repeated.

        Raises Fenced if it is gone, Newer if its jobs are not known here.
        """

    # --- directories

    async def enlist(self, tube: str, number: int) -> None:
        """Enter a segment in its tube's entry, before its first put; may be repeated.

        Raises Refused where the entry has INLINE_MAX of others, TooBig where its record has no room.
        """

    async def unlist(self, tube: str, number: int) -> bool:
        """Take a dead segment out of its tube's entry; tell whether it was there. The entry goes with the last that it says."""

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        """Read many tubes' entries, each at a moment of its own; None of one that says nothing, or cannot be read."""

    async def tubes(self, part: int | None = None) -> dict[str, Directory]:
        """Read the entries of all tubes, or of a 64th part of them, but those that cannot be read; one operation a shard."""

    async def pause(self, tube: str, pause_ms: int, until_ms: int) -> None:
        """Note that a tube is paused until some time of the server's clock; 0 ends a pause."""

    async def forget_tube(self, tube: str) -> None:
        """Drop a tube's pause and counters: nobody uses it and no job is in it."""

    async def add_counters(self, tube: str, counters: Mapping[str, int]) -> None:
        """Add what a session counted to its tube's entry when it ends. After Unknown they are given up."""

    async def create_page(self, number: int, tube: str) -> None:
        """Make an empty page. Raises Refused where another one, not empty or of a higher number, has its record.

        So a page that was made and never listed keeps no record from being used again.
        """

    async def list_page(self, tube: str, page: int) -> None:
        """Enter a page in its tube's entry, before anything is entered in it; may be repeated. Raises TooBig."""

    async def enter(self, page: int, number: int) -> bool:
        """Enter a segment in a page, before its first put; tell whether there is room for more. May be repeated.

        Raises Refused where the page is full, dead or another one.
        """

    async def leave_page(self, page: int, number: int) -> int | None:
        """Take a dead segment out of a page; return how many are left, None if it was not there."""

    async def pages(self, numbers: Sequence[int]) -> list[Page | None]:
        """Read pages, each at a moment of its own; None of one that is dead, or another one by now, or cannot be read."""

    async def retire_page(self, page: int) -> bool:
        """Let a page die if nothing is in it; tell whether it is dead now, or its record another one's."""

    async def unlist_page(self, tube: str, page: int) -> None:
        """Take a dead page out of its tube's entry; may be repeated."""

    # --- numbers

    async def reserve_places(self, ring: str, count: int) -> Ring:
        """Take `count` numbers off a ring for good. After Unknown they are given up. Two operations the first time."""

    async def grow_ring(self, ring: str, size: int) -> None:
        """Double a ring of a size and raise its generations; no ring of another size is changed. May be repeated."""

    # --- sessions

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """Take `count` numbers off a counter for good; return the first. After Unknown they are given up."""

    async def join(self, session: int, form: int = FIRST) -> None:
        """List a session under a number that was never used, and make its record, of one that nobody listed has, in a format.

        It announces `newest`. Three operations. After whatever error the number is given up. Raises Refused if it was used, or if others
        were quicker.
        """

    async def heartbeat(self, session: int, payload: bytes | None, writes: int = FIRST) -> int:
        """Say that a session lives and what format it writes, and publish a payload unless it is None; return the server's time in ms.

        Raises Refused if it is dead, or not listed any more, and TooBig for a payload that no record can hold.
        """

    async def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """Say how a session hears news; see SessionRecord. Raises Refused if it is dead, Fenced if it never joined."""

    async def secret(self) -> bytes:
        """Return random bytes that only those know who may read the cluster, made by whoever asks first. Raises Damaged."""

    async def resign(self, session: int) -> None:
        """Declare one's own session dead; may be repeated."""

    async def kill(self, session: int, silent_ms: int) -> bool:
        """Declare a session dead that has been silent for longer, or that has not joined yet; tell whether this very call did."""

    async def sessions(self) -> list[SessionRecord]:
        """List the sessions that are not forgotten. One operation a session."""

    async def forget_session(self, session: int) -> None:
        """List a dead session no more, when nothing of it is left to reclaim, and drop what it told; may be repeated. Three operations."""

    # --- news

    async def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """Replace what a session has told the others, in a format. Raises Refused if it is not listed any more."""

    async def news(
        self, sessions: Sequence[int], known: Sequence[bytes] = (), within: float = 0.0, every: float = 0.0
    ) -> list[bytes]:
        """Read what sessions have told, each at a moment of its own; empty for one that has told nothing that can be read.

        Given a pause in seconds they are read after it, and again and again until they are not what is known, or `within` seconds are over.
        """

    # --- the store as a whole

    async def has_room(self) -> bool:
        """Tell whether there is room for more jobs with enough left over for everything else. One operation a node."""

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """Add up the sizes of a tube's bodies. One query over all segments; raises EngineError where that cannot be done."""

    async def leave(self) -> None:
        """Let go of the store: nothing is asked of it any more."""

    # --- bodies

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """Take `count` numbers for bodies of a segment, before one is written; return the first. Raises Fenced without the lease.

        After Unknown they are given up.
        """

    async def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """Keep a large body outside its segment, in a format, before its entry is put."""

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read bodies by segment and body number. Raises Newer."""

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """Remove bodies; those that are gone already are no error."""

    async def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """Name up to `count` of the bodies that were written longer ago, by segment and body number: the next ones with each call.

        When there are no more it begins anew. A query: may miss some while data moves between nodes.
        """

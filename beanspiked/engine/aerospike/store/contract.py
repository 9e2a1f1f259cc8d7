"""What the Aerospike engine asks of its store; seam.py says in what terms, and how an operation may end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from beanspiked.engine.aerospike.store.seam import FIRST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.seam import (
        Change,
        Directory,
        Entries,
        Head,
        Leases,
        Outcome,
        Page,
        Ring,
        Segment,
        SessionRecord,
        Settlement,
        Sizes,
    )
    from beanspiked.engine.contract import TubeSizes

__all__ = ["DirectoryStore", "SegmentStore"]


class DirectoryStore(Protocol):
    """The part of the seam that has the directories of tubes; see SegmentStore."""

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


class SegmentStore(DirectoryStore, Protocol):
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

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """Take keys out of a queue and put entries into another, or into a lease; nothing anywhere where there is no target.

        Without entries what the keys stood for goes into a lease as it is.
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

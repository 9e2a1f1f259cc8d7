"""The operations that the Aerospike engine needs from its store. seam.py has the terms, and says how an operation may end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from beanspiked.engine.aerospike.store.seam import FIRST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.directory import Directory
    from beanspiked.engine.aerospike.store.request import Request, Told
    from beanspiked.engine.aerospike.store.seam import (
        Change,
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
    from beanspiked.engine.contract import StoreStats, TubeSizes

__all__ = ["DirectoryStore", "SegmentStore"]


class DirectoryStore(Protocol):
    """The part of the seam that has the directories of tubes; see SegmentStore."""

    async def enlist(self, tube: str, number: int) -> None:
        """List a segment in its tube's entry, before its first put. May be repeated.

        Raises Refused if the entry has INLINE_MAX others, TooBig if the shard has no room.
        """

    async def unlist(self, tube: str, number: int) -> bool:
        """Take a dead segment out of its tube's entry; tell whether it was there. The entry goes with its last item."""

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        """Read the entries of many tubes, one after the other; None for a missing or damaged one."""

    async def tubes(self, part: int | None = None) -> dict[str, Directory]:
        """Read the entries of all tubes, or of one of PARTS, without damaged ones. One operation a shard."""

    async def pause(self, tube: str, pause_ms: int, until_ms: int) -> None:
        """Note that a tube is paused until a time of the server's clock; 0 ends the pause."""

    async def forget_tube(self, tube: str) -> None:
        """Drop the pause and counters of a tube without users and jobs."""

    async def add_counters(self, tube: str, counters: Mapping[str, int]) -> None:
        """Add an ending session's counts to a tube's entry. After Unknown the counts are given up."""

    async def create_page(self, number: int, tube: str) -> None:
        """Make an empty page. Raises Refused if its record has a page that is not empty or has a higher number.

        So a new page may use the record of a page that was never listed.
        """

    async def list_page(self, tube: str, page: int) -> None:
        """List a page in its tube's entry, before its first segment. May be repeated. Raises TooBig."""

    async def enter(self, page: int, number: int) -> bool:
        """List a segment in a page, before its first put; tell whether the page has more room. May be repeated.

        Raises Refused if the page is full or gone.
        """

    async def leave_page(self, page: int, number: int) -> int | None:
        """Take a dead segment out of a page; return how many are left there, or None if it was not there."""

    async def pages(self, numbers: Sequence[int]) -> list[Page | None]:
        """Read pages, one after the other; None for a gone or damaged one."""

    async def retire_page(self, page: int) -> bool:
        """Let an empty page die; tell whether it is gone now."""

    async def unlist_page(self, tube: str, page: int) -> None:
        """Take a dead page out of its tube's entry. May be repeated."""

    # --- numbers

    async def reserve_places(self, ring: str, count: int) -> Ring:
        """Take `count` numbers of a ring for good. After Unknown the numbers are given up. Two operations the first time."""

    async def grow_ring(self, ring: str, size: int) -> None:
        """Double a ring of this size, and raise its generations. May be repeated."""


class SegmentStore(DirectoryStore, Protocol):
    """A store of segments. Every method is one atomic operation on one record unless it says otherwise.

    No method changes a record of a format newer than `newest`. If a method raises Damaged, it raises Newer for such a record.

    Attributes:
        newest: The newest format of records that this front-end reads and writes.
    """

    newest: int

    # --- segments

    async def create(self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0) -> None:
        """Make an empty, open segment with an empty lease of its owner; note in which page it will probably be listed.

        Raises Refused if its record has another segment that is not dead, a higher number or a newer format.
        """

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease, which the change may make first. Raises Fenced without the lease."""

    def send(self, requests: Sequence[Request], told: Told) -> None:
        """Change segments, each by an operation of its own; see `apply`.

        Args:
            requests: The changes. No two of them are of the same segment.
            told: Called with those whose outcomes have become known: in this call or later, all at once or some at a time.
        """

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """Rename a lease and read it, in one write. May be repeated. Raises Fenced if neither the old nor the new lease is there."""

    async def read(self, number: int) -> Segment | None:
        """Read a whole segment; None if it is gone. Raises Damaged."""

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """Read the heads of many segments, one after the other; None for a missing or damaged one.

        A segment whose record has a higher number by now is DEAD and empty, since it was dead before.
        """

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """Count the jobs of many segments, one after the other; None for a missing or damaged one."""

    async def leases(self, numbers: Sequence[int]) -> list[Leases | None]:
        """Read the leases on many segments, one after the other; None for a missing or damaged one."""

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """Take keys out of a queue, and put entries into another queue or a lease. Without a target, put nothing.

        Without entries, the jobs of the keys go into the lease as they are.
        Raises Refused unless all keys are there. If they are, raises Fenced without the lease.
        """

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """Delete a job that nobody holds; tell whether it was there. Raises Fenced if the segment is gone."""

    async def reclaim(self, number: int, lease: int) -> int:
        """Make a lease's jobs ready and remove the lease; return how many, 0 if it was gone."""

    async def close(self, number: int) -> bool:
        """Close a segment to puts; tell whether it was open until now. Raises Fenced if it is gone."""

    async def retire(self, number: int) -> bool:
        """Let a closed segment without jobs die, and its empty leases with it; tell whether it is dead now.

        Raises Fenced if it is gone.
        """

    async def leased_by(self, session: int) -> list[int]:
        """Find the segments on which a session has a lease. This query may miss some while data moves between nodes."""

    async def wipe(self, number: int) -> int:
        """Close a segment and remove all its jobs and leases; return how many jobs there were. May be repeated.

        Raises Fenced if it is gone, Newer if this version does not know the format of its jobs.
        """

    # --- sessions

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """Take `count` numbers of a counter for good; return the first. After Unknown the numbers are given up."""

    async def join(self, session: int, form: int = FIRST) -> None:
        """List a session under a new number, and make its record, which announces `newest`. Three operations.

        After any error the number is given up. Raises Refused if it was used, or if other front-ends were quicker.
        """

    async def heartbeat(self, session: int, payload: bytes | None, writes: int = FIRST) -> int:
        """Say that a session lives and which format it writes, with its payload unless that is None; return the server's time in ms.

        Raises Refused if it is dead or not listed any more, TooBig for a payload that no record can hold.
        """

    async def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """Say how a session hears news; see SessionRecord. Raises Refused if it is dead, Fenced if it never joined."""

    async def secret(self) -> bytes:
        """Read random bytes that only readers of the cluster know. The first call makes them. Raises Damaged.

        If the cluster has lost them, the last ones that this front-end has read are put back: where tubes are depends on them.
        """

    async def resign(self, session: int) -> None:
        """Declare this front-end's own session dead. May be repeated."""

    async def kill(self, session: int, silent_ms: int) -> bool:
        """Declare a session dead if it was silent for longer, or has not joined yet; tell whether this call did."""

    async def sessions(self) -> list[SessionRecord]:
        """Read all listed sessions. One operation a session."""

    async def forget_session(self, session: int) -> None:
        """Unlist a dead session with nothing left to reclaim, and drop its news. May be repeated. Three operations."""

    # --- news

    async def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """Replace the news of a session. Raises Refused if it is not listed any more."""

    async def news(
        self, sessions: Sequence[int], known: Sequence[bytes] = (), within: float = 0.0, every: float = 0.0
    ) -> list[bytes]:
        """Read the news of sessions, one after the other; empty for missing or damaged ones.

        Reads them each `every` seconds, until they differ from the `known` news or `within` seconds are over.
        """

    # --- the store as a whole

    async def has_room(self) -> bool:
        """Tell whether there is room for more jobs, and enough besides for everything else. One operation a node."""

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """Add up the sizes of a tube's bodies, by one query over all segments. Raises EngineError if that fails."""

    def measure(self) -> None:
        """Count the outcomes of calls from now on."""

    def tell(self, stats: StoreStats) -> None:
        """Return these counts, and the numbers of records in the cluster."""

    async def leave(self) -> None:
        """Close the store. No other method may be called after this."""

    # --- bodies

    async def settle_attach(self, number: int, lease: int, renewed: int) -> Settlement:
        """Settle a change of unknown outcome that was to make its lease first: what it took moves to the renewed lease. May be repeated.

        The former lease stays, empty, so that the change cannot make it any more. The audit removes it. Raises Fenced if the segment is
        gone, dead or of an unknown format.
        """

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """Take `count` numbers for bodies of a segment; return the first. Raises Fenced without the lease.

        After Unknown the numbers are given up.
        """

    async def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """Write a large body outside its segment. Comes before the put of its job."""

    async def read_bodies(self, names: Sequence[tuple[int, int]], *, sure: bool = False) -> list[bytes | None]:
        """Read bodies by segment and body number. Raises Newer.

        Args:
            names: The bodies.
            sure: Say that a body is lost only if it is missing for longer than a node may be behind that has just come back.
        """

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """Remove those bodies that are there."""

    async def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """Name up to `count` bodies that were written longer ago, by segment and body number. Each call names the next ones.

        After the last one it starts from the beginning. This query may miss some while data moves between nodes.
        """

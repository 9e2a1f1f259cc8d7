"""The seam in memory, for tests and simulations: every operation passes a transport, where faults can be put.

Sound as the real one must be: the same contract tests run on both.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from memory_directories import DirectoryCalls, DirectoryRecords

from beanspiked.engine.aerospike.segment.codec import unpack
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.keys import lease_session, ready_key, record_of
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    FIRST,
    HEAD_KEYS,
    NEVER_WROTE,
    OPEN,
    OVER,
    READY,
    Busy,
    Change,
    Fenced,
    Head,
    Leases,
    Newer,
    Outcome,
    Refused,
    Segment,
    SessionRecord,
    Settlement,
    Sizes,
    TooBig,
)
from beanspiked.engine.contract import StoreStats, TubeSizes
from beanspiked.engine.errors import DamagedEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.seam import Entries

__all__ = ["Cluster", "MemoryStore", "at_once"]

Result = TypeVar("Result")

# As many as a cluster has at first.
RECORDS: Final = 1 << 14
# What a record may hold by default, in bytes.
RECORD_MAX: Final = 1 << 20
# How often a session that joins looks for a slot.
LISTINGS_MAX: Final = 50
# What writes to the shard of a tube, and what to the record that its first argument names; the others read, or are rare.
OF_TUBES: Final = {"enlist", "unlist", "pause", "forget_tube", "add_counters", "list_page", "unlist_page"}
WRITES: Final = OF_TUBES | {"apply", "attach", "settle", "shift", "remove", "reclaim", "close", "retire", "wipe"}
FIRST_NOT_URGENT: Final = ready_key(1024, 0, 0)


class SegmentRecord:
    """One segment's record."""

    def __init__(self, number: int, tube: str, owner: int, form: int, page: int) -> None:
        self.page = page
        self.number = number
        self.form = form
        self.tube = tube
        self.owner = owner
        self.state = OPEN
        self.last_slot = 0
        self.bodies = 0
        self.queues: dict[str, dict[bytes, bytes]] = {READY: {}, DELAYED: {}, BURIED: {}}
        self.leases: dict[int, dict[bytes, bytes]] = {}

    def held(self) -> int:
        """Count the jobs in its leases."""
        return sum(len(held) for held in self.leases.values())

    def size(self) -> int:
        """Add up the bytes of its jobs."""
        return sum(map(_size, (*self.queues.values(), *self.leases.values())))

    def head(self, *, few: bool = False) -> Head:
        """Return what it would give next; where few jobs are expected, of the first ones only."""
        ready = sorted(self.queues[READY])
        delayed = sorted(self.queues[DELAYED])
        if few:
            ready, delayed = ready[:HEAD_KEYS], delayed[:HEAD_KEYS]
        return Head(
            ready[:HEAD_KEYS],
            ready[-1] if ready else None,
            delayed[0] if delayed else None,
            len(ready),
            len(delayed),
            len(self.queues[BURIED]),
            self.held(),
            self.state,
        )


class SessionState:
    """One session's record."""

    def __init__(self, number: int, now_ms: int, form: int = FIRST, reads: int = FIRST, *, dead: bool = False) -> None:
        self.number = number
        self.form = form
        self.reads = reads
        self.writes = FIRST
        self.dead = dead
        self.written_ms = now_ms
        self.payload = b""
        self.address = ""
        self.listens: Sequence[int] | None = ()
        self.tells = True


class Cluster(DirectoryRecords):
    """All records; shared by the stores of all front-ends. Each method is one atomic operation.

    Args:
        now_ms: The server's clock.
        records: How many records segments have at first, and pages.
        record_max: What a record may hold, in bytes.
        pending_max: How many writes to one record may come in one millisecond; any number if it is 0.

    Attributes:
        roomy: What `has_room` tells.
        remembers: Whether removed records are kept for a restart.
    """

    def __init__(
        self, now_ms: Callable[[], int], records: int = RECORDS, record_max: int = RECORD_MAX, pending_max: int = 0
    ) -> None:
        super().__init__(records, record_max)
        self.now_ms = now_ms
        self.remembers = False
        self.pending_max = pending_max
        self._pending: Counter[object] = Counter()
        self._pending_ms = 0
        self.roomy = True
        self._segments: dict[int, SegmentRecord] = {}
        self._counters: dict[str, int] = {}
        # The slot of each session that is listed, and where those were that are not any more.
        self._listed: dict[int, int] = {}
        self._slots: dict[int, int] = {}
        # By slot.
        self._sessions: dict[int, SessionState] = {}
        self._news: dict[int, tuple[int, bytes]] = {}
        self._bodies: dict[tuple[int, int], bytes] = {}
        # When each was written, also those that were removed, which a node that restarts brings back.
        self._written_ms: dict[tuple[int, int], int] = {}
        self._removed: dict[tuple[int, int], bytes] = {}
        self._unseen: list[tuple[int, int]] = []
        # Of news by session, and of bodies by segment and number.
        self._news_forms: dict[int, int] = {}
        self._body_forms: dict[tuple[int, int], int] = {}

    def known(self, number: int, newest: int, operation: Callable[[], Any]) -> Any:
        """Do something with a segment unless it is of a format newer than known. Raises Newer."""
        record = self._segments.get(record_of(number))
        if record is not None and record.number == number and record.form > newest:
            raise Newer(f"it is of format {record.form}, and {newest} is known")
        return operation()

    def segment(self, number: int) -> SegmentRecord:
        """Return the record that a segment has, or had."""
        return self._segments[record_of(number)]

    def _segment(self, number: int) -> SegmentRecord:
        record = self._segments.get(record_of(number))
        if record is None or record.number != number:
            raise Fenced(f"segment {number} is not there")
        return record

    def arrive(self, operation: Callable[[], Any]) -> None:
        """An operation arrives. Raises Busy if too many others have for the same record in this millisecond."""
        if not isinstance(operation, partial) or operation.func.__name__ not in WRITES:
            return
        key = operation.func.__name__ in OF_TUBES, operation.args[0]
        now_ms = self.now_ms()
        if now_ms != self._pending_ms:
            self._pending_ms = now_ms
            self._pending.clear()
        self._pending[key] += 1
        if self.pending_max and self._pending[key] > self.pending_max:
            raise Busy("14: too many writes wait for the record")

    def create(
        self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0, newest: int = NEWEST
    ) -> None:
        """See SegmentStore."""
        record = self._segments.get(record_of(number))
        if record is not None and not (record.state == DEAD and record.number < number and record.form <= newest):
            raise Refused(f"the record of segment {number} is in use")
        made = SegmentRecord(number, tube, lease_session(lease), form, page)
        made.leases[lease] = {}
        self._segments[record_of(number)] = made

    def attach(self, number: int, lease: int) -> None:
        """See SegmentStore."""
        record = self._segment(number)
        if record.state == DEAD:
            raise Fenced(f"segment {number} is dead")
        if lease in record.leases:
            raise Refused(f"lease {lease} exists")
        record.leases[lease] = {}

    def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        record = self._segment(number)
        held = self._lease(record, lease)
        self._check_size(record, change)
        for name, entries in change.puts.items():
            record.queues[name].update(entries)
        record.last_slot = max(record.last_slot, change.last_slot)
        ready = record.queues[READY]
        for key, packed in change.replaced.items():
            assert key in held
            held[key] = packed
        for move in change.moves:
            # A KeyError here is an engine that moves what it does not hold.
            del held[move.key]
            if move.queue is not None:
                record.queues[move.queue][move.new_key] = move.packed
        taken = [(key, ready.pop(key)) for key in sorted(ready)[: change.take]]
        held.update(taken)
        if change.close:
            record.state = CLOSED
        return Outcome(taken, record.head(few=change.few))

    def _check_size(self, record: SegmentRecord, change: Change) -> None:
        more = sum(_size(entries) for entries in (*change.puts.values(), change.replaced))
        more += sum(len(move.new_key) + len(move.packed) for move in change.moves)
        if more and more + record.size() > self.record_max:
            raise TooBig(f"a segment of more than {self.record_max} bytes")

    def _lease(self, record: SegmentRecord, lease: int) -> dict[bytes, bytes]:
        held = record.leases.get(lease)
        if held is None:
            raise Fenced(f"lease {lease} is gone")
        return held

    def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        record = self._segment(number)
        if renewed not in record.leases:
            record.leases[renewed] = self._lease(record, lease)
            del record.leases[lease]
        held = record.leases[renewed]
        return Settlement(record.last_slot, dict(held))

    def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        try:
            record = self._segment(number)
        except Fenced:
            return None
        return Segment(
            record.number,
            record.tube,
            record.owner,
            record.state,
            record.last_slot,
            record.bodies,
            record.held(),
            dict(sorted(record.queues[READY].items())),
            dict(sorted(record.queues[DELAYED].items())),
            dict(sorted(record.queues[BURIED].items())),
            {lease: dict(sorted(held.items())) for lease, held in sorted(record.leases.items())},
            record.form,
            record.page,
        )

    def head(self, number: int) -> Head | None:
        """Read one head."""
        record = self._segments.get(record_of(number))
        if record is None or record.number < number:
            return None
        return record.head() if record.number == number else OVER

    def leases(self, number: int) -> Leases | None:
        """Read the leases on one segment."""
        try:
            record = self._segment(number)
        except Fenced:
            return None
        return Leases(number, record.tube, record.owner, sorted(record.leases))

    def size(self, number: int) -> Sizes | None:
        """Count the jobs of one segment."""
        try:
            record = self._segment(number)
        except Fenced:
            return None
        ready = record.queues[READY]
        return Sizes(
            len(ready),
            len(record.queues[DELAYED]),
            len(record.queues[BURIED]),
            record.held(),
            sum(key < FIRST_NOT_URGENT for key in ready),
            min(ready, default=None),
            min(record.queues[DELAYED], default=None),
            min(record.queues[BURIED], default=None),
            record.last_slot,
        )

    def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """See SegmentStore."""
        record = self._segments.get(record_of(number))
        if record is None:
            raise Fenced(f"segment {number} is not there")
        queue = record.queues[source]
        # As on a server: jobs that are gone are noticed before a lease that is.
        if record.number != number or not all(key in queue for key in keys):
            raise Refused("not all of them are there")
        into: dict[bytes, bytes] = {}
        if target is not None:
            into = record.queues[target] if isinstance(target, str) else self._lease(record, target)
        gone = {key: queue.pop(key) for key in keys}
        into.update(gone if entries is None else entries)
        return record.head()

    def remove(self, number: int, queue: str, key: bytes) -> bool:
        """See SegmentStore."""
        return self._segment(number).queues[queue].pop(key, None) is not None

    def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        try:
            record = self._segment(number)
        except Fenced:
            return 0
        held = record.leases.pop(lease, {})
        record.queues[READY].update(held)
        return len(held)

    def close(self, number: int) -> bool:
        """See SegmentStore."""
        record = self._segment(number)
        was_open = record.state == OPEN
        if was_open:
            record.state = CLOSED
        return was_open

    def retire(self, number: int) -> bool:
        """See SegmentStore."""
        record = self._segment(number)
        if record.state == CLOSED and not any(record.queues.values()) and not record.held():
            record.state = DEAD
            record.leases = {}
        return record.state == DEAD

    def wipe(self, number: int) -> int:
        """See SegmentStore."""
        record = self._segment(number)
        if record.state == DEAD:
            return 0
        jobs = record.held() + sum(map(len, record.queues.values()))
        record.state = CLOSED
        record.queues = {READY: {}, DELAYED: {}, BURIED: {}}
        record.leases = {}
        return jobs

    def tube_sizes(self, tube: str, newest: int) -> TubeSizes:
        """See SegmentStore."""
        sizes = TubeSizes()
        for record in self._segments.values():
            if record.tube == tube and record.form <= newest:
                for entries in (*record.queues.values(), *record.leases.values()):
                    for packed in entries.values():
                        _add_size(sizes, packed)
        return sizes

    def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        return sorted(
            record.number
            for record in self._segments.values()
            if any(lease_session(lease) == session for lease in record.leases)
        )

    def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        last = self._counters.get(counter, 0)
        self._counters[counter] = last + count
        return last + 1

    def listed_sessions(self) -> dict[int, int]:
        """Read the list of sessions: the slot of each by its number."""
        return dict(self._listed)

    def list_session(self, session: int, slot: int) -> None:
        """List a session with a slot that no other has."""
        if slot in self._listed.values():
            raise Refused(f"slot {slot} is taken")
        self._listed[session] = self._slots[session] = slot

    def claim(self, session: int, form: int = FIRST, reads: int = FIRST) -> None:
        """Make the record of a session that is listed."""
        if not self._left_by_earlier(session):
            raise Refused(f"session {session} may not join")
        self._sessions[self._slots[session]] = SessionState(session, self.now_ms(), form, reads)

    def _left_by_earlier(self, session: int) -> bool:
        record = self._sessions.get(self._slots[session])
        return record is None or (record.number < session and record.dead)

    def session(self, number: int) -> SessionState | None:
        """Return a session's record; None if it never had one, or another has it by now."""
        record = self._sessions.get(self._slots.get(number, 0))
        return record if record is not None and record.number == number else None

    def heartbeat(self, session: int, payload: bytes | None, writes: int) -> int:
        """See SegmentStore."""
        record = self.session(session)
        if session not in self._listed or record is None or record.dead:
            raise Refused(f"session {session} is dead")
        if payload is not None and len(payload) > self.record_max:
            raise TooBig(f"a payload of {len(payload)} bytes")
        record.written_ms = self.now_ms()
        record.writes = writes
        if payload is not None:
            record.payload = payload
        return record.written_ms

    def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """See SegmentStore."""
        record = self.session(session)
        if record is None or record.dead:
            raise Refused(f"session {session} is dead")
        record.written_ms = self.now_ms()
        record.address = address
        record.listens = listens
        record.tells = tells

    def secret(self) -> bytes:
        """See SegmentStore."""
        return b"known to this cluster's own only"

    def resign(self, session: int) -> None:
        """See SegmentStore."""
        record = self.session(session)
        if session in self._listed and record is not None:
            record.dead = True

    def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        if session not in self._listed:
            return False
        record = self.session(session)
        if record is None:
            if not self._left_by_earlier(session):
                return False
            self._sessions[self._slots[session]] = SessionState(session, self.now_ms(), dead=True)
            return True
        if record.dead or self.now_ms() - record.written_ms <= silent_ms:
            return False
        record.dead = True
        return True

    def sessions(self, newest: int) -> list[SessionRecord]:
        """See SegmentStore."""
        return [self._session_record(number, newest) for number in sorted(self._listed)]

    def _session_record(self, number: int, newest: int) -> SessionRecord:
        record = self._sessions.get(self._slots[number])
        if record is None or record.number < number:
            return SessionRecord(number, False, NEVER_WROTE, b"")
        if record.number > number:
            return SessionRecord(number, True, 0, b"")
        silent_ms = self.now_ms() - record.written_ms
        if record.form > newest:
            return SessionRecord(number, False, silent_ms, b"", record.reads, record.writes, newer=True)
        return SessionRecord(
            number,
            record.dead,
            silent_ms,
            record.payload,
            record.reads,
            record.writes,
            address=record.address,
            listens=record.listens,
            tells=record.tells,
        )

    def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        record = self.session(session)
        if session in self._listed and record is not None:
            record.payload = b""
        if self.one_news(session):
            self._news[self._slots[session]] = (session, b"")
        self._listed.pop(session, None)

    def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        if session not in self._listed or self._news.get(self._slots[session], (0, b""))[0] > session:
            raise Refused(f"session {session} is over")
        self._news[self._slots[session]] = (session, news)
        self._news_forms[session] = form

    def news_form(self, session: int) -> int:
        """Return the format of what a session has told."""
        return self._news_forms.get(session, FIRST)

    def one_news(self, session: int) -> bytes:
        """Read what one session has told."""
        number, news = self._news.get(self._listed.get(session, 0), (0, b""))
        return news if number == session else b""

    def room(self) -> bool:
        """See SegmentStore."""
        return self.roomy

    def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        record = self._segment(number)
        self._lease(record, lease)
        record.bodies += count
        return record.bodies - count + 1

    def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        self._bodies[number, body_number] = body
        self._written_ms[number, body_number] = self.now_ms()
        self._body_forms[number, body_number] = form

    def read_body(self, name: tuple[int, int], newest: int) -> bytes | None:
        """Read one body. Raises Newer."""
        if self._body_forms.get(name, FIRST) > newest:
            raise Newer(f"body {name} is of a newer format")
        return self._bodies.get(name)

    def drop_body(self, name: tuple[int, int]) -> None:
        """Remove one body."""
        body = self._bodies.pop(name, None)
        self._body_forms.pop(name, None)
        if body is not None and self.remembers:
            self._removed[name] = body
        elif name not in self._removed:
            self._written_ms.pop(name, None)

    def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """See SegmentStore."""
        until = self.now_ms() - age_ms
        if not self._unseen:
            self._unseen = list(self._bodies)
        some, self._unseen = self._unseen[:count], self._unseen[count:]
        return [name for name in some if name in self._bodies and self._written_ms[name] < until]

    def restart_cold(self) -> None:
        """Bring back the records that were removed, as nodes do that restart."""
        self._bodies |= self._removed
        self._removed = {}


def _size(entries: Entries) -> int:
    return sum(len(key) + len(packed) for key, packed in entries.items())


def _add_size(sizes: TubeSizes, packed: bytes) -> None:
    try:
        job = unpack(packed)
    except DamagedEntry:
        # As in lua/: it counts by its state only.
        return
    sizes.stored += job.stored_size
    sizes.raw += job.raw_size if job.raw_size >= 0 else job.stored_size
    sizes.skipped += job.stored_size if job.skipped else 0


Transport = Callable[[str, Callable[[], Any]], Awaitable[Any]]


async def at_once(name: str, operation: Callable[[], Result]) -> Result:  # noqa: ARG001 - what a scheduler would log
    """Apply an operation at once."""
    return operation()


class MemoryStore(DirectoryCalls):
    """One front-end's access to a cluster in memory; see SegmentStore for its methods.

    Args:
        cluster: The records.
        transport: What every operation passes: it is given a name and a function that applies it.
        newest: The newest format that it knows.
    """

    def __init__(self, cluster: Cluster, transport: Transport = at_once, newest: int = NEWEST) -> None:
        self.newest = newest
        self._cluster = cluster
        self._transport = transport

    async def _if_known(self, name: str, number: int, operation: Callable[[], Any]) -> Any:
        """Do something with a segment unless its format is not known. Raises Newer."""
        return await self._transport(name, partial(self._cluster.known, number, self.newest, operation))

    async def create(self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0) -> None:
        """See SegmentStore."""
        await self._transport("create", partial(self._cluster.create, number, tube, lease, form, page, self.newest))

    async def attach(self, number: int, lease: int) -> None:
        """See SegmentStore."""
        try:
            await self._if_known("attach", number, partial(self._cluster.attach, number, lease))
        except Newer as error:
            raise Fenced(str(error)) from error

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        outcome: Outcome = await self._transport("apply", partial(self._cluster.apply, number, lease, change))
        return outcome

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        made: Settlement = await self._transport("settle", partial(self._cluster.settle, number, lease, renewed))
        return made

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        segment: Segment | None = await self._if_known("read", number, partial(self._cluster.read, number))
        return segment

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        return [await self._unless_newer("head", number, partial(self._cluster.head, number)) for number in numbers]

    async def _unless_newer(self, name: str, number: int, operation: Callable[[], Any]) -> Any:
        try:
            return await self._if_known(name, number, operation)
        except Newer:
            return None

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """See SegmentStore."""
        return [await self._unless_newer("size", number, partial(self._cluster.size, number)) for number in numbers]

    async def leases(self, numbers: Sequence[int]) -> list[Leases | None]:
        """See SegmentStore."""
        return [await self._unless_newer("leases", number, partial(self._cluster.leases, number)) for number in numbers]

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """See SegmentStore."""
        operation = partial(self._cluster.shift, number, source, keys, target, entries)
        head: Head = await self._transport("shift", operation)
        return head

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """See SegmentStore."""
        removed: bool = await self._transport("remove", partial(self._cluster.remove, number, queue, key))
        return removed

    async def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        count: int = await self._transport("reclaim", partial(self._cluster.reclaim, number, lease))
        return count

    async def close(self, number: int) -> bool:
        """See SegmentStore."""
        closed: bool = await self._if_known("close", number, partial(self._cluster.close, number))
        return closed

    async def retire(self, number: int) -> bool:
        """See SegmentStore."""
        retired: bool = await self._if_known("retire", number, partial(self._cluster.retire, number))
        return retired

    async def wipe(self, number: int) -> int:
        """See SegmentStore."""
        jobs: int = await self._if_known("wipe", number, partial(self._cluster.wipe, number))
        return jobs

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """See SegmentStore."""
        sizes: TubeSizes = await self._transport("tube_sizes", partial(self._cluster.tube_sizes, tube, self.newest))
        return sizes

    async def leave(self) -> None:
        """See SegmentStore."""

    async def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        numbers: list[int] = await self._transport("leased_by", partial(self._cluster.leased_by, session))
        return numbers

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        first: int = await self._transport("reserve_numbers", partial(self._cluster.reserve_numbers, counter, count))
        return first

    async def join(self, session: int, form: int = FIRST) -> None:
        """See SegmentStore."""
        for _ in range(LISTINGS_MAX):
            listed: dict[int, int] = await self._transport("listed", self._cluster.listed_sessions)
            if session in listed:
                break
            slot = next(slot for slot in itertools.count(1) if slot not in listed.values())
            try:
                await self._transport("list_session", partial(self._cluster.list_session, session, slot))
            except Refused:
                continue
            await self._transport("claim", partial(self._cluster.claim, session, form, self.newest))
            return
        raise Refused(f"session {session} cannot be listed")

    async def heartbeat(self, session: int, payload: bytes | None, writes: int = FIRST) -> int:
        """See SegmentStore."""
        now_ms: int = await self._transport("heartbeat", partial(self._cluster.heartbeat, session, payload, writes))
        return now_ms

    async def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """See SegmentStore."""
        await self._transport("announce", partial(self._cluster.announce, session, address, listens, tells))

    async def secret(self) -> bytes:
        """See SegmentStore."""
        secret: bytes = await self._transport("secret", self._cluster.secret)
        return secret

    async def resign(self, session: int) -> None:
        """See SegmentStore."""
        await self._transport("resign", partial(self._cluster.resign, session))

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        killed: bool = await self._transport("kill", partial(self._cluster.kill, session, silent_ms))
        return killed

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        records: list[SessionRecord] = await self._transport("sessions", partial(self._cluster.sessions, self.newest))
        return records

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        await self._transport("forget_session", partial(self._cluster.forget_session, session))

    async def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        await self._transport("publish", partial(self._cluster.publish, session, news, form))

    async def news(
        self, sessions: Sequence[int], known: Sequence[bytes] = (), within: float = 0.0, every: float = 0.0
    ) -> list[bytes]:
        """See SegmentStore."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while True:
            if every:
                await asyncio.sleep(every)
            told = [await self._transport("news", partial(self._one_news, session)) for session in sessions]
            if told != list(known) or loop.time() >= until:
                return told

    def _one_news(self, session: int) -> bytes:
        return self._cluster.one_news(session) if self._cluster.news_form(session) <= self.newest else b""

    async def has_room(self) -> bool:
        """See SegmentStore."""
        roomy: bool = await self._transport("has_room", self._cluster.room)
        return roomy

    def measure(self) -> None:
        """See SegmentStore: nothing is counted here."""

    def tell(self, stats: StoreStats) -> None:
        """See SegmentStore: nothing was counted."""

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        numbering = partial(self._cluster.number_bodies, number, lease, count)
        first: int = await self._transport("number_bodies", numbering)
        return first

    async def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        await self._transport("write_body", partial(self._cluster.write_body, number, body_number, body, form))

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See SegmentStore."""
        return [
            await self._transport("read_body", partial(self._cluster.read_body, name, self.newest)) for name in names
        ]

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            await self._transport("drop_body", partial(self._cluster.drop_body, name))

    async def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """See SegmentStore."""
        names: list[tuple[int, int]] = await self._transport(
            "old_bodies", partial(self._cluster.old_bodies, count, age_ms)
        )
        return names

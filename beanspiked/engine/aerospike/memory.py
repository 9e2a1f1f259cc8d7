"""A store in memory with the semantics of the real one, for tests; the same contract tests run on both.

A `MemoryStore` is one front-end's access to a `Cluster`. Every operation passes its `transport`, where a scheduler can hold it back,
lose its reply, or apply it late.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from beanspiked.engine.aerospike.store import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    OPEN,
    READY,
    Change,
    Entry,
    Fenced,
    Head,
    Outcome,
    Refused,
    Segment,
    SessionRecord,
    Settlement,
    lease_session,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Cluster", "MemoryStore"]

Result = TypeVar("Result")

# Segment numbers share records modulo this, as in the real store; small here so that tests reuse records.
RECORDS = 1 << 20


class SegmentRecord:
    """One segment's record."""

    def __init__(self, number: int, tube: str) -> None:
        self.number = number
        self.tube = tube
        self.state = OPEN
        self.last_slot = 0
        self.queues: dict[str, dict[bytes, Entry]] = {READY: {}, DELAYED: {}, BURIED: {}}
        self.leases: dict[int, dict[bytes, Entry]] = {}

    def head(self) -> Head:
        """Return what it would give next."""
        first = {name: min(queue, default=None) for name, queue in self.queues.items()}
        return Head(
            first[READY],
            first[DELAYED],
            first[BURIED],
            len(self.queues[READY]),
            len(self.queues[DELAYED]),
            len(self.queues[BURIED]),
        )


class Session:
    """One session's record."""

    def __init__(self) -> None:
        self.dead = False
        self.written_ms = 0
        self.payload = b""
        self.forgotten = False


class Cluster:
    """All records; shared by the stores of all front-ends. Each method is one atomic operation.

    Args:
        now_ms: The server's clock.
        records: How many records segments share.
    """

    def __init__(self, now_ms: Callable[[], int], records: int = RECORDS) -> None:
        self.now_ms = now_ms
        self._records = records
        self._segments: dict[int, SegmentRecord] = {}
        self._directories: dict[str, set[int]] = {}
        self._counters: dict[str, int] = {}
        self._sessions: dict[int, Session] = {}
        self._bodies: dict[tuple[int, int], bytes] = {}

    def _segment(self, number: int) -> SegmentRecord:
        record = self._segments.get(number % self._records)
        if record is None or record.number != number:
            raise Fenced(f"segment {number} is not there")
        return record

    def create(self, number: int, tube: str) -> None:
        """See SegmentStore."""
        record = self._segments.get(number % self._records)
        if record is not None and not (record.state == DEAD and record.number < number):
            raise Refused(f"the record of segment {number} is in use")
        self._segments[number % self._records] = SegmentRecord(number, tube)

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
        for name, entries in change.puts.items():
            record.queues[name].update(entries)
        held.update(change.held)
        record.last_slot = max(record.last_slot, change.last_slot)
        ready = record.queues[READY]
        for move in change.moves:
            # A KeyError here is an engine that moves what it does not hold.
            del held[move.key]
            if move.queue is not None:
                assert move.entry is not None
                record.queues[move.queue][move.new_key] = move.entry
        for key in change.revive:
            ready[key] = held.pop(key)
        taken = [(key, ready.pop(key)) for key in sorted(ready)[: change.take]]
        held.update(taken)
        return Outcome(taken, record.head())

    def _lease(self, record: SegmentRecord, lease: int) -> dict[bytes, Entry]:
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
            record.state,
            record.last_slot,
            dict(sorted(record.queues[READY].items())),
            dict(sorted(record.queues[DELAYED].items())),
            dict(sorted(record.queues[BURIED].items())),
            {lease: dict(sorted(held.items())) for lease, held in sorted(record.leases.items())},
        )

    def head(self, number: int) -> Head | None:
        """Read one head."""
        try:
            return self._segment(number).head()
        except Fenced:
            return None

    def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int, entries: Mapping[bytes, Entry]
    ) -> None:
        """See SegmentStore."""
        record = self._segment(number)
        queue = record.queues[source]
        if not all(key in queue for key in keys):
            raise Refused("not all of them are there")
        into = record.queues[target] if isinstance(target, str) else self._lease(record, target)
        for key in keys:
            del queue[key]
        into.update(entries)

    def delete_slot(self, number: int, slot: int) -> bool:
        """See SegmentStore."""
        record = self._segment(number)
        for queue in record.queues.values():
            for key, entry in queue.items():
                if entry.slot == slot:
                    del queue[key]
                    return True
        return False

    def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        record = self._segment(number)
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
        if record.state == CLOSED and not any(record.queues.values()) and not any(record.leases.values()):
            record.state = DEAD
            record.leases = {}
        return record.state == DEAD

    def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        return sorted(
            record.number
            for record in self._segments.values()
            if any(lease_session(lease) == session for lease in record.leases)
        )

    def enlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        self._directories.setdefault(tube, set()).add(number)

    def unlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        self._directories.setdefault(tube, set()).discard(number)

    def directory(self, tube: str) -> list[int]:
        """See SegmentStore."""
        return sorted(self._directories.get(tube, ()))

    def tubes(self) -> list[str]:
        """See SegmentStore."""
        return sorted(self._directories)

    def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        last = self._counters.get(counter, 0)
        self._counters[counter] = last + count
        return last + 1

    def heartbeat(self, session: int, payload: bytes) -> int:
        """See SegmentStore."""
        record = self._sessions.setdefault(session, Session())
        if record.dead:
            raise Refused(f"session {session} is dead")
        record.written_ms = self.now_ms()
        record.payload = payload
        return record.written_ms

    def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        record = self._sessions.get(session)
        if record is None:
            raise Fenced(f"session {session} was never there")
        if self.now_ms() - record.written_ms > silent_ms:
            record.dead = True
        return record.dead

    def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        now = self.now_ms()
        return [
            SessionRecord(number, record.dead, now - record.written_ms, record.payload)
            for number, record in sorted(self._sessions.items())
            if not record.forgotten
        ]

    def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        self._sessions[session].forgotten = True

    def write_body(self, number: int, body_number: int, body: bytes) -> None:
        """See SegmentStore."""
        self._bodies[number, body_number] = body

    def read_body(self, name: tuple[int, int]) -> bytes | None:
        """Read one body."""
        return self._bodies.get(name)

    def drop_body(self, name: tuple[int, int]) -> None:
        """Remove one body."""
        self._bodies.pop(name, None)


Transport = Callable[[str, Callable[[], Any]], Awaitable[Any]]


async def at_once(name: str, operation: Callable[[], Result]) -> Result:  # noqa: ARG001 - what a scheduler would log
    """Apply an operation at once."""
    return operation()


class MemoryStore:
    """One front-end's access to a cluster in memory; see SegmentStore for its methods.

    Args:
        cluster: The records.
        transport: What every operation passes: it is given a name and a function that applies it.
    """

    def __init__(self, cluster: Cluster, transport: Transport = at_once) -> None:
        self._cluster = cluster
        self._transport = transport

    async def create(self, number: int, tube: str) -> None:
        """See SegmentStore."""
        await self._transport("create", lambda: self._cluster.create(number, tube))

    async def attach(self, number: int, lease: int) -> None:
        """See SegmentStore."""
        await self._transport("attach", lambda: self._cluster.attach(number, lease))

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        outcome: Outcome = await self._transport("apply", lambda: self._cluster.apply(number, lease, change))
        return outcome

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        settlement: Settlement = await self._transport("settle", lambda: self._cluster.settle(number, lease, renewed))
        return settlement

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        segment: Segment | None = await self._transport("read", lambda: self._cluster.read(number))
        return segment

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        return [await self._transport("head", partial(self._cluster.head, number)) for number in numbers]

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int, entries: Mapping[bytes, Entry]
    ) -> None:
        """See SegmentStore."""
        await self._transport("shift", lambda: self._cluster.shift(number, source, keys, target, entries))

    async def delete_slot(self, number: int, slot: int) -> bool:
        """See SegmentStore."""
        deleted: bool = await self._transport("delete_slot", lambda: self._cluster.delete_slot(number, slot))
        return deleted

    async def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        count: int = await self._transport("reclaim", lambda: self._cluster.reclaim(number, lease))
        return count

    async def close(self, number: int) -> bool:
        """See SegmentStore."""
        closed: bool = await self._transport("close", lambda: self._cluster.close(number))
        return closed

    async def retire(self, number: int) -> bool:
        """See SegmentStore."""
        retired: bool = await self._transport("retire", lambda: self._cluster.retire(number))
        return retired

    async def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        numbers: list[int] = await self._transport("leased_by", lambda: self._cluster.leased_by(session))
        return numbers

    async def enlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        await self._transport("enlist", lambda: self._cluster.enlist(tube, number))

    async def unlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        await self._transport("unlist", lambda: self._cluster.unlist(tube, number))

    async def directory(self, tube: str) -> list[int]:
        """See SegmentStore."""
        numbers: list[int] = await self._transport("directory", lambda: self._cluster.directory(tube))
        return numbers

    async def tubes(self) -> list[str]:
        """See SegmentStore."""
        names: list[str] = await self._transport("tubes", self._cluster.tubes)
        return names

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        first: int = await self._transport("reserve_numbers", lambda: self._cluster.reserve_numbers(counter, count))
        return first

    async def heartbeat(self, session: int, payload: bytes) -> int:
        """See SegmentStore."""
        now_ms: int = await self._transport("heartbeat", lambda: self._cluster.heartbeat(session, payload))
        return now_ms

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        dead: bool = await self._transport("kill", lambda: self._cluster.kill(session, silent_ms))
        return dead

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        records: list[SessionRecord] = await self._transport("sessions", self._cluster.sessions)
        return records

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        await self._transport("forget_session", lambda: self._cluster.forget_session(session))

    async def write_body(self, number: int, body_number: int, body: bytes) -> None:
        """See SegmentStore."""
        await self._transport("write_body", lambda: self._cluster.write_body(number, body_number, body))

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See SegmentStore."""
        return [await self._transport("read_body", partial(self._cluster.read_body, name)) for name in names]

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            await self._transport("drop_body", partial(self._cluster.drop_body, name))

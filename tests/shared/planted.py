"""Stores with one rule of the segment protocol removed each. The simulation must notice."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from memory import Cluster, MemoryStore

from beanspiked.engine.aerospike.segment.codec import unpack
from beanspiked.engine.aerospike.store.seam import Change, Fenced, Outcome, SessionRecord, Settlement

if TYPE_CHECKING:
    from memory_segments import SegmentRecord


class EverythingHappened(Cluster):
    """A settle ignores the highest slot: a put of unknown outcome counts as made (H4 b)."""

    def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        return super().settle(number, lease, renewed)._replace(last_slot=1 << 14)


class NothingHappened(Cluster):
    """A settle ignores the highest slot: a put of unknown outcome is made once more (H4 a)."""

    def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        return super().settle(number, lease, renewed)._replace(last_slot=0)


class CreatingContext(Cluster):
    """The lease's context creates the lease if it is gone (H3)."""

    def _lease(self, record: SegmentRecord, lease: int) -> dict[bytes, bytes]:
        return record.leases.setdefault(lease, {})


class AttachSettledByARename(Cluster):
    """A change that was to make its lease is settled as any other: if it comes late, it makes the lease once more."""

    def settle_attach(self, number: int, lease: int, renewed: int) -> Settlement:
        settlement = super().settle_attach(number, lease, renewed)
        self._segment(number).leases.pop(lease)
        return settlement


class PutBeforeListing(MemoryStore):
    """A segment is listed in its directory some time after its first put (H6)."""

    async def enlist(self, tube: str, number: int) -> None:
        self._listing = asyncio.get_running_loop().create_task(self._enlist_later(tube, number))

    async def _enlist_later(self, tube: str, number: int) -> None:
        await asyncio.sleep(0.2)
        # The fault is that there is no other try.
        with contextlib.suppress(Exception):
            await super().enlist(tube, number)


class PageUnlistedFirst(Cluster):
    """A page is taken out of its tube's entry even if it lists segments (H6)."""

    def retire_page(self, page: int) -> bool:
        super().retire_page(page)
        return True

    def leave_page(self, page: int, number: int) -> int | None:
        left = super().leave_page(page, number)
        return None if left is None else 0

    def enter(self, page: int, number: int) -> bool:
        entered = super().enter(page, number)
        record = self._page(page)
        if record is not None and len(record.segments) > 1:
            self.unlist_page(record.tube, page)
        return entered


class SettledByARead(MemoryStore):
    """An operation of unknown outcome is settled by a read, and the lease stays as it is (H3)."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._real: dict[int, int] = {}

    def _lease_of(self, lease: int) -> int:
        return self._real.get(lease, lease)

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        real = self._lease_of(lease)
        segment = await self.read(number)
        if segment is None or real not in segment.leases:
            raise Fenced("gone")
        self._real[renewed] = real
        return Settlement(segment.last_slot, dict(segment.leases[real]))

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        return await super().apply(number, self._lease_of(lease), change)


class BodyDroppedFirst(MemoryStore):
    """The body of a deleted job is removed before its entry is (H11)."""

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        segment = self._cluster.read(number)
        held = {} if segment is None else segment.leases.get(lease, {})
        gone = [unpack(held[move.key]) for move in change.moves if move.queue is None and move.key in held]
        bodies = [(number, job.body_number) for job in gone if job.body_number]
        if bodies:
            await self.drop_bodies(bodies)
        return await super().apply(number, lease, change)

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        segment = self._cluster.read(number)
        entries = {} if segment is None else segment.queue(queue)
        if key in entries:
            await self.drop_bodies([(number, unpack(entries[key]).body_number)])
        return await super().remove(number, queue, key)


# The age of the copy from which sessions are read. It is more than the silence after which a session may be declared dead.
STALE_MS = 12000


class StaleSessions(MemoryStore):
    """Sessions are read from an old copy. This does no harm while all rules hold."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._old: list[tuple[int, list[SessionRecord]]] = []

    async def sessions(self) -> list[SessionRecord]:
        fresh = await super().sessions()
        now = self._cluster.now_ms()
        self._old.append((now, fresh))
        while len(self._old) > 1 and self._old[1][0] <= now - STALE_MS:
            self._old.pop(0)
        read_at, records = self._old[0]
        return [replace(record, silent_ms=record.silent_ms + now - read_at) for record in records]


class KillByARead(StaleSessions):
    """A session counts as dead as soon as it looks dead, without a write (H5)."""

    async def kill(self, session: int, silent_ms: int) -> bool:
        return any(record.number == session and record.silent_ms > silent_ms for record in await self.sessions())


class MoveSettledByARead(SettledByARead):
    """A move is settled by a read, and the leases of the pair stay as they are."""

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        if lease < 0:
            return await super().settle(number, lease, renewed)
        return await MemoryStore.settle(self, number, lease, renewed)


class EndTakesMoves(Cluster):
    """The end of a session also makes ready the jobs that are on the move."""

    def reclaim(self, number: int, lease: int) -> int:
        if lease >= 0 and (segment := self.read(number)) is not None:
            for other in segment.leases:
                if other < 0:
                    super().reclaim(number, other)
        return super().reclaim(number, lease)


Planted = tuple[type[MemoryStore], type[Cluster]]

PLANTED_IN_MOVES: dict[str, Planted] = {
    "a move settled by a read": (MoveSettledByARead, Cluster),
    "a session's end that takes jobs on the move": (MemoryStore, EndTakesMoves),
}

PLANTED: dict[str, Planted] = {
    "a put is done whatever the highest slot says": (MemoryStore, EverythingHappened),
    "a put is not done whatever the highest slot says": (MemoryStore, NothingHappened),
    "a lease context that creates": (MemoryStore, CreatingContext),
    "an attach settled by renaming": (MemoryStore, AttachSettledByARename),
    "a put before listing": (PutBeforeListing, Cluster),
    "a page unlisted with segments in it": (MemoryStore, PageUnlistedFirst),
    "a take settled by a read": (SettledByARead, Cluster),
    "a body dropped before its entry": (BodyDroppedFirst, Cluster),
    "a kill judged by a read": (KillByARead, Cluster),
}

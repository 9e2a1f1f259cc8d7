"""Segments in memory; see memory.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
    OPEN,
    OVER,
    READY,
    Change,
    Fenced,
    Head,
    Leases,
    Newer,
    Outcome,
    Refused,
    Segment,
    Settlement,
    Sizes,
    TooBig,
)
from beanspiked.engine.contract import TubeSizes
from beanspiked.engine.errors import DamagedEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from beanspiked.engine.aerospike.store.seam import Entries


__all__ = ["SegmentRecord", "SegmentRecords"]

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
        """Return its head; if few jobs are expected, only that of the first ones."""
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


class SegmentRecords:
    """The part of a cluster that has the segments.

    Args:
        record_max: The largest record, in bytes.
    """

    def __init__(self, record_max: int) -> None:
        self.record_max = record_max
        self._segments: dict[int, SegmentRecord] = {}

    def known(self, number: int, newest: int, operation: Callable[[], Any]) -> Any:
        """Change a segment unless its format is newer than this front-end knows. Raises Newer."""
        record = self._segments.get(record_of(number))
        if record is not None and record.number == number and record.form > newest:
            raise Newer(f"it is of format {record.form}, and {newest} is known")
        return operation()

    def segment(self, number: int) -> SegmentRecord:
        """Return the record that a segment has or had."""
        return self._segments[record_of(number)]

    def _segment(self, number: int) -> SegmentRecord:
        record = self._segments.get(record_of(number))
        if record is None or record.number != number:
            raise Fenced(f"segment {number} is not there")
        return record

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
        if change.attach:
            self.attach(number, lease)
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
            # A KeyError here means that an engine moves a job that it does not hold.
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

    def settle_attach(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        record = self._segment(number)
        if record.state == DEAD:
            raise Fenced(f"segment {number} is dead")
        former = record.leases.setdefault(lease, {})
        if renewed not in record.leases:
            record.leases[renewed] = former
            record.leases[lease] = {}
        return Settlement(record.last_slot, dict(record.leases[renewed]))

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
        # As on a server, missing jobs are noticed before a missing lease.
        if record.number != number or not all(key in queue for key in keys):
            raise Refused("not all of them are there")
        into: dict[bytes, bytes] = {}
        if target is not None:
            into = record.queues[target] if isinstance(target, str) else self._lease(record, target)
        gone = {key: queue[key] for key in keys}
        more = _size(entries or {}) - _size(gone)
        if entries and more > 0 and more + record.size() > self.record_max:
            raise TooBig(f"a segment of more than {self.record_max} bytes")
        for key in keys:
            del queue[key]
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


def _size(entries: Entries) -> int:
    return sum(len(key) + len(packed) for key, packed in entries.items())


def _add_size(sizes: TubeSizes, packed: bytes) -> None:
    try:
        job = unpack(packed)
    except DamagedEntry:
        # As in lua/, a damaged job counts only by its state.
        return
    sizes.stored += job.stored_size
    sizes.raw += job.raw_size if job.raw_size >= 0 else job.stored_size
    sizes.skipped += job.stored_size if job.skipped else 0

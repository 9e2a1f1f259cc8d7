"""Segments in Aerospike, one record each.

Measurements chose the call for each operation. The operations on jobs need no filter expression, because a lease is used only once. In
the context of a lease that is gone, `map_size` fails the whole call, since it creates no lease.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike import predicates
from aerospike_helpers import cdt_ctx
from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.store import fields
from beanspiked.engine.aerospike.store import formats as decoding
from beanspiked.engine.aerospike.store.aerospike.calls import (
    QUERY_POLICY,
    SORTED,
    read_off,
)
from beanspiked.engine.aerospike.store.aerospike.changes import Changes, lease_ops
from beanspiked.engine.aerospike.store.aerospike.conditions import NUMBER, Template, numbered
from beanspiked.engine.aerospike.store.aerospike.heads import (
    HEAD_OPS,
    LEASE_READS,
    LOOK_READS,
    SIZE_READS,
    head_of_results,
)
from beanspiked.engine.aerospike.store.aerospike.records import Records, lower
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.keys import SERIAL_BITS, lease_session, record_of
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    FIRST,
    OPEN,
    READY,
    Change,
    Damaged,
    Fenced,
    Head,
    Leases,
    Outcome,
    Refused,
    Segment,
    Settlement,
    Sizes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key
    from beanspiked.engine.aerospike.store.request import Request, Told
    from beanspiked.engine.aerospike.store.seam import Entries

__all__ = ["Segments"]

QUEUES: Final = (READY, DELAYED, BURIED)
MAPS: Final = (*QUEUES, "held")
# The maps keep their index: it takes 3 bytes a job, and saves a third of the cluster's work with a thousand jobs.
MADE: Final = [map_operations.map_create(name, aerospike.MAP_KEY_ORDERED, True) for name in MAPS]
CLEARED: Final = [map_operations.map_clear(name) for name in MAPS]
ONCE_AT_MOST: Final = {
    **SORTED,
    "map_write_flags": aerospike.MAP_WRITE_FLAGS_CREATE_ONLY | aerospike.MAP_WRITE_FLAGS_NO_FAIL,
}


class Segments(Records):
    """The part of the store that has the segments; see SegmentStore for the methods.

    Attributes:
        changes: Carries out the changes of jobs.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_", newest: int = NEWEST) -> None:
        super().__init__(client, namespace, prefix, newest)
        self.changes: Changes = Changes(self.caller, self.pace, self._segment_key, self._known)
        state, empty = exp.IntBin("st"), [exp.Eq(exp_map.MapSize(None, exp.MapBin(name)), 0) for name in QUEUES]
        nobody_holds = exp.Eq(exp.IntBin("nheld"), 0)
        self._is_dead = lower(exp.And(exp.Eq(state, DEAD), self._known))
        self._is_open = Template(exp.And(numbered(NUMBER), exp.Eq(state, OPEN), self._known))
        self._is_over = Template(exp.And(numbered(NUMBER), exp.Eq(state, CLOSED), nobody_holds, self._known, *empty))
        self._is_alive = Template(exp.And(numbered(NUMBER), exp.NE(state, DEAD), self._known))

    def _segment_key(self, number: int) -> Key:
        return self.key("seg", record_of(number))

    # --- under a lease

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        return await self.changes.apply(number, lease, change)

    def send(self, requests: Sequence[Request], told: Told) -> None:
        """See SegmentStore."""
        self.changes.send(requests, told)

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        held = exp.MapBin("held")
        old = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_VALUE, exp.ResultType.MAP, lease, held)
        moved = exp_map.MapRemoveByKey(None, lease, exp_map.MapPut(None, SORTED, renewed, old, held))
        key = self._segment_key(number)
        reads = [operations.read("hwm"), map_operations.map_get_by_key("held", renewed, aerospike.MAP_RETURN_VALUE)]
        try:
            results = await self.change(key, [_fence(lease), _write_map("held", moved), *reads])
        except Fenced:
            # An earlier try may have moved the lease. Only a write tells, since a stale copy may answer a read.
            results = await self.change(key, [_fence(renewed), operations.write("settled", renewed), *reads])
        return _settlement(results)

    async def settle_attach(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        held = exp.MapBin("held")
        there = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_COUNT, exp.ResultType.INTEGER, renewed, held)
        old = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_VALUE, exp.ResultType.MAP, lease, held)
        moved = exp_map.MapPut(None, SORTED, lease, {}, exp_map.MapPut(None, SORTED, renewed, old, held))
        ops = [
            self.changes.alive(number),
            map_operations.map_put("held", lease, {}, ONCE_AT_MOST),
            map_operations.map_set_policy("held", SORTED, [cdt_ctx.cdt_ctx_map_key(lease)]),
            _write_map("held", exp.Cond(exp.Eq(there, 0), moved, held)),
            operations.read("hwm"),
            map_operations.map_get_by_key("held", renewed, aerospike.MAP_RETURN_VALUE),
        ]
        return _settlement(await self.change(self._segment_key(number), ops))

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        ops = [_fence(lease), operations.increment("bodies", count), operations.read("bodies")]
        last: int = (await self.change(self._segment_key(number), ops))[-1][1]
        return last - count + 1

    async def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        held = exp.MapBin("held")
        jobs = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_VALUE, exp.ResultType.MAP, lease, held)
        count = exp_map.MapSize([cdt_ctx.cdt_ctx_map_key(lease)], held)
        ops = [
            _fence(lease),
            expression_operations.expression_write("nheld", arithmetic.Sub(exp.IntBin("nheld"), count).compile()),
            _write_map(READY, exp_map.MapPutItems(None, SORTED, jobs, exp.MapBin(READY))),
            map_operations.map_remove_by_key("held", lease, aerospike.MAP_RETURN_NONE),
        ]
        try:
            reclaimed: int = (await self.change(self._segment_key(number), ops))[0][1]
        except Fenced:
            return 0
        return reclaimed

    # --- beginning and end

    async def create(self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0) -> None:
        """See SegmentStore."""
        head = [
            operations.write("f", form),
            operations.write("no", number),
            operations.write("tube", tube),
            operations.write("own", lease_session(lease)),
            operations.write("st", OPEN),
            operations.write("hwm", 0),
            operations.write("bodies", 0),
            operations.write("nheld", 0),
            operations.write("page", page),
        ]
        leased = lease_ops(lease)
        new, again = [*head, *MADE, *leased], [*head, *CLEARED, *leased]
        await self.claim(self._segment_key(number), number, self._is_dead, new, again)

    async def close(self, number: int) -> bool:
        """See SegmentStore."""
        try:
            await self.alter(self._segment_key(number), [operations.write("st", CLOSED)], self._is_open.of(number))
        except Refused:
            await self._there(number)
            return False
        return True

    async def retire(self, number: int) -> bool:
        """See SegmentStore."""
        ops = [operations.write("st", DEAD), map_operations.map_clear("held")]
        try:
            await self.alter(self._segment_key(number), ops, self._is_over.of(number))
        except Refused:
            return (await self._there(number)).state == DEAD
        return True

    async def wipe(self, number: int) -> int:
        """See SegmentStore."""
        ops = [
            operations.read("nheld"),
            *[map_operations.map_size(name) for name in QUEUES],
            *[map_operations.map_clear(name) for name in MAPS],
            operations.write("nheld", 0),
            operations.write("st", CLOSED),
        ]
        try:
            results = await self.change(self._segment_key(number), ops, self._is_alive.of(number))
        except Refused:
            await self._there(number)
            return 0
        return sum(size for _, size in results[: 1 + len(QUEUES)])

    async def _there(self, number: int) -> Segment:
        """Read a segment that has refused a change. Raises Damaged, or Fenced if it is gone."""
        segment = await self.read(number)
        if segment is None:
            raise Fenced(f"segment {number} is gone")
        return segment

    # --- from outside

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        bins = await self.get(self._segment_key(number))
        try:
            return None if bins is None else decoding.segment(number, bins, self.newest)
        except Damaged as error:
            self._aside.tell(f"segment {number}", error)
            raise

    def _segment_keys(self, numbers: Sequence[int]) -> list[Key]:
        return [self._segment_key(number) for number in numbers]

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        return await self.look("segment", numbers, self._segment_keys(numbers), LOOK_READS, decoding.head)

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """See SegmentStore."""
        return await self.look("segment", numbers, self._segment_keys(numbers), SIZE_READS, decoding.sizes)

    async def leases(self, numbers: Sequence[int]) -> list[Leases | None]:
        """See SegmentStore."""
        return await self.look("segment", numbers, self._segment_keys(numbers), LEASE_READS, decoding.leases)

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """See SegmentStore."""
        there = exp_map.MapGetByKeyList(None, aerospike.MAP_RETURN_COUNT, list(keys), exp.MapBin(source))
        ops = [map_operations.map_remove_by_key_list(source, list(keys), aerospike.MAP_RETURN_NONE, False)]
        if isinstance(target, str):
            ops.append(map_operations.map_put_items(target, entries, SORTED))
        elif target is not None:
            context = [cdt_ctx.cdt_ctx_map_key(target)]
            if entries is None:
                jobs = exp_map.MapGetByKeyList(None, aerospike.MAP_RETURN_ORDERED_MAP, list(keys), exp.MapBin(source))
                ops.insert(0, _write_map("held", exp_map.MapPutItems(context, SORTED, jobs, exp.MapBin("held"))))
            else:
                ops.append(map_operations.map_put_items("held", entries, SORTED, context))
            ops.insert(0, _fence(target))
            ops.append(operations.increment("nheld", len(keys)))
        guard = exp.And(numbered(number), exp.Eq(there, len(keys)))
        return read_off(head_of_results, await self.change(self._segment_key(number), [*ops, *HEAD_OPS], guard))

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """See SegmentStore."""
        ops = [map_operations.map_remove_by_key(queue, key, aerospike.MAP_RETURN_COUNT)]
        try:
            results = await self.change(self._segment_key(number), ops, numbered(number))
        except Refused as error:
            raise Fenced(f"segment {number} is gone") from error
        return bool(results[0][1])

    async def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        return await self.caller.call_slow(partial(self._leased_by, session))

    def _leased_by(self, session: int) -> list[int]:
        query = self.caller.client.query(self._namespace, self._set("seg"))
        query.select("no")
        low = session << SERIAL_BITS
        high = low + (1 << SERIAL_BITS) - 1
        query.where(predicates.range("held", aerospike.INDEX_TYPE_MAPKEYS, low, high))
        found = (record[2].get("no") for record in query.results(QUERY_POLICY))
        return sorted({number for number in found if type(number) is int})


def _settlement(results: Sequence[tuple[str, Any]]) -> Settlement:
    """Decode the last two results of a settle: the highest slot, and what the lease holds. Raises Damaged."""
    return Settlement(fields.number(dict(results[-2:-1]), "hwm"), fields.entries("a lease", results[-1][1]))


def _fence(lease: int) -> Any:
    """Fail the whole change without the lease."""
    return map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(lease)])


def _write_map(name: str, value: Any) -> Any:
    return expression_operations.expression_write(name, value.compile())

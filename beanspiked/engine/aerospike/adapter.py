"""The seam on the official `aerospike` client: every method one call of it, on a worker thread.

Which call each operation is, was measured; the operations on a segment that happen per job need no filter expression, because a lease is
used once only: `map_size` in the lease's context, which does not create, fails the whole call when the lease is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aerospike
from aerospike import exception as client_errors
from aerospike import predicates
from aerospike_helpers import cdt_ctx
from aerospike_helpers.batch import records as batch_records
from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.store import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    OPEN,
    READY,
    SERIAL_BITS,
    Busy,
    Change,
    Entry,
    Fenced,
    Full,
    Head,
    Outcome,
    Refused,
    Segment,
    SessionRecord,
    Settlement,
    StoreError,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["AerospikeStore"]

Result = TypeVar("Result")

# Segment numbers share records modulo this: space is bounded by the most segments that ever were at once.
SEGMENT_RECORDS: Final = 1 << 20
# More threads lose to the interpreter lock.
THREADS: Final = 4
QUEUES: Final = (READY, DELAYED, BURIED)
MAPS: Final = (*QUEUES, "held")

SORTED: Final = {"map_order": aerospike.MAP_KEY_ORDERED}
ONCE: Final = {"map_order": aerospike.MAP_KEY_ORDERED, "map_write_flags": aerospike.MAP_WRITE_FLAGS_CREATE_ONLY}
WRITE_POLICY: Final = {
    # Retries are the engine's: it knows what may be repeated.
    "max_retries": 0,
    "total_timeout": 1000,
    "socket_timeout": 300,
    # A namespace's default-ttl must not expire jobs.
    "ttl": aerospike.TTL_NEVER_EXPIRE,
}
# Without this an operation on a record that is not there would make it.
CHANGE_POLICY: Final = {**WRITE_POLICY, "exists": aerospike.POLICY_EXISTS_UPDATE}
REMOVE_POLICY: Final = {name: value for name, value in WRITE_POLICY.items() if name != "ttl"}
READ_POLICY: Final = {"max_retries": 2, "total_timeout": 1000, "socket_timeout": 300}

# proto.h: what a node or the client answers.
CODE_PARAMETER: Final = -2
CODE_NOT_FOUND: Final = 2
CODE_EXISTS: Final = 5
CODE_NO_ROOM: Final = 8
CODE_TIMEOUT: Final = 9
CODE_KEY_BUSY: Final = 14
CODE_PARTITION_UNAVAILABLE: Final = 11
CODE_DEVICE_OVERLOAD: Final = 18
CODE_ELEMENT_EXISTS: Final = 24
CODE_OP_NOT_APPLICABLE: Final = 26
CODE_FILTERED_OUT: Final = 27

MEANINGS: Final[dict[int, type[StoreError]]] = {
    CODE_NOT_FOUND: Fenced,
    CODE_OP_NOT_APPLICABLE: Fenced,
    CODE_EXISTS: Refused,
    CODE_ELEMENT_EXISTS: Refused,
    CODE_FILTERED_OUT: Refused,
    CODE_KEY_BUSY: Busy,
    CODE_DEVICE_OVERLOAD: Busy,
    CODE_PARTITION_UNAVAILABLE: Busy,
    CODE_NO_ROOM: Full,
}


class AerospikeStore:
    """A cluster's namespace; see SegmentStore for the methods.

    Args:
        client: A connected client of the `aerospike` package.
        namespace: Where to keep everything.
        prefix: What the names of all sets and indexes begin with; records outside them are never touched.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_") -> None:
        self._client = client
        self._namespace = namespace
        self._prefix = prefix
        self._pool = ThreadPoolExecutor(THREADS, "aerospike")

    def close_pool(self) -> None:
        """Let the worker threads end."""
        self._pool.shutdown(wait=True)

    async def prepare(self) -> None:
        """Make the index that finds a session's leases."""
        await self._call(self._prepare)

    def _prepare(self) -> None:
        try:
            self._client.index_map_keys_create(
                self._namespace, self._set("seg"), "held", aerospike.INDEX_NUMERIC, self._set("held")
            )
        except client_errors.IndexFoundError:
            return

    # --- plumbing

    def _set(self, name: str) -> str:
        return self._prefix + name

    def _key(self, name: str, key: int | str) -> tuple[str, str, int | str]:
        return self._namespace, self._set(name), key

    def _segment_key(self, number: int) -> tuple[str, str, int | str]:
        return self._key("seg", number % SEGMENT_RECORDS)

    async def _call(self, function: Callable[[], Result]) -> Result:
        """Run a blocking call on a worker thread and give its failure its meaning."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function)
        except client_errors.AerospikeError as error:
            if error.code == CODE_PARAMETER:
                raise
            meaning = MEANINGS.get(error.code or 0)
            if meaning is None:
                # What a node or the network failed with: not sent at all, or who knows.
                meaning = Unknown if error.in_doubt or error.code == CODE_TIMEOUT else Busy
            raise meaning(f"{error.code}: {error.msg}") from error

    def _operate(self, key: tuple[str, str, int | str], ops: list[Any], guard: Any = None) -> list[tuple[str, Any]]:
        """Change a record that exists, if the guard holds."""
        policy = CHANGE_POLICY if guard is None else {**CHANGE_POLICY, "expressions": guard.compile()}
        results: list[tuple[str, Any]] = self._client.operate_ordered(key, ops, policy=policy)[2]
        return results

    def _make(self, key: tuple[str, str, int | str], ops: list[Any], exists: int) -> list[tuple[str, Any]]:
        """Change a record that may not exist."""
        policy = {**WRITE_POLICY, "exists": exists}
        results: list[tuple[str, Any]] = self._client.operate_ordered(key, ops, policy=policy)[2]
        return results

    # --- segments

    async def create(self, number: int, tube: str) -> None:
        """See SegmentStore."""
        await self._call(partial(self._create, number, tube))

    def _create(self, number: int, tube: str) -> None:
        key = self._segment_key(number)
        head = [
            operations.write("no", number),
            operations.write("tube", tube),
            operations.write("st", OPEN),
            operations.write("hwm", 0),
        ]
        try:
            made = [map_operations.map_create(name, aerospike.MAP_KEY_ORDERED, False) for name in MAPS]
            self._make(key, [*head, *made], aerospike.POLICY_EXISTS_CREATE)
        except client_errors.RecordExistsError:
            guard = exp.And(exp.Eq(exp.IntBin("st"), DEAD), exp.LT(exp.IntBin("no"), number))
            self._operate(key, [*head, *[map_operations.map_clear(name) for name in MAPS]], guard)

    async def attach(self, number: int, lease: int) -> None:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.NE(exp.IntBin("st"), DEAD))
        context = [cdt_ctx.cdt_ctx_map_key(lease)]
        ops = [
            map_operations.map_put("held", lease, {}, ONCE),
            map_operations.map_set_policy("held", SORTED, context),
        ]
        try:
            await self._call(partial(self._operate, self._segment_key(number), ops, guard))
        except Refused as error:
            if getattr(error.__cause__, "code", 0) == CODE_FILTERED_OUT:
                raise Fenced(f"segment {number} is gone or dead") from error
            raise

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        context = [cdt_ctx.cdt_ctx_map_key(lease)]
        ops: list[Any] = [map_operations.map_size("held", context)]
        for name, entries in change.puts.items():
            ops.append(map_operations.map_put_items(name, _values(entries), SORTED))
        if change.held:
            ops.append(map_operations.map_put_items("held", _values(change.held), SORTED, context))
        if change.last_slot:
            ops.append(operations.write("hwm", change.last_slot))
        if change.moves:
            gone = [move.key for move in change.moves]
            ops.append(map_operations.map_remove_by_key_list("held", gone, aerospike.MAP_RETURN_NONE, False, context))
            for name in QUEUES:
                into = {m.new_key: [m.entry.slot, m.entry.packed] for m in change.moves if m.queue == name and m.entry}
                if into:
                    ops.append(map_operations.map_put_items(name, into, SORTED))
        if change.revive:
            keys = list(change.revive)
            back = exp_map.MapGetByKeyList(context, aerospike.MAP_RETURN_ORDERED_MAP, keys, exp.MapBin("held"))
            ops += [
                _write_map(READY, exp_map.MapPutItems(None, SORTED, back, exp.MapBin(READY))),
                map_operations.map_remove_by_key_list("held", keys, aerospike.MAP_RETURN_NONE, False, context),
            ]
        if change.take:
            best = exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_ORDERED_MAP, 0, change.take, exp.MapBin(READY))
            ops += [
                _write_map("held", exp_map.MapPutItems(context, SORTED, best, exp.MapBin("held"))),
                map_operations.map_remove_by_index_range(READY, 0, change.take, aerospike.MAP_RETURN_KEY_VALUE),
            ]
        results = await self._call(partial(self._operate, self._segment_key(number), [*ops, *HEAD_OPS]))
        values = [value for _, value in results]
        taken = _pairs(values[-len(HEAD_OPS) - 1]) if change.take else []
        return Outcome(taken, _head(values[-len(HEAD_OPS) :]))

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        try:
            results = await self._call(partial(self._settle, number, lease, renewed))
        except (Fenced, Refused):
            # An earlier attempt may have done it.
            segment = await self.read(number)
            if segment is None or renewed not in segment.leases:
                raise
            return Settlement(segment.last_slot, segment.leases[renewed])
        return Settlement(results[-2][1], _entries(results[-1][1]))

    def _settle(self, number: int, lease: int, renewed: int) -> list[tuple[str, Any]]:
        held = exp.MapBin("held")
        old = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_VALUE, exp.ResultType.MAP, lease, held)
        moved = exp_map.MapRemoveByKey(None, lease, exp_map.MapPut(None, SORTED, renewed, old, held))
        return self._operate(
            self._segment_key(number),
            [
                map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(lease)]),
                _write_map("held", moved),
                operations.read("hwm"),
                map_operations.map_get_by_key("held", renewed, aerospike.MAP_RETURN_VALUE),
            ],
        )

    async def read(self, number: int) -> Segment | None:
        """See SegmentStore."""
        try:
            bins = await self._call(lambda: self._client.get(self._segment_key(number), READ_POLICY)[2])
        except Fenced:
            return None
        if bins["no"] != number:
            return None
        return Segment(
            number,
            bins["tube"],
            bins["st"],
            bins["hwm"],
            _entries(bins[READY]),
            _entries(bins[DELAYED]),
            _entries(bins[BURIED]),
            {lease: _entries(held) for lease, held in sorted(bins["held"].items())},
        )

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        # A batch gives one value a name, so each read has a name of its own.
        ops = [operations.read("no"), *[expression_operations.expression_read(name, read) for name, read in HEAD_READS]]
        wanted = batch_records.BatchRecords([batch_records.Read(self._segment_key(number), ops) for number in numbers])
        found = (await self._call(lambda: self._client.batch_write(wanted))).batch_records
        heads: list[Head | None] = []
        for number, record in zip(numbers, found, strict=True):
            if record.result not in (0, CODE_NOT_FOUND):
                raise MEANINGS.get(record.result, Busy)(f"{record.result}: reading segment {number}")
            bins = record.record[2] if record.result == 0 else {}
            there = bins.get("no") == number
            heads.append(_head([bins[name] for name, _ in HEAD_READS]) if there else None)
        return heads

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int, entries: Mapping[bytes, Entry]
    ) -> None:
        """See SegmentStore."""
        there = exp_map.MapGetByKeyList(None, aerospike.MAP_RETURN_COUNT, list(keys), exp.MapBin(source))
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.Eq(there, len(keys)))
        ops = [map_operations.map_remove_by_key_list(source, list(keys), aerospike.MAP_RETURN_NONE, False)]
        if isinstance(target, str):
            ops.append(map_operations.map_put_items(target, _values(entries), SORTED))
        else:
            context = [cdt_ctx.cdt_ctx_map_key(target)]
            # The size first: it does not create the lease.
            ops.insert(0, map_operations.map_size("held", context))
            ops.append(map_operations.map_put_items("held", _values(entries), SORTED, context))
        await self._call(partial(self._operate, self._segment_key(number), ops, guard))

    async def delete_slot(self, number: int, slot: int) -> bool:
        """See SegmentStore."""
        guard = exp.Eq(exp.IntBin("no"), number)
        wanted = [slot, aerospike.CDTWildcard()]
        ops = [map_operations.map_remove_by_value(name, wanted, aerospike.MAP_RETURN_COUNT) for name in QUEUES]
        results = await self._guarded_by_number(number, ops, guard)
        return any(count for _, count in results)

    async def _guarded_by_number(self, number: int, ops: list[Any], guard: Any) -> list[tuple[str, Any]]:
        """Operate on a segment under a guard that only its number can fail: another one has its record now."""
        try:
            return await self._call(partial(self._operate, self._segment_key(number), ops, guard))
        except Refused as error:
            raise Fenced(f"segment {number} is gone") from error

    async def reclaim(self, number: int, lease: int) -> int:
        """See SegmentStore."""
        held = exp.MapBin("held")
        jobs = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_VALUE, exp.ResultType.MAP, lease, held)
        ops = [
            map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(lease)]),
            _write_map(READY, exp_map.MapPutItems(None, SORTED, jobs, exp.MapBin(READY))),
            map_operations.map_remove_by_key("held", lease, aerospike.MAP_RETURN_NONE),
        ]
        try:
            results = await self._call(partial(self._operate, self._segment_key(number), ops))
        except Fenced:
            return 0
        count: int = results[0][1]
        return count

    async def close(self, number: int) -> bool:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.Eq(exp.IntBin("st"), OPEN))
        try:
            await self._call(partial(self._operate, self._segment_key(number), [operations.write("st", CLOSED)], guard))
        except Refused:
            if await self.read(number) is None:
                raise Fenced(f"segment {number} is gone") from None
            return False
        return True

    async def retire(self, number: int) -> bool:
        """See SegmentStore."""
        segment = await self.read(number)
        if segment is None:
            raise Fenced(f"segment {number} is gone")
        if segment.state == DEAD:
            return True
        if segment.state != CLOSED or any(segment.leases.values()):
            return False
        empty = [exp.Eq(exp_map.MapSize(None, exp.MapBin(name)), 0) for name in QUEUES]
        # A literal empty map cannot be compared with: each lease that was read is, by its size.
        leases = [
            exp.Eq(exp_map.MapSize([cdt_ctx.cdt_ctx_map_key(lease)], exp.MapBin("held")), 0) for lease in segment.leases
        ]
        guard = exp.And(
            exp.Eq(exp.IntBin("no"), number),
            exp.Eq(exp.IntBin("st"), CLOSED),
            exp.Eq(exp_map.MapSize(None, exp.MapBin("held")), len(segment.leases)),
            *empty,
            *leases,
        )
        ops = [operations.write("st", DEAD), map_operations.map_clear("held")]
        try:
            await self._call(partial(self._operate, self._segment_key(number), ops, guard))
        except Refused:
            return False
        return True

    async def leased_by(self, session: int) -> list[int]:
        """See SegmentStore."""
        return await self._call(partial(self._leased_by, session))

    def _leased_by(self, session: int) -> list[int]:
        query = self._client.query(self._namespace, self._set("seg"))
        query.select("no")
        low = session << SERIAL_BITS
        high = low + (1 << SERIAL_BITS) - 1
        query.where(predicates.range("held", aerospike.INDEX_TYPE_MAPKEYS, low, high))
        return sorted({record[2]["no"] for record in query.results()})

    # --- directories

    async def enlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        await self._call(partial(self._put_item, self._key("dir", tube), "segments", number, {"tube": tube}))
        await self._call(partial(self._put_item, self._key("ctl", "tubes"), "names", tube, {}))

    def _put_item(self, key: tuple[str, str, int | str], name: str, item: int | str, bins: dict[str, str]) -> None:
        """Add to a map that stands for a set, making its record where needed."""
        writes = [operations.write(bin_name, value) for bin_name, value in bins.items()]
        self._make(key, [*writes, map_operations.map_put(name, item, 0, SORTED)], aerospike.POLICY_EXISTS_IGNORE)

    async def unlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        await self._drop_item(self._key("dir", tube), "segments", number)

    async def _drop_item(self, key: tuple[str, str, int | str], name: str, item: int | str) -> None:
        """Take out of a map that stands for a set; one that was never made has nothing to take out."""
        ops = [map_operations.map_remove_by_key(name, item, aerospike.MAP_RETURN_NONE)]
        with contextlib.suppress(Fenced):
            await self._call(partial(self._operate, key, ops))

    async def directory(self, tube: str) -> list[int]:
        """See SegmentStore."""
        return sorted(await self._items(self._key("dir", tube), "segments"))

    async def tubes(self) -> list[str]:
        """See SegmentStore."""
        return sorted(await self._items(self._key("ctl", "tubes"), "names"))

    async def _items(self, key: tuple[str, str, int | str], name: str) -> list[Any]:
        try:
            bins = await self._call(lambda: self._client.get(key, READ_POLICY)[2])
        except Fenced:
            return []
        return list(bins.get(name, {}))

    # --- sessions

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        ops = [operations.increment("last", count), operations.read("last")]
        key = self._key("ctl", f"counter-{counter}")
        results = await self._call(partial(self._make, key, ops, aerospike.POLICY_EXISTS_IGNORE))
        last: int = results[-1][1]
        return last - count + 1

    async def heartbeat(self, session: int, payload: bytes) -> int:
        """See SegmentStore."""
        key = self._key("ses", session)
        try:
            return await self._call(partial(self._beat, key, payload))
        except Fenced:
            made = [operations.write("dead", 0), operations.write("payload", payload)]
            await self._call(partial(self._make, key, made, aerospike.POLICY_EXISTS_CREATE))
            await self._call(partial(self._put_item, self._key("ctl", "sessions"), "numbers", session, {}))
            return await self._call(partial(self._beat, key, payload))

    def _beat(self, key: tuple[str, str, int | str], payload: bytes) -> int:
        ops = [expression_operations.expression_read("now", SERVER_NOW_MS), operations.write("payload", payload)]
        now_ms: int = self._operate(key, ops, exp.Eq(exp.IntBin("dead"), 0))[0][1]
        return now_ms

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        key = self._key("ses", session)
        guard = exp.And(exp.Eq(exp.IntBin("dead"), 0), exp.GT(exp.SinceUpdateTime(), silent_ms))
        try:
            await self._call(partial(self._operate, key, [operations.write("dead", 1)], guard))
        except Refused:
            bins = await self._call(lambda: self._client.get(key, READ_POLICY)[2])
            return bool(bins["dead"])
        return True

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        numbers = sorted(await self._items(self._key("ctl", "sessions"), "numbers"))
        if not numbers:
            return []
        ops = [
            operations.read("dead"),
            operations.read("payload"),
            expression_operations.expression_read("silent", exp.SinceUpdateTime().compile()),
        ]
        wanted = batch_records.BatchRecords([batch_records.Read(self._key("ses", number), ops) for number in numbers])
        found = (await self._call(lambda: self._client.batch_write(wanted))).batch_records
        return [
            SessionRecord(number, bool(bins["dead"]), bins["silent"], bytes(bins["payload"]))
            for number, record in zip(numbers, found, strict=True)
            if record.result == 0
            for bins in [record.record[2]]
        ]

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        await self._drop_item(self._key("ctl", "sessions"), "numbers", session)

    # --- bodies

    def _body_key(self, number: int, body_number: int) -> tuple[str, str, int | str]:
        return self._key("body", f"{number}-{body_number}")

    async def write_body(self, number: int, body_number: int, body: bytes) -> None:
        """See SegmentStore."""
        key = self._body_key(number, body_number)
        await self._call(lambda: self._client.put(key, {"body": body}, policy=WRITE_POLICY))

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See SegmentStore."""
        wanted = batch_records.BatchRecords(
            [batch_records.Read(self._body_key(*name), [operations.read("body")]) for name in names]
        )
        found = (await self._call(lambda: self._client.batch_write(wanted))).batch_records
        for record in found:
            if record.result not in (0, CODE_NOT_FOUND):
                raise MEANINGS.get(record.result, Busy)(f"{record.result}: reading a body")
        return [bytes(record.record[2]["body"]) if record.result == 0 else None for record in found]

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            key = self._body_key(*name)
            with contextlib.suppress(Fenced):
                await self._call(partial(self._client.remove, key, policy=REMOVE_POLICY))


def _write_map(name: str, value: Any) -> Any:
    return expression_operations.expression_write(name, value.compile())


def _values(entries: Mapping[bytes, Entry]) -> dict[bytes, list[int | bytes]]:
    return {key: [entry.slot, entry.packed] for key, entry in entries.items()}


def _entry(value: Sequence[Any]) -> Entry:
    return Entry(value[0], bytes(value[1]))


def _entries(values: Mapping[Any, Sequence[Any]]) -> dict[bytes, Entry]:
    return {bytes(key): _entry(value) for key, value in sorted(values.items())}


def _pairs(flat: Sequence[Any]) -> list[tuple[bytes, Entry]]:
    """Read what MAP_RETURN_KEY_VALUE gives: keys and values by turns."""
    return [(bytes(key), _entry(value)) for key, value in zip(flat[::2], flat[1::2], strict=True)]


def _head(values: Sequence[Any]) -> Head:
    """Read what HEAD_OPS and HEAD_READS give: the list of first keys of each queue, then the sizes."""
    first = [bytes(keys[0]) if keys else None for keys in values[:3]]
    return Head(first[0], first[1], first[2], values[3], values[4], values[5])


HEAD_OPS: Final = [
    *[map_operations.map_get_by_index_range(name, 0, 1, aerospike.MAP_RETURN_KEY) for name in QUEUES],
    *[map_operations.map_size(name) for name in QUEUES],
]
HEAD_READS: Final = [
    *[
        (f"{name}-1", exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_KEY, 0, 1, exp.MapBin(name)).compile())
        for name in QUEUES
    ],
    *[(f"{name}-n", exp_map.MapSize(None, exp.MapBin(name)).compile()) for name in QUEUES],
]
SERVER_NOW_MS: Final = arithmetic.Add(arithmetic.Div(exp.LastUpdateTime(), 1_000_000), exp.SinceUpdateTime()).compile()

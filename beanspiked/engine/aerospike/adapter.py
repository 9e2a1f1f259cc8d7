"""The seam on the official `aerospike` client: every method one call of it, on a worker thread.

Which call each operation is, was measured; the operations on a segment that happen per job need no filter expression, because a lease is
used once only: `map_size` in the lease's context, which does not create, fails the whole call when the lease is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
import zlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import aerospike
from aerospike import exception as client_errors
from aerospike import predicates
from aerospike_helpers import cdt_ctx
from aerospike_helpers.batch import records as batch_records
from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike import check, health, udf
from beanspiked.engine.aerospike.deadline import NODE_NOW_MS, Deadline
from beanspiked.engine.aerospike.nodes import Agreement, NodeWatch
from beanspiked.engine.aerospike.store import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    HEAD_KEYS,
    OPEN,
    READY,
    SERIAL_BITS,
    Busy,
    Change,
    Directory,
    Fenced,
    Full,
    Head,
    Outcome,
    Refused,
    Segment,
    SessionRecord,
    Settlement,
    Sizes,
    StoreError,
    Unknown,
    lease_session,
    ready_key,
)
from beanspiked.engine.contract import TubeSizes
from beanspiked.engine.errors import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from beanspiked.engine.aerospike.store import Entries

__all__ = ["AerospikeStore"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Segment numbers share records modulo this: space is bounded by the most segments that ever were at once.
SEGMENT_RECORDS: Final = 1 << 20
# While nothing is asked of the cluster, in seconds.
LOOK_AGAIN: Final = 0.02
# How long a call waits for that, in seconds; whoever asked may try again.
DOUBT_MAX: Final = 2.0
# More threads lose to the interpreter lock.
THREADS: Final = 4
# The list of all tubes lies in so many records.
TUBE_LISTS: Final = 64
QUEUES: Final = (READY, DELAYED, BURIED)
MAPS: Final = (*QUEUES, "held")

SORTED: Final = {"map_order": aerospike.MAP_KEY_ORDERED}
ONCE: Final = {"map_order": aerospike.MAP_KEY_ORDERED, "map_write_flags": aerospike.MAP_WRITE_FLAGS_CREATE_ONLY}
# With no retries by the client this is how long it waits for a write.
WRITE_WITHIN_MS: Final = 300
WRITE_POLICY: Final = {
    # Retries are the engine's: it knows what may be repeated.
    "max_retries": 0,
    "total_timeout": 1000,
    "socket_timeout": WRITE_WITHIN_MS,
    # A namespace's default-ttl must not expire jobs.
    "ttl": aerospike.TTL_NEVER_EXPIRE,
}
# Without this an operation on a record that is not there would make it.
CHANGE_POLICY: Final = {**WRITE_POLICY, "exists": aerospike.POLICY_EXISTS_UPDATE}
REMOVE_POLICY: Final = {name: value for name, value in WRITE_POLICY.items() if name != "ttl"}
READ_POLICY: Final = {"max_retries": 2, "total_timeout": 1000, "socket_timeout": 300}
# To see whether a node answers at all: not from a copy elsewhere.
PROBE_POLICY: Final = {
    "max_retries": 0,
    "total_timeout": 1000,
    "socket_timeout": WRITE_WITHIN_MS,
    "replica": aerospike.POLICY_REPLICA_MASTER,
}
BATCH_POLICY: Final = {"max_retries": 2, "total_timeout": 2000, "socket_timeout": 500}

BATCH_WRITE_POLICY: Final = {"max_retries": 0, "total_timeout": 1000, "socket_timeout": WRITE_WITHIN_MS}
BATCH_RECORD_POLICY: Final = {"exists": aerospike.POLICY_EXISTS_UPDATE, "ttl": aerospike.TTL_NEVER_EXPIRE}
# How many changes go out together at most: the first of them waits for the last.
APPLIES_MAX: Final = 32

# proto.h: what a node or the client answers.
CODE_PARAMETER: Final = -2
CODE_NOT_FOUND: Final = 2
CODE_EXISTS: Final = 5
CODE_NO_ROOM: Final = 8
CODE_TIMEOUT: Final = 9
CODE_RECORD_TOO_BIG: Final = 13
CODE_KEY_BUSY: Final = 14
CODE_PARTITION_UNAVAILABLE: Final = 11
CODE_DEVICE_OVERLOAD: Final = 18
CODE_ELEMENT_EXISTS: Final = 24
CODE_OP_NOT_APPLICABLE: Final = 26
CODE_FILTERED_OUT: Final = 27

ANSWERED: Final = (0, CODE_NOT_FOUND)

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
    CODE_RECORD_TOO_BIG: Refused,
}


class Apply(NamedTuple):
    """A change of a segment under a lease that waits for a thread.

    Attributes:
        key: The segment's record.
        ops: Its operations, without those that read what is there afterwards.
        takes: Whether the last of them takes ready jobs out.
        future: Whom to tell.
    """

    key: tuple[str, str, int | str]
    ops: list[Any]
    takes: bool
    future: asyncio.Future[Outcome]


class AerospikeStore:
    """A cluster's namespace; see SegmentStore for the methods.

    Args:
        client: A connected client of the `aerospike` package; None before there is one: everything then fails with Busy.
        namespace: Where to keep everything.
        prefix: What the names of all sets and indexes begin with; records outside them are never touched.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_") -> None:
        self._client = client
        self._namespace = namespace
        self._prefix = prefix
        self._deadline = Deadline(WRITE_WITHIN_MS)
        self._agreement = Agreement(_now)
        self._watch: NodeWatch | None = None
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any] | None] | None] = (
            queue.SimpleQueue()
        )
        self._applies: deque[Apply] = deque()
        self._threads = [threading.Thread(target=self._work, name="aerospike", daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    async def connect(self, config: Mapping[str, Any], max_job_size: int) -> list[health.Finding]:
        """Connect, see whether the cluster is fit, and make what is needed there. Raises StoreUnusable."""
        future: asyncio.Future[list[health.Finding]] = asyncio.get_running_loop().create_future()
        self._calls.put((partial(self._connect, config, max_job_size), future))
        return await future

    def _connect(self, config: Mapping[str, Any], max_job_size: int) -> list[health.Finding]:
        client = check.connect(config)
        try:
            findings = health.inspect(client, self._namespace, max_job_size)
            if not any(finding.level == "error" for finding in findings):
                udf.register(client)
                # Only now, and for good: calls begin as soon as there is a client.
                self._client = client
                self._watch = NodeWatch(client, self._agreement)
                self._watch.start()
        except client_errors.AerospikeError as error:
            raise StoreUnusable(f"{error.code}: {error.msg}") from error
        finally:
            if self._client is not client:
                client.close()
        return findings

    def close_pool(self) -> None:
        """Let the worker threads end when they have done what was asked for."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        if self._watch is not None:
            self._watch.stop()

    def _work(self) -> None:
        """Do one call after the other. A queue and a wake-up of the loop cost half of what an executor does."""
        while True:
            call = self._calls.get()
            if call is None:
                return
            function, future = call
            if future is None:
                function()
                continue
            loop = future.get_loop()
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - it is raised where the call was asked for
                _hand_over(loop, _fail, future, error)
            else:
                _hand_over(loop, _succeed, future, result)

    async def prepare(self) -> None:
        """Make the index that finds a session's leases."""
        await self._call(self._prepare)

    def _prepare(self) -> None:
        name = self._set("held")
        listed = self._client.info_all(f"sindex-list:namespace={self._namespace}")
        if all(f"indexname={name}:" in str(answer) for _, answer in listed.values()):
            # The client waits for two seconds whenever it is asked for an index.
            return
        with contextlib.suppress(client_errors.IndexFoundError):
            self._client.index_map_keys_create(self._namespace, self._set("seg"), "held", aerospike.INDEX_NUMERIC, name)

    # --- plumbing

    def _set(self, name: str) -> str:
        return self._prefix + name

    def _key(self, name: str, key: int | str) -> tuple[str, str, int | str]:
        return self._namespace, self._set(name), key

    def _segment_key(self, number: int) -> tuple[str, str, int | str]:
        return self._key("seg", number % SEGMENT_RECORDS)

    async def _ready(self) -> None:
        """Wait until the nodes can be relied on. Raises Busy before there is a client."""
        if self._client is None:
            raise Busy("not connected yet")
        until = time.monotonic() + DOUBT_MAX
        while self._agreement.doubtful():
            if time.monotonic() > until:
                raise Busy("the cluster is finding out who belongs to it")
            await asyncio.sleep(LOOK_AGAIN)

    async def _call(self, function: Callable[[], Result], *, at_once: bool = False) -> Result:
        """Run a blocking call on a worker thread, once the nodes can be relied on, and give its failure its meaning."""
        if not at_once:
            await self._ready()
        elif self._client is None:
            raise Busy("not connected yet")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._calls.put((function if at_once else partial(self._unless_doubtful, function), future))
        try:
            return await future
        except client_errors.AerospikeError as error:
            if error.code == CODE_PARAMETER:
                raise
            raise _meaning(error.code or 0, error.in_doubt, error.msg or "") from error

    def _unless_doubtful(self, function: Callable[[], Result]) -> Result:
        """Run a call, unless the nodes cannot be relied on any more since it was asked for."""
        if self._agreement.doubtful():
            raise Busy("the cluster is finding out who belongs to it")
        return function()

    def _operate(self, key: tuple[str, str, int | str], ops: list[Any], guard: Any = None) -> list[tuple[str, Any]]:
        """Change a record that exists, if the guard holds."""
        return self._write(key, ops, CHANGE_POLICY, guard)

    def _make(self, key: tuple[str, str, int | str], ops: list[Any], exists: int) -> list[tuple[str, Any]]:
        """Change a record that may not exist."""
        return self._write(key, ops, {**WRITE_POLICY, "exists": exists})

    def _write(
        self, key: tuple[str, str, int | str], ops: list[Any], policy: dict[str, Any], guard: Any = None
    ) -> list[tuple[str, Any]]:
        """Change a record while somebody waits for it, and never later."""
        if self._agreement.asleep():
            self._probe(key)
        until_ms, filtered = self._deadline.filter(guard)
        if filtered is not None:
            policy = {**policy, "expressions": filtered}
        try:
            results: list[tuple[str, Any]] = self._client.operate_ordered(key, ops, policy=policy)[2]
        except client_errors.FilteredOut:
            if until_ms and self._node_now(key) > until_ms:
                # Nothing was done. Or the guard did not hold: then the next try tells.
                raise Busy("it came too late, by the clock of the node") from None
            raise
        return results

    def _probe(self, key: tuple[str, str, int | str]) -> None:
        """See whether the node answers that has a record. Raises Busy."""
        try:
            self._client.exists(key, PROBE_POLICY)
        except client_errors.RecordNotFound:
            return
        except client_errors.AerospikeError as error:
            raise Busy(f"{error.code}: the node does not answer that has it") from error

    def _node_now(self, key: tuple[str, str, int | str]) -> int:
        """Return the time of the node that has a record, in ms."""
        read = [expression_operations.expression_read("now", NODE_NOW_MS.compile())]
        now_ms: int = self._client.operate(key, read, policy=READ_POLICY)[2]["now"]
        if self._deadline.seen(now_ms):
            logger.warning("the clocks of the store's nodes differ: one of them is ahead")
        return now_ms

    # --- segments

    async def create(self, number: int, tube: str, lease: int) -> None:
        """See SegmentStore."""
        await self._call(partial(self._create, number, tube, lease))

    def _create(self, number: int, tube: str, lease: int) -> None:
        key = self._segment_key(number)
        head = [
            operations.write("no", number),
            operations.write("tube", tube),
            operations.write("own", lease_session(lease)),
            operations.write("st", OPEN),
            operations.write("hwm", 0),
            operations.write("bodies", 0),
            operations.write("nheld", 0),
        ]
        leased = _lease_ops(lease)
        try:
            made = [map_operations.map_create(name, aerospike.MAP_KEY_ORDERED, False) for name in MAPS]
            self._make(key, [*head, *made, *leased], aerospike.POLICY_EXISTS_CREATE)
        except client_errors.RecordExistsError:
            guard = exp.And(exp.Eq(exp.IntBin("st"), DEAD), exp.LT(exp.IntBin("no"), number))
            self._operate(key, [*head, *[map_operations.map_clear(name) for name in MAPS], *leased], guard)

    async def attach(self, number: int, lease: int) -> None:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.NE(exp.IntBin("st"), DEAD))
        try:
            await self._call(partial(self._operate, self._segment_key(number), _lease_ops(lease), guard))
        except Refused as error:
            if getattr(error.__cause__, "code", 0) == CODE_FILTERED_OUT:
                raise Fenced(f"segment {number} is gone or dead") from error
            raise

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        context = [cdt_ctx.cdt_ctx_map_key(lease)]
        ops: list[Any] = [map_operations.map_size("held", context)]
        for name, entries in change.puts.items():
            ops.append(map_operations.map_put_items(name, entries, SORTED))
        if change.last_slot:
            ops.append(operations.write("hwm", change.last_slot))
        if change.close:
            ops.append(operations.write("st", CLOSED))
        if change.replaced:
            ops.append(map_operations.map_put_items("held", change.replaced, SORTED, context))
        if change.moves:
            gone = [move.key for move in change.moves]
            ops.append(map_operations.map_remove_by_key_list("held", gone, aerospike.MAP_RETURN_NONE, False, context))
            into: dict[str, dict[bytes, bytes]] = {}
            for move in change.moves:
                if move.queue is not None:
                    into.setdefault(move.queue, {})[move.new_key] = move.packed
            for name, moved in into.items():
                ops.append(map_operations.map_put_items(name, moved, SORTED))
            ops.append(operations.increment("nheld", -len(gone)))
        if change.take:
            best = exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_ORDERED_MAP, 0, change.take, exp.MapBin(READY))
            count = arithmetic.Min(change.take, exp_map.MapSize(None, exp.MapBin(READY)))
            ops += [
                expression_operations.expression_write("nheld", arithmetic.Add(exp.IntBin("nheld"), count).compile()),
                _write_map("held", exp_map.MapPutItems(context, SORTED, best, exp.MapBin("held"))),
                map_operations.map_remove_by_index_range(READY, 0, change.take, aerospike.MAP_RETURN_KEY_VALUE),
            ]
        await self._ready()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._applies.append(Apply(self._segment_key(number), ops, change.take > 0, future))
        self._calls.put((self._apply_waiting, None))
        return await future

    def _apply_waiting(self) -> None:
        """Carry out the changes that wait, together: a thread hop and a wake-up of the loop cost as much as an operation."""
        waiting: list[Apply] = []
        with contextlib.suppress(IndexError):
            while len(waiting) < APPLIES_MAX:
                waiting.append(self._applies.popleft())
        if not waiting:
            # Another thread has done it along with its own.
            return
        outcomes: list[Outcome | Exception]
        try:
            if self._agreement.doubtful():
                raise Busy("the cluster is finding out who belongs to it")
            outcomes = [self._apply_one(waiting[0])] if len(waiting) == 1 else self._apply_all(waiting)
        except client_errors.AerospikeError as error:
            # A call that cannot be made is a bug of ours, not a store to be tried again.
            bug = error.code == CODE_PARAMETER
            outcomes = [error if bug else _meaning(error.code or 0, error.in_doubt, error.msg or "")] * len(waiting)
        except Exception as error:  # noqa: BLE001 - it is raised where the change was asked for
            outcomes = [error] * len(waiting)
        futures = [apply.future for apply in waiting]
        _hand_over(futures[0].get_loop(), _tell_all, futures, outcomes)

    def _apply_one(self, apply: Apply) -> Outcome:
        results = self._operate(apply.key, [*apply.ops, *HEAD_OPS])
        return Outcome(_pairs(results[-len(HEAD_OPS) - 1][1]) if apply.takes else [], _head(results))

    def _apply_all(self, waiting: Sequence[Apply]) -> list[Outcome | Exception]:
        """Send many changes at once, each still an operation of its own on its record."""
        if self._agreement.asleep():
            probed = self._client.batch_read([apply.key for apply in waiting], [], PROBE_POLICY).batch_records
            silent = {apply.key for apply, record in zip(waiting, probed, strict=True) if record.result not in ANSWERED}
            if silent:
                rest = iter(self._send([apply for apply in waiting if apply.key not in silent]))
                busy = "the node does not answer that has it"
                return [Busy(busy) if apply.key in silent else next(rest) for apply in waiting]
        return self._send(waiting)

    def _send(self, waiting: Sequence[Apply]) -> list[Outcome | Exception]:
        """Send changes in one batch."""
        if not waiting:
            return []
        until_ms, filtered = self._deadline.filter()
        policy = BATCH_WRITE_POLICY if filtered is None else {**BATCH_WRITE_POLICY, "expressions": filtered}
        # A batch gives one value a name, the last: that of a take is its removal.
        writes = [
            batch_records.Write(apply.key, [*apply.ops, *HEAD_READS], policy=BATCH_RECORD_POLICY) for apply in waiting
        ]
        batch = batch_records.BatchRecords(writes)
        self._client.batch_write(batch, policy_batch=policy)
        outcomes: list[Outcome | Exception] = []
        for apply, record in zip(waiting, batch.batch_records, strict=True):
            # A record that was never sent has no result either.
            bins = None if record.record is None else record.record[2]
            if record.result == 0 and bins:
                outcomes.append(Outcome(_pairs(bins[READY]) if apply.takes else [], _head_of(bins)))
                continue
            code = record.result or batch.result or CODE_TIMEOUT
            if code == CODE_FILTERED_OUT:
                if self._node_now(apply.key) <= until_ms:
                    logger.error("a write was refused before its deadline; it is tried again")
                outcomes.append(Busy("it came too late, by the clock of the node"))
            else:
                outcomes.append(_meaning(code, record.in_doubt, "in a batch"))
        return outcomes

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        try:
            results = await self._call(partial(self._settle, number, lease, renewed))
        except Fenced:
            # An earlier attempt may have done it. That is looked up by a write, too: a read may be answered by a stale copy.
            ops = [
                map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(renewed)]),
                operations.write("settled", renewed),
                *_settled_reads(renewed),
            ]
            results = await self._call(partial(self._operate, self._segment_key(number), ops))
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
                *_settled_reads(renewed),
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
            bins["own"],
            bins["st"],
            bins["hwm"],
            bins["bodies"],
            bins["nheld"],
            _entries(bins[READY]),
            _entries(bins[DELAYED]),
            _entries(bins[BURIED]),
            {lease: _entries(held) for lease, held in sorted(bins["held"].items())},
        )

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        found = await self._read_many([self._segment_key(number) for number in numbers], HEAD_READS)
        return [
            _head_of(bins) if bins is not None and bins["no"] == number else None
            for number, bins in zip(numbers, found, strict=True)
        ]

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """See SegmentStore."""
        found = await self._read_many([self._segment_key(number) for number in numbers], SIZE_READS)
        return [
            Sizes(
                bins["ready-n"],
                bins["delayed-n"],
                bins["buried-n"],
                bins["nheld"],
                bins["urgent"],
                bins["first"][0] if bins["first"] else None,
                bins["due"][0] if bins["due"] else None,
                bins["oldest"][0] if bins["oldest"] else None,
            )
            if bins is not None and bins["no"] == number
            else None
            for number, bins in zip(numbers, found, strict=True)
        ]

    async def _read_many(
        self, keys: Sequence[tuple[str, str, int | str]], reads: Sequence[Any]
    ) -> list[dict[str, Any] | None]:
        """Do the same reads on many records, in one call; None for one that is not there."""
        if not keys:
            return []
        wanted = batch_records.BatchRecords([batch_records.Read(key, reads) for key in keys])
        found = (await self._call(lambda: self._client.batch_write(wanted, policy_batch=BATCH_POLICY))).batch_records
        results: list[dict[str, Any] | None] = []
        for record in found:
            if record.result not in (0, CODE_NOT_FOUND):
                raise MEANINGS.get(record.result, Busy)(f"{record.result}: reading {record.key[1]}")
            results.append(record.record[2] if record.result == 0 else None)
        return results

    async def shift(self, number: int, source: str, keys: Sequence[bytes], target: str | int, entries: Entries) -> Head:
        """See SegmentStore."""
        there = exp_map.MapGetByKeyList(None, aerospike.MAP_RETURN_COUNT, list(keys), exp.MapBin(source))
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.Eq(there, len(keys)))
        ops = [map_operations.map_remove_by_key_list(source, list(keys), aerospike.MAP_RETURN_NONE, False)]
        if isinstance(target, str):
            ops.append(map_operations.map_put_items(target, entries, SORTED))
        else:
            context = [cdt_ctx.cdt_ctx_map_key(target)]
            # The size first: it does not create the lease.
            ops.insert(0, map_operations.map_size("held", context))
            ops.append(map_operations.map_put_items("held", entries, SORTED, context))
            ops.append(operations.increment("nheld", len(keys)))
        return _head(await self._call(partial(self._operate, self._segment_key(number), [*ops, *HEAD_OPS], guard)))

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """See SegmentStore."""
        ops = [map_operations.map_remove_by_key(queue, key, aerospike.MAP_RETURN_COUNT)]
        results = await self._guarded_by_number(number, ops, exp.Eq(exp.IntBin("no"), number))
        return bool(results[0][1])

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
        count = exp_map.MapSize([cdt_ctx.cdt_ctx_map_key(lease)], held)
        ops = [
            map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(lease)]),
            expression_operations.expression_write("nheld", arithmetic.Sub(exp.IntBin("nheld"), count).compile()),
            _write_map(READY, exp_map.MapPutItems(None, SORTED, jobs, exp.MapBin(READY))),
            map_operations.map_remove_by_key("held", lease, aerospike.MAP_RETURN_NONE),
        ]
        try:
            results = await self._call(partial(self._operate, self._segment_key(number), ops))
        except Fenced:
            return 0
        reclaimed: int = results[0][1]
        return reclaimed

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
        guard = exp.And(
            exp.Eq(exp.IntBin("no"), number),
            exp.Eq(exp.IntBin("st"), CLOSED),
            exp.Eq(exp.IntBin("nheld"), 0),
            *[exp.Eq(exp_map.MapSize(None, exp.MapBin(name)), 0) for name in QUEUES],
        )
        ops = [operations.write("st", DEAD), map_operations.map_clear("held")]
        try:
            await self._call(partial(self._operate, self._segment_key(number), ops, guard))
        except Refused:
            segment = await self.read(number)
            if segment is None:
                raise Fenced(f"segment {number} is gone") from None
            return segment.state == DEAD
        return True

    async def wipe(self, number: int) -> int:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.NE(exp.IntBin("st"), DEAD))
        ops = [
            operations.read("nheld"),
            *[map_operations.map_size(name) for name in QUEUES],
            *[map_operations.map_clear(name) for name in MAPS],
            operations.write("nheld", 0),
            operations.write("st", CLOSED),
        ]
        try:
            results = await self._call(partial(self._operate, self._segment_key(number), ops, guard))
        except Refused:
            if await self.read(number) is None:
                raise Fenced(f"segment {number} is gone") from None
            return 0
        return sum(size for _, size in results[: 1 + len(QUEUES)])

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
        await self._call(partial(self._put_item, self._key("dir", tube), "segments", number))
        await self._call(partial(self._put_item, self._list_key(tube), "names", tube))

    def _list_key(self, tube: str) -> tuple[str, str, int | str]:
        return self._key("ctl", f"tubes-{zlib.crc32(tube.encode()) % TUBE_LISTS}")

    def _put_item(self, key: tuple[str, str, int | str], name: str, item: int | str) -> None:
        """Add to a map that stands for a set, making its record where needed."""
        self._make(key, [map_operations.map_put(name, item, 0, SORTED)], aerospike.POLICY_EXISTS_IGNORE)

    async def unlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        await self._drop_item(self._key("dir", tube), "segments", number)

    async def _drop_item(self, key: tuple[str, str, int | str], name: str, item: int | str) -> None:
        """Take out of a map that stands for a set; one that was never made has nothing to take out."""
        ops = [map_operations.map_remove_by_key(name, item, aerospike.MAP_RETURN_NONE)]
        with contextlib.suppress(Fenced):
            await self._call(partial(self._operate, key, ops))

    async def directory(self, tube: str) -> Directory | None:
        """See SegmentStore."""
        return (await self.directories([tube]))[0]

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        """See SegmentStore."""
        found = await self._read_many([self._key("dir", tube) for tube in tubes], DIRECTORY_READS)
        return [
            None
            if bins is None
            else Directory(
                sorted(bins.get("segments") or ()),
                bins.get("pause") or 0,
                bins.get("until") or 0,
                {name: bins[name] for name in COUNTERS if bins.get(name) is not None},
            )
            for bins in found
        ]

    async def pause(self, tube: str, pause_ms: int, until_ms: int) -> None:
        """See SegmentStore."""
        ops = [operations.write("pause", pause_ms), operations.write("until", until_ms)]
        await self._call(partial(self._make, self._key("dir", tube), ops, aerospike.POLICY_EXISTS_IGNORE))

    async def forget_tube(self, tube: str) -> None:
        """See SegmentStore."""
        ops = [operations.write(name, 0) for name in ("pause", "until", *COUNTERS)]
        with contextlib.suppress(Fenced):
            await self._call(partial(self._operate, self._key("dir", tube), ops))

    async def add_counters(self, tube: str, counters: Mapping[str, int]) -> None:
        """See SegmentStore."""
        ops = [operations.increment(name, count) for name, count in counters.items()]
        await self._call(partial(self._make, self._key("dir", tube), ops, aerospike.POLICY_EXISTS_IGNORE))

    async def tubes(self) -> list[str]:
        """See SegmentStore."""
        keys = [self._key("ctl", f"tubes-{part}") for part in range(TUBE_LISTS)]
        found = await self._read_many(keys, [operations.read("names")])
        return sorted(name for bins in found if bins is not None for name in bins["names"])

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

    async def join(self, session: int) -> None:
        """See SegmentStore."""
        made = [operations.write("dead", 0), operations.write("payload", b"")]
        await self._call(partial(self._make, self._key("ses", session), made, aerospike.POLICY_EXISTS_CREATE))
        await self._call(partial(self._put_item, self._key("ctl", "sessions"), "numbers", session))

    async def heartbeat(self, session: int, payload: bytes | None) -> int:
        """See SegmentStore."""
        ops = [expression_operations.expression_read("now", NODE_NOW_MS.compile())]
        if payload is None:
            ops.append(operations.write("beat", 1))
        else:
            ops.append(operations.write("payload", payload))
        change = partial(self._operate, self._key("ses", session), ops, exp.Eq(exp.IntBin("dead"), 0))
        # Nobody else writes to this record but who declares the session dead.
        results = await self._call(change, at_once=True)
        now_ms: int = results[0][1]
        self._deadline.seen(now_ms)
        return now_ms

    async def resign(self, session: int) -> None:
        """See SegmentStore."""
        with contextlib.suppress(Fenced):
            await self._call(partial(self._operate, self._key("ses", session), [operations.write("dead", 1)]))

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("dead"), 0), exp.GT(exp.SinceUpdateTime(), silent_ms))
        try:
            await self._call(partial(self._operate, self._key("ses", session), [operations.write("dead", 1)], guard))
        except Refused:
            return False
        return True

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        numbers = sorted(await self._items(self._key("ctl", "sessions"), "numbers"))
        found = await self._read_many([self._key("ses", number) for number in numbers], SESSION_READS)
        return [
            SessionRecord(number, bool(bins["dead"]), bins["silent"], bytes(bins["payload"]))
            for number, bins in zip(numbers, found, strict=True)
            if bins is not None
        ]

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        await self._drop_item(self._key("ctl", "sessions"), "numbers", session)

    # --- news

    async def publish(self, session: int, news: bytes) -> None:
        """See SegmentStore."""
        ops = [operations.write("news", news)]
        await self._call(partial(self._make, self._key("news", session), ops, aerospike.POLICY_EXISTS_IGNORE))

    async def news(self, sessions: Sequence[int]) -> list[bytes]:
        """See SegmentStore."""
        found = await self._read_many([self._key("news", session) for session in sessions], [operations.read("news")])
        return [b"" if bins is None else bytes(bins["news"]) for bins in found]

    # --- the store as a whole

    async def has_room(self) -> bool:
        """See SegmentStore."""
        roomy, _ = await self._call(lambda: health.has_room(self._client, self._namespace))
        return roomy

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """See SegmentStore."""
        summed = await self._call(lambda: udf.sizes(self._client, self._namespace, self._set("seg"), tube, 0))
        return TubeSizes(summed.job_size, summed.used_size, summed.skipped_size)

    async def leave(self) -> None:
        """See SegmentStore."""
        # Threads that wait for a node must not keep the event loop.
        await asyncio.get_running_loop().run_in_executor(None, self.close_pool)
        # Only now: one of them may have been connecting.
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- bodies

    def _body_key(self, number: int, body_number: int) -> tuple[str, str, int | str]:
        return self._key("body", f"{number}-{body_number}")

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        ops = [
            map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(lease)]),
            operations.increment("bodies", count),
            operations.read("bodies"),
        ]
        results = await self._call(partial(self._operate, self._segment_key(number), ops))
        last: int = results[-1][1]
        return last - count + 1

    async def write_body(self, number: int, body_number: int, body: bytes) -> None:
        """See SegmentStore."""
        key = self._body_key(number, body_number)
        await self._call(lambda: self._client.put(key, {"body": body}, policy=WRITE_POLICY))

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See SegmentStore."""
        found = await self._read_many([self._body_key(*name) for name in names], [operations.read("body")])
        return [None if bins is None else bytes(bins["body"]) for bins in found]

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            key = self._body_key(*name)
            with contextlib.suppress(Fenced):
                await self._call(partial(self._client.remove, key, policy=REMOVE_POLICY))


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _hand_over(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: object) -> None:
    # The loop may have ended while the call was under way: then nobody waits for it any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _tell_all(futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[Outcome | Exception]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if isinstance(outcome, Exception):
            _fail(future, outcome)
        else:
            _succeed(future, outcome)


def _meaning(code: int, in_doubt: bool | None, text: str) -> StoreError:
    """Say what a failure means for a change: what a node or the network failed with was not sent at all, or who knows."""
    meaning = MEANINGS.get(code)
    if meaning is None:
        meaning = Unknown if in_doubt or code == CODE_TIMEOUT else Busy
    return meaning(f"{code}: {text}")


def _lease_ops(lease: int) -> list[Any]:
    """Make an empty lease; it must not exist."""
    return [
        map_operations.map_put("held", lease, {}, ONCE),
        map_operations.map_set_policy("held", SORTED, [cdt_ctx.cdt_ctx_map_key(lease)]),
    ]


def _settled_reads(renewed: int) -> list[Any]:
    return [operations.read("hwm"), map_operations.map_get_by_key("held", renewed, aerospike.MAP_RETURN_VALUE)]


def _write_map(name: str, value: Any) -> Any:
    return expression_operations.expression_write(name, value.compile())


def _entries(values: Mapping[Any, Any]) -> dict[bytes, bytes]:
    return {bytes(key): bytes(value) for key, value in sorted(values.items())}


def _head_of(bins: Mapping[str, Any]) -> Head:
    """Read what HEAD_READS give."""
    return Head(
        bins["keys"],
        bins["last"][0] if bins["last"] else None,
        bins["due"][0] if bins["due"] else None,
        bins["ready-n"],
        bins["delayed-n"],
        bins["buried-n"],
        bins["nheld"],
        bins["st"],
    )


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _head(results: Sequence[tuple[str, Any]]) -> Head:
    """Read what HEAD_OPS give at the end of an operation's results."""
    keys, last, due, ready, delayed, buried, held, state = [value for _, value in results[-len(HEAD_OPS) :]]
    return Head(keys, last[0] if last else None, due[0] if due else None, ready, delayed, buried, held, state)


HEAD_OPS: Final = [
    map_operations.map_get_by_index_range(READY, 0, HEAD_KEYS, aerospike.MAP_RETURN_KEY),
    map_operations.map_get_by_index_range(READY, -1, 1, aerospike.MAP_RETURN_KEY),
    map_operations.map_get_by_index_range(DELAYED, 0, 1, aerospike.MAP_RETURN_KEY),
    map_operations.map_size(READY),
    map_operations.map_size(DELAYED),
    map_operations.map_size(BURIED),
    operations.read("nheld"),
    operations.read("st"),
]


def _keys_read(name: str, queue: str, index: int, count: int) -> Any:
    keys = exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_KEY, index, count, exp.MapBin(queue))
    return expression_operations.expression_read(name, keys.compile())


# A batch gives one value a name, so each read has a name of its own.
SIZE_OF_EACH: Final = [
    expression_operations.expression_read(f"{name}-n", exp_map.MapSize(None, exp.MapBin(name)).compile())
    for name in QUEUES
]
HEAD_READS: Final = [
    operations.read("no"),
    operations.read("st"),
    operations.read("nheld"),
    _keys_read("keys", READY, 0, HEAD_KEYS),
    _keys_read("last", READY, -1, 1),
    _keys_read("due", DELAYED, 0, 1),
    *SIZE_OF_EACH,
]
URGENT: Final = exp_map.MapGetByKeyRange(
    None, aerospike.MAP_RETURN_COUNT, ready_key(0, 0, 0), ready_key(1024, 0, 0), exp.MapBin(READY)
)
SIZE_READS: Final = [
    operations.read("no"),
    operations.read("nheld"),
    expression_operations.expression_read("urgent", URGENT.compile()),
    _keys_read("first", READY, 0, 1),
    _keys_read("due", DELAYED, 0, 1),
    _keys_read("oldest", BURIED, 0, 1),
    *SIZE_OF_EACH,
]
COUNTERS: Final = ("total_jobs", "deletes", "pauses")
DIRECTORY_READS: Final = [operations.read(name) for name in ("segments", "pause", "until", *COUNTERS)]
SESSION_READS: Final = [
    operations.read("dead"),
    operations.read("payload"),
    expression_operations.expression_read("silent", exp.SinceUpdateTime().compile()),
]

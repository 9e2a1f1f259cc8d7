"""The seam on the official `aerospike` client: every method one call of it, on a worker thread but for changes (see changes.py).

Which call each operation is, was measured; the operations on a segment that happen per job need no filter expression, because a lease is
used once only: `map_size` in the lease's context, which does not create, fails the whole call when the lease is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike import exception as client_errors
from aerospike import predicates
from aerospike_helpers import cdt_ctx
from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.store import formats as decoding
from beanspiked.engine.aerospike.store.aerospike import health, udf, upgrade
from beanspiked.engine.aerospike.store.aerospike.calls import (
    CODE_FILTERED_OUT,
    READ_POLICY,
    REMOVE_POLICY,
    WRITE_POLICY,
    Caller,
    read_off,
)
from beanspiked.engine.aerospike.store.aerospike.changes import (
    HEAD_OPS,
    HEAD_READS,
    SORTED,
    Changes,
    head_of_results,
    keys_read,
    size_reads,
)
from beanspiked.engine.aerospike.store.aerospike.deadline import NODE_NOW_MS
from beanspiked.engine.aerospike.store.aerospike.directories import Directories
from beanspiked.engine.aerospike.store.aerospike.pace import Pace
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.keys import SERIAL_BITS, lease_session, ready_key, record_of
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
    Newer,
    Outcome,
    Refused,
    Segment,
    SessionRecord,
    Settlement,
    Sizes,
    StoreError,
)
from beanspiked.engine.contract import TubeSizes
from beanspiked.engine.errors import StoreUnusable
from beanspiked.ops import check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key
    from beanspiked.engine.aerospike.store.seam import Entries

__all__ = ["AerospikeStore"]

# By default a node that does not answer keeps the thread that asks for half a minute.
QUERY_POLICY: Final = {"max_retries": 0, "total_timeout": 10_000, "socket_timeout": 1000}
QUEUES: Final = (READY, DELAYED, BURIED)
MAPS: Final = (*QUEUES, "held")

# Of the records of sessions, of news and of bodies.
FORMAT: Final = 1
# How often a session that joins looks for a slot that nobody else takes at the same time.
LISTINGS_MAX: Final = 50
# A session that has been silent for so long, in ms, is over, whatever its record says.
SURELY_OVER_MS: Final = 60_000
# Of a record that does not say whether its session is dead, or whose it is.
UNSAID: Final = exp.NE(exp.BinType("dead"), aerospike.AS_BYTES_INTEGER)
NAMELESS: Final = exp.NE(exp.BinType("no"), aerospike.AS_BYTES_INTEGER)
ONCE: Final = {"map_order": aerospike.MAP_KEY_ORDERED, "map_write_flags": aerospike.MAP_WRITE_FLAGS_CREATE_ONLY}


class AerospikeStore(Directories):
    """A cluster's namespace; see SegmentStore for the methods.

    Args:
        client: A connected client of the `aerospike` package; None before there is one: everything then fails with Busy.
        namespace: Where to keep everything.
        prefix: What the names of all sets and indexes begin with; records outside them are never touched.
        newest: The newest format that is read and written.

    Attributes:
        caller: What calls the client.
        changes: What carries out the changes that jobs are made of.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_", newest: int = NEWEST) -> None:
        super().__init__(Caller(client), namespace, prefix)
        self.newest: int = newest
        self.changes: Changes = Changes(self.caller, Pace(time.monotonic))
        # Of the sessions that were listed last, and of the own one that joined last.
        self._slots: dict[int, int] = {}
        self._joined = (0, 0)
        # Where the look through all bodies is.
        self._bodies: Any = None
        self._known = exp.Or(exp.Not(exp.BinExists("f")), exp.LE(exp.IntBin("f"), newest))

    async def connect(self, config: Mapping[str, Any], max_job_size: int) -> list[health.Finding]:
        """Connect, see whether the cluster is fit, and make what is needed there. Raises StoreUnusable."""
        client, findings = await self.caller.workers.do(partial(self._connect, config, max_job_size))
        try:
            if not any(finding.level == "error" for finding in findings):
                await self._take_over(client)
                self.caller.connected(client)
        finally:
            if self.caller.client is not client:
                client.close()
        return findings

    def _connect(self, config: Mapping[str, Any], max_job_size: int) -> tuple[Any, list[health.Finding]]:
        client = check.connect(config)
        try:
            findings = health.inspect(client, self._namespace, max_job_size)
            if not any(finding.level == "error" for finding in findings):
                udf.register(client)
        except BaseException as error:
            client.close()
            if isinstance(error, client_errors.AerospikeError):
                raise StoreUnusable(f"{error.code}: {error.msg}") from error
            if isinstance(error, udf.ModuleMissing):
                # A cluster that is just coming together takes no modules; it is asked again.
                raise StoreUnusable(str(error)) from error
            raise
        return client, findings

    async def _take_over(self, client: Any) -> None:
        """Move what the version before has left, before anything else is asked of the cluster. Raises StoreUnusable."""
        former = AerospikeStore(client, self._namespace, self._prefix)
        try:
            await upgrade.take_over(former)
        except StoreError as error:
            raise StoreUnusable(f"what the version before has left is not moved yet: {error}") from error
        finally:
            former.caller.close()

    async def prepare(self) -> None:
        """Make the index that finds a session's leases."""
        await self.caller.call_slow(self._prepare)

    def _prepare(self) -> None:
        name = self._set("held")
        listed = self.caller.client.info_all(f"sindex-list:namespace={self._namespace}")
        if all(f"indexname={name}:" in str(answer) for _, answer in listed.values()):
            # The client waits for two seconds whenever it is asked for an index.
            return
        with contextlib.suppress(client_errors.IndexFoundError):
            self.caller.client.index_map_keys_create(
                self._namespace, self._set("seg"), "held", aerospike.INDEX_NUMERIC, name
            )

    def _segment_key(self, number: int) -> Key:
        return self._key("seg", record_of(number))

    # --- segments

    async def create(self, number: int, tube: str, lease: int, form: int = FIRST, page: int = 0) -> None:
        """See SegmentStore."""
        await self.caller.call(partial(self._create, number, tube, lease, form, page))

    def _create(self, number: int, tube: str, lease: int, form: int, page: int) -> None:
        key = self._segment_key(number)
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
        leased = _lease_ops(lease)
        # With an index that stays: 3 bytes a job, for a third less work in the cluster where a thousand jobs are.
        made = [map_operations.map_create(name, aerospike.MAP_KEY_ORDERED, True) for name in MAPS]
        cleared = [map_operations.map_clear(name) for name in MAPS]
        free = exp.And(exp.Eq(exp.IntBin("st"), DEAD), self._known)
        self.caller.claim(key, number, free, [*head, *made, *leased], [*head, *cleared, *leased])

    async def attach(self, number: int, lease: int) -> None:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.NE(exp.IntBin("st"), DEAD), self._known)
        try:
            await self.caller.call(partial(self.caller.operate, self._segment_key(number), _lease_ops(lease), guard))
        except Refused as error:
            if getattr(error.__cause__, "code", 0) == CODE_FILTERED_OUT:
                raise Fenced(f"segment {number} is gone, dead or of a newer format") from error
            raise

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """See SegmentStore."""
        return await self.changes.apply(self._segment_key(number), lease, change)

    async def settle(self, number: int, lease: int, renewed: int) -> Settlement:
        """See SegmentStore."""
        try:
            results = await self.caller.call(partial(self._settle, number, lease, renewed))
        except Fenced:
            # An earlier attempt may have done it. That is looked up by a write, too: a read may be answered by a stale copy.
            ops = [
                map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(renewed)]),
                operations.write("settled", renewed),
                *_settled_reads(renewed),
            ]
            results = await self.caller.call(partial(self.caller.operate, self._segment_key(number), ops))
        return Settlement(results[-2][1], _entries(results[-1][1]))

    def _settle(self, number: int, lease: int, renewed: int) -> Any:
        held = exp.MapBin("held")
        old = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_VALUE, exp.ResultType.MAP, lease, held)
        moved = exp_map.MapRemoveByKey(None, lease, exp_map.MapPut(None, SORTED, renewed, old, held))
        return self.caller.operate(
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
            bins = await self.caller.call(lambda: self.caller.client.get(self._segment_key(number), READ_POLICY)[2])
        except Fenced:
            return None
        try:
            return decoding.segment(number, bins, self.newest)
        except Damaged as error:
            self._aside.tell(f"segment {number}", error)
            raise

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        found = await self.caller.read_many([self._segment_key(number) for number in numbers], LOOK_READS)
        return [
            None
            if bins is None
            else self._aside.read(f"segment {number}", partial(decoding.head, number, bins, self.newest))
            for number, bins in zip(numbers, found, strict=True)
        ]

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """See SegmentStore."""
        found = await self.caller.read_many([self._segment_key(number) for number in numbers], SIZE_READS)
        return [
            None
            if bins is None
            else self._aside.read(f"segment {number}", partial(decoding.sizes, number, bins, self.newest))
            for number, bins in zip(numbers, found, strict=True)
        ]

    async def leases(self, numbers: Sequence[int]) -> list[Leases | None]:
        """See SegmentStore."""
        found = await self.caller.read_many([self._segment_key(number) for number in numbers], LEASE_READS)
        return [
            None
            if bins is None
            else self._aside.read(f"segment {number}", partial(decoding.leases, number, bins, self.newest))
            for number, bins in zip(numbers, found, strict=True)
        ]

    async def shift(
        self, number: int, source: str, keys: Sequence[bytes], target: str | int | None, entries: Entries | None
    ) -> Head:
        """See SegmentStore."""
        there = exp_map.MapGetByKeyList(None, aerospike.MAP_RETURN_COUNT, list(keys), exp.MapBin(source))
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.Eq(there, len(keys)))
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
            # The size first: it does not create the lease.
            ops.insert(0, map_operations.map_size("held", context))
            ops.append(operations.increment("nheld", len(keys)))
        change = partial(self.caller.operate, self._segment_key(number), [*ops, *HEAD_OPS], guard)
        return read_off(head_of_results, await self.caller.call(change))

    async def remove(self, number: int, queue: str, key: bytes) -> bool:
        """See SegmentStore."""
        ops = [map_operations.map_remove_by_key(queue, key, aerospike.MAP_RETURN_COUNT)]
        results = await self._guarded_by_number(number, ops, exp.Eq(exp.IntBin("no"), number))
        return bool(results[0][1])

    async def _guarded_by_number(self, number: int, ops: list[Any], guard: Any) -> list[tuple[str, Any]]:
        """Operate on a segment under a guard that only its number can fail: another one has its record now."""
        try:
            return await self.caller.call(partial(self.caller.operate, self._segment_key(number), ops, guard))
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
            results = await self.caller.call(partial(self.caller.operate, self._segment_key(number), ops))
        except Fenced:
            return 0
        reclaimed: int = results[0][1]
        return reclaimed

    async def close(self, number: int) -> bool:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.Eq(exp.IntBin("st"), OPEN), self._known)
        try:
            await self.caller.call(
                partial(self.caller.operate, self._segment_key(number), [operations.write("st", CLOSED)], guard)
            )
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
            self._known,
            *[exp.Eq(exp_map.MapSize(None, exp.MapBin(name)), 0) for name in QUEUES],
        )
        ops = [operations.write("st", DEAD), map_operations.map_clear("held")]
        try:
            await self.caller.call(partial(self.caller.operate, self._segment_key(number), ops, guard))
        except Refused:
            segment = await self.read(number)
            if segment is None:
                raise Fenced(f"segment {number} is gone") from None
            return segment.state == DEAD
        return True

    async def wipe(self, number: int) -> int:
        """See SegmentStore."""
        guard = exp.And(exp.Eq(exp.IntBin("no"), number), exp.NE(exp.IntBin("st"), DEAD), self._known)
        ops = [
            operations.read("nheld"),
            *[map_operations.map_size(name) for name in QUEUES],
            *[map_operations.map_clear(name) for name in MAPS],
            operations.write("nheld", 0),
            operations.write("st", CLOSED),
        ]
        try:
            results = await self.caller.call(partial(self.caller.operate, self._segment_key(number), ops, guard))
        except Refused:
            if await self.read(number) is None:
                raise Fenced(f"segment {number} is gone") from None
            return 0
        return sum(size for _, size in results[: 1 + len(QUEUES)])

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

    # --- sessions

    async def reserve_numbers(self, counter: str, count: int) -> int:
        """See SegmentStore."""
        ops = [operations.increment("last", count), operations.read("last")]
        key = self._key("ctl", f"counter-{counter}")
        results = await self.caller.call(partial(self._change_or_make, key, ops))
        last: int = results[-1][1]
        return last - count + 1

    def _change_or_make(self, key: Key, ops: list[Any]) -> Any:
        """Change a record of a format that is known, or make it. Raises Newer."""
        try:
            return self.caller.operate(key, ops, self._known)
        except client_errors.RecordNotFound:
            return self.caller.make(key, [operations.write("f", FIRST), *ops], aerospike.POLICY_EXISTS_CREATE)
        except client_errors.FilteredOut as error:
            raise Newer(f"{key[2]} is of a format newer than {self.newest}") from error

    async def join(self, session: int, form: int = FIRST) -> None:
        """See SegmentStore."""
        slot = await self._list_session(session)
        # Until it says how it hears news it reads those of all.
        said: dict[str, Any] = {"f": form, "dead": 0, "reads": self.newest, "writes": FIRST}
        said |= {"payload": b"", "at": "", "listens": 0, "tells": 1}
        claim = [*_named(session), *[operations.write(name, value) for name, value in said.items()]]
        key, guard = self._session_key("ses", session, slot), exp.Or(NAMELESS, _left_by_earlier(session))
        await self.caller.call(partial(self.caller.make, key, claim, aerospike.POLICY_EXISTS_IGNORE, guard))
        self._joined = (session, slot)

    async def _list_session(self, session: int) -> int:
        """List a session with a slot that no other has; return it. What is claimed before it is listed nobody would ever find."""
        for _ in range(LISTINGS_MAX):
            # In a list of a newer format nobody can be entered.
            listed = decoding.slots(await self._session_list(), self.newest)
            if session in listed:
                break
            slot = next(slot for slot in itertools.count(1) if slot not in listed.values())
            taken = exp_map.MapGetByValue(None, aerospike.MAP_RETURN_COUNT, slot, exp.MapBin("numbers"))
            entry = [operations.write("f", FIRST), map_operations.map_put("numbers", session, slot, SORTED)]
            key, exists = self._key("ctl", "sessions"), aerospike.POLICY_EXISTS_IGNORE
            # Otherwise somebody else was quicker.
            with contextlib.suppress(Refused):
                await self.caller.call(partial(self.caller.make, key, entry, exists, exp.Eq(taken, 0)))
                return slot
        raise Refused(f"session {session} cannot be listed")

    async def _listed(self) -> dict[int, int]:
        """Read the list of sessions: the slot of each by its number; 0 of one whose records nobody uses again."""
        read = partial(decoding.slots, await self._session_list(), self.newest)
        self._slots = self._aside.read("the list of sessions", read) or {}
        return self._slots

    async def _session_list(self) -> dict[str, Any]:
        key = self._key("ctl", "sessions")
        try:
            bins: dict[str, Any] = await self.caller.call(lambda: self.caller.client.get(key, READ_POLICY)[2])
        except Fenced:
            return {}
        return bins

    async def _slot(self, session: int) -> int:
        """Find a session's slot. Raises Refused unless it is listed: then it is over."""
        if session == self._joined[0]:
            return self._joined[1]
        slot = self._slots.get(session)
        if slot is None:
            slot = (await self._listed()).get(session)
        if slot is None:
            raise Refused(f"session {session} is not listed")
        return slot

    def _session_key(self, name: str, session: int, slot: int) -> Key:
        """Name a session's record. Those that are used again have keys of their own: no number is ever taken for a slot."""
        return self._key(name, f"slot-{slot}" if slot else session)

    async def _change_session(self, session: int, ops: list[Any], guard: Any = None) -> None:
        """Change a session's record while it is this session's. Raises Refused if the guard does not hold."""
        slot = await self._slot(session)
        key = self._session_key("ses", session, slot)
        guards = [guard for guard in (_is(session) if slot else None, guard) if guard is not None]
        held = exp.And(*guards) if len(guards) > 1 else next(iter(guards), None)
        await self.caller.call(partial(self.caller.operate, key, ops, held))

    async def heartbeat(self, session: int, payload: bytes | None, writes: int = FIRST) -> int:
        """See SegmentStore."""
        ops = [expression_operations.expression_read("now", NODE_NOW_MS.compile()), operations.write("writes", writes)]
        if payload is not None:
            ops.append(operations.write("payload", payload))
        slot = await self._slot(session)
        lives = exp.Eq(exp.IntBin("dead"), 0)
        guard = exp.And(_is(session), lives) if slot else lives
        # Nobody else writes to this record but who declares the session dead.
        results = await self.caller.beat(
            partial(self.caller.operate, self._session_key("ses", session, slot), ops, guard)
        )
        now_ms: int = results[0][1]
        self.caller.deadline.seen(now_ms)
        return now_ms

    async def announce(self, session: int, address: str, listens: Sequence[int], tells: bool) -> None:
        """See SegmentStore."""
        said = {"at": address, "listens": list(listens), "tells": int(tells)}
        ops = [operations.write(name, value) for name, value in said.items()]
        await self._change_session(session, ops, exp.Eq(exp.IntBin("dead"), 0))

    async def secret(self) -> bytes:
        """See SegmentStore."""
        return await self.caller.call(self.salt)

    async def resign(self, session: int) -> None:
        """See SegmentStore."""
        # Refused where another session has its record: it is dead, then.
        with contextlib.suppress(Fenced, Refused):
            await self._change_session(session, [operations.write("dead", 1)])

    async def kill(self, session: int, silent_ms: int) -> bool:
        """See SegmentStore."""
        try:
            slot = await self._slot(session)
        except Refused:
            return False
        # A session whose record does not say whether it is dead, or whose it is, cannot send heartbeats.
        guard = exp.And(exp.Or(UNSAID, exp.Eq(exp.IntBin("dead"), 0)), exp.GT(exp.SinceUpdateTime(), silent_ms))
        ops = [operations.write("dead", 1)]
        exists: int = aerospike.POLICY_EXISTS_UPDATE
        if slot:
            # A session that was listed and did not claim its record is given one that says it is dead, so that it never will.
            guard = exp.Or(exp.And(exp.Or(NAMELESS, _is(session)), guard), _left_by_earlier(session))
            ops, exists = [*_named(session), *ops], aerospike.POLICY_EXISTS_IGNORE
        key = self._session_key("ses", session, slot)
        try:
            await self.caller.call(partial(self.caller.make, key, ops, exists, guard))
        except Refused:
            return False
        return True

    async def sessions(self) -> list[SessionRecord]:
        """See SegmentStore."""
        listed = sorted((await self._listed()).items())
        found = await self.caller.read_many([self._session_key("ses", *entry) for entry in listed], SESSION_READS)
        records = [
            self._aside.read(
                f"session {number}", partial(decoding.session, number, slot, bins, self._aside, self.newest)
            )
            for (number, slot), bins in zip(listed, found, strict=True)
        ]
        return [record for record in records if record is not None]

    def _put_item(self, key: Key, name: str, item: int, value: int) -> None:
        """Add to a map, making its record where needed."""
        self.caller.make(key, [map_operations.map_put(name, item, value, SORTED)], aerospike.POLICY_EXISTS_IGNORE)

    async def _drop_item(self, key: Key, name: str, item: int) -> None:
        """Take out of a map; one that was never made has nothing to take out."""
        ops = [map_operations.map_remove_by_key(name, item, aerospike.MAP_RETURN_NONE)]
        with contextlib.suppress(Fenced):
            await self.caller.call(partial(self.caller.operate, key, ops))

    async def forget_session(self, session: int) -> None:
        """See SegmentStore."""
        # Its records stay, so what fills them goes; before the session is unlisted, since nobody comes back to it afterwards.
        with contextlib.suppress(Fenced, Refused):
            await self._change_session(session, [operations.write("payload", b"")])
        with contextlib.suppress(Fenced, Refused):
            slot = await self._slot(session)
            key, ops = self._session_key("news", session, slot), [operations.write("news", b"")]
            await self.caller.call(partial(self.caller.operate, key, ops, _is(session) if slot else None))
        await self._drop_item(self._key("ctl", "sessions"), "numbers", session)
        self._slots.pop(session, None)
        if self._joined[0] == session:
            self._joined = (0, 0)

    # --- news

    async def publish(self, session: int, news: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        slot = await self._slot(session)
        ops = [*(_named(session) if slot else ()), operations.write("f", form), operations.write("news", news)]
        guard = exp.Or(NAMELESS, exp.LE(exp.IntBin("no"), session)) if slot else None
        key = self._session_key("news", session, slot)
        await self.caller.call(partial(self.caller.make, key, ops, aerospike.POLICY_EXISTS_IGNORE, guard))

    async def news(
        self, sessions: Sequence[int], known: Sequence[bytes] = (), within: float = 0.0, every: float = 0.0
    ) -> list[bytes]:
        """See SegmentStore."""
        slots = dict([*self._slots.items(), self._joined])
        # Nobody has told anything under the number of one that is forgotten by now.
        keys = [self._session_key("news", session, slots.get(session, 0)) for session in sessions]
        listen = partial(self._listen, list(zip(sessions, keys, strict=True)), list(known), within, every)
        return await self.caller.listen(listen) if keys else []

    def _listen(self, of: Sequence[tuple[int, Key]], known: list[bytes], within: float, every: float) -> list[bytes]:
        """Read news until there are some: a wake-up is what each time costs, and there are fewer of them without the event loop."""
        until = time.monotonic() + within
        keys = [key for _, key in of]
        while True:
            if every:
                time.sleep(every)
            self.caller.check()
            found = self.caller.read_all(keys, NEWS_READS)
            told = [b"" if bins is None else self._told(*who, bins) for who, bins in zip(of, found, strict=True)]
            if told != known or time.monotonic() >= until or self.caller.leaving.is_set():
                return told

    def _told(self, session: int, key: Key, bins: Mapping[str, Any]) -> bytes:
        """Return what a session has told; nothing where an earlier user of its record did."""
        if key[2] != session and bins.get("no") != session:
            return b""
        read = partial(decoding.blob, bins, "news", self.newest)
        return self._aside.read(f"the news of session {session}", read) or b""

    # --- the store as a whole

    async def has_room(self) -> bool:
        """See SegmentStore."""
        roomy, _ = await self.caller.call_slow(lambda: health.has_room(self.caller.client, self._namespace))
        return roomy

    async def tube_sizes(self, tube: str) -> TubeSizes:
        """See SegmentStore."""
        summed = await self.caller.call_slow(
            lambda: udf.sizes(self.caller.client, self._namespace, self._set("seg"), tube, 0)
        )
        return TubeSizes(summed.job_size, summed.used_size, summed.skipped_size)

    async def leave(self) -> None:
        """See SegmentStore."""
        # Threads that wait for a node must not keep the event loop.
        await asyncio.get_running_loop().run_in_executor(None, self.caller.close)
        # Only now: one of them may have been connecting.
        client, self.caller.client = self.caller.client, None
        if client is not None:
            client.close()

    # --- bodies

    def _body_key(self, number: int, body_number: int) -> Key:
        return self._key("body", f"{number}-{body_number}")

    async def number_bodies(self, number: int, lease: int, count: int) -> int:
        """See SegmentStore."""
        ops = [
            map_operations.map_size("held", [cdt_ctx.cdt_ctx_map_key(lease)]),
            operations.increment("bodies", count),
            operations.read("bodies"),
        ]
        results = await self.caller.call(partial(self.caller.operate, self._segment_key(number), ops))
        last: int = results[-1][1]
        return last - count + 1

    async def write_body(self, number: int, body_number: int, body: bytes, form: int = FIRST) -> None:
        """See SegmentStore."""
        key = self._body_key(number, body_number)
        bins = {"f": form, "no": number, "nr": body_number, "body": body}
        await self.caller.call(lambda: self.caller.client.put(key, bins, policy=WRITE_POLICY))

    async def read_bodies(self, names: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See SegmentStore."""
        found = await self.caller.read_many([self._body_key(*name) for name in names], BODY_READS)
        return [
            None if bins is None else self._body(f"body {name[1]} of segment {name[0]}", bins)
            for name, bins in zip(names, found, strict=True)
        ]

    def _body(self, what: str, bins: Mapping[str, Any]) -> bytes | None:
        """Read a body; None if it is damaged, as good as lost. Raises Newer."""
        try:
            return decoding.blob(bins, "body", self.newest)
        except Damaged as error:
            self._aside.tell(what, error)
            if isinstance(error, Newer):
                raise
            return None

    async def drop_bodies(self, names: Sequence[tuple[int, int]]) -> None:
        """See SegmentStore."""
        for name in names:
            key = self._body_key(*name)
            with contextlib.suppress(Fenced):
                await self.caller.call(partial(self.caller.client.remove, key, policy=REMOVE_POLICY))

    async def old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        """See SegmentStore. Those of the build before do not say whose they are, and are not among them."""
        return await self.caller.call_slow(partial(self._old_bodies, count, age_ms))

    def _old_bodies(self, count: int, age_ms: int) -> list[tuple[int, int]]:
        query, self._bodies = self._bodies, None
        if query is None:
            query = self.caller.client.query(self._namespace, self._set("body"))
            query.select("no", "nr")
            query.max_records = count
            query.paginate()
        old = exp.GT(exp.SinceUpdateTime(), age_ms).compile()
        found = [(bins.get("no"), bins.get("nr")) for _, _, bins in query.results({**QUERY_POLICY, "expressions": old})]
        if not query.is_done():
            self._bodies = query
        return [(number, body) for number, body in found if type(number) is int and type(body) is int]


def _named(session: int) -> list[Any]:
    """Say whose a record of a slot is."""
    return [operations.write("f", FORMAT), operations.write("no", session)]


def _is(session: int) -> Any:
    return exp.Eq(exp.IntBin("no"), session)


def _left_by_earlier(session: int) -> Any:
    """Tell that a record is an earlier session's that is over: one that is not listed any more, and silent, is."""
    over = exp.Or(UNSAID, exp.Eq(exp.IntBin("dead"), 1), exp.GT(exp.SinceUpdateTime(), SURELY_OVER_MS))
    return exp.And(exp.LT(exp.IntBin("no"), session), over)


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


URGENT: Final = exp_map.MapGetByKeyRange(
    None, aerospike.MAP_RETURN_COUNT, ready_key(0, 0, 0), ready_key(1024, 0, 0), exp.MapBin(READY)
)
LOOK_READS: Final = [operations.read("f"), *HEAD_READS]
SIZE_READS: Final = [
    operations.read("f"),
    operations.read("no"),
    operations.read("nheld"),
    expression_operations.expression_read("urgent", URGENT.compile()),
    keys_read("first", READY, 0, 1),
    keys_read("due", DELAYED, 0, 1),
    keys_read("oldest", BURIED, 0, 1),
    *size_reads(),
]
LEASE_KEYS: Final = exp_map.MapGetByIndexRangeToEnd(None, aerospike.MAP_RETURN_KEY, 0, exp.MapBin("held"))
LEASE_READS: Final = [
    *[operations.read(name) for name in ("f", "no", "tube", "own")],
    expression_operations.expression_read("leases", LEASE_KEYS.compile()),
]
NEWS_READS: Final = [operations.read("f"), operations.read("no"), operations.read("news")]
BODY_READS: Final = [operations.read("f"), operations.read("body")]
SESSION_READS: Final = [
    operations.read("f"),
    operations.read("no"),
    operations.read("reads"),
    operations.read("writes"),
    operations.read("dead"),
    operations.read("payload"),
    operations.read("at"),
    operations.read("listens"),
    operations.read("tells"),
    expression_operations.expression_read("silent", exp.SinceUpdateTime().compile()),
]

"""Changes of segments under leases, as operations on records: what happens for every job.

None of them needs a filter expression per job, because a lease is used once only: `map_size` in the lease's context, which does not
create, fails the whole operation when the lease is gone. Changes of several segments that wait at the same time go out in one call, each
still an operation of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers import cdt_ctx
from aerospike_helpers.batch import records as batch_records
from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.caller import (
    CODE_FILTERED_OUT,
    CODE_PARAMETER,
    CODE_TIMEOUT,
    NEVER_SENT,
    WRITE_WITHIN_MS,
    meaning,
    meaning_of,
    read_off,
)
from beanspiked.engine.aerospike.store import (
    BURIED,
    CLOSED,
    DELAYED,
    HEAD_KEYS,
    READY,
    Busy,
    Change,
    Head,
    Outcome,
    Unknown,
)
from beanspiked.engine.aerospike.workers import hand_over

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.caller import Caller, Key

__all__ = ["HEAD_OPS", "HEAD_READS", "SORTED", "Changes", "head_of_bins", "head_of_results", "keys_read", "size_reads"]

logger = logging.getLogger(__name__)

SORTED: Final = {"map_order": aerospike.MAP_KEY_ORDERED}
BATCH_WRITE_POLICY: Final = {"max_retries": 0, "total_timeout": 1000, "socket_timeout": WRITE_WITHIN_MS}
BATCH_RECORD_POLICY: Final = {"exists": aerospike.POLICY_EXISTS_UPDATE, "ttl": aerospike.TTL_NEVER_EXPIRE}
# How many changes go out together at most: the first of them waits for the last.
TOGETHER_MAX: Final = 32
# For so many leases the operations are kept that need no more than the lease: to make them costs as much as to send them.
LEASES_KNOWN: Final = 4096


class Waiting(NamedTuple):
    """A change that waits for a thread.

    Attributes:
        key: The segment's record.
        lease, change: What is to be done.
        future: Whom to tell.
    """

    key: Key
    lease: int
    change: Change
    future: asyncio.Future[Outcome]


class Changes:
    """Carries out changes.

    Args:
        caller: What calls the client.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._waiting: deque[Waiting] = deque()
        # One for each call that has been asked for and has not begun; both ends only append and pop, which threads may do at once.
        self._called: deque[None] = deque()

    async def apply(self, key: Key, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease, with whatever else waits."""
        await self._caller.ready()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(key, lease, change, future))
        if len(self._called) * TOGETHER_MAX < len(self._waiting):
            self._call()
        return await future

    def apply_now(self, key: Key, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease from this thread."""
        reads = FEW_READS_WITHOUT if change.few else HEAD_OPS
        results = self._caller.operate(key, [*_change_ops(lease, change), *reads])
        return read_off(partial(_outcome_of_results, change), results)

    def _call(self) -> None:
        self._called.append(None)
        self._caller.workers.run(self._apply_waiting)

    def _apply_waiting(self) -> None:
        """Carry out the changes that wait, together: a thread hop and a wake-up of the loop cost as much as an operation."""
        self._called.pop()
        together: list[Waiting] = []
        with contextlib.suppress(IndexError):
            while len(together) < TOGETHER_MAX:
                together.append(self._waiting.popleft())
        if not together:
            # Another thread has done it along with its own.
            return
        outcomes: list[Outcome | Exception]
        try:
            self._caller.check()
            if len(together) == 1:
                key, lease, change, _ = together[0]
                outcomes = [self.apply_now(key, lease, change)]
            else:
                outcomes = self._apply_together(together)
        except client_errors.AerospikeError as error:
            outcomes = [meaning(error)] * len(together)
        except Exception as error:  # noqa: BLE001 - it is raised where the change was asked for
            outcomes = [error] * len(together)
        futures = [waiting.future for waiting in together]
        hand_over(futures[0], _tell_all, futures, outcomes)

    def _apply_together(self, together: Sequence[Waiting]) -> list[Outcome | Exception]:
        """Send many changes at once, but none to a node that does not answer."""
        silent = self._caller.silent([waiting.key for waiting in together])
        if not silent:
            return self._send(together)
        sent = iter(self._send([waiting for waiting in together if waiting.key not in silent]))
        busy = "the node does not answer that has it"
        return [Busy(busy) if waiting.key in silent else next(sent) for waiting in together]

    def _send(self, together: Sequence[Waiting]) -> list[Outcome | Exception]:
        """Send changes in one batch."""
        if not together:
            return []
        caller = self._caller
        until_ms, filtered = caller.deadline.filter()
        policy = BATCH_WRITE_POLICY if filtered is None else {**BATCH_WRITE_POLICY, "expressions": filtered}
        writes = [
            batch_records.Write(key, _change_ops(lease, change) + _reads_after(change), policy=BATCH_RECORD_POLICY)
            for key, lease, change, _ in together
        ]
        batch = batch_records.BatchRecords(writes)
        untold = CODE_TIMEOUT
        try:
            caller.client.batch_write(batch, policy_batch=policy)
        except client_errors.AerospikeError as error:
            if error.code == CODE_PARAMETER:
                raise
            # Some may have been done all the same, and answered.
            logger.warning("a batch has failed: %s", error)
            untold = error.code or untold
        except Exception:
            logger.exception("the answer to a batch cannot be read")
        else:
            untold = batch.result or untold
        if untold not in NEVER_SENT:
            untold = CODE_TIMEOUT
        return [
            self._outcome(waiting, record, until_ms, untold)
            for waiting, record in zip(together, batch.batch_records, strict=True)
        ]

    def _outcome(self, waiting: Waiting, record: Any, until_ms: int, untold: int) -> Outcome | Exception:
        """Tell what became of one change of a batch, whatever became of the others.

        Args:
            waiting: The change.
            record: Its part of the answer.
            until_ms: Until when it held.
            untold: What to make of it if there is nothing about it in the answer.
        """
        code: int = record.result
        if code == CODE_FILTERED_OUT:
            return self._caller.too_late(waiting.key, until_ms)
        if code:
            return meaning_of(code, record.in_doubt, "in a batch")
        if record.record is None or not record.record[2]:
            return meaning_of(untold, record.in_doubt, "nothing was said of it in a batch")
        try:
            return read_off(partial(_outcome_of_bins, waiting.change), record.record[2])
        except Unknown as error:
            return error


def _tell_all(futures: Sequence[asyncio.Future[Outcome]], outcomes: Sequence[Outcome | Exception]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


# --- what a change does


def _change_ops(lease: int, change: Change) -> list[Any]:
    """Make the operations of a change, the last of them its take."""
    context, fence = _fence(lease)
    ops: list[Any] = [fence]
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
        ops += _take_ops(lease, change.take)
    return ops


@lru_cache(LEASES_KNOWN)
def _fence(lease: int) -> tuple[list[Any], Any]:
    """Return the context of a lease, and the operation that fails without the lease."""
    context = [cdt_ctx.cdt_ctx_map_key(lease)]
    return context, map_operations.map_size("held", context)


@lru_cache(LEASES_KNOWN)
def _take_ops(lease: int, count: int) -> list[Any]:
    """Move the first ready jobs into a lease, and return them."""
    context, _ = _fence(lease)
    best = exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_ORDERED_MAP, 0, count, exp.MapBin(READY))
    taken = arithmetic.Min(count, exp_map.MapSize(None, exp.MapBin(READY)))
    with_them = exp_map.MapPutItems(context, SORTED, best, exp.MapBin("held"))
    return [
        expression_operations.expression_write("nheld", arithmetic.Add(exp.IntBin("nheld"), taken).compile()),
        expression_operations.expression_write("held", with_them.compile()),
        map_operations.map_remove_by_index_range(READY, 0, count, aerospike.MAP_RETURN_KEY_VALUE),
    ]


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _outcome_of_results(change: Change, results: Sequence[tuple[str, Any]]) -> Outcome:
    """Read what a change in an operation of its own gave."""
    reads = len(FEW_READS_WITHOUT if change.few else HEAD_OPS)
    head = _first_keys(*[value for _, value in results[-reads:]]) if change.few else head_of_results(results)
    return Outcome(_pairs(results[-reads - 1][1]) if change.take else [], head)


def _outcome_of_bins(change: Change, bins: Mapping[str, Any]) -> Outcome:
    """Read what a change in a batch gave."""
    if change.few:
        ready = bins["keys" if change.take else READY]
        head = _first_keys(ready, bins[DELAYED], bins[BURIED], bins["nheld"], bins["st"])
    else:
        head = head_of_bins(bins)
    return Outcome(_pairs(bins[READY]) if change.take else [], head)


# --- what is there afterwards

# In an operation of its own each result stands for itself.
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


def head_of_results(results: Sequence[tuple[str, Any]]) -> Head:
    """Read what HEAD_OPS give at the end of an operation's results."""
    keys, last, due, ready, delayed, buried, held, state = [value for _, value in results[-len(HEAD_OPS) :]]
    return Head(keys, last[0] if last else None, due[0] if due else None, ready, delayed, buried, held, state)


def keys_read(name: str, queue: str, index: int, count: int) -> Any:
    """Read keys of a queue under a name of their own."""
    keys = exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_KEY, index, count, exp.MapBin(queue))
    return expression_operations.expression_read(name, keys.compile())


def size_reads() -> list[Any]:
    """Read how many jobs are in each queue, as `ready-n` and so on."""
    return [
        expression_operations.expression_read(f"{name}-n", exp_map.MapSize(None, exp.MapBin(name)).compile())
        for name in (READY, DELAYED, BURIED)
    ]


# A batch gives one value a name, the last of its bin, so each read has a name of its own; that of a take is its removal.
HEAD_READS: Final = [
    operations.read("no"),
    operations.read("st"),
    operations.read("nheld"),
    keys_read("keys", READY, 0, HEAD_KEYS),
    keys_read("last", READY, -1, 1),
    keys_read("due", DELAYED, 0, 1),
    *size_reads(),
]
# Where few jobs are, their keys tell everything. Expressions cost a thread four times as much as these.
FEW_READS: Final = [
    map_operations.map_get_by_index_range(DELAYED, 0, HEAD_KEYS, aerospike.MAP_RETURN_KEY),
    map_operations.map_size(BURIED),
    operations.read("nheld"),
    operations.read("st"),
]
FEW_READS_AFTER_TAKE: Final = [keys_read("keys", READY, 0, HEAD_KEYS), *FEW_READS]
FEW_READS_WITHOUT: Final = [
    map_operations.map_get_by_index_range(READY, 0, HEAD_KEYS, aerospike.MAP_RETURN_KEY),
    *FEW_READS,
]


def _reads_after(change: Change) -> list[Any]:
    if not change.few:
        return HEAD_READS
    return FEW_READS_AFTER_TAKE if change.take else FEW_READS_WITHOUT


def head_of_bins(bins: Mapping[str, Any]) -> Head:
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


def _first_keys(ready: Sequence[bytes], delayed: Sequence[bytes], buried: int, held: int, state: int) -> Head:
    """Read what the reads for few jobs give: of more jobs than expected the first ones."""
    last = ready[-1] if ready else None
    return Head(ready, last, delayed[0] if delayed else None, len(ready), len(delayed), buried, held, state)

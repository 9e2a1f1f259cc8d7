"""Changes segments under leases, as operations on records. Every job takes this way.

Changes of several segments that wait at the same time go out in one call. Each is still an operation of its own.
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

from beanspiked.engine.aerospike.store.aerospike.calls import (
    CODE_FILTERED_OUT,
    CODE_PARAMETER,
    CODE_TIMEOUT,
    HERE_WITHIN_MS,
    NEVER_SENT,
    SORTED,
    WRITE_WITHIN_MS,
    meaning,
    meaning_of,
    read_off,
)
from beanspiked.engine.aerospike.store.aerospike.heads import (
    FEW_READS,
    FEW_READS_AFTER_TAKE,
    HEAD_OPS,
    HEAD_READS,
    head_of_bins,
    head_of_few,
    head_of_results,
)
from beanspiked.engine.aerospike.store.aerospike.workers import hand_over
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    DELAYED,
    READY,
    Busy,
    Change,
    Outcome,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Caller, Key
    from beanspiked.engine.aerospike.store.aerospike.pace import Pace

__all__ = ["Changes"]

logger = logging.getLogger(__name__)

BATCH_WRITE_POLICY: Final = {"max_retries": 0, "total_timeout": 1000, "socket_timeout": WRITE_WITHIN_MS}
# The call asks all nodes at the same time, so the event loop waits once, not once a node.
HERE_BATCH_POLICY: Final = {
    **BATCH_WRITE_POLICY,
    "total_timeout": HERE_WITHIN_MS,
    "socket_timeout": HERE_WITHIN_MS,
    "concurrent": True,
}
BATCH_RECORD_POLICY: Final = {"exists": aerospike.POLICY_EXISTS_UPDATE, "ttl": aerospike.TTL_NEVER_EXPIRE}
# How many changes go out together at most, since the first waits for the last.
TOGETHER_MAX: Final = 32
# For how many leases to keep the parts that depend on the lease only: to make them costs as much as to send them.
LEASES_KNOWN: Final = 4096


class Request(NamedTuple):
    """A change of a segment.

    Attributes:
        key: The segment's record.
        lease, change: The lease, and the change under it.
    """

    key: Key
    lease: int
    change: Change


class Changes:
    """Carries out changes, all of one turn of the event loop together.

    While the store answers quickly, the event loop waits for it: to wake a thread and then the loop would take as long as the answer.
    When the store is slow, or a node does not answer, threads wait.

    Args:
        caller: Calls the client.
        pace: How quickly the store answers.
    """

    def __init__(self, caller: Caller, pace: Pace) -> None:
        self._caller = caller
        self._pace = pace
        self._waiting: deque[tuple[Request, asyncio.Future[Outcome]]] = deque()
        # How many changes this turn of the event loop has had, and how many the last turn with any.
        self._asked = 0
        self._asked_before = 0
        # One for each call that is due and has not begun. Threads may append and pop at once.
        self._called: deque[None] = deque()

    async def apply(self, key: Key, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease, together with all other changes that wait."""
        await self._caller.ready()
        loop = asyncio.get_running_loop()
        request = Request(key, lease, change)
        self._asked += 1
        if self._asked == 1:
            # After all changes of this turn.
            loop.call_soon(self._begin)
            if self._asked_before <= 1 and self._may_wait_here():
                # This is probably the only one.
                (outcome,) = self._carry_out([request], here=True)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((request, future))
        return await future

    def apply_now(self, key: Key, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease from this thread."""
        return _read_outcome(change, self._caller.operate(key, _all_ops(lease, change)))

    def _begin(self) -> None:
        self._asked_before = self._asked
        self._asked = 0
        if len(self._waiting) <= TOGETHER_MAX and not self._called and self._may_wait_here():
            together, futures = self._next()
            if together:
                _tell_all(futures, self._carry_out(together, here=True))
        while len(self._called) * TOGETHER_MAX < len(self._waiting):
            self._called.append(None)
            self._caller.workers.run(self._apply_waiting)

    def _may_wait_here(self) -> bool:
        return self._pace.quick() and self._caller.steady()

    def _next(self) -> tuple[list[Request], list[asyncio.Future[Outcome]]]:
        """Take the requests that have waited longest, and their futures."""
        together: list[Request] = []
        futures: list[asyncio.Future[Outcome]] = []
        with contextlib.suppress(IndexError):
            while len(together) < TOGETHER_MAX:
                request, future = self._waiting.popleft()
                together.append(request)
                futures.append(future)
        return together, futures

    def _apply_waiting(self) -> None:
        """Carry out the changes that wait, on a worker thread."""
        self._called.pop()
        together, futures = self._next()
        if together:
            # If none waits, another thread has taken them.
            hand_over(futures[0], _tell_all, futures, self._carry_out(together, here=False))

    def _carry_out(self, together: Sequence[Request], *, here: bool) -> list[Outcome | Exception]:
        """Send changes; return the outcome of each."""
        began = self._pace.now()
        outcomes = self._try(together, here=here)
        self._pace.answered(began)
        tally = self._caller.tally
        if tally is not None:
            tally.add("change", self._pace.now() - began, outcomes)
        return outcomes

    def _try(self, together: Sequence[Request], *, here: bool) -> list[Outcome | Exception]:
        try:
            if here:
                return self._send_here(together)
            self._caller.check()
            return self._send_to_who_answers(together)
        except client_errors.AerospikeError as error:
            return [meaning(error)] * len(together)
        except Exception as error:  # noqa: BLE001 - the caller of the change raises it
            return [error] * len(together)

    def _send_here(self, together: Sequence[Request]) -> list[Outcome | Exception]:
        """Send changes from the event loop."""
        if len(together) > 1:
            return self._send(together, HERE_BATCH_POLICY, self._too_late_here)
        key, lease, change = together[0]
        try:
            return [_read_outcome(change, self._caller.operate_here(key, _all_ops(lease, change)))]
        except client_errors.FilteredOut:
            return [self._too_late_here(key, 0)]

    def _too_late_here(self, key: Key, until_ms: int) -> Busy:  # noqa: ARG002 - as Caller.too_late
        """Make the error of a change that reached the node too late. With the next try a thread learns the node's time."""
        self._pace.slow()
        return Busy("it came too late, by the clock of the node")

    def _send_to_who_answers(self, together: Sequence[Request]) -> list[Outcome | Exception]:
        """Send changes, except to nodes that do not answer."""
        if len(together) == 1:
            key, lease, change = together[0]
            return [self.apply_now(key, lease, change)]
        silent = self._caller.silent([request.key for request in together])
        answering = [request for request in together if request.key not in silent]
        sent = iter(self._send(answering, BATCH_WRITE_POLICY, self._caller.too_late) if answering else [])
        busy = "the node does not answer that has it"
        return [Busy(busy) if request.key in silent else next(sent) for request in together]

    def _send(
        self, together: Sequence[Request], policy: dict[str, Any], too_late: Callable[[Key, int], Busy]
    ) -> list[Outcome | Exception]:
        """Send changes in one batch."""
        caller = self._caller
        until_ms, filtered = caller.deadline.filter()
        if filtered is not None:
            policy = {**policy, "expressions": filtered}
        writes = [
            batch_records.Write(key, _change_ops(lease, change) + _reads_after(change), policy=BATCH_RECORD_POLICY)
            for key, lease, change in together
        ]
        batch = batch_records.BatchRecords(writes)
        untold = CODE_TIMEOUT
        try:
            caller.client.batch_write(batch, policy_batch=policy)
        except client_errors.AerospikeError as error:
            if error.code == CODE_PARAMETER:
                raise
            # The nodes may have carried out some nevertheless, and answered.
            logger.warning("a batch of changes failed: %s", error)
            untold = error.code or untold
        except Exception:
            logger.exception("the answer to a batch of changes cannot be read")
        else:
            untold = batch.result or untold
        if untold not in NEVER_SENT:
            untold = CODE_TIMEOUT
        return [
            too_late(request.key, until_ms)
            if record.result == CODE_FILTERED_OUT
            else _outcome_of_record(request.change, record, untold)
            for request, record in zip(together, batch.batch_records, strict=True)
        ]


def _outcome_of_record(change: Change, record: Any, untold: int) -> Outcome | Exception:
    """Return the outcome of one change of a batch; `untold` is its code if the answer lacks it."""
    code: int = record.result
    if code:
        return meaning_of(code, record.in_doubt, "in a batch")
    if record.record is None or not record.record[2]:
        return meaning_of(untold, record.in_doubt, "nothing was said of it in a batch")
    try:
        return read_off(partial(_outcome_of_bins, change), record.record[2])
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


# --- the operations of a change


def _change_ops(lease: int, change: Change) -> list[Any]:
    """Make the operations of a change; a take comes last."""
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


def _all_ops(lease: int, change: Change) -> list[Any]:
    """Make the operations of a single change, and the reads after it."""
    return [*_change_ops(lease, change), *(FEW_READS if change.few else HEAD_OPS)]


def _reads_after(change: Change) -> list[Any]:
    """Return the reads after a change in a batch."""
    if not change.few:
        return HEAD_READS
    return FEW_READS_AFTER_TAKE if change.take else FEW_READS


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


def _read_outcome(change: Change, results: Any) -> Outcome:
    """Decode the result of a single change. Raises Unknown."""
    return read_off(partial(_outcome_of_results, change), results)


def _outcome_of_results(change: Change, results: Sequence[tuple[str, Any]]) -> Outcome:
    reads = len(FEW_READS if change.few else HEAD_OPS)
    head = head_of_few(*[value for _, value in results[-reads:]]) if change.few else head_of_results(results)
    return Outcome(_pairs(results[-reads - 1][1]) if change.take else [], head)


def _outcome_of_bins(change: Change, bins: Mapping[str, Any]) -> Outcome:
    """Decode the result of a change in a batch."""
    if change.few:
        ready = bins["keys" if change.take else READY]
        head = head_of_few(ready, bins[DELAYED], bins[BURIED], bins["nheld"], bins["st"])
    else:
        head = head_of_bins(bins)
    return Outcome(_pairs(bins[READY]) if change.take else [], head)

"""Changes segments under leases, as operations on records. Every job takes this way.

Changes of several segments that wait at the same time go out in one call. Each is still an operation of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

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
    HERE_WITHIN_MS,
    SORTED,
    meaning,
    meaning_of,
    read_off,
)
from beanspiked.engine.aerospike.store.aerospike.conditions import NUMBER, Template, numbered
from beanspiked.engine.aerospike.store.aerospike.heads import (
    FEW_READS,
    FEW_READS_AFTER_TAKE,
    HEAD_OPS,
    HEAD_READS,
    head_of_bins,
    head_of_few,
    head_of_results,
)
from beanspiked.engine.aerospike.store.aerospike.together import BATCH_WRITE_POLICY, TOGETHER_MAX, send_batch
from beanspiked.engine.aerospike.store.aerospike.workers import hand_over
from beanspiked.engine.aerospike.store.request import Request
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    DEAD,
    DELAYED,
    READY,
    Busy,
    Change,
    Outcome,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Caller, Key
    from beanspiked.engine.aerospike.store.aerospike.pace import Pace
    from beanspiked.engine.aerospike.store.request import Told

__all__ = ["Changes", "lease_ops"]

logger = logging.getLogger(__name__)

# The call asks all nodes at the same time, so the event loop waits once, not once a node.
HERE_BATCH_POLICY: Final = {
    **BATCH_WRITE_POLICY,
    "total_timeout": HERE_WITHIN_MS,
    "socket_timeout": HERE_WITHIN_MS,
    "concurrent": True,
}
BATCH_RECORD_POLICY: Final = {"exists": aerospike.POLICY_EXISTS_UPDATE, "ttl": aerospike.TTL_NEVER_EXPIRE}
ONCE: Final = {**SORTED, "map_write_flags": aerospike.MAP_WRITE_FLAGS_CREATE_ONLY}
# For how many leases to keep the parts that depend on the lease only: to make them costs as much as to send them.
LEASES_KNOWN: Final = 4096
# For how many sizes of takes to keep the parts that depend on the size only.
COUNTS_KNOWN: Final = 64


class Changes:
    """Carries out changes; those that are sent together, or wait at the same time, together.

    While the store answers quickly, the event loop waits for it: to wake a thread and then the loop would take as long as the answer.
    When the store is slow, or a node does not answer, threads wait.

    Args:
        caller: Calls the client.
        pace: How quickly the store answers.
        key: Returns the key of a segment's record.
        known: Holds for records of known formats, as an expression.
    """

    def __init__(self, caller: Caller, pace: Pace, key: Callable[[int], Key], known: Any) -> None:
        self._caller = caller
        self._pace = pace
        self._key = key
        alive = exp.And(numbered(NUMBER), exp.NE(exp.IntBin("st"), DEAD), known)
        self._alive = Template(exp.Cond(alive, True, exp.Unknown()))
        self._waiting: deque[tuple[Request, Told]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        # One for each call that is due and has not begun. Threads may append and pop at once.
        self._called: deque[None] = deque()

    async def apply(self, number: int, lease: int, change: Change) -> Outcome:
        """Change a segment under a lease."""
        request = Request(change)
        request.number = number
        request.lease = lease
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.send([request], lambda _: None if told.done() else told.set_result(None))
        await told
        if isinstance(request.outcome, Exception):
            raise request.outcome
        assert request.outcome is not None
        return request.outcome

    def send(self, requests: Sequence[Request], told: Told) -> None:
        """Change segments; see SegmentStore."""
        if self._caller.usable():
            self._send(requests, told)
            return
        task = asyncio.get_running_loop().create_task(self._send_once_usable(requests, told))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_once_usable(self, requests: Sequence[Request], told: Told) -> None:
        failure: StoreError | None = None
        try:
            await self._caller.ready()
        except StoreError as error:
            failure = error
        if failure is None:
            self._send(requests, told)
            return
        for request in requests:
            request.outcome = failure
        told(list(requests))

    def _send(self, requests: Sequence[Request], told: Told) -> None:
        if not self._waiting and len(requests) <= TOGETHER_MAX and not self._called and self._may_wait_here():
            self._carry_out(requests, here=True)
            told(list(requests))
            return
        loop = asyncio.get_running_loop()
        self._waiting.extend([(request, told) for request in requests])
        while len(self._called) * TOGETHER_MAX < len(self._waiting):
            self._called.append(None)
            self._caller.workers.run(partial(self._carry_out_waiting, loop))

    def _may_wait_here(self) -> bool:
        return self._pace.quick() and self._caller.steady()

    def _carry_out_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Carry out the changes that have waited longest, on a worker thread."""
        self._called.pop()
        together: list[Request] = []
        told: dict[Told, list[Request]] = {}
        with contextlib.suppress(IndexError):
            while len(together) < TOGETHER_MAX:
                request, tell = self._waiting.popleft()
                together.append(request)
                told.setdefault(tell, []).append(request)
        if together:
            # If none waits, another thread has taken them.
            self._carry_out(together, here=False)
            hand_over(loop, _tell_all, told)

    def _carry_out(self, together: Sequence[Request], *, here: bool) -> None:
        """Send changes, and note the outcome of each."""
        began = self._pace.now()
        outcomes = self._try(together, here=here)
        self._pace.answered(began)
        tally = self._caller.tally
        if tally is not None:
            tally.add("change", self._pace.now() - began, outcomes)
        for request, outcome in zip(together, outcomes, strict=True):
            request.outcome = outcome

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
            return self._send_batch(together, HERE_BATCH_POLICY, self._too_late_here)
        request = together[0]
        key = self._key(request.number)
        try:
            results = self._caller.operate_here(key, self._all_ops(request))
        except client_errors.FilteredOut:
            return [self._too_late_here(key, 0)]
        return [_read_outcome(request.change, results)]

    def _too_late_here(self, key: Key, until_ms: int) -> Busy:  # noqa: ARG002 - as Caller.too_late
        """Make the error of a change that reached the node too late. With the next try a thread learns the node's time."""
        self._pace.slow()
        return Busy("it came too late, by the clock of the node")

    def _send_to_who_answers(self, together: Sequence[Request]) -> list[Outcome | Exception]:
        """Send changes, except to nodes that do not answer."""
        if len(together) == 1:
            request = together[0]
            results = self._caller.operate(self._key(request.number), self._all_ops(request))
            return [_read_outcome(request.change, results)]
        keys = [self._key(request.number) for request in together]
        silent = self._caller.silent(keys)
        answering = [request for request, key in zip(together, keys, strict=True) if key not in silent]
        sent = iter(self._send_batch(answering, BATCH_WRITE_POLICY, self._caller.too_late) if answering else [])
        busy = "the node does not answer that has it"
        return [Busy(busy) if key in silent else next(sent) for key in keys]

    def _send_batch(
        self, together: Sequence[Request], policy: dict[str, Any], too_late: Callable[[Key, int], Busy]
    ) -> list[Outcome | Exception]:
        """Send changes in one batch."""
        until_ms, in_time = self._caller.deadline.filter()
        writes = [
            batch_records.Write(
                self._key(request.number),
                self._ops(request) + _reads_after(request.change),
                policy=BATCH_RECORD_POLICY,
            )
            for request in together
        ]
        records, untold = send_batch(self._caller, writes, policy, in_time)
        return [
            too_late(self._key(request.number), until_ms)
            if record.result == CODE_FILTERED_OUT
            else _outcome_of_record(request.change, record, untold)
            for request, record in zip(together, records, strict=True)
        ]

    def _ops(self, request: Request) -> list[Any]:
        """Make the operations of a change."""
        ops = _change_ops(request.lease, request.change)
        return [self.alive(request.number), *lease_ops(request.lease), *ops] if request.change.attach else ops

    def alive(self, number: int) -> Any:
        """Fail the whole change unless the segment is alive and of a known format. A filter's answer could mean that it came too late."""
        return expression_operations.expression_read("no", self._alive.of(number))

    def _all_ops(self, request: Request) -> list[Any]:
        """Make the operations of a single change, and the reads after it."""
        return [*self._ops(request), *(FEW_READS if request.change.few else HEAD_OPS)]


def _outcome_of_record(change: Change, record: Any, untold: int) -> Outcome | Exception:
    """Return the outcome of one change of a batch; `untold` is its code if the answer lacks it."""
    code: int = record.result
    if code:
        return meaning_of(code, record.in_doubt, "in a batch")
    if record.record is None or not record.record[2]:
        return meaning_of(untold, record.in_doubt, "nothing was said of it in a batch")
    try:
        return read_off(partial(_outcome_of_bins, change), record.record[2])
    except StoreError as error:
        return error


def _tell_all(told: Mapping[Told, list[Request]]) -> None:
    for tell, requests in told.items():
        tell(requests)


# --- the operations of a change


def _change_ops(lease: int, change: Change) -> list[Any]:
    """Make the operations of a change; a take comes last."""
    context, fence = _fence(lease)
    ops: list[Any] = [] if change.attach else [fence]
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


def lease_ops(lease: int) -> list[Any]:
    """Make an empty lease, which must not exist."""
    return [
        map_operations.map_put("held", lease, {}, ONCE),
        map_operations.map_set_policy("held", SORTED, [cdt_ctx.cdt_ctx_map_key(lease)]),
    ]


@lru_cache(LEASES_KNOWN)
def _take_ops(lease: int, count: int) -> list[Any]:
    """Move the first ready jobs into a lease, and return them."""
    context, _ = _fence(lease)
    counted, into_lease, removed = _takes(count)
    return [counted, expression_operations.expression_write("held", into_lease.within(context)), removed]


@lru_cache(COUNTS_KNOWN)
def _takes(count: int) -> tuple[Any, Template, Any]:
    """Return the parts of a take that are the same for all leases: to count the jobs, to copy them into a lease, to remove them."""
    best = exp_map.MapGetByIndexRange(None, aerospike.MAP_RETURN_ORDERED_MAP, 0, count, exp.MapBin(READY))
    taken = arithmetic.Min(count, exp_map.MapSize(None, exp.MapBin(READY)))
    return (
        expression_operations.expression_write("nheld", arithmetic.Add(exp.IntBin("nheld"), taken).compile()),
        Template(exp_map.MapPutItems(_fence(0)[0], SORTED, best, exp.MapBin("held"))),
        map_operations.map_remove_by_index_range(READY, 0, count, aerospike.MAP_RETURN_KEY_VALUE),
    )


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _read_outcome(change: Change, results: Any) -> Outcome:
    """Decode the result of a single change. Raises Damaged or Unknown."""
    return read_off(partial(_outcome_of_results, change), results)


def _outcome_of_results(change: Change, results: Sequence[tuple[str, Any]]) -> Outcome:
    reads = len(FEW_READS if change.few else HEAD_OPS)
    head = head_of_few(*[value for _, value in results[-reads:]]) if change.few else head_of_results(results)
    return Outcome(_pairs(results[-reads - 1][1]) if change.take else [], head)


def _outcome_of_bins(change: Change, bins: Mapping[str, Any]) -> Outcome:
    """Decode the result of a change in a batch."""
    if change.few:
        ready = bins["keys" if change.take else READY]
        head = head_of_few(ready, bins[DELAYED], bins[BURIED], bins.get("nheld"), bins.get("st"))
    else:
        head = head_of_bins(bins)
    return Outcome(_pairs(bins[READY]) if change.take else [], head)

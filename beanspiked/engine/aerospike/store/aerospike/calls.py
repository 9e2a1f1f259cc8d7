"""Calls the official `aerospike` client: on worker threads, while the nodes can be trusted, and until a deadline.

An error says what the failure means for the record: done, not done, or unknown (see seam.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.batch import records as batch_records
from aerospike_helpers.operations import expression_operations

from beanspiked.engine import forks
from beanspiked.engine.aerospike.store.aerospike.client import told_by
from beanspiked.engine.aerospike.store.aerospike.deadline import NODE_NOW_MS, Deadline
from beanspiked.engine.aerospike.store.aerospike.nodes import Agreement, NodeWatch
from beanspiked.engine.aerospike.store.aerospike.probe import Key, check_node, unanswered
from beanspiked.engine.aerospike.store.aerospike.tally import Tally
from beanspiked.engine.aerospike.store.aerospike.workers import Workers
from beanspiked.engine.aerospike.store.seam import Busy, Damaged, Fenced, Full, Refused, StoreError, TooBig, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "CODE_EXISTS",
    "CODE_FILTERED_OUT",
    "CODE_NOT_FOUND",
    "CODE_PARAMETER",
    "CODE_TIMEOUT",
    "HERE_WITHIN_MS",
    "NEVER_SENT",
    "QUERY_POLICY",
    "READ_POLICY",
    "REMOVE_POLICY",
    "SORTED",
    "WRITE_POLICY",
    "WRITE_WITHIN_MS",
    "Caller",
    "Key",
    "code_of",
    "meaning",
    "meaning_of",
    "read_off",
    "uptime",
]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Answer = TypeVar("Answer")

# A clock in seconds that goes on while the machine sleeps. Every job reads it.
uptime: Final = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
# More threads would only wait for the interpreter lock.
THREADS: Final = 4
# The threads for calls that may take a node long. Only other such calls wait behind them.
SLOW_THREADS: Final = 2
# How often to look whether the nodes can be trusted again, in seconds.
LOOK_AGAIN: Final = 0.02
# How long a call waits for that, in seconds. The caller may try again.
DOUBT_MAX: Final = 2.0

# How long the client waits for a write, since it does not retry.
WRITE_WITHIN_MS: Final = 300
WRITE_POLICY: Final = {
    # The engine retries: it knows what may be repeated.
    "max_retries": 0,
    "total_timeout": 1000,
    "socket_timeout": WRITE_WITHIN_MS,
    # A namespace's default-ttl must not expire jobs.
    "ttl": aerospike.TTL_NEVER_EXPIRE,
}
# Without this, a change would make a record that is missing.
CHANGE_POLICY: Final = {**WRITE_POLICY, "exists": aerospike.POLICY_EXISTS_UPDATE}
# How long the event loop itself waits for a write. The outcome of a slower one is unknown.
HERE_WITHIN_MS: Final = 50
HERE_POLICY: Final = {**WRITE_POLICY, "total_timeout": HERE_WITHIN_MS, "socket_timeout": HERE_WITHIN_MS}
HERE_CHANGE_POLICY: Final = {**HERE_POLICY, "exists": aerospike.POLICY_EXISTS_UPDATE}
# The order of all maps.
SORTED: Final = {"map_order": aerospike.MAP_KEY_ORDERED}
REMOVE_POLICY: Final = {name: value for name, value in WRITE_POLICY.items() if name != "ttl"}
# A node that has just come back may be asked first, and until its data is moved it lacks what was written meanwhile.
NEWEST_COPY: Final = {"read_mode_ap": aerospike.POLICY_READ_MODE_AP_ALL}
READ_POLICY: Final = {**NEWEST_COPY, "max_retries": 2, "total_timeout": 1000, "socket_timeout": 300}
BATCH_READ_POLICY: Final = {**NEWEST_COPY, "max_retries": 2, "total_timeout": 2000, "socket_timeout": 500}
# By default a node that does not answer keeps the calling thread for half a minute.
QUERY_POLICY: Final = {"max_retries": 0, "total_timeout": 10_000, "socket_timeout": 1000}
# proto.h: the answers of nodes, and of the client where negative.
CODE_INVALID_NODE: Final = -8
CODE_NO_MORE_CONNECTIONS: Final = -7
CODE_PARAMETER: Final = -2
CODE_CLIENT: Final = -1
CODE_NOT_FOUND: Final = 2
CODE_EXISTS: Final = 5
CODE_NO_ROOM: Final = 8
CODE_TIMEOUT: Final = 9
CODE_PARTITION_UNAVAILABLE: Final = 11
CODE_BIN_TYPE: Final = 12
CODE_RECORD_TOO_BIG: Final = 13
CODE_KEY_BUSY: Final = 14
CODE_DEVICE_OVERLOAD: Final = 18
CODE_ELEMENT_EXISTS: Final = 24
CODE_OP_NOT_APPLICABLE: Final = 26
CODE_FILTERED_OUT: Final = 27

ANSWERED: Final = (0, CODE_NOT_FOUND)
# The reads do not fit the record's content.
ODD: Final = (CODE_BIN_TYPE, CODE_OP_NOT_APPLICABLE)
# The client knew no node to send it to.
NEVER_SENT: Final = (CODE_INVALID_NODE, CODE_NO_MORE_CONNECTIONS, CODE_PARTITION_UNAVAILABLE)

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
    CODE_RECORD_TOO_BIG: TooBig,
}


class Caller:
    """Calls of one client.

    Args:
        client: A connected client, or None: every call fails with Busy until there is one.

    Attributes:
        client: The client.
        agreement: Whether the nodes can be trusted.
        deadline: Until when nodes may carry out writes.
        workers: The threads of most calls.
        leaving: Set when the threads have to end.
        tally: Counts the calls; may be None.
    """

    def __init__(self, client: Any) -> None:
        self.client: Any = client
        self.agreement: Agreement = Agreement(uptime)
        self.deadline: Deadline = Deadline(WRITE_WITHIN_MS)
        self.workers: Workers = Workers(THREADS, "aerospike")
        self.leaving: threading.Event = threading.Event()
        self.tally: Tally | None = None
        self._listener: Workers = Workers(1, "aerospike-news")
        self._slow: Workers = Workers(SLOW_THREADS, "aerospike-slow")
        self._heart: Workers = Workers(1, "aerospike-heart")
        self._watch: NodeWatch | None = None
        forks.watch(self)

    def forked(self, owner: int) -> None:  # noqa: ARG002 - whoever it is
        """See forks.Watched. Without its threads the client would wait for ever, even in its close."""
        forks.keep_for_ever(self.client)
        self.client = None

    def connected(self, client: Any) -> None:
        """Use this client from now on. Calls begin once its nodes agree."""
        if len(client.get_node_names()) > 1:
            self.agreement.begin()
        self.client = client
        self._watch = NodeWatch(client, self.agreement)
        self._watch.start()

    def close(self) -> None:
        """End the threads; the client stays connected."""
        self.leaving.set()
        for workers in (self.workers, self._listener, self._slow, self._heart):
            workers.close()
        if self._watch is not None:
            self._watch.stop()

    # --- from the event loop

    def usable(self) -> bool:
        """Tell whether there is a client, and the nodes can be trusted."""
        return self.client is not None and not self.agreement.doubtful()

    async def ready(self) -> None:
        """Wait until the nodes can be trusted. Raises Busy without a client, or if that takes too long."""
        if self.client is None:
            raise Busy("not connected yet")
        until = time.monotonic() + DOUBT_MAX
        while self.agreement.doubtful():
            if time.monotonic() > until:
                raise Busy("the cluster's nodes do not agree on its members yet")
            await asyncio.sleep(LOOK_AGAIN)

    async def call(self, function: Callable[[], Result]) -> Result:
        """Make a call on a worker thread once the nodes can be trusted. Raises StoreError."""
        await self.ready()
        return await self._run("call", self.workers, partial(self._unless_doubtful, function))

    async def call_slow(self, function: Callable[[], Result]) -> Result:
        """Make a call that may take a node long. Few run at a time, and no other call waits behind them."""
        await self.ready()
        return await self._run("query", self._slow, partial(self._unless_doubtful, function))

    async def beat(self, function: Callable[[], Result]) -> Result:
        """Send a heartbeat. It waits for nothing: if it is late, all held jobs are lost."""
        if self.client is None:
            raise Busy("not connected yet")
        return await self._run("heartbeat", self._heart, function)

    async def _run(self, kind: str, workers: Workers, function: Callable[[], Result]) -> Result:
        counted = function if self.tally is None else partial(self.tally.timed, kind, function)
        try:
            return await workers.do(counted)
        except client_errors.AerospikeError as error:
            raise meaning(error) from error

    async def read_many(self, keys: Sequence[Key], reads: Sequence[Any]) -> list[dict[str, Any] | None]:
        """Do the same reads on many records in one call; None for a missing one."""
        return await self.call(partial(self.read_all, keys, reads)) if keys else []

    async def listen(self, function: Callable[[], Result]) -> Result:
        """Make a long call that checks `leaving` meanwhile. One runs at a time, beside all other calls."""
        await self.ready()
        return await self._run("news", self._listener, function)

    def steady(self) -> bool:
        """Tell whether all nodes answer, and agree."""
        return not self.agreement.asleep() and not self.agreement.doubtful()

    def operate_here(self, key: Key, ops: list[Any]) -> Any:
        """Change a record that exists, from the event loop, while all nodes answer.

        Raises:
            FilteredOut: It came too late, by the clock of the node.
        """
        return self._attempt(key, ops, HERE_CHANGE_POLICY, self.deadline.filter()[1])

    def make_here(self, key: Key, ops: list[Any], exists: int, guard: Any) -> Any:
        """Change a record, or make it where `exists` allows, from the event loop, while all nodes answer.

        Raises:
            FilteredOut: It came too late, by the clock of the node, or the guard does not hold.
        """
        return self._attempt(key, ops, {**HERE_POLICY, "exists": exists}, self.deadline.filter(guard)[1])

    # --- on a worker thread

    def _unless_doubtful(self, function: Callable[[], Result]) -> Result:
        self.check()
        return function()

    def check(self) -> None:
        """Check that the nodes can still be trusted. Raises Busy."""
        if self.agreement.doubtful():
            raise Busy("the cluster's nodes do not agree on its members yet")

    def read_all(self, keys: Sequence[Key], reads: Sequence[Any]) -> list[dict[str, Any] | None]:
        """Do the same reads on many records in one call; None for a missing record, no bins for one that the reads do not fit."""
        # This call sends the reads once instead of with each key, and takes a sixth of the time.
        return self._read_off(self.client.batch_operate(list(keys), list(reads), BATCH_READ_POLICY), len(keys))

    def read_differently(self, reads: Sequence[tuple[Key, list[Any]]]) -> list[dict[str, Any] | None]:
        """Do each record's own reads; see read_all."""
        batch = batch_records.BatchRecords([batch_records.Read(key, ops) for key, ops in reads])
        return self._read_off(self.client.batch_write(batch, BATCH_READ_POLICY), len(reads))

    def _read_off(self, batch: Any, count: int) -> list[dict[str, Any] | None]:
        if len(batch.batch_records) != count:
            # When the client knows no node any more, its answer is empty.
            raise Busy(f"{batch.result}: no node answers")
        results: list[dict[str, Any] | None] = []
        for record in batch.batch_records:
            if record.result in ODD:
                results.append({})
                continue
            if record.result not in ANSWERED:
                raise MEANINGS.get(record.result, Busy)(f"{record.result}: reading {record.key[1]}")
            results.append(record.record[2] if record.result == 0 else None)
        return results

    def operate(self, key: Key, ops: list[Any], guard: Any = None) -> Any:
        """Change a record that exists, if the guard holds."""
        return self._write(key, ops, CHANGE_POLICY, guard)

    def make(self, key: Key, ops: list[Any], exists: int, guard: Any = None) -> Any:
        """Change a record, or make it where `exists` allows; the guard must hold for one that is there."""
        return self._write(key, ops, {**WRITE_POLICY, "exists": exists}, guard)

    def _write(self, key: Key, ops: list[Any], policy: dict[str, Any], guard: Any = None) -> Any:
        """Change a record before a deadline, and never later."""
        if self.agreement.asleep():
            check_node(self.client, self.agreement, key)
        until_ms, filtered = self.deadline.filter(guard)
        try:
            return self._attempt(key, ops, policy, filtered)
        except client_errors.FilteredOut:
            if guard is None:
                raise self.too_late(key, until_ms) from None
            if until_ms and not self.in_time(key, until_ms):
                # The node did nothing: the write came too late, or the guard did not hold. The next try tells which.
                raise Busy("it came too late, by the clock of the node") from None
            raise

    def _attempt(self, key: Key, ops: list[Any], policy: dict[str, Any], filtered: Any) -> Any:
        """Change a record; return the answer, usually pairs of a bin and a result. Raises Unknown if the answer cannot be read."""
        if filtered is not None:
            policy = {**policy, "expressions": filtered}
        try:
            return self.client.operate_ordered(key, ops, policy=policy)[2]
        except client_errors.AerospikeError:
            raise
        except Exception as error:
            logger.exception("the answer to a change cannot be read")
            raise Unknown("its answer cannot be read") from error

    def too_late(self, key: Key, until_ms: int) -> Busy:
        """Make the error of a write that only its deadline can have stopped; learn the node's time."""
        if self.in_time(key, until_ms):
            logger.error("a node refused a write before its deadline; the write is tried again")
        return Busy("it came too late, by the clock of the node")

    def in_time(self, key: Key, until_ms: int) -> bool:
        """Tell whether a record's node reads a time before a deadline; False if its time cannot be read."""
        try:
            return self.node_now(key) <= until_ms
        except (client_errors.AerospikeError, LookupError, TypeError) as error:
            logger.info("a node's clock cannot be read: %s", error)
            return False

    def silent(self, keys: Sequence[Key]) -> set[Key]:
        """Return the records whose nodes do not answer."""
        return unanswered(self.client, self.agreement, keys) if self.agreement.asleep() else set()

    def node_now(self, key: Key) -> int:
        """Return the time of a record's node, in ms."""
        read = [expression_operations.expression_read("now", NODE_NOW_MS.compile())]
        now_ms: int = self.client.operate(key, read, policy=READ_POLICY)[2]["now"]
        if self.deadline.seen(now_ms):
            logger.warning("the clocks of the cluster's nodes differ, and one is ahead; set them together")
        return now_ms


def code_of(error: StoreError) -> int:
    """Return the answer code with which a call failed; 0 if the error is not the client's."""
    return getattr(error.__cause__, "code", 0)


def meaning(error: client_errors.AerospikeError) -> Exception:
    """Return the error that says what a failed call means for a change. The error of wrong parameters, a bug of ours, stays as it is."""
    if error.code == CODE_PARAMETER:
        bug: Exception = error
        return bug
    return meaning_of(error.code or 0, error.in_doubt, told_by(error))


def meaning_of(code: int, in_doubt: bool | None, text: str) -> StoreError:
    """Return the error that says what an answer code means for a change."""
    known = MEANINGS.get(code)
    if known is None:
        # The client may have failed because of the answer.
        known = Unknown if in_doubt or code in {CODE_TIMEOUT, CODE_CLIENT} else Busy
    return known(f"{code}: {text}")


def read_off(read: Callable[[Answer], Result], answer: Answer) -> Result:
    """Decode the answer to a change. Raises Damaged if the record is, and Unknown after a bug, since the change was made nevertheless."""
    try:
        return read(answer)
    except Damaged:
        raise
    except Exception as error:
        logger.exception("the answer to a change cannot be read")
        raise Unknown("its answer cannot be read") from error

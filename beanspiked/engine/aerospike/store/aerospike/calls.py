"""How the official `aerospike` client is called: on worker threads, while the nodes can be relied on, and until a deadline.

Whatever goes wrong comes out as what it means for the record: done or not, or who knows (see seam.py).
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
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.operations import expression_operations

from beanspiked.engine import forks
from beanspiked.engine.aerospike.store.aerospike.deadline import NODE_NOW_MS, Deadline
from beanspiked.engine.aerospike.store.aerospike.nodes import Agreement, NodeWatch
from beanspiked.engine.aerospike.store.aerospike.workers import Workers
from beanspiked.engine.aerospike.store.keys import RING_BITS
from beanspiked.engine.aerospike.store.seam import Busy, Fenced, Full, Refused, StoreError, TooBig, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
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
    "meaning",
    "meaning_of",
    "read_off",
    "uptime",
]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Answer = TypeVar("Answer")
# Namespace, set, and what names the record.
Key = tuple[str, str, "int | str"]

# A clock in seconds that goes on while the machine sleeps; it is asked for every job.
uptime: Final = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
# More threads lose to the interpreter lock.
THREADS: Final = 4
# For what a node may work at for long. The rest of it waits behind these, and nothing else does.
SLOW_THREADS: Final = 2
# While nothing is asked of the cluster, in seconds.
LOOK_AGAIN: Final = 0.02
# How long a call waits for that, in seconds; whoever asked may try again.
DOUBT_MAX: Final = 2.0

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
# How long the event loop itself waits for a write; one that takes longer is of unknown outcome.
HERE_WITHIN_MS: Final = 50
HERE_POLICY: Final = {**CHANGE_POLICY, "total_timeout": HERE_WITHIN_MS, "socket_timeout": HERE_WITHIN_MS}
# Of all maps.
SORTED: Final = {"map_order": aerospike.MAP_KEY_ORDERED}
REMOVE_POLICY: Final = {name: value for name, value in WRITE_POLICY.items() if name != "ttl"}
READ_POLICY: Final = {"max_retries": 2, "total_timeout": 1000, "socket_timeout": 300}
BATCH_READ_POLICY: Final = {"max_retries": 2, "total_timeout": 2000, "socket_timeout": 500}
# By default a node that does not answer keeps the thread that asks for half a minute.
QUERY_POLICY: Final = {"max_retries": 0, "total_timeout": 10_000, "socket_timeout": 1000}
# To see whether a node answers at all: not from a copy elsewhere.
PROBE_POLICY: Final = {
    "max_retries": 0,
    "total_timeout": 1000,
    "socket_timeout": WRITE_WITHIN_MS,
    "replica": aerospike.POLICY_REPLICA_MASTER,
}

# proto.h: what a node or the client answers.
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
# Reads that do not fit what is in the record.
ODD: Final = (CODE_BIN_TYPE, CODE_OP_NOT_APPLICABLE)
# The client had nobody to send it to.
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
        client: A connected client; None before there is one: everything then fails with Busy.

    Attributes:
        client: The client.
        agreement: Whether the nodes can be relied on.
        deadline: Until when writes hold.
        workers: The threads that make most calls.
        leaving: Set when the threads are to end.
    """

    def __init__(self, client: Any) -> None:
        self.client: Any = client
        self.agreement: Agreement = Agreement(uptime)
        self.deadline: Deadline = Deadline(WRITE_WITHIN_MS)
        self.workers: Workers = Workers(THREADS, "aerospike")
        self.leaving: threading.Event = threading.Event()
        self._listener: Workers = Workers(1, "aerospike-news")
        self._slow: Workers = Workers(SLOW_THREADS, "aerospike-slow")
        self._heart: Workers = Workers(1, "aerospike-heart")
        self._watch: NodeWatch | None = None
        forks.watch(self)

    def forked(self, owner: int) -> None:  # noqa: ARG002 - whoever it is
        """See forks.Watched: without the threads that it had, the client would wait for ever, even to be closed."""
        forks.keep_for_ever(self.client)
        self.client = None

    def connected(self, client: Any) -> None:
        """Take a client, for good: calls begin as soon as there is one and its nodes agree."""
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

    async def ready(self) -> None:
        """Wait until the nodes can be relied on. Raises Busy before there is a client, and when that takes too long."""
        if self.client is None:
            raise Busy("not connected yet")
        until = time.monotonic() + DOUBT_MAX
        while self.agreement.doubtful():
            if time.monotonic() > until:
                raise Busy("the cluster is finding out who belongs to it")
            await asyncio.sleep(LOOK_AGAIN)

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a blocking call on a worker thread, once the nodes can be relied on, and give its failure its meaning."""
        await self.ready()
        return await self._run(self.workers, partial(self._unless_doubtful, function))

    async def call_slow(self, function: Callable[[], Result]) -> Result:
        """Run a call that a node may work at for long: few of them at a time, and no other call waits behind them."""
        await self.ready()
        return await self._run(self._slow, partial(self._unless_doubtful, function))

    async def beat(self, function: Callable[[], Result]) -> Result:
        """Send a heartbeat. It waits neither for the nodes to agree nor behind other calls: if it is late, all held jobs are lost."""
        if self.client is None:
            raise Busy("not connected yet")
        return await self._run(self._heart, function)

    async def _run(self, workers: Workers, function: Callable[[], Result]) -> Result:
        try:
            return await workers.do(function)
        except client_errors.AerospikeError as error:
            raise meaning(error) from error

    async def read_many(self, keys: Sequence[Key], reads: Sequence[Any]) -> list[dict[str, Any] | None]:
        """Do the same reads on many records, in one call; None for one that is not there."""
        return await self.call(partial(self.read_all, keys, reads)) if keys else []

    async def listen(self, function: Callable[[], Result]) -> Result:
        """Run a call that may take long, and that looks at `leaving` meanwhile, beside all others: one at a time."""
        await self.ready()
        return await self._run(self._listener, function)

    def operate_here(self, key: Key, ops: list[Any]) -> Any:
        """Change a record that exists, while all nodes answer, and wait no longer for it than the event loop may.

        Raises:
            FilteredOut: It came too late, by the clock of the node.
        """
        return self._attempt(key, ops, HERE_POLICY, self.deadline.filter()[1])

    # --- on a worker thread

    def _unless_doubtful(self, function: Callable[[], Result]) -> Result:
        self.check()
        return function()

    def check(self) -> None:
        """See whether the nodes can be relied on, which may have changed since something was asked for. Raises Busy."""
        if self.agreement.doubtful():
            raise Busy("the cluster is finding out who belongs to it")

    def read_all(self, keys: Sequence[Key], reads: Sequence[Any]) -> list[dict[str, Any] | None]:
        """Do the same reads on many records, in one call; None for one that is not there, no bins for one that they do not fit."""
        # A call that sends the reads once, not with each key, takes a sixth of the time.
        return self._read_off(self.client.batch_operate(list(keys), list(reads), BATCH_READ_POLICY))

    def read_differently(self, reads: Sequence[tuple[Key, list[Any]]]) -> list[dict[str, Any] | None]:
        """Do reads on many records, of each what is named with it; see read_all."""
        batch = batch_records.BatchRecords([batch_records.Read(key, ops) for key, ops in reads])
        return self._read_off(self.client.batch_write(batch, BATCH_READ_POLICY))

    def _read_off(self, batch: Any) -> list[dict[str, Any] | None]:
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
        """Change a record that may not exist, if the guard holds where it does."""
        return self._write(key, ops, {**WRITE_POLICY, "exists": exists}, guard)

    def claim(self, key: Key, number: int, free: Any, made: list[Any], again: list[Any]) -> None:
        """Make a record, or use it again for a higher number if it is free.

        Raises:
            FilteredOut: It is not, or of a higher number.
        """
        guard = exp.And(free, exp.LT(exp.IntBin("no"), number))
        if number >> RING_BITS <= 1:
            # Nobody has been through the ring before.
            try:
                self.make(key, made, aerospike.POLICY_EXISTS_CREATE)
            except client_errors.RecordExistsError:
                self.operate(key, again, guard)
            return
        try:
            # Most records were made long ago.
            self.operate(key, again, guard)
        except client_errors.RecordNotFound:
            self.make(key, made, aerospike.POLICY_EXISTS_CREATE)

    def _write(self, key: Key, ops: list[Any], policy: dict[str, Any], guard: Any = None) -> Any:
        """Change a record while somebody waits for it, and never later."""
        if self.agreement.asleep():
            self._probe(key)
        until_ms, filtered = self.deadline.filter(guard)
        try:
            return self._attempt(key, ops, policy, filtered)
        except client_errors.FilteredOut:
            if guard is None:
                raise self.too_late(key, until_ms) from None
            if until_ms and not self._in_time(key, until_ms):
                # Nothing was done. Or the guard did not hold: then the next try tells.
                raise Busy("it came too late, by the clock of the node") from None
            raise

    def _attempt(self, key: Key, ops: list[Any], policy: dict[str, Any], filtered: Any) -> Any:
        """Change a record, and return what the client makes of the answer, as a rule pairs of a bin and a result; see `read_off`."""
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
        """Say of a write that nothing but its deadline can have kept from being done that it was not; learn the node's time."""
        if self._in_time(key, until_ms):
            logger.error("a write was refused before its deadline; it is tried again")
        return Busy("it came too late, by the clock of the node")

    def _in_time(self, key: Key, until_ms: int) -> bool:
        """Tell whether a deadline has not passed by the clock of the node that has a record; not if that cannot be read."""
        try:
            return self.node_now(key) <= until_ms
        except (client_errors.AerospikeError, LookupError, TypeError) as error:
            logger.info("the time of a node cannot be read: %s", error)
            return False

    def _probe(self, key: Key) -> None:
        """See whether the node answers that has a record. Raises Busy."""
        try:
            self.client.exists(key, PROBE_POLICY)
        except client_errors.RecordNotFound:
            return
        except client_errors.AerospikeError as error:
            raise Busy(f"{error.code}: the node does not answer that has it") from error

    def silent(self, keys: Sequence[Key]) -> set[Key]:
        """Return those of many records whose nodes do not answer; none while all nodes do."""
        if not self.agreement.asleep():
            return set()
        try:
            probed = self.client.batch_read(list(keys), [], PROBE_POLICY).batch_records
        except client_errors.AerospikeError as error:
            logger.info("the nodes cannot be probed: %s", error)
            return set(keys)
        return {key for key, record in zip(keys, probed, strict=True) if record.result not in ANSWERED}

    def node_now(self, key: Key) -> int:
        """Return the time of the node that has a record, in ms."""
        read = [expression_operations.expression_read("now", NODE_NOW_MS.compile())]
        now_ms: int = self.client.operate(key, read, policy=READ_POLICY)[2]["now"]
        if self.deadline.seen(now_ms):
            logger.warning("the clocks of the store's nodes differ: one of them is ahead")
        return now_ms


def meaning(error: client_errors.AerospikeError) -> Exception:
    """Say what a failed call means for a change; one that cannot be made is a bug of ours, not a store to be tried again."""
    if error.code == CODE_PARAMETER:
        bug: Exception = error
        return bug
    return meaning_of(error.code or 0, error.in_doubt, error.msg or "")


def meaning_of(code: int, in_doubt: bool | None, text: str) -> StoreError:
    """Say what an answer means: what a node or the network failed with was not sent at all, or who knows."""
    known = MEANINGS.get(code)
    if known is None:
        # What the client itself stumbled over may have been the answer.
        known = Unknown if in_doubt or code in {CODE_TIMEOUT, CODE_CLIENT} else Busy
    return known(f"{code}: {text}")


def read_off(read: Callable[[Answer], Result], answer: Answer) -> Result:
    """Read the answer to a change. Raises Unknown if that cannot be read: it must not seem that nothing was done."""
    try:
        return read(answer)
    except Exception as error:
        logger.exception("the answer to a change cannot be read")
        raise Unknown("its answer cannot be read") from error

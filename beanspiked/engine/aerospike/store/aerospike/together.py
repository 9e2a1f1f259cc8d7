"""Sends writes that wait at the same time in one call, from a thread. Each is still an operation of its own on its record.

A busy front-end so has less to do for each write, instead of falling behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.batch import records as batch_records

from beanspiked.engine.aerospike.store.aerospike.calls import (
    CODE_FILTERED_OUT,
    CODE_PARAMETER,
    CODE_TIMEOUT,
    NEVER_SENT,
    WRITE_WITHIN_MS,
    meaning,
    meaning_of,
)
from beanspiked.engine.aerospike.store.aerospike.conditions import both
from beanspiked.engine.aerospike.store.aerospike.workers import hand_over
from beanspiked.engine.aerospike.store.seam import Busy, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Caller, Key
    from beanspiked.engine.aerospike.store.aerospike.pace import Pace

__all__ = ["BATCH_WRITE_POLICY", "TOGETHER_MAX", "Together", "send_batch"]

logger = logging.getLogger(__name__)

BATCH_WRITE_POLICY: Final = {"max_retries": 0, "total_timeout": 1000, "socket_timeout": WRITE_WITHIN_MS}
# How many writes go out together at most, since the first waits for the last.
TOGETHER_MAX: Final = 32


class Answered(Exception):  # noqa: N818 - names an outcome
    """What a node answered to one write of several; the cause of the error that tells what this means."""

    def __init__(self, code: int) -> None:
        super().__init__(f"answer {code} in a batch")
        self.code = code


class Write:
    """A write that waits.

    Args:
        key: The record.
        ops: What is done to it.
        exists: Whether it has to exist, as the client has it.
        guard: A condition for the write, compiled or not; None if there is none.
        done: Gets the last result of each bin, or an error.
    """

    def __init__(self, key: Key, ops: list[Any], exists: int, guard: Any, done: asyncio.Future[dict[str, Any]]) -> None:
        self.key: Key = key
        self.ops: list[Any] = ops
        self.exists: int = exists
        self.guard: Any = guard
        self.done: asyncio.Future[dict[str, Any]] = done


class Together:
    """The writes of one client that threads make.

    Args:
        caller: Calls the client.
        pace: How quickly the store answers.
    """

    def __init__(self, caller: Caller, pace: Pace) -> None:
        self._caller = caller
        self._pace = pace
        self._waiting: deque[Write] = deque()
        # One for each call that is due and has not begun. Threads may append and pop at once.
        self._called: deque[None] = deque()

    async def write(self, key: Key, ops: list[Any], exists: int, guard: Any) -> dict[str, Any]:
        """Make a write, perhaps together with others; return the last result of each bin. Raises StoreError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._waiting.append(Write(key, ops, exists, guard, done))
        while len(self._called) * TOGETHER_MAX < len(self._waiting):
            self._called.append(None)
            self._caller.workers.run(partial(self._carry_out_waiting, loop))
        try:
            return await done
        finally:
            # See Workers.do.
            del done

    # --- on a worker thread

    def _carry_out_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the writes that have waited longest."""
        self._called.pop()
        together: list[Write] = []
        with contextlib.suppress(IndexError):
            while len(together) < TOGETHER_MAX:
                together.append(self._waiting.popleft())
        if not together:
            # Another thread has taken them.
            return
        began = self._pace.now()
        outcomes = self._try(together)
        self._pace.answered(began)
        tally = self._caller.tally
        if tally is not None:
            tally.add("write", self._pace.now() - began, outcomes)
        hand_over(loop, _tell, together, outcomes)

    def _try(self, together: list[Write]) -> list[dict[str, Any] | Exception]:
        try:
            self._caller.check()
            if len(together) > 1:
                return self._send_to_who_answers(together)
            only = together[0]
            return [dict(self._caller.make(only.key, only.ops, only.exists, only.guard))]
        except client_errors.AerospikeError as error:
            return [_caused(meaning(error), error) for _ in together]
        except Exception as error:  # noqa: BLE001 - whoever asked for the write raises it
            return [error for _ in together]

    def _send_to_who_answers(self, together: list[Write]) -> list[dict[str, Any] | Exception]:
        """Send writes, except to nodes that do not answer."""
        silent = self._caller.silent([write.key for write in together])
        answering = [write for write in together if write.key not in silent]
        sent = iter(self._send(answering) if answering else [])
        return [
            Busy("the node does not answer that has it") if write.key in silent else next(sent) for write in together
        ]

    def _send(self, together: list[Write]) -> list[dict[str, Any] | Exception]:
        until_ms, in_time = self._caller.deadline.filter()
        writes = [batch_records.Write(write.key, write.ops, policy=_policy_of(write, in_time)) for write in together]
        records, untold = send_batch(self._caller, writes, BATCH_WRITE_POLICY, in_time)
        return [self._outcome(write, record, until_ms, untold) for write, record in zip(together, records, strict=True)]

    def _outcome(self, write: Write, record: Any, until_ms: int, untold: int) -> dict[str, Any] | Exception:
        code: int = record.result
        if code == CODE_FILTERED_OUT:
            if write.guard is None:
                return self._caller.too_late(write.key, until_ms)
            if until_ms and not self._caller.in_time(write.key, until_ms):
                return Busy("it came too late, by the clock of the node")
        if not code and record.record is not None and record.record[2]:
            return dict(record.record[2])
        return _caused(meaning_of(code or untold, record.in_doubt, "in a batch"), Answered(code or untold))


def send_batch(caller: Caller, writes: list[Any], policy: dict[str, Any], in_time: Any) -> tuple[Sequence[Any], int]:
    """Send writes in one call; return what the client knows of each, and the answer code of those that it knows nothing of.

    Args:
        caller: Calls the client.
        writes: The writes, as the client has them.
        policy: The client's policy of the whole call.
        in_time: A condition for all writes that have none, compiled; or None.
    """
    batch = batch_records.BatchRecords(writes)
    untold = CODE_TIMEOUT
    try:
        caller.client.batch_write(batch, policy_batch=policy if in_time is None else {**policy, "expressions": in_time})
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
    if len(batch.batch_records) != len(writes):
        raise Unknown(f"{untold}: the answer to a batch of changes is incomplete")
    return batch.batch_records, untold if untold in NEVER_SENT else CODE_TIMEOUT


def _policy_of(write: Write, in_time: Any) -> dict[str, Any]:
    policy: dict[str, Any] = {"exists": write.exists, "ttl": aerospike.TTL_NEVER_EXPIRE}
    if write.guard is not None:
        policy["expressions"] = both(in_time, write.guard)
    return policy


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _tell(together: list[Write], outcomes: list[dict[str, Any] | Exception]) -> None:
    for write, outcome in zip(together, outcomes, strict=True):
        if write.done.done():
            continue
        if isinstance(outcome, Exception):
            write.done.set_exception(outcome)
        else:
            write.done.set_result(outcome)

"""What is told of changes of segments that the client fails, or answers oddly: done, not done, or who knows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aerospike import exception as client_errors
from aerospike_helpers.expressions import base as exp
from changes import sent

from beanspiked.engine.aerospike.store.aerospike.calls import Caller, code_of
from beanspiked.engine.aerospike.store.aerospike.changes import Changes
from beanspiked.engine.aerospike.store.aerospike.pace import Pace
from beanspiked.engine.aerospike.store.aerospike.together import Together
from beanspiked.engine.aerospike.store.seam import Busy, Change, Fenced, Full, Outcome, Refused, Unknown

BINS = {
    "keys": [],
    "last": [],
    "due": [],
    "ready-n": 0,
    "delayed-n": 0,
    "buried-n": 0,
    "nheld": 1,
    "st": 0,
    "ready": [b"key", b"packed"],
}
APPLIED = (0, BINS)
TOO_LATE = (27, None)
UNSAID = (0, None)


class Client:
    """Answers batches with what it is told to, and cannot tell its nodes' time."""

    def __init__(self, *answers: tuple[int, Any], raises: Exception | None = None) -> None:
        self.answers = answers
        self.raises = raises
        self.clock = client_errors.RecordNotFound("the node is gone")

    def batch_write(self, batch: Any, **_: Any) -> None:
        for record, (code, bins) in zip(batch.batch_records, self.answers, strict=True):
            record.result = code
            record.record = None if bins is None else (record.key, {}, bins)
        if self.raises is not None:
            raise self.raises

    def operate_ordered(self, *_: Any, **__: Any) -> Any:
        code, results = self.answers[0]
        if self.raises is not None:
            raise self.raises
        if code == 27:
            raise client_errors.FilteredOut("filtered out")
        return None, None, results

    def operate(self, *_: Any, **__: Any) -> Any:
        raise self.clock


def told(client: Client) -> list[type]:
    """Take from a segment for each answer of a client, together; return what kind of thing is told of each, whoever waits for the store."""

    async def take(*, here: bool) -> list[Any]:
        caller = Caller(client)
        caller.deadline.seen(10**12)
        pace = Pace(lambda: 0.0)
        if not here:
            pace.slow()
        changes = Changes(caller, pace, lambda number: ("test", "seg", number), None)
        outcomes = await sent(changes, [(number, 1, Change(take=1)) for number in range(len(client.answers))])
        caller.close()
        return [type(outcome) for outcome in outcomes]

    told = asyncio.run(take(here=True))
    assert told == asyncio.run(take(here=False))
    return told


def test_what_was_applied_is_told_though_the_clock_cannot_be_read_that_another_change_was_too_late_by() -> None:
    assert told(Client(APPLIED, TOO_LATE)) == [Outcome, Busy]


def test_a_change_that_was_too_late_was_not_applied_whether_or_not_the_clock_can_be_read() -> None:
    assert told(Client(TOO_LATE)) == [Busy]


@pytest.mark.parametrize("bins", [{**BINS, "ready": [b"odd"]}, {"st": 0}])
def test_an_applied_change_whose_answer_cannot_be_read_is_in_doubt_and_no_other_is(bins: dict[str, Any]) -> None:
    assert told(Client((0, bins), APPLIED, (14, None))) == [Unknown, Outcome, Busy]


@pytest.mark.parametrize(
    ("error", "unsaid"),
    [
        (client_errors.ClientError("what came back is no batch", -1), Unknown),
        (client_errors.RecordNotFound("of some record", 2), Unknown),
        (MemoryError(), Unknown),
        (client_errors.ClusterError("no connection to the cluster", 11), Busy),
    ],
)
def test_a_batch_that_fails_as_a_whole_leaves_what_was_said_of_each_change(error: Exception, unsaid: type) -> None:
    assert told(Client(APPLIED, UNSAID, (26, None), raises=error))[:2] == [Outcome, unsaid]


@pytest.mark.parametrize("answer", [(0, None), (0, [("held", 0)])])
def test_an_operation_of_its_own_whose_answer_cannot_be_read_is_in_doubt(answer: tuple[int, Any]) -> None:
    assert told(Client(answer)) == [Unknown]


def test_an_answer_that_the_client_stumbles_over_is_in_doubt() -> None:
    assert told(Client(APPLIED, raises=client_errors.ClientError("what is that", -1))) == [Unknown]


def test_no_guard_has_failed_where_the_clock_cannot_be_read() -> None:
    caller = Caller(Client(TOO_LATE))
    caller.deadline.seen(10**12)
    with pytest.raises(Busy):
        caller.operate(("test", "ses", 1), [], exp.Eq(exp.IntBin("dead"), 0))
    caller.close()


# --- of writes of other records


def written(client: Client, guard: Any = None) -> list[Any]:
    """Write a record for each answer of a client, together."""

    async def write() -> list[Any]:
        caller = Caller(client)
        caller.deadline.seen(10**12)
        together = Together(caller, Pace(lambda: 0.0))
        keys = [("test", "ctl", number) for number in range(len(client.answers))]
        outcomes = await asyncio.gather(*[together.write(key, [], 0, guard) for key in keys], return_exceptions=True)
        caller.close()
        return outcomes

    return asyncio.run(write())


def test_each_write_has_its_own_outcome_and_what_the_node_answered() -> None:
    outcomes = written(Client((0, {"items": 3}), (2, None), (5, None), (8, None), (14, None)))
    assert outcomes[0] == {"items": 3}
    assert [(type(error), code_of(error)) for error in outcomes[1:]] == [
        (Fenced, 2),
        (Refused, 5),
        (Full, 8),
        (Busy, 14),
    ]


def test_a_write_that_nothing_was_said_of_is_in_doubt() -> None:
    outcomes = written(Client((0, {"items": 3}), UNSAID, raises=client_errors.ClientError("no batch", -1)))
    assert [type(outcome) for outcome in outcomes] == [dict, Unknown]


def test_no_guard_has_failed_in_a_batch_where_the_clock_cannot_be_read() -> None:
    guard = exp.Eq(exp.IntBin("dead"), 0)
    assert [type(outcome) for outcome in written(Client(TOO_LATE, TOO_LATE), guard)] == [Busy, Busy]


def test_a_guard_has_failed_where_the_node_had_time() -> None:
    class Timely(Client):
        def operate(self, *_: Any, **__: Any) -> Any:
            return None, None, {"now": 0}

    guard = exp.Eq(exp.IntBin("dead"), 0)
    assert [type(outcome) for outcome in written(Timely(TOO_LATE, TOO_LATE), guard)] == [Refused, Refused]
    assert [type(outcome) for outcome in written(Timely(TOO_LATE, TOO_LATE))] == [Busy, Busy]


class Empty(Client):
    """A client that knows no node any more: its answers are empty, and say so only in passing."""

    def batch_operate(self, *_: Any) -> Any:
        return SimpleNamespace(result=1, batch_records=[])

    def batch_write(self, batch: Any, *_: Any, **__: Any) -> Any:
        batch.batch_records = []
        batch.result = 1
        return batch


def test_an_answer_without_records_is_no_internal_error() -> None:
    caller = Caller(Empty())
    for read in (
        lambda: caller.read_all([("test", "seg", 1)], []),
        lambda: caller.read_differently([(("t", "s", 1), [])]),
    ):
        with pytest.raises(Busy, match="no node answers"):
            read()
    caller.close()
    assert [type(outcome) for outcome in written(Empty((0, None), (0, None)))] == [Unknown, Unknown]

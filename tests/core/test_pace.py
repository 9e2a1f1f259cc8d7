"""Who waits for the store's answer to a change: the event loop while it comes in a moment, else a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from aerospike import exception as client_errors
from changes import sent

from beanspiked.engine.aerospike.store.aerospike.calls import Caller
from beanspiked.engine.aerospike.store.aerospike.changes import TOGETHER_MAX, Changes
from beanspiked.engine.aerospike.store.aerospike.pace import FEW, OVER, SLOW_FOR, Lull, Pace
from beanspiked.engine.aerospike.store.seam import Busy, Change, Outcome, StoreError

NOTHING_LEFT = [("head", value) for value in ([], [], [], 0, 0, 0, 0, 0)]


class Store:
    """Answers changes, each after a time by a clock of its own; notes who asked for how many, and how long they would have waited."""

    def __init__(self) -> None:
        self.time = 0.0
        self.takes = 0.0001
        self.fails: Exception | None = None
        self.asked: list[tuple[bool, int]] = []
        self.patience: set[int] = set()

    def operate_ordered(self, _: Any, __: Any, policy: dict[str, Any]) -> Any:
        self.answer(1, policy)
        return None, None, NOTHING_LEFT

    def batch_write(self, batch: Any, policy_batch: dict[str, Any]) -> None:
        self.answer(len(batch.batch_records), policy_batch)
        for record in batch.batch_records:
            record.result = 14

    def answer(self, changes: int, policy: dict[str, Any]) -> None:
        here = threading.current_thread() is threading.main_thread()
        self.asked.append((here, changes))
        if here:
            self.patience |= {policy["total_timeout"], policy["socket_timeout"]}
        self.time += self.takes
        if self.fails is not None:
            raise self.fails

    def operate(self, *_: Any, **__: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        raise client_errors.RecordNotFound("the node is gone")


class Bench:
    """Changes of a store whose clock stands still but for its answers."""

    def __init__(self) -> None:
        self.store = Store()
        self.caller = Caller(self.store)
        self.pace = Pace(lambda: self.store.time)
        self.changes = Changes(self.caller, self.pace, lambda number: ("test", "seg", number), None)

    async def change(self, count: int = 1) -> list[tuple[bool, int]]:
        """Change segments together; return who asked, and for how many at once."""
        before = len(self.store.asked)
        self.outcomes = await sent(self.changes, [(number, 1, Change()) for number in range(count)])
        assert all(isinstance(outcome, (Outcome, StoreError)) for outcome in self.outcomes), self.outcomes
        return self.store.asked[before:]


HERE, ON_A_THREAD = True, False


@pytest.fixture
def bench() -> Any:
    bench = Bench()
    yield bench
    bench.caller.close()


def test_the_event_loop_waits_for_quick_answers_and_not_for_long(bench: Bench) -> None:
    async def check() -> None:
        assert [await bench.change() for _ in range(3)] == [[(HERE, 1)]] * 3
        assert [type(outcome) for outcome in bench.outcomes] == [Outcome]
        assert bench.store.patience == {50}

    asyncio.run(check())


def test_changes_that_are_sent_together_take_one_call(bench: Bench) -> None:
    async def check() -> None:
        assert [await bench.change(5) for _ in range(2)] == [[(HERE, 5)]] * 2
        assert [await bench.change(1) for _ in range(2)] == [[(HERE, 1)]] * 2
        assert bench.store.patience == {50}

    asyncio.run(check())


def test_threads_wait_for_a_crowd(bench: Bench) -> None:
    async def check() -> None:
        await bench.change(2)
        asked = await bench.change(TOGETHER_MAX + 1)
        assert {here for here, _ in asked} == {ON_A_THREAD}
        assert sum(count for _, count in asked) == TOGETHER_MAX + 1

    asyncio.run(check())


def test_threads_wait_for_a_store_that_is_slow_until_it_is_quick_again(bench: Bench) -> None:
    async def check() -> None:
        bench.store.takes = 0.003
        asked = [(await bench.change())[0] for _ in range(4 * OVER)]
        assert asked == sorted(asked, reverse=True)
        assert asked[OVER // 2] == (HERE, 1)
        assert asked[-1] == (ON_A_THREAD, 1)
        bench.store.takes = 0.0001
        asked = [(await bench.change())[0] for _ in range(OVER)]
        assert asked == sorted(asked)
        assert asked[-1] == (HERE, 1)

    asyncio.run(check())


def test_after_an_answer_that_did_not_come_in_time_threads_wait_for_a_while(bench: Bench) -> None:
    async def check() -> None:
        await bench.change()
        bench.store.takes = 0.050
        bench.store.fails = client_errors.TimeoutError("nobody answers", 9)
        assert await bench.change() == [(HERE, 1)]
        bench.store.takes = 0.0
        bench.store.fails = None
        slow_until = bench.store.time + SLOW_FOR - 0.01
        for _ in range(3 * OVER):
            assert await bench.change() == [(ON_A_THREAD, 1)]
        bench.store.time = slow_until
        assert await bench.change() == [(ON_A_THREAD, 1)]
        bench.store.time += 0.02
        assert await bench.change() == [(HERE, 1)]

    asyncio.run(check())


@pytest.mark.parametrize("count", [1, 3])
def test_a_change_that_came_too_late_is_tried_again_by_a_thread(bench: Bench, count: int) -> None:
    async def check() -> None:
        await bench.change(count)
        bench.store.fails = client_errors.FilteredOut("filtered out", 27)
        bench.store.batch_write = filtered_out  # type: ignore[method-assign]
        await bench.change(count)
        assert [type(outcome) for outcome in bench.outcomes] == [Busy] * count
        assert not bench.pace.quick()

    def filtered_out(batch: Any, **_: Any) -> None:
        for record in batch.batch_records:
            record.result = 27

    asyncio.run(check())


def unanswered(*_: object) -> str:
    raise client_errors.TimeoutError("no answer", 9)


def test_the_event_loop_waits_for_nobody_while_a_node_does_not_answer(bench: Bench) -> None:
    async def check() -> None:
        await bench.change()
        bench.caller.agreement.silent("a", 0.0)
        bench.store.exists = lambda *_: None  # type: ignore[attr-defined]
        bench.store.info_single_node = unanswered  # type: ignore[attr-defined]
        assert await bench.change() == [(ON_A_THREAD, 1)]
        bench.caller.agreement.gone("a")
        assert await bench.change() == [(HERE, 1)]

    asyncio.run(check())


def test_only_the_calls_of_a_turn_that_has_few_are_made_one_after_the_other() -> None:
    async def check() -> None:
        lull = Lull()
        assert [lull.here() for _ in range(FEW + 1)] == [True] * FEW + [False]
        await asyncio.sleep(0)
        # As many are expected again, until a turn has had few.
        assert not lull.here()
        await asyncio.sleep(0)
        assert lull.here()

    asyncio.run(check())

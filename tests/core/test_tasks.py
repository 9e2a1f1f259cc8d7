"""What a front-end runs beside commands, and how long it tries what fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.store.seam import Busy, Damaged, Fenced, Full, Refused, StoreError, Unknown
from beanspiked.engine.aerospike.store.tasks import ANSWER_WITHIN
from beanspiked.engine.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from world import FrontEnd, World


class Operation:
    """Fails a number of times, then returns 7."""

    def __init__(self, *failures: StoreError, always: StoreError | None = None) -> None:
        self.failures = list(failures)
        self.always = always
        self.tries = 0

    async def __call__(self) -> int:
        self.tries += 1
        error = self.failures.pop(0) if self.failures else self.always
        if error is not None:
            raise error
        return 7


@pytest.fixture
def front_end(here: World) -> FrontEnd:
    return here.front_end()


def outcome(front_end: FrontEnd, work: Callable[[], Coroutine[Any, Any, object]]) -> Any:
    """Have a front-end do something; return what came of it."""
    results: list[object] = []

    async def do() -> None:
        try:
            results.append(await work())
        except (StoreFailed, StoreError) as error:
            results.append(error)

    front_end.inside(lambda: front_end.engine.tasks.spawn(do()) and None)
    assert front_end.world.run(60, lambda: bool(results))
    return results[0]


def test_what_fails_is_tried_until_it_succeeds(front_end: FrontEnd) -> None:
    operation = Operation(Busy("14"), Unknown("9"), Full("8"))
    assert outcome(front_end, lambda: front_end.engine.tasks.try_for_a_while(operation)) == 7


def test_a_store_has_so_long_to_answer(here: World, front_end: FrontEnd) -> None:
    began = here.time
    found = outcome(front_end, lambda: front_end.engine.tasks.try_for_a_while(Operation(always=Busy("14"))))
    assert (type(found), str(found)) == (StoreFailed, "14")
    assert ANSWER_WITHIN <= here.time - began < ANSWER_WITHIN + 0.1


@pytest.mark.parametrize("error", [Fenced("2"), Refused("27"), Damaged("odd")])
def test_what_another_try_cannot_cure_is_not_tried_again(front_end: FrontEnd, error: StoreError) -> None:
    operation = Operation(always=error)
    assert outcome(front_end, lambda: front_end.engine.tasks.try_for_a_while(operation)) is error
    assert operation.tries == 1


def test_the_caller_may_name_more_that_is_final(front_end: FrontEnd) -> None:
    full = Full("8")
    operation = Operation(Busy("14"), always=full)
    assert outcome(front_end, lambda: front_end.engine.tasks.try_for_a_while(operation, Full)) is full
    assert operation.tries == 2


def test_each_failure_may_move_the_end(here: World, front_end: FrontEnd) -> None:
    began, error = here.time, Busy("14")
    until = iter([front_end.clock.now() + 10, front_end.clock.now() + 10, 0.0])
    operation = Operation(always=error)
    assert outcome(front_end, lambda: front_end.engine.tasks.repeat(operation, lambda: next(until))) is error
    assert operation.tries == 3
    assert 0 < here.time - began < 1


def test_what_lasts_is_tried_until_a_while_after_its_end(here: World, front_end: FrontEnd) -> None:
    began = here.time
    lasts = front_end.engine.tasks.try_while_it_lasts
    found = outcome(front_end, lambda: lasts(Operation(always=Busy("14")), lambda: here.time - began > 10))
    assert isinstance(found, Busy)
    assert 10 + ANSWER_WITHIN <= here.time - began < 10.2 + ANSWER_WITHIN


@pytest.mark.planted_bug
def test_what_is_kept_begins_again_after_a_bug(here: World, front_end: FrontEnd) -> None:
    began: list[float] = []

    async def work() -> None:
        began.append(here.time)
        if len(began) == 1:
            raise RuntimeError("planted")
        await here.front_ends[0].loop.create_future()

    front_end.inside(lambda: front_end.engine.tasks.keep(work))
    here.run(5)
    assert len(began) == 2


def test_the_end_waits_for_what_commands_wait_for_and_for_nothing_that_lasts(here: World, front_end: FrontEnd) -> None:
    ended: list[str] = []

    async def pause(name: str, times: int) -> None:
        for _ in range(times):
            await front_end.engine.tasks.pause_between_tries()
        ended.append(name)

    async def end() -> None:
        await front_end.engine.tasks.end()
        ended.append("all")

    def begin() -> None:
        tasks = front_end.engine.tasks
        tasks.spawn(pause("short", 3))
        tasks.spawn(pause("too long", 1000))
        tasks.spawn_lasting(pause("lasting", 1000))
        tasks.spawn(end())

    began = here.time
    front_end.inside(begin)
    here.run(30, lambda: "all" in ended)
    assert ended == ["short", "all"]
    assert here.time - began < ANSWER_WITHIN + 0.1


def test_the_end_cancels_at_once_what_lasts_when_no_command_waits(here: World) -> None:
    front_end = here.front_end()
    here.run(5)
    began, ended = here.time, []

    async def end() -> None:
        await front_end.engine.tasks.end()
        ended.append(here.time)

    front_end.inside(lambda: front_end.engine.tasks.spawn(end()) and None)
    here.run(30, lambda: bool(ended))
    assert ended[0] - began < 0.1

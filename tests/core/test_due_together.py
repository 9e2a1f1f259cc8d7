"""Many things that are due or can go on at once: each has its turn, and sockets are heard between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depth import on_source
from simulated import VirtualAlarm

from beanspiked.engine.timers import CALLS_UNWATCHED, SLICE, Timed
from beanspiked.server.broker import TURN, UNWATCHED
from beanspiked.server.contract import TurnTaker

if TYPE_CHECKING:
    from simulated import Wire


def test_a_tube_with_many_due_jobs_lets_others_go_first_after_each_slice(wire: Wire) -> None:
    producer, waiter = wire.connect(), wire.connect()
    producer.send(b"use many\r\n")
    for _ in range(10 * SLICE):
        producer.put(delay=1)
    producer.send(b"use one\r\n")
    last = producer.put(delay=2)
    waiter.send(b"watch one\r\nreserve\r\n")
    waiter.take()
    wire.clock.time += 3
    wire.clock.tick = TURN
    wire.broker.on_alarm()
    assert waiter.take() == b"RESERVED %d 1\r\nx\r\n" % last
    assert wire.engine.counts.ready < 10 * SLICE


class Due(Timed):
    """Notes that it was called."""

    __slots__ = ("called",)

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.timers.new_id())
        self.called = 0
        wire.timers.schedule(self, wire.clock.time)

    def on_time(self, now: float) -> None:  # noqa: ARG002 - whenever it is
        self.called += 1


def test_a_turn_calls_some_of_what_is_due_and_the_next_ones_the_rest(wire: Wire) -> None:
    due = [Due(wire) for _ in range(10 * CALLS_UNWATCHED)]
    # Each look at the clock finds that the time is up.
    wire.clock.tick = TURN
    wire.broker.on_alarm()
    assert [one.called for one in due] == [1] * CALLS_UNWATCHED + [0] * 9 * CALLS_UNWATCHED
    wire.settle()
    assert [one.called for one in due] == [1] * 10 * CALLS_UNWATCHED


class Counting(VirtualAlarm):
    """Counts how often a call in the next turn is asked for."""

    asked = 0

    def soon(self) -> None:
        super().soon()
        self.asked += 1


class Left(TurnTaker):
    """A connection that can go on, and notes when it does."""

    def __init__(self, ran: list[TurnTaker]) -> None:
        self._ran = ran

    def run(self) -> None:
        self._ran.append(self)


@on_source
def test_who_was_just_heard_waits_for_none_of_those_left_over_from_the_turn_before(wire: Wire) -> None:
    alarm = wire.broker.alarm = wire.alarm = Counting()
    ran: list[TurnTaker] = []
    wire.broker.runnable.extend(Left(ran) for _ in range(3 * UNWATCHED))
    wire.clock.tick = TURN
    wire.broker.end_turn()
    assert len(ran) == UNWATCHED
    for _ in range(5):
        wire.broker.end_turn()
    assert (len(ran), alarm.asked) == (UNWATCHED, 1)
    wire.turn()
    assert len(ran) == 2 * UNWATCHED

"""What the log says of commands that are answered INTERNAL_ERROR because of a shared store."""

from __future__ import annotations

import pytest
from world import Client, World

from beanspiked.engine.aerospike.store.seam import Busy
from beanspiked.engine.timers import Clock
from beanspiked.server.failures import Failures

INTERNAL_ERROR = b"INTERNAL_ERROR\r\n"


class Hands(Clock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if "INTERNAL_ERROR" in record.getMessage()]
    caplog.clear()
    return found


@pytest.fixture
def clock() -> Hands:
    return Hands()


def test_the_first_is_logged_at_once_and_later_ones_once_a_minute(
    clock: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    failures = Failures(clock)
    failures.count(Busy("node 1 is busy"))
    assert lines(caplog) == ["a command was answered INTERNAL_ERROR: node 1 is busy"]
    for _ in range(599):
        clock.time += 0.1
        failures.count(Busy("node 1 is busy"))
    assert lines(caplog) == []
    clock.time += 1.0
    failures.count(Busy("node 2 is busy"))
    assert lines(caplog) == ["600 more commands were answered INTERNAL_ERROR; the last: node 2 is busy"]


def test_a_clock_that_was_set_back_does_not_silence_it(clock: Hands, caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(clock)
    failures.count(Busy("first"))
    clock.time -= 3600.0
    failures.count(Busy("second"))
    assert len(lines(caplog)) == 2


@pytest.mark.parametrize("command", [b"put 0 0 60 1\r\nx\r\n", b"reserve-with-timeout 0\r\n", b"peek-ready\r\n"])
def test_a_change_a_reserve_and_a_look_that_fail_are_logged(
    here: World, client: Client, command: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client.put()
    here.down_until = here.time + 60
    here.run(3.0)
    assert client.ask(command) == INTERNAL_ERROR
    assert len(lines(caplog)) == 1

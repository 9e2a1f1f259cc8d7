"""A poll of a shared engine is answered, even if its look for a job does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from world import World

from beanspiked.engine.aerospike.store.seam import Busy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from world import Client


@pytest.fixture
def stuck(here: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> asyncio.Future[Any]:
    """The one call of a poll's look, which does not end by itself while the store answers all others."""
    here.run(3.0)
    send, stuck = World.send, client.front_end.loop.create_future()

    def sent(self: World, loop: Any, name: str, operation: Any) -> Any:
        return stuck if name == "directory" and not stuck.done() else send(self, loop, name, operation)

    monkeypatch.setattr(World, "send", sent)
    client.post(b"reserve-with-timeout 0\r\n")
    here.run(0.1)
    return stuck


@pytest.mark.usefixtures("stuck")
def test_a_poll_whose_look_does_not_end_fails(here: World, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    here.run(9.0)
    assert client.received == b""
    here.run(4.0)
    assert client.received == b"INTERNAL_ERROR\r\n"
    assert "a look for a job did not end for" in caplog.text


def test_the_time_for_which_a_process_was_frozen_does_not_count(
    here: World, client: Client, stuck: asyncio.Future[Any], caplog: pytest.LogCaptureFixture
) -> None:
    client.front_end.freeze(60.0)
    here.run(62.0)
    assert caplog.text == ""
    client.front_end.inside(lambda: stuck.set_result(None))
    here.run(1.0)
    assert client.received == b"TIMED_OUT\r\n"


@pytest.mark.parametrize("failing", range(1, 9))
def test_a_poll_misses_no_job_while_another_look_at_its_tube_fails(failing: int) -> None:
    for seed in range(12):
        here = World(seed, links=False)
        for _ in range(4):
            # A segment each.
            producer = here.front_end().connect()
            here.run(0.5)
            producer.put()
        polling = here.front_end()
        here.run(3.0)
        # The second one's tubes are looked at together, beside the first one's look.
        one, two = polling.connect(), polling.connect()
        two.ask(b"watch other\r\n")
        calls = iter(range(1, 1000))
        head = here.cluster.head

        def answering(number: int, calls: Iterator[int] = calls, head: Callable[[int], Any] = head) -> Any:
            if next(calls) == failing:
                raise Busy("14")
            return head(number)

        here.cluster.head = answering  # type: ignore[method-assign]
        for client in (one, two):
            client.post(b"reserve-with-timeout 0\r\n")
        here.run(5.0)
        assert (one.take()[:8], two.take()[:8]) == (b"RESERVED", b"RESERVED"), seed

"""A poll of a shared engine is answered, even if its look for a job does not end; so is a reserve behind which the client sends no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from world import World

from beanspiked.engine.aerospike.store.seam import Busy, Damaged

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from world import Client

    from beanspiked.engine.aerospike.store.seam import Change


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


def test_a_poll_looks_again_when_its_segment_was_given_up(here: World, client: Client) -> None:
    job_id = client.put()
    apply = here.cluster.apply

    def unreadable(number: int, lease: int, change: Change) -> Any:
        if change.take:
            here.cluster.apply = apply  # type: ignore[method-assign]
            raise Damaged("the answer is malformed")
        return apply(number, lease, change)

    here.cluster.apply = unreadable  # type: ignore[method-assign]
    assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED %d " % job_id)


@pytest.mark.parametrize("call", ["directory", "read", "shift", "head"])
def test_a_poll_looks_again_when_its_session_ends_during_its_look(
    here: World, client: Client, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    job_id = client.put(delay=1)
    here.run(3.0)
    membership = client.front_end.engine.membership
    send, ended = World.send, []

    def sent(self: World, loop: Any, name: str, operation: Any) -> Any:
        if name == call and not ended:
            ended.append(name)
            here.cluster.resign(membership.session.number)
            loop.call_soon(membership._over)
        return send(self, loop, name, operation)

    monkeypatch.setattr(World, "send", sent)
    assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED %d " % job_id)
    assert ended


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("command", [b"reserve", b"reserve-with-timeout 0", b"reserve-with-timeout 100"])
def test_a_half_close_behind_a_reserve_leaves_no_ready_job_behind(command: bytes, links: bool) -> None:
    for moment in range(40):
        here = World(moment, links=links)
        producer, consumer = here.front_end().connect(), here.front_end().connect()
        here.run(3.0)
        producer.put()
        consumer.post(command + b"\r\n")
        # The end comes while the store is asked, or soon after.
        here.run(moment * 0.001)
        if not consumer.received:
            consumer.half_close()
            here.run(2.0)
        assert consumer.take()[:8] == b"RESERVED", moment


def test_a_half_close_right_behind_a_reserve_finds_a_job_whose_news_are_on_their_way() -> None:
    for seed in range(20):
        here = World(seed, links=False)
        producer, consumer = here.front_end().connect(), here.front_end().connect()
        # From now on the consumer's front-end follows the tube's news.
        assert consumer.ask(b"reserve-with-timeout 2\r\n") == b"TIMED_OUT\r\n"
        producer.put()
        consumer.post(b"reserve\r\n")
        consumer.half_close()
        here.run(2.0)
        assert consumer.take()[:8] == b"RESERVED", seed


@pytest.mark.parametrize("after", [0.0, 0.005, 0.5, 5.0])
@pytest.mark.parametrize("links", [True, False])
def test_a_half_close_ends_a_wait_for_which_no_job_is_there(after: float, links: bool) -> None:
    here = World(1, links=links)
    client = here.front_end().connect()
    here.run(3.0)
    client.post(b"reserve\r\nreserve\r\nlist-tube-used\r\n")
    here.run(after)
    client.half_close()
    here.run(0.5)
    assert client.received == b"TIMED_OUT\r\nTIMED_OUT\r\nUSING default\r\n"
    assert client.is_closed


def test_the_end_of_a_long_wait_asks_the_store_for_nothing(here: World, client: Client) -> None:
    client.post(b"reserve\r\n")
    here.run(3.0)
    client.half_close()
    # Not even a moment passes.
    here.run(0.0)
    assert client.received == b"TIMED_OUT\r\n"

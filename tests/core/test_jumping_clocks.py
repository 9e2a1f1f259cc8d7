"""Clocks of the store's nodes that jump: for a moment, for long, ahead or back. Delays and sessions last as long as they would."""

from __future__ import annotations

import pytest
from world import Client, World

from beanspiked.engine.aerospike.cluster.clock import ServerClock
from beanspiked.engine.aerospike.cluster.session import Session

HOUR_MS = 3_600_000


@pytest.fixture
def pair() -> tuple[World, Client, Client]:
    """Return a world, and clients of two front-ends of it."""
    here = World(1)
    first, second = here.front_end(), here.front_end()
    here.run(3.0)
    return here, first.connect(), second.connect()


def jump(here: World, client: Client, by_ms: int, start: float, end: float) -> None:
    """Have the heartbeats of a front-end be answered by a clock that is wrong between two times."""
    session = client.front_end.engine.membership.session.number
    heartbeat = here.cluster.heartbeat

    def wrong(of: int, payload: bytes | None, writes: int) -> int:
        now_ms = heartbeat(of, payload, writes)
        return now_ms + by_ms if of == session and start <= here.time < end else now_ms

    here.cluster.heartbeat = wrong  # type: ignore[method-assign]


def ahead(here: World, client: Client) -> float:
    """Return by how many seconds a front-end thinks that the cluster's time is ahead of what it is."""
    return (client.front_end.engine.membership.clock.server_ms() - here.cluster.now_ms()) / 1000


def keep_putting(here: World, client: Client, until: float) -> None:
    """Use the clock all the time."""
    client.ask(b"use other\r\n")
    while here.time < until:
        client.put(delay=1)
        here.run(0.1)
    client.ask(b"use default\r\n")


def check_a_delay(here: World, client: Client, other: Client) -> None:
    """Check that a job that one front-end delays becomes ready for another in time."""
    client.put(delay=5)
    put_at = here.time
    assert other.ask(b"reserve\r\n").startswith(b"RESERVED")
    assert 4.9 < here.time - put_at < 5.5


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_is_wrong_for_a_heartbeat_changes_no_delay(pair: tuple[World, Client, Client], by_ms: int) -> None:
    here, client, other = pair
    jump(here, client, by_ms, 5.0, 6.0)
    keep_putting(here, client, 5.9)
    assert abs(ahead(here, client)) < 0.1
    keep_putting(here, client, 8.0)
    assert abs(ahead(here, client)) < 0.1
    check_a_delay(here, client, other)
    other.put(delay=1800)
    assert client.ask(b"reserve-with-timeout 20\r\n") == b"TIMED_OUT\r\n"


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_stays_where_it_jumped_is_believed(pair: tuple[World, Client, Client], by_ms: int) -> None:
    here, client, _ = pair
    jump(here, client, by_ms, 5.0, 60.0)
    keep_putting(here, client, 12.0)
    assert ahead(here, client) == pytest.approx(by_ms / 1000, abs=0.1)


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_was_believed_and_was_wrong_is_corrected(pair: tuple[World, Client, Client], by_ms: int) -> None:
    here, client, other = pair
    jump(here, client, by_ms, 5.0, 12.0)
    keep_putting(here, client, 20.0)
    assert abs(ahead(here, client)) < 0.1
    assert abs(client.front_end.engine.membership.clock.ticket() / 1e6 - here.cluster.now_ms() / 1000) < 0.1
    check_a_delay(here, client, other)


def test_puts_have_the_servers_time_though_one_came_before_it_was_known() -> None:
    true_s = 1_000_000.0
    clock = ServerClock(lambda: true_s + HOUR_MS / 1000, lambda: 0.0)
    assert clock.ticket() > true_s * 1e6
    clock.begin(Session(1, -HOUR_MS))
    assert clock.ticket() == true_s * 1e6


def test_puts_keep_their_order_when_a_clock_is_set_back_a_little(pair: tuple[World, Client, Client]) -> None:
    here, client, _ = pair
    membership = client.front_end.engine.membership
    before = membership.clock.ticket()
    jump(here, client, -4000, 3.0, 60.0)
    here.run(5.0)
    tickets = [membership.clock.ticket() for _ in range(3)]
    assert before < tickets[0] < tickets[1] < tickets[2]


def test_nobody_is_declared_dead_for_a_jump_of_the_clock(pair: tuple[World, Client, Client]) -> None:
    here, client, other = pair
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    here.run(20.0)
    sessions = [one.front_end.engine.membership.session.number for one in (client, other)]
    now_ms = here.cluster.now_ms
    # Right before the others look: whoever has not sent a heartbeat since has been silent for an hour.
    here.cluster.now_ms = lambda: now_ms() + HOUR_MS
    here.run(20.0)
    assert [one.front_end.engine.membership.session.number for one in (client, other)] == sessions
    assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"

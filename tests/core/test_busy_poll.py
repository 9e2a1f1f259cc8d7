"""Waiting awake: only where the clients of the last waits spoke at once, and where no commit had better wait for others."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from beanspiked.server.busy_poll import AWAKE, BusyPoll
from beanspiked.server.connection import Acceptor, Connection
from beanspiked.server.poller import READABLE, Poller
from beanspiked.server.sockets import EVENTS_AT_ONCE, Sockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from conftest import Pair
    from simulated import Wire

SHORT, LONG = AWAKE / 2, AWAKE * 2


class Noted(Sockets):
    """Notes for how long it is to wait awake, and finds what is there without a wait."""

    def __init__(self) -> None:
        super().__init__("noted")
        self.awake: list[float] = []

    def wait(
        self, seconds: float, most: int = EVENTS_AT_ONCE, awake: float = 0.0
    ) -> list[tuple[int, int, bytes | None]]:
        if seconds:
            self.awake.append(awake)
        return super().wait(0.0, most)


class Accepted(Acceptor):
    def closed(self, connection: Connection) -> None:
        raise AssertionError(f"{connection} ended")


@pytest.fixture
def busy_poll() -> BusyPoll:
    return BusyPoll()


def after(busy_poll: BusyPoll, *waits: float) -> float:
    for seconds in waits:
        busy_poll.waited(seconds)
    return busy_poll.awake()


def test_a_server_sleeps_at_first(busy_poll: BusyPoll) -> None:
    assert busy_poll.awake() == 0.0
    assert after(busy_poll, SHORT) == 0.0


def test_it_waits_awake_once_nearly_all_waits_are_short(busy_poll: BusyPoll) -> None:
    assert after(busy_poll, *[SHORT] * 100) == AWAKE
    assert after(busy_poll, LONG) == AWAKE


def test_it_sleeps_again_once_waits_are_long(busy_poll: BusyPoll) -> None:
    after(busy_poll, *[SHORT] * 1000)
    assert after(busy_poll, *[LONG] * 10) == 0.0


def test_it_sleeps_where_every_other_wait_is_long(busy_poll: BusyPoll) -> None:
    # A worker speaks soon after its reserve's reply, and late after its job.
    assert after(busy_poll, *[SHORT, LONG] * 1000) == 0.0


@pytest.mark.parametrize(
    ("durable", "clients", "awake"), [(False, 1, True), (False, 2, True), (True, 1, True), (True, 2, False)]
)
def test_only_commits_for_several_clients_wait_for_more_of_them(
    request: pytest.FixtureRequest,
    wire: Wire,
    pairs: Callable[[int], list[Pair]],
    durable: bool,
    clients: int,
    awake: bool,
) -> None:
    if durable:
        request.getfixturevalue("journal")
    sockets = Noted()
    poller = Poller(wire.broker, sockets)
    connected: list[tuple[Connection, socket.socket]] = [
        (Connection(wire.broker, poller, Accepted(), ours), client) for ours, client in pairs(clients)
    ]
    for _ in range(200):
        connected[0][1].sendall(b"use a\r\n")
        poller.turn(1.0)
        assert connected[0][1].recv(100) == b"USING a\r\n"
    assert (sockets.awake[-1] > 0.0) == awake


def test_a_wait_for_nothing_is_no_sign_of_anything(wire: Wire) -> None:
    sockets = Noted()
    poller = Poller(wire.broker, sockets)
    for _ in range(200):
        poller.turn(1.0)
    assert sockets.awake == [0.0] * 200


@pytest.mark.parametrize(("asleep", "awake"), [(0.0, 30.0), (30.0, 0.001)], ids=["awake", "asleep, after that"])
def test_what_comes_is_found_awake_and_asleep(
    sockets: Sockets, pairs: Callable[[int], list[Pair]], asleep: float, awake: float
) -> None:
    ((ours, client),) = pairs(1)
    sockets.add(ours.fileno(), READABLE)
    sender = threading.Timer(0.02, lambda: client.send(b"x"))
    sender.start()
    # The other part of the wait ends before anything comes.
    assert sockets.wait(asleep, 1, awake) == [(ours.fileno(), READABLE, None)]
    sender.join()

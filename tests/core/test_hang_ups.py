"""A client that hangs up or quits while something is on its way: its connection ends in time, and keeps no loop awake."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from beanspiked.server.connection import Acceptor, Connection
from beanspiked.server.poller import GATHER, Poller

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Pair
    from simulated import HandJournal, Wire

    from beanspiked.server.sockets import Sockets

JOB = b"put 0 0 60 1\r\nx\r\n"
# A kick waits for the put before it to be on disk; behind it stands more than is read ahead.
WAITING = JOB + b"kick 1\r\n" + b"list-tube-used\r\n" * 10_000


class Site(Acceptor):
    """A poller with one client's connection."""

    def __init__(self, wire: Wire, poller: Poller, pair: Pair) -> None:
        ours, self.client = pair
        self.wire = wire
        self.poller = poller
        self.gone: list[Connection] = []
        self.connection = Connection(wire.broker, poller, self, ours)

    def closed(self, connection: Connection) -> None:
        self.gone.append(connection)

    def turns(self, count: int = 20) -> None:
        for _ in range(count):
            self.poller.turn()
            self.wire.settle()

    def events(self) -> list[tuple[int, int, bytes | None]]:
        """Return what would end the loop's next wait at once."""
        return self.poller.sockets.wait(0.0)


@pytest.fixture
def site(wire: Wire, journal: HandJournal, sockets: Sockets, pairs: Callable[[int], list[Pair]]) -> Site:
    wire.clock.tick = GATHER / 10
    site = Site(wire, Poller(wire.broker, sockets), pairs(1)[0])
    site.client.settimeout(5)
    site.client.sendall(JOB + b"reserve\r\n")
    site.turns()
    journal.commit()
    assert site.client.recv(100) == b"INSERTED 1\r\nRESERVED 1 1\r\nx\r\n"
    return site


@pytest.fixture
def waiting(site: Site) -> Site:
    """A client that holds a job and has sent more than is read while its command waits for the disk."""
    site.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    site.client.sendall(WAITING)
    site.turns()
    assert site.events() == []
    return site


def test_the_jobs_of_a_client_that_is_gone_are_ready_though_its_command_still_waits_for_the_disk(waiting: Site) -> None:
    waiting.client.close()
    waiting.turns(1)
    assert waiting.gone == [waiting.connection]
    assert (waiting.wire.engine.counts.ready, waiting.wire.engine.counts.reserved) == (1, 0)


def test_a_half_close_behind_a_command_that_waits_for_the_disk_is_heard_once(waiting: Site) -> None:
    waiting.client.shutdown(socket.SHUT_WR)
    waiting.turns(1)
    assert (waiting.events(), waiting.gone) == ([], [])


def test_a_half_close_behind_a_put_is_heard_once_and_the_put_answered(site: Site, journal: HandJournal) -> None:
    site.client.sendall(JOB)
    site.client.shutdown(socket.SHUT_WR)
    site.turns()
    assert (site.events(), site.gone) == ([], [])
    journal.commit()
    assert (site.client.recv(100), site.client.recv(100)) == (b"INSERTED 2\r\n", b"")
    assert site.gone == [site.connection]


def test_who_quits_and_reads_late_gets_all_replies_and_then_the_end(site: Site) -> None:
    site.connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    site.client.sendall(b"stats\r\n" * 30 + b"quit\r\n")
    site.turns()
    # Its jobs are given back at once.
    assert (site.wire.engine.counts.ready, site.gone) == (1, [])
    got = b""
    while data := site.client.recv(1 << 20):
        got += data
        site.turns()
    assert got.count(b"OK ") == 30
    assert site.gone == [site.connection]

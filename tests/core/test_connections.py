"""Connections on either way to hear sockets: what goes wrong with one concerns no other."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from typing import TYPE_CHECKING

import pytest
from simulated import HandJournal
from suite import either_io

from beanspiked.protocol.commands import LIST_TUBE_USED
from beanspiked.server.broker import TURN
from beanspiked.server.connection import HIGH_WATER, SEND_AT_ONCE, Acceptor, Connection
from beanspiked.server.contract import TurnTaker
from beanspiked.server.poller import EVENTS_A_TURN, GATHER, READABLE, Poller, Ready
from beanspiked.server.sockets import EVENTS_AT_ONCE, NativeSockets, Sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Pair
    from simulated import Wire


class Accepted(Acceptor):
    """Remembers who is gone."""

    def __init__(self) -> None:
        self.gone: list[Connection] = []

    def closed(self, connection: Connection) -> None:
        self.gone.append(connection)


class Odd(Sockets):
    """Sends as a kernel does that is short of something."""

    def __init__(self) -> None:
        super().__init__("odd")
        self.send: Callable[[Callable[[memoryview | bytes], int], memoryview | bytes], int] = lambda send, data: send(
            data
        )

    def sender(self, sock: socket.socket) -> Callable[[memoryview | bytes], int]:
        send = super().sender(sock)
        return lambda data: self.send(send, data)


class Site:
    """A poller and its connections."""

    def __init__(self, wire: Wire, sockets: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
        self.wire = wire
        self.poller = Poller(wire.broker, sockets)
        self.acceptor = Accepted()
        self._pairs = pairs

    def connect(self) -> tuple[Connection, socket.socket]:
        ((ours, client),) = self._pairs(1)
        client.settimeout(5)
        return Connection(self.wire.broker, self.poller, self.acceptor, ours), client

    def turns(self, count: int = 5) -> None:
        for _ in range(count):
            self.poller.turn()
            self.wire.settle()

    def answer(self, client: socket.socket, size: int) -> bytes:
        """Return so many bytes that a client gets, however many turns that takes."""
        got = b""
        client.setblocking(False)
        for _ in range(10_000):
            self.turns(1)
            with contextlib.suppress(BlockingIOError):
                got += client.recv(1 << 20)
            if len(got) >= size:
                return got
        raise AssertionError(f"{len(got)} of {size} bytes came")


@pytest.fixture
def site(wire: Wire, sockets: Sockets, pairs: Callable[[int], list[Pair]]) -> Site:
    return Site(wire, sockets, pairs)


def put(body: bytes) -> bytes:
    return b"put 0 0 60 %d\r\n%b\r\n" % (len(body), body)


def test_clients_who_speak_during_a_turn_with_changes_share_its_commit(site: Site, journal: HandJournal) -> None:
    connections = [site.connect() for _ in range(EVENTS_A_TURN + 20)]
    for _, client in connections:
        client.sendall(put(b"x"))
    site.poller.turn()
    assert journal.batches == [len(connections)]


def test_a_turn_with_changes_ends_though_commands_keep_coming(
    wire: Wire, journal: HandJournal, pairs: Callable[[int], list[Pair]]
) -> None:
    class Talkative(Sockets):
        def wait(
            self, seconds: float, most: int = EVENTS_AT_ONCE, awake: float = 0.0
        ) -> list[tuple[int, int, bytes | None]]:
            client.sendall(put(b"x"))
            wire.clock.time += GATHER / 4
            return super().wait(seconds, most, awake)

    site = Site(wire, Talkative("talkative"), pairs)
    _, client = site.connect()
    site.poller.turn()
    assert [3 <= batch <= 6 for batch in journal.batches] == [True]


def test_replies_leave_at_the_end_of_the_turn(site: Site) -> None:
    connections = [site.connect() for _ in range(3)]
    for _, client in connections:
        client.sendall(put(b"x"))
    site.turns(1)
    assert {client.recv(100) for _, client in connections} == {b"INSERTED %d\r\n" % number for number in (1, 2, 3)}


def test_the_largest_usual_job_comes_and_goes_whole(site: Site) -> None:
    _, client = site.connect()
    body = os.urandom(65535)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.sendall(put(body) + b"reserve\r\n")
    expected = b"INSERTED 1\r\nRESERVED 1 65535\r\n%b\r\n" % body
    assert site.answer(client, len(expected)) == expected


def test_none_is_received_early_of_a_large_body_or_behind_what_is_enough(
    wire: Wire, pairs: Callable[[int], list[Pair]]
) -> None:
    either_io("native")
    calls: list[tuple[int, bool]] = []

    class Spy(NativeSockets):
        def set_early(self, fd: int, early: bool) -> None:
            calls.append((fd, early))
            super().set_early(fd, early)

    wire.broker.max_job_size = 1 << 20
    with contextlib.closing(Spy()) as spy:
        here = Site(wire, spy, pairs)
        connection, client = here.connect()
        client.sendall(put(b"x" * 100_000)[:-10])
        here.turns(20)
        client.sendall(b"x" * 8 + b"\r\n")
        assert here.answer(client, 12) == b"INSERTED 1\r\n"
        assert calls == [(connection.fd, True), (connection.fd, False), (connection.fd, True)]


@pytest.mark.parametrize("shortage", [errno.EAGAIN, errno.ENOBUFS, errno.EINTR])
def test_a_reply_for_which_the_kernel_has_no_room_leaves_later_or_never_in_part(
    wire: Wire, pairs: Callable[[int], list[Pair]], shortage: int
) -> None:
    with contextlib.closing(Odd()) as odd:
        site = Site(wire, odd, pairs)
        _, client = site.connect()
        fails = [True, True]

        def short(send: Callable[[memoryview | bytes], int], data: memoryview | bytes) -> int:
            if fails and fails.pop():
                raise OSError(shortage, os.strerror(shortage))
            return send(data[:1])

        odd.send = short
        client.sendall(b"list-tube-used\r\n")
        if shortage == errno.ENOBUFS:
            site.turns()
            assert client.recv(100) == b""
        else:
            assert site.answer(client, 15) == b"USING default\r\n"


def test_a_client_that_does_not_read_is_not_executed_for_and_goes_on_later(site: Site) -> None:
    connection, client = site.connect()
    client.setblocking(False)
    body = b"x" * 60_000
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.sendall(put(body))
    site.turns(10)
    client.sendall(b"peek 1\r\n" * 200)
    site.turns(100)
    assert connection._unsent_bytes < HIGH_WATER + 400_000
    reply = b"FOUND 1 60000\r\n%b\r\n" % body
    expected = b"INSERTED 1\r\n" + reply * 200
    assert site.answer(client, len(expected)) == expected


def test_a_turn_sends_a_part_of_a_large_reply(wire: Wire, pairs: Callable[[int], list[Pair]]) -> None:
    sent: list[int] = []

    def send(_: object, data: memoryview | bytes) -> int:
        sent.append(len(data) if len(data) <= SEND_AT_ONCE else 0)
        return sent[-1]

    wire.broker.max_job_size = 3 * SEND_AT_ONCE
    wire.connect().put(b"x" * 3 * SEND_AT_ONCE)
    with contextlib.closing(Odd()) as odd:
        site = Site(wire, odd, pairs)
        odd.send = send
        site.connect()[1].sendall(b"reserve\r\n")
        site.turns(2)
        assert sum(sent) == len(b"RESERVED 1 1572864\r\n") + SEND_AT_ONCE
        site.turns(3)
        assert sum(sent) == len(b"RESERVED 1 1572864\r\n\r\n") + 3 * SEND_AT_ONCE


def test_a_half_close_is_answered_and_then_closed(site: Site) -> None:
    _, client = site.connect()
    client.sendall(b"list-tube-used\r\n")
    client.shutdown(socket.SHUT_WR)
    site.turns()
    assert (client.recv(100), client.recv(100)) == (b"USING default\r\n", b"")
    assert len(site.acceptor.gone) == 1


def test_a_hang_up_ends_a_blocked_reserve_while_nothing_is_read(site: Site) -> None:
    _, client = site.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.sendall(b"reserve\r\n" + b"list-tube-used\r\n" * 10_000)
    site.turns(50)
    assert site.wire.broker.waiting == 1
    client.close()
    site.turns(50)
    assert (site.wire.broker.waiting, site.wire.broker.connections) == (0, 0)


class Stream(Ready):
    """Does something with what it is given."""

    def __init__(self, sock: socket.socket, then: Callable[[], object]) -> None:
        self.sock = sock
        self.then = then
        self.data = b""

    def on_ready(self, events: int) -> None:
        assert events & READABLE
        self.on_data(self.sock.recv(100))

    def on_data(self, data: bytes) -> None:
        self.data += data
        self.then()


def test_a_connection_that_another_one_ends_in_the_same_turn_executes_nothing_more(
    site: Site, pairs: Callable[[int], list[Pair]]
) -> None:
    ((ours, other),) = pairs(1)
    connection, client = site.connect()
    stream = Stream(ours, connection.abort)
    site.poller.add(ours.fileno(), stream, READABLE)
    site.poller.sockets.set_early(ours.fileno(), early=True)
    other.sendall(b"x")
    client.sendall(put(b"x"))
    site.turns()
    assert (stream.data, site.wire.engine.counts.ready, site.acceptor.gone) == (b"x", 0, [connection])


def test_bytes_for_a_closed_connection_are_not_given_to_its_successor(
    site: Site, pairs: Callable[[int], list[Pair]]
) -> None:
    ((ours, other),) = pairs(1)
    connection, client = site.connect()
    later: list[Connection] = []

    def replace() -> None:
        fd = connection.fd
        connection.abort()
        ((new, _),) = pairs(1)
        if new.fileno() != fd:
            os.dup2(new.fileno(), fd)
            new.close()
            new = socket.socket(fileno=fd)
        later.append(Connection(site.wire.broker, site.poller, site.acceptor, new))

    site.poller.add(ours.fileno(), Stream(ours, replace), READABLE)
    site.poller.sockets.set_early(ours.fileno(), early=True)
    other.sendall(b"x")
    client.sendall(put(b"x"))
    site.turns()
    assert later
    assert later[0].fd == connection.fd
    assert site.wire.engine.counts.ready == 0
    later[0].abort()


def test_a_turn_hears_some_and_all_where_somebody_has_commands_left_over(site: Site) -> None:
    for left_over, heard_at_once in ([], 64), ([TurnTaker()], 100):
        clients = [site.connect()[1] for _ in range(100)]
        for client in clients:
            client.sendall(b"list-tube-used\r\n")
        site.wire.broker.next_turn = left_over
        before = site.wire.broker.commands[LIST_TUBE_USED]
        site.poller.turn()
        assert site.wire.broker.commands[LIST_TUBE_USED] - before == heard_at_once
        site.wire.broker.next_turn = []
        site.turns()


def test_the_set_is_readable_while_events_wait_that_the_time_was_too_short_for(site: Site) -> None:
    # An asyncio loop comes back only for a readable descriptor, and what was received early is not there any more.
    clients = [site.connect()[1] for _ in range(60)]
    for client in clients:
        client.sendall(b"list-tube-used\r\n")
    site.wire.clock.tick = TURN
    turns = 0
    while select.select([site.poller.fileno()], [], [], 0)[0]:
        site.poller.turn()
        turns += 1
        assert turns < 100
    assert turns > 1
    assert [client.recv(100) for client in clients] == [b"USING default\r\n"] * 60


@pytest.mark.planted_bug
def test_a_bug_in_one_of_a_turn_concerns_no_other(site: Site, pairs: Callable[[int], list[Pair]]) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    ((ours, other),) = pairs(1)
    clients = [site.connect()[1] for _ in range(2)]
    site.poller.add(ours.fileno(), Stream(ours, broken), READABLE)
    site.poller.sockets.set_early(ours.fileno(), early=True)
    clients[0].sendall(put(b"x"))
    other.sendall(b"x")
    clients[1].sendall(put(b"x"))
    site.turns()
    assert [client.recv(100) for client in clients] == [b"INSERTED 1\r\n", b"INSERTED 2\r\n"]


@pytest.mark.planted_bug
def test_a_session_with_a_bug_ends_with_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, client = site.connect()
    _, other = site.connect()
    if not hasattr(connection.flow, "__dict__"):
        pytest.skip("a compiled session takes no bug from a test")

    def broken(_: bytes) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(connection.flow, "receive", broken)
    client.sendall(put(b"x"))
    other.sendall(put(b"x"))
    site.turns()
    assert (client.recv(100), client.recv(100)) == (b"INTERNAL_ERROR\r\n", b"")
    assert other.recv(100) == b"INSERTED 1\r\n"
    assert site.acceptor.gone == [connection]


@pytest.mark.planted_bug
def test_a_session_with_a_bug_gives_its_jobs_back_though_its_client_does_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client = site.connect()
    _, other = site.connect()
    if not hasattr(connection.flow, "__dict__"):
        pytest.skip("a compiled session takes no bug from a test")
    connection.flow.receive(put(b"x" * 60_000) + b"reserve\r\n" + b"peek 1\r\n" * 20)
    site.turns()
    assert connection._unsent_bytes

    def broken(_: bytes) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(connection.flow, "receive", broken)
    client.sendall(b"x")
    site.turns()
    other.sendall(b"stats-job 1\r\n")
    site.turns()
    assert b"state: ready" in other.recv(1000)

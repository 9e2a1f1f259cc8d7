"""The two ways to hear sockets: both find and send the same, and what goes wrong with one socket concerns no other."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from suite import EITHER_IO, either_io

from beanspiked.protocol.commands import LIST_TUBE_USED
from beanspiked.server.broker import TURN, TurnTaker
from beanspiked.server.connection import HIGH_WATER, READ_AT_ONCE, Acceptor, Connection
from beanspiked.server.poller import CLOSED, GONE, READABLE, WRITABLE, Poller, Ready
from beanspiked.server.sockets import (
    EVENTS_AT_ONCE,
    NATIVE,
    NativeMissingError,
    NativeSockets,
    Sockets,
    open_sockets,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulated import Wire

# How much the C function receives in one call.
ROOM = 32 * READ_AT_ONCE

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=EITHER_IO)
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    sockets = open_sockets(either_io(request.param))
    yield sockets
    sockets.close()


@pytest.fixture
def native() -> Iterator[Sockets]:
    sockets = open_sockets(either_io("native"))
    yield sockets
    sockets.close()


@pytest.fixture
def pairs() -> Iterator[Callable[[int], list[Pair]]]:
    """Makes pairs of connected sockets: ours, which does not block, and the client's."""
    made: list[Pair] = []

    def make(count: int) -> list[Pair]:
        new = [socket.socketpair() for _ in range(count)]
        for ours, _ in new:
            ours.setblocking(False)
        made.extend(new)
        return new

    yield make
    for pair in made:
        for sock in pair:
            sock.close()


def heard(sockets: Sockets, ours: socket.socket, early: bool = True) -> None:
    sockets.add(ours.fileno(), READABLE)
    sockets.set_early(ours.fileno(), early)


# --- what they find


def test_the_better_one_that_is_there_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(open_sockets()) as sockets:
        assert sockets.name == ("python" if NATIVE is None else "native")
    if not str(__import__("beanspiked.server.sockets").server.sockets.__file__).endswith(".py"):
        pytest.skip("a compiled module takes no change from a test")
    monkeypatch.setattr("beanspiked.server.sockets.NATIVE", None)
    with contextlib.closing(open_sockets()) as sockets:
        assert sockets.name == "python"
    with pytest.raises(NativeMissingError, match="not installed"):
        open_sockets("native")


def test_events_are_told_once_they_are_there(sockets: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
    ((ours, client),) = pairs(1)
    fd = ours.fileno()
    sockets.add(fd, READABLE)
    assert sockets.wait(0) == []
    client.sendall(b"x")
    assert sockets.wait(-1) == [(fd, READABLE, None)]
    sockets.change(fd, WRITABLE)
    assert sockets.wait(1) == [(fd, WRITABLE, None)]
    sockets.change(fd, CLOSED)
    client.shutdown(socket.SHUT_WR)
    assert sockets.wait(1) == [(fd, CLOSED, None)]
    client.close()
    ((_, events, _),) = sockets.wait(1)
    assert events & GONE
    sockets.remove(fd)
    assert sockets.wait(0) == []


def test_a_wait_lasts_as_long_as_it_should(sockets: Sockets) -> None:
    began = time.monotonic()
    assert sockets.wait(0.0101) == []
    assert time.monotonic() - began >= 0.0101


def test_a_signal_ends_no_wait_with_an_error(sockets: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
    ((ours, client),) = pairs(1)
    sockets.add(ours.fileno(), READABLE)
    before = signal.signal(signal.SIGUSR2, lambda *_: client.send(b"x"))
    killer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    killer.start()
    assert (sockets.wait(5) or sockets.wait(5)) == [(ours.fileno(), READABLE, None)]
    killer.join()
    signal.signal(signal.SIGUSR2, before)


def test_streams_alone_are_received_from_early(native: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
    (early, client), (usual, other) = pairs(2)
    heard(native, early)
    heard(native, usual, early=False)
    client.sendall(b"early")
    other.sendall(b"usual")
    assert sorted(native.wait(0)) == sorted([(early.fileno(), READABLE, b"early"), (usual.fileno(), READABLE, None)])
    assert usual.recv(10) == b"usual"
    native.set_early(early.fileno(), early=False)
    client.sendall(b"late")
    assert native.wait(0) == [(early.fileno(), READABLE, None)]


def test_a_descriptor_that_is_used_again_is_not_received_from_early(
    native: Sockets, pairs: Callable[[int], list[Pair]]
) -> None:
    ((ours, client),) = pairs(1)
    heard(native, ours)
    native.remove(ours.fileno())
    native.add(ours.fileno(), READABLE)
    client.sendall(b"x")
    assert native.wait(0) == [(ours.fileno(), READABLE, None)]


def test_the_end_of_a_stream_and_its_failure_are_left_to_be_seen(
    native: Sockets, pairs: Callable[[int], list[Pair]]
) -> None:
    (ended, client), (full, writer), (unconnected, _) = pairs(3)
    heard(native, ended)
    client.shutdown(socket.SHUT_WR)
    assert native.wait(0) == [(ended.fileno(), READABLE, None)]
    native.remove(ended.fileno())
    native.add(full.fileno(), READABLE | WRITABLE)
    native.set_early(full.fileno(), early=True)
    writer.sendall(b"x")
    assert native.wait(0) == [(full.fileno(), READABLE | WRITABLE, None)]
    native.remove(full.fileno())
    # What is no stream cannot be received from: that is no error of the others.
    out, into = os.pipe()
    native.add(out, READABLE)
    native.set_early(out, early=True)
    os.write(into, b"x")
    heard(native, unconnected)
    assert native.wait(0) == [(out, READABLE, None)]
    os.close(out)
    os.close(into)


def test_more_than_there_is_room_for_waits_for_its_turn(native: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
    many = pairs(ROOM // READ_AT_ONCE + 8)
    sent = {ours.fileno(): os.urandom(READ_AT_ONCE + 100) for ours, _ in many}
    for ours, client in many:
        heard(native, ours)
        client.sendall(sent[ours.fileno()])
    first = native.wait(0)
    assert sum(data is None for _, _, data in first) == 8
    received = dict.fromkeys(sent, b"")
    for turn in [first, *(native.wait(0) for _ in range(3))]:
        for fd, _, data in turn:
            received[fd] += data or b""
    assert received == sent


def test_so_many_events_are_told_at_once(sockets: Sockets) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        fds = [os.eventfd(1) for _ in range(EVENTS_AT_ONCE + 1)]
        for fd in fds:
            sockets.add(fd, READABLE)
        assert len(sockets.wait(0)) == EVENTS_AT_ONCE
        assert len(sockets.wait(0, 3)) == 3
        for fd in fds:
            os.close(fd)


def test_another_thread_may_neither_wait_nor_change_meanwhile(
    native: Sockets, pairs: Callable[[int], list[Pair]]
) -> None:
    ((ours, client),) = pairs(1)
    native.add(ours.fileno(), READABLE)
    waiter = threading.Thread(target=native.wait, args=(10.0,))
    waiter.start()
    until = time.monotonic() + 5
    with pytest.raises(RuntimeError, match="another thread waits"):  # noqa: PT012 - as soon as it does
        while time.monotonic() < until:
            native.set_early(ours.fileno(), early=False)
    with pytest.raises(RuntimeError, match="another thread waits"):
        native.wait(0)
    client.send(b"x")
    waiter.join()
    assert native.wait(0) == [(ours.fileno(), READABLE, None)]


def test_what_is_lost_for_want_of_memory_ends_its_connection(
    native: Sockets, pairs: Callable[[int], list[Pair]]
) -> None:
    testcapi = pytest.importorskip("_testcapi")
    assert NATIVE is not None
    ears = NATIVE.Ears(native.fileno())
    hung_up = 0
    for fails_at in range(20):
        ((ours, client),) = pairs(1)
        native.add(ours.fileno(), READABLE)
        ears.set_early(ours.fileno(), True)
        client.sendall(b"x" * 1000)
        found = []
        testcapi.set_nomemory(fails_at, fails_at + 1)
        try:
            found = ears.wait(0.0, 1)
        except MemoryError:
            # Where memory was wanting before the socket was heard, it is heard now.
            found = ears.wait(0.0, 1)
        finally:
            testcapi.remove_mem_hooks()
        if found != [(ours.fileno(), READABLE, b"x" * 1000)]:
            hung_up += 1
            assert client.recv(1) == b"", "the client must not believe that its command was heard"
        native.remove(ours.fileno())
    assert hung_up


def test_nothing_is_left_behind(native: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def use(count: int) -> None:
        for _ in range(count):
            heard(native, ours)
            client.send(b"x" * 1000)
            ((_, _, data),) = native.wait(0)
            native.sender(ours)(data or b"")
            client.recv(1000)
            native.remove(ours.fileno())
            with contextlib.closing(open_sockets("native")) as another:
                heard(another, ours)

    ((ours, client),) = pairs(1)
    use(500)
    before = resident()
    use(5000)
    assert resident() - before < 1_000_000


def test_nonsense_is_an_error(native: Sockets) -> None:
    assert isinstance(native, NativeSockets)
    with pytest.raises(ValueError, match="no descriptor: -1"):
        native.set_early(-1, early=True)
    assert NATIVE is not None
    with pytest.raises(TypeError):
        NATIVE.Ears("x")
    with pytest.raises(TypeError):
        NATIVE.sender("x")
    with pytest.raises(OverflowError):
        NATIVE.sender(2**80)
    with pytest.raises(TypeError):
        NATIVE.sender(0)("text")
    with pytest.raises(TypeError):
        NATIVE.Ears(0).wait("x", 1)
    for most in (0, EVENTS_AT_ONCE + 1):
        with pytest.raises(ValueError, match="not 1 to 1024 events"):
            NATIVE.Ears(0).wait(0.0, most)
    with pytest.raises(OSError, match="Bad file descriptor"):
        NATIVE.Ears(1 << 20).wait(0.0, 1)


# --- what they send


def test_as_much_is_sent_as_there_is_room_for(sockets: Sockets, pairs: Callable[[int], list[Pair]]) -> None:
    ((ours, client),) = pairs(1)
    send = sockets.sender(ours)
    assert send(b"abc") == 3
    assert send(memoryview(b"defg")[1:]) == 3
    assert client.recv(10) == b"abcefg"
    taken = send(b"x" * 10_000_000)
    assert 0 < taken < 10_000_000
    with pytest.raises(BlockingIOError):  # noqa: PT012 - in the end
        while True:
            send(b"x" * 100_000)
    client.close()
    with pytest.raises(BrokenPipeError):
        send(b"x")


# --- connections


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

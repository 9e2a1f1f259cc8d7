"""The two ways to hear sockets: both find and send the same."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from beanspiked.server.connection import READ_AT_ONCE
from beanspiked.server.poller import CLOSED, GONE, READABLE, WRITABLE
from beanspiked.server.sockets import (
    EVENTS_AT_ONCE,
    NATIVE,
    NativeMissingError,
    NativeSockets,
    Sockets,
    open_sockets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Pair


# How much the C function receives in one call.
ROOM = 32 * READ_AT_ONCE


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
            found = ears.wait(0.0, 1, 0.0)
        except MemoryError:
            # Where memory was wanting before the socket was heard, it is heard now.
            found = ears.wait(0.0, 1, 0.0)
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
        NATIVE.Ears(0).wait("x", 1, 0.0)
    for most in (0, EVENTS_AT_ONCE + 1):
        with pytest.raises(ValueError, match="not 1 to 1024 events"):
            NATIVE.Ears(0).wait(0.0, most, 0.0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        NATIVE.Ears(1 << 20).wait(0.0, 1, 0.0)


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

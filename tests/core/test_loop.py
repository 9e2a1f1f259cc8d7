"""The small event loop: what it calls, when, and what it keeps."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from beanspiked.server.loop import Loop
from beanspiked.server.poller import READABLE, Poller, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulated import Wire


class At(Loop):
    """A loop whose time stands still."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def poller(wire: Wire) -> Iterator[Poller]:
    poller = Poller(wire.broker)
    yield poller
    poller.close()


@pytest.fixture
def loop(poller: Poller) -> Iterator[At]:
    usual = {number: signal.getsignal(number) for number in (signal.SIGUSR2,)}
    loop = At(poller)
    yield loop
    loop.close()
    for number, handler in usual.items():
        signal.signal(number, handler)


def stopping(loop: Loop, heard: list[str], name: str) -> Callable[[], None]:
    def call() -> None:
        heard.append(name)
        loop.stop()

    return call


def test_timers_are_called_in_their_order_and_not_before_their_time(loop: At) -> None:
    heard: list[str] = []
    loop.call_later(2, stopping(loop, heard, "late"))
    loop.call_later(1, lambda: heard.append("first"))
    loop.call_later(1, lambda: heard.append("second"))
    loop.call_later(1.5, lambda: heard.append("never")).cancel()
    loop.now = 1.0
    loop.call_soon(lambda: setattr(loop, "now", 2.0) if heard else loop.call_soon(lambda: setattr(loop, "now", 2.0)))
    loop.run_forever()
    assert heard == ["first", "second", "late"]


def test_cancelled_timers_do_not_pile_up(loop: At) -> None:
    kept = loop.call_later(1e9, lambda: None)
    for _ in range(10_000):
        loop.call_later(1e9, lambda: None).cancel()
    assert len(loop._timers) < 300
    assert kept in loop._timers


def test_timers_that_were_called_are_not_counted_as_cancelled(loop: At) -> None:
    for _ in range(1000):
        timer = loop.call_later(0, lambda: None)
        loop.call_soon(loop.stop)
        loop.run_forever()
        timer.cancel()
    assert (loop._cancelled, loop._timers) == (0, [])


def test_cancelled_timers_that_are_gone_are_not_counted_any_more(loop: At) -> None:
    for _ in range(90):
        loop.call_later(0, lambda: None).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (loop._cancelled, loop._timers) == (0, [])
    for _ in range(101):
        loop.call_later(0, lambda: None).cancel()
    assert (loop._cancelled, loop._timers) == (0, [])


@pytest.mark.planted_bug
def test_a_bug_in_a_call_ends_no_other(loop: At) -> None:
    heard: list[str] = []

    def broken() -> None:
        raise RuntimeError("a bug")

    loop.call_soon(broken)
    loop.call_later(0, broken)
    loop.call_later(0, stopping(loop, heard, "on"))
    loop.run_forever()
    assert heard == ["on"]


def test_a_thread_and_a_signal_end_a_wait(loop: At) -> None:
    heard: list[str] = []
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(stopping(loop, heard, "thread")))
    thread.start()
    loop.run_forever()
    thread.join()
    loop.add_signal_handler(signal.SIGUSR2, stopping(loop, heard, "signal"))
    killer = threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGUSR2))
    killer.start()
    loop.run_forever()
    killer.join()
    assert heard == ["thread", "signal"]


def test_calls_of_a_thread_are_all_made_though_the_pipe_that_wakes_the_loop_is_full(loop: At) -> None:
    heard: list[str] = []
    for _ in range(70_000):
        loop.call_soon_threadsafe(lambda: heard.append("call"))
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert len(heard) == 70_000


class Reader(Ready):
    """Reads a pipe, and does something then."""

    def __init__(self, fd: int, then: Callable[[], object]) -> None:
        self.fd = fd
        self.then = then
        self.read = b""

    def on_ready(self, events: int) -> None:
        assert events & READABLE
        self.read += os.read(self.fd, 1)
        self.then()


def test_a_wait_for_what_is_due_in_a_thousand_years_hears_who_speaks(loop: At, poller: Poller) -> None:
    out, into = os.pipe()
    reader = Reader(out, loop.stop)
    poller.add(out, reader, READABLE)
    os.write(into, b"x")
    loop.call_later(1000 * 365 * 86400, lambda: None)
    loop.run_forever()
    assert reader.read == b"x"
    for fd in (out, into):
        os.close(fd)


def test_calls_that_register_others_let_sockets_be_heard_between_them(loop: At, poller: Poller) -> None:
    out, into = os.pipe()
    reader = Reader(out, loop.stop)
    calls = 0

    def again() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            poller.add(out, reader, READABLE)
            os.write(into, b"x")
        if calls < 1000:
            loop.call_soon(again)

    loop.call_soon(again)
    loop.run_forever()
    assert (reader.read, calls) == (b"x", 2)
    for fd in (out, into):
        os.close(fd)


def test_what_a_turn_has_no_time_for_is_heard_in_the_next(wire: Wire, poller: Poller) -> None:
    wire.clock.tick = 0.001
    pipes = [os.pipe() for _ in range(200)]
    readers = [Reader(out, lambda: None) for out, _ in pipes]
    for reader, (out, into) in zip(readers, pipes, strict=True):
        poller.add(out, reader, READABLE)
        os.write(into, b"x")
    poller.turn()
    first = sum(reader.read != b"" for reader in readers)
    assert 0 < first < 200
    while any(reader.read == b"" for reader in readers):
        poller.turn()
    assert {reader.read for reader in readers} == {b"x"}, "nobody twice"
    for out, into in pipes:
        poller.remove(out)
        os.close(out)
        os.close(into)


def test_an_event_of_a_closed_descriptor_is_not_taken_for_one_of_its_successor(poller: Poller) -> None:
    first, second = os.pipe(), os.pipe()
    third: list[int] = []
    late: list[bytes] = []

    def replace(other: tuple[int, int]) -> Callable[[], None]:
        def then() -> None:
            if third:
                return
            poller.remove(other[0])
            os.close(other[0])
            third.extend(os.pipe())
            assert third[0] == other[0]
            poller.add(third[0], Reader(third[0], lambda: late.append(b"heard")), READABLE)

        return then

    poller.add(first[0], Reader(first[0], replace(second)), READABLE)
    poller.add(second[0], Reader(second[0], replace(first)), READABLE)
    os.write(first[1], b"x")
    os.write(second[1], b"x")
    poller.turn()
    assert late == []
    for fd in {*first, *second, *third}:
        os.close(fd)

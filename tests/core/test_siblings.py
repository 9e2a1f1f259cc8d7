"""`stats` of a server with several workers: the counters of all, once the others have told theirs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.later import Later
from beanspiked.server.channel import HELLO, Channel, pair
from beanspiked.server.contract import Siblings
from beanspiked.server.worker import NoParentError, Others, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Client, FrontEnd, World


class Known(Siblings):
    """Another worker, which answers when the test says so."""

    def __init__(self, other: FrontEnd) -> None:
        super().__init__(2)
        self.other = other
        self.asked: list[Later] = []

    def ask(self) -> Later:
        self.asked.append(Later())
        return self.asked[-1]

    def answer(self) -> None:
        self.answered, self.counters = 1, self.other.broker.counters()
        self.asked.pop(0).settle()


class Two:
    """Two workers of a server, each with a client."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.front_ends = [here.front_end(), here.front_end()]
        self.clients: list[Client] = [front_end.connect() for front_end in self.front_ends]
        self.sibling = Known(self.front_ends[1])
        self.front_ends[0].broker.siblings = self.sibling

    def stats(self) -> dict[str, str]:
        """Ask the first one for `stats`, and let the other one answer."""
        asked = len(self.sibling.asked)
        self.clients[0].post(b"stats\r\n")
        assert self.here.run(5, lambda: len(self.sibling.asked) > asked)
        self.sibling.answer()
        assert self.here.run(5, self.clients[0].answered)
        lines = self.clients[0].received.decode().split("---\n")[1].splitlines()
        return dict(line.split(": ", 1) for line in lines if line)


@pytest.fixture
def two(here: World) -> Two:
    return Two(here)


def test_stats_adds_up_what_all_workers_did(two: Two) -> None:
    for client in two.clients:
        client.ask(b"put 1 0 60 1\r\nx\r\n")
    stats = two.stats()
    assert (stats["cmd-put"], stats["total-jobs"], stats["current-connections"]) == ("2", "2", "2")
    assert (stats["current-producers"], stats["cmd-stats"], stats["total-connections"]) == ("2", "1", "2")
    assert list(stats)[-2:] == ["beanspiked-workers", "beanspiked-workers-counted"]
    assert (stats["beanspiked-workers"], stats["beanspiked-workers-counted"]) == ("2", "2")


def test_stats_waits_for_the_other_workers(two: Two) -> None:
    two.clients[0].post(b"stats\r\n")
    assert not two.here.run(5, two.clients[0].answered)
    two.sibling.answer()
    assert two.here.run(5, two.clients[0].answered)


# --- a worker's end of the channel


class Calls:
    """What an event loop was asked to call later."""

    def __init__(self) -> None:
        self.later: list[Callable[[], object]] = []

    def call_later(self, _: float, callback: Callable[[], object]) -> None:
        self.later.append(callback)


def test_a_worker_tells_of_itself_alone_when_its_parent_does_not_answer(here: World) -> None:
    broker = here.front_end().broker
    here.run(1)
    ours, theirs = pair()
    others = Others(3, Channel(theirs))
    calls = Calls()
    others.begin(broker, calls)  # type: ignore[arg-type]
    outcome = others.ask()
    message = ours.receive()
    assert message is not None
    assert (message.kind, message.numbers) == ("count", [1])
    assert not outcome.done
    calls.later[0]()
    assert outcome.done
    assert (others.answered, others.counters) == (0, [])
    # What comes too late belongs to no question.
    others.answer(1, 2, [7])
    assert others.counters == []
    ours.close()
    theirs.close()


@pytest.mark.parametrize("said", ["", "x", "99999"])
def test_what_is_no_channel_makes_no_worker(said: str) -> None:
    with pytest.raises(NoParentError):
        Worker(said)


def test_a_channel_on_which_nobody_says_hello_makes_no_worker() -> None:
    ours, theirs = pair()
    with pytest.raises(NoParentError):
        Worker(str(theirs.detach()))
    ours.close()


def test_a_descriptor_reaches_the_other_end_with_its_message() -> None:
    ours, theirs = pair()
    left, right = socket.socketpair()
    assert ours.send(HELLO, [1, -2], [left.fileno()])
    left.close()
    other = Channel(theirs)
    message = other.receive()
    assert message is not None
    assert (message.kind, message.numbers) == (HELLO, [1, -2])
    with socket.socket(fileno=message.descriptors[0]) as received:
        assert not received.get_inheritable()
        received.sendall(b"here")
    assert right.recv(10) == b"here"
    assert other.receive() is None
    ours.close()
    with pytest.raises(EOFError):
        other.receive()
    right.close()
    other.close()


def test_what_does_not_fit_is_not_sent() -> None:
    ours, theirs = pair()
    sent = 0
    while ours.send(HELLO, [sent]):
        sent += 1
    assert sent > 100
    other = Channel(theirs)
    for number in range(sent):
        message = other.receive()
        assert message is not None
        assert message.numbers == [number]
    ours.close()
    other.close()

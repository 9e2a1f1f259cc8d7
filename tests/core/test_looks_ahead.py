"""Looks at tubes that follow each other on one connection go to the store together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from failing import busy_for

from beanspiked.engine.aerospike.store.seam import Busy
from beanspiked.server.flow import LOOKS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from world import Client, World


def replies(client: Client, data: bytes, count: int, seconds: float = 30.0) -> list[bytes]:
    """Send commands together; return their replies."""
    client.post(data)
    found: list[bytes] = []
    while len(found) < count:
        assert client.front_end.world.run(seconds, client.answered), found
        found.append(client.take())
    assert not client.received
    return found


def counted(client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note for how many tubes or segments each call of one of the store's operations is."""
    made: list[int] = []
    store = client.front_end.engine.store
    operation = getattr(store, name)

    def counting(some: Sequence[Any]) -> Any:
        made.append(len(some))
        return operation(some)

    monkeypatch.setattr(store, name, counting)
    return made


def fill(client: Client, *names: str) -> None:
    for name in names:
        client.ask(b"use %b\r\n" % name.encode())
        client.put()


def looks(*names: str) -> bytes:
    return b"".join([b"stats-tube %b\r\n" % name.encode() for name in names])


def test_many_looks_take_few_calls_of_the_store(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"tube-{number}" for number in range(LOOKS_AT_ONCE + 20)]
    fill(client, *names)
    client.put()
    directories, sizes = [counted(client, name, monkeypatch) for name in ("directories", "sizes")]
    found = replies(client, looks(*names), len(names))
    for name, reply in zip(names, found, strict=True):
        assert f'name: "{name}"'.encode() in reply
        assert b"current-jobs-ready: %d\n" % (2 if name == names[-1] else 1) in reply
    assert directories == sizes == [LOOKS_AT_ONCE, 20]


def test_commands_behind_looks_come_after_them_in_order(client: Client) -> None:
    fill(client, "a", "b")
    after = b"list-tube-used\r\nput 0 0 60 1\r\nx\r\nstats-tube b\r\nstats-tube a\r\nno-command\r\n"
    found = replies(client, looks("a", "gone", "b", "b") + after, 9)
    assert [reply.split()[0] for reply in found] == [
        b"OK",
        b"NOT_FOUND",
        b"OK",
        b"OK",
        b"USING",
        b"INSERTED",
        b"OK",
        b"OK",
        b"UNKNOWN_COMMAND",
    ]
    ready = [int(reply.split(b"current-jobs-ready: ")[1].split()[0]) for reply in found if reply.startswith(b"OK")]
    assert ready == [1, 1, 1, 2, 1]


def test_a_look_that_fails_concerns_no_other(here: World, client: Client) -> None:
    fill(client, "a", "bad", "b")
    operation = here.cluster.directory

    def failing(name: str) -> Any:
        if name == "bad":
            raise Busy("14: key busy")
        return operation(name)

    here.cluster.directory = failing  # type: ignore[method-assign]
    found = replies(client, looks("a", "bad", "b"), 3)
    assert [reply.split()[0] for reply in found] == [b"OK", b"INTERNAL_ERROR", b"OK"]


@pytest.mark.parametrize(("leave", "answers"), [("hang_up", 0), ("half_close", 3)])
def test_a_client_may_leave_during_its_looks(here: World, client: Client, leave: str, answers: int) -> None:
    fill(client, "a", "b")
    here.cluster.directory = busy_for(here, 1.0, here.cluster.directory)  # type: ignore[method-assign]
    worker = client.front_end.connect()
    worker.post(looks("a", "b", "a") + b"list-tube-used\r\n")
    here.run(0.2)
    getattr(worker, leave)()
    here.run(10)
    assert worker.is_closed
    assert worker.received.count(b"OK ") == answers
    assert worker.received.endswith(b"USING default\r\n") == bool(answers)
    assert client.ask(b"stats-tube a\r\n").startswith(b"OK")


def test_where_the_whole_store_is_away_no_look_is_tried_again(here: World, client: Client) -> None:
    fill(client, "a", "b")
    here.down_until = here.time + 60
    here.run(3)
    asked_at = here.time
    assert set(replies(client, looks("a", "b", "a"), 3)) == {b"INTERNAL_ERROR\r\n"}
    assert here.time - asked_at < 3.5

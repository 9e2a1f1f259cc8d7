"""The engine on a shared store, as its clients see it when something in it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import world
from failing import always, any_failure, busy_for
from world import World

from beanspiked.engine.aerospike.store.seam import Busy, Refused


@pytest.mark.planted_bug
def test_a_bug_in_an_operation_leaves_no_command_without_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    here = World(1)
    client = here.front_end().connect()
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(here.cluster, "apply", broken)
    monkeypatch.setattr(world, "_apply", any_failure)
    assert client.ask(b"delete %d\r\n" % job_id) == b"INTERNAL_ERROR\r\n"


def test_a_body_that_no_record_can_hold_is_refused_and_other_puts_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    here = World(1)
    client = here.front_end().connect()
    keep = here.cluster.write_body

    def limited(number: int, body_number: int, body: bytes, form: int) -> None:
        if len(body) > 10_000:
            raise Refused("13: record too big")
        keep(number, body_number, body, form)

    monkeypatch.setattr(here.cluster, "write_body", limited)
    body = here.chance.randbytes(20_000)
    assert client.ask(b"put 0 0 60 %d\r\n%b\r\n" % (len(body), body)) == b"OUT_OF_MEMORY\r\n"
    client.put()


def test_a_full_store_refuses_puts_and_everything_can_be_deleted() -> None:
    here = World(1)
    client = here.front_end().connect()
    ids = [client.put() for _ in range(20)]
    here.cluster.roomy = False
    here.run(6.0)
    assert client.ask(b"put 0 0 60 1\r\nx\r\n") == b"OUT_OF_MEMORY\r\n"
    assert all(client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n" for job_id in ids)
    here.cluster.roomy = True
    here.run(6.0)
    client.put()


def test_a_store_that_cannot_be_reached_is_told_of_after_two_seconds_and_not_waited_for() -> None:
    here = World(1)
    client = here.front_end().connect()
    client.put()
    here.down_until = here.time + 60
    here.run(3.0)
    for command in (
        b"put 0 0 60 1\r\nx\r\n",
        b"reserve-with-timeout 0\r\n",
        b"peek-ready\r\n",
        b"stats-tube default\r\n",
    ):
        asked_at = here.time
        assert client.ask(command) == b"INTERNAL_ERROR\r\n"
        assert here.time - asked_at < 5
    here.run(70.0)
    assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


def test_a_front_end_comes_back_whatever_its_clients_asked_for_while_the_store_was_away() -> None:
    here = World(1)
    here.down_until = 8.0
    front_end = here.front_end()
    first, client = front_end.connect(), front_end.connect()
    first.post(b"put 0 0 60 1\r\nx\r\n")
    here.run(0.5)
    # This put fails in the middle of a walk over all tubes, and the commands behind it make new ones.
    uses = b"".join(b"use tube-%d\r\n" % number for number in range(20))
    client.post(b"put 0 0 60 1\r\nx\r\nlist-tubes-watched\r\n" + uses)
    here.run(20.0)
    assert client.received.startswith(b"INTERNAL_ERROR\r\nOK 14\r\n")
    assert client.received.endswith(b"USING tube-19\r\n")
    client.received = b""
    client.put()


@pytest.mark.parametrize("the_session_ends_first", [False, True])
def test_reserve_job_gives_no_job_of_a_session_that_ended_meanwhile(
    monkeypatch: pytest.MonkeyPatch, the_session_ends_first: bool
) -> None:
    here = World(1)
    front_end, other = here.front_end(), here.front_end()
    client, holder = front_end.connect(), front_end.connect()
    here.run(3.0)
    held = client.put()
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED")
    wanted = client.put()
    send = World.send

    def freezing(self: World, loop: Any, name: str, operation: Any) -> Any:
        result = send(self, loop, name, operation)
        if name == "shift" and loop is front_end.loop:
            front_end.freeze(14.0)
            if the_session_ends_first:
                # Its reply asks whether the session is alive, before the outcome of reserve-job is known.
                front_end.loop.call_soon(holder._receive, b"delete %d\r\n" % held)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(World, "send", freezing)
        client.post(b"reserve-job %d\r\n" % wanted)
        here.run(14.0)
    here.run(6.0)
    assert client.received == b"NOT_FOUND\r\n"
    assert other.connect().ask(b"reserve-job %d\r\n" % wanted).startswith(b"RESERVED")
    assert client.ask(b"delete %d\r\n" % wanted) == b"NOT_FOUND\r\n"


def test_a_reserve_of_a_segment_that_stays_busy_is_answered() -> None:
    here = World(1)
    client = here.front_end().connect()
    client.put()

    here.cluster.apply = always(Busy("14: key busy"))  # type: ignore[method-assign]
    client.post(b"reserve-with-timeout 0\r\n")
    here.run(5.0)
    assert client.received == b"INTERNAL_ERROR\r\n"


def test_a_command_of_a_segment_that_stays_busy_has_its_own_two_seconds() -> None:
    here = World(1)
    front_end = here.front_end()
    clients = [front_end.connect() for _ in range(3)]
    clients[0].put()
    here.cluster.apply = busy_for(here, 2.7, here.cluster.apply)  # type: ignore[method-assign]
    for client in clients:
        # The last two wait for the first one, and go out together when that has failed.
        client.post(b"put 0 0 60 1\r\nx\r\n")
        here.run(0.5)
    here.run(5.0)
    assert [client.received[:8] for client in clients] == [b"INTERNAL", b"INTERNAL", b"INSERTED"]


def test_a_job_that_cannot_be_given_back_keeps_nobody_waiting() -> None:
    here = World(1)
    front_end = here.front_end()
    client, leaving = front_end.connect(), front_end.connect()
    client.put()
    client.put()
    assert leaving.ask(b"reserve\r\n").startswith(b"RESERVED")
    apply = here.cluster.apply

    here.cluster.apply = always(Busy("14: key busy"))  # type: ignore[method-assign]
    leaving.hang_up()
    here.run(0.1)
    for command in (b"put 0 0 60 1\r\nx\r\n", b"reserve-with-timeout 0\r\n"):
        asked_at = here.time
        assert client.ask(command) == b"INTERNAL_ERROR\r\n"
        assert here.time - asked_at < 5
    here.cluster.apply = apply  # type: ignore[method-assign]
    here.run(1.0)
    for _ in range(2):
        assert client.ask(b"reserve-with-timeout 0\r\n").startswith(b"RESERVED")


def test_a_job_released_with_a_delay_comes_to_who_begins_to_wait_afterwards() -> None:
    here = World(1)
    client = here.front_end().connect()
    job_id = client.put()
    for _ in range(3):
        # The first of them looks; from then on the tube's news are followed.
        assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
        assert client.ask(b"release %d 0 1\r\n" % job_id) == b"RELEASED\r\n"
        released_at = here.time
        client.post(b"reserve\r\n")
        here.run(2.0)
        assert client.received.startswith(b"RESERVED"), here.time - released_at
        client.received = b""
        assert client.ask(b"release %d 0 0\r\n" % job_id) == b"RELEASED\r\n"


def test_whether_there_is_room_is_asked_as_much_is_put() -> None:
    here = World(1)
    client = here.front_end().connect()
    client.put()
    here.cluster.roomy = False
    body = here.chance.randbytes(60_000)
    put = b"put 0 0 60 %d\r\n%b\r\n" % (len(body), body)
    # Within a second, long before the next look at everything; four megabytes, and what comes until the answer is there.
    replies = [client.ask(put)[:3] for _ in range(100)]
    assert here.time < 3.0
    assert replies.count(b"OUT") > 20
    assert replies[-1] == b"OUT"


def test_one_look_for_room_is_enough_for_many_puts_at_once() -> None:
    here = World(1)
    client = here.front_end().connect()
    client.put()
    looks = 0
    room = here.cluster.room

    def counting() -> bool:
        nonlocal looks
        looks += 1
        return room()

    here.cluster.room = counting  # type: ignore[method-assign]
    body = here.chance.randbytes(60_000)
    # Five megabytes and more in one packet: each put beyond the fourth finds that it is time to look.
    client.post((b"put 0 0 60 %d\r\n%b\r\n" % (len(body), body)) * 90)
    here.run(0.5)
    assert client.received.count(b"INSERTED") == 90
    assert looks <= 2


def test_large_puts_at_once_take_their_numbers_together_and_no_body_is_removed_twice() -> None:
    here = World(1)
    client = here.front_end().connect()
    numbered: list[int] = []
    dropped: list[tuple[int, int]] = []
    number_bodies, drop_body = here.cluster.number_bodies, here.cluster.drop_body

    def numbering(number: int, lease: int, count: int) -> int:
        numbered.append(count)
        return number_bodies(number, lease, count)

    def dropping(name: tuple[int, int]) -> None:
        dropped.append(name)
        drop_body(name)

    here.cluster.number_bodies = numbering  # type: ignore[method-assign]
    put = b"put 0 0 60 2000\r\n" + here.chance.randbytes(2000) + b"\r\n"
    client.post(put * 100)
    here.run(2.0)
    assert client.received.count(b"INSERTED") == 100
    assert sum(numbered) <= 128
    for job_id in client.received.replace(b"INSERTED ", b"").split():
        client.post(b"delete %b\r\n" % job_id)
    here.run(2.0)
    here.cluster.drop_body = dropping  # type: ignore[method-assign]
    client.ask(b"use other\r\n")
    client.ask(b"watch other\r\n")
    client.ask(b"ignore default\r\n")
    client.front_end.inside(client.front_end.engine.tube("default").open.close)
    here.run(10.0)
    assert len(dropped) == len(set(dropped)) >= 100
    assert not here.cluster._bodies


@pytest.mark.parametrize("lives_for", [0.05, 3.0])
def test_what_a_short_lived_front_end_puts_is_found_soon(lives_for: float) -> None:
    here = World(1)
    waiting = here.front_end().connect()
    here.run(7.5)
    waiting.post(b"reserve\r\n")
    here.run(0.2)
    short = here.front_end()
    job_id = short.connect().put()
    here.run(lives_for)
    short.close()
    here.run(1.5)
    assert waiting.received.startswith(b"RESERVED %d " % job_id)

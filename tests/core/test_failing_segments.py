"""Segments whose operations fail, for long or for ever, while the rest of the store answers: as when a part of it cannot be reached."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import world
from failing import always, any_failure, busy_for, for_segment
from world import Client, World

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import DEAD, Busy, Full, Refused, TooBig, Unknown

PUT = b"put 0 0 60 1\r\nx\r\n"
RESERVE = b"reserve-with-timeout 0\r\n"
INTERNAL_ERROR = b"INTERNAL_ERROR\r\n"
OUT_OF_MEMORY = b"OUT_OF_MEMORY\r\n"


def segment_of(job_id: int) -> int:
    return job_id >> SLOT_BITS


def asked_in_time(here: World, client: Client, command: bytes) -> bytes:
    """Return the reply, which must come within little more than the two seconds that a store has to answer."""
    asked_at = here.time
    reply = client.ask(command)
    assert here.time - asked_at < 3.5
    return reply


def test_a_put_goes_to_another_segment(here: World, client: Client) -> None:
    first = segment_of(client.put())
    here.cluster.apply = for_segment(first, here.cluster.apply, Busy("11"))  # type: ignore[method-assign]
    asked_at = here.time
    assert segment_of(client.put()) != first
    assert here.time - asked_at < 1.5
    assert segment_of(client.put()) != first


def test_a_reserve_gets_the_job_of_another_segment(here: World, client: Client) -> None:
    apply = here.cluster.apply
    first = client.put(pri=1)
    here.cluster.apply = for_segment(segment_of(first), apply, Busy("11"))  # type: ignore[method-assign]
    other = client.put(pri=2)
    # Who asks first is told that a job may be there; then its segment is set aside.
    assert asked_in_time(here, client, RESERVE) == INTERNAL_ERROR
    here.run(2.0)
    assert asked_in_time(here, client, b"reserve-with-timeout 20\r\n").startswith(b"RESERVED %d " % other)
    assert asked_in_time(here, client, RESERVE) == INTERNAL_ERROR
    here.cluster.apply = apply  # type: ignore[method-assign]
    here.run(10.0)
    assert client.ask(RESERVE).startswith(b"RESERVED %d " % first)


def test_a_job_that_was_asked_for_somebody_else_is_waited_for(here: World, client: Client) -> None:
    other = here.front_end().connect()
    here.run(3.0)
    first, second = client.put(pri=1), other.put(pri=2)
    apply = here.cluster.apply
    slow = busy_for(here, 0.5, apply)
    here.cluster.apply = lambda number, *rest: (slow if number == segment_of(first) else apply)(number, *rest)  # type: ignore[method-assign]
    later = client.front_end.connect()
    client.post(RESERVE)
    later.post(RESERVE)
    here.run(2.0)
    # The first is asked for the one who came first, who gets the second, since that comes first.
    assert client.received.startswith(b"RESERVED %d " % second)
    assert later.received.startswith(b"RESERVED %d " % first)


def test_a_store_that_is_slow_and_answers_fails_nobody() -> None:
    here = World(1, latency=(0.4, 0.45))
    client, other = here.front_end().connect(), here.front_end().connect()
    here.run(10.0)
    asked_at = here.time
    job_id = client.put()
    assert other.ask(RESERVE).startswith(b"RESERVED %d " % job_id)
    assert other.ask(b"release %d 0 0\r\n" % job_id) == b"RELEASED\r\n"
    client.post(b"".join((PUT, RESERVE, b"reserve-with-timeout 1\r\n") * 4))
    here.run(30.0)
    assert client.received.count(b"INSERTED") == 4
    assert INTERNAL_ERROR not in client.received
    assert here.time - asked_at > 30


def test_a_look_finds_the_jobs_of_segments_that_answer(here: World, client: Client) -> None:
    other = here.front_end().connect()
    here.run(3.0)
    first = client.put(b"x" * 900)
    while segment_of(last := client.put(b"x" * 900, pri=5)) == segment_of(first):
        pass
    here.cluster.head = for_segment(segment_of(first), here.cluster.head, Busy("11"))  # type: ignore[method-assign]
    assert asked_in_time(here, other, b"reserve-with-timeout 9\r\n").startswith(b"RESERVED %d " % last)


def test_who_waits_when_a_segment_is_asked_again_is_answered_in_time(here: World, client: Client) -> None:
    other = here.front_end().connect()
    here.run(3.0)
    ids = [client.put(), other.put()]
    for job_id in ids:
        assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    head = here.cluster.head
    here.cluster.head = for_segment(segment_of(ids[0]), head, Busy("11"))  # type: ignore[method-assign]
    assert asked_in_time(here, other, RESERVE) == INTERNAL_ERROR
    here.cluster.head = head  # type: ignore[method-assign]
    here.run(2.5)
    assert asked_in_time(here, other, b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"


def test_one_who_waits_is_not_told_that_there_is_no_job(here: World, client: Client) -> None:
    client.put()
    here.cluster.apply = always(Busy("11"))  # type: ignore[method-assign]
    for _ in range(3):
        assert asked_in_time(here, client, b"reserve-with-timeout 5\r\n") == INTERNAL_ERROR


def test_nothing_waits_without_end_behind_an_operation_that_cannot_be_settled(here: World, client: Client) -> None:
    front_end = client.front_end
    first, second = client.put(), client.put()
    holder = front_end.connect()
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED %d " % first)
    number = segment_of(first)
    here.cluster.apply = for_segment(number, here.cluster.apply, Unknown("9"))  # type: ignore[method-assign]
    here.cluster.settle = for_segment(number, here.cluster.settle, Busy("11"))  # type: ignore[method-assign]
    in_doubt = front_end.connect()
    in_doubt.post(PUT)
    here.run(0.1)
    reserving = front_end.connect()
    reserving.post(RESERVE)
    assert asked_in_time(here, client, PUT).startswith(b"INSERTED")
    assert asked_in_time(here, holder, b"delete %d\r\n" % first) == INTERNAL_ERROR
    here.run(1.0)
    assert reserving.received
    assert second
    # Nobody knows whether this one was done.
    assert in_doubt.received == b""


def test_a_lease_that_cannot_be_had_keeps_no_reserve_waiting(here: World, client: Client) -> None:
    other = here.front_end().connect()
    here.run(3.0)
    client.put()
    here.cluster.attach = always(Busy("14"))  # type: ignore[method-assign]
    assert asked_in_time(here, other, RESERVE) == INTERNAL_ERROR


def test_a_body_that_cannot_be_read_keeps_no_reserve_waiting(here: World, client: Client) -> None:
    client.put(here.chance.randbytes(5000))
    here.cluster.read_body = always(Busy("11"))  # type: ignore[method-assign]
    assert asked_in_time(here, client, RESERVE) == INTERNAL_ERROR


def test_a_body_that_cannot_be_read_keeps_no_other_job_back(here: World, client: Client) -> None:
    client.put(here.chance.randbytes(5000))
    other = client.put(b"small", pri=5)
    here.cluster.read_body = always(Busy("11"))  # type: ignore[method-assign]
    # Two jobs are taken together.
    client.post(b"reserve-with-timeout 20\r\nreserve-with-timeout 0\r\n")
    second = client.front_end.connect()
    second.post(b"reserve-with-timeout 20\r\n")
    here.run(10.0)
    assert b"RESERVED %d " % other in client.received + second.received


def test_commands_that_name_a_job_on_its_way_are_answered(here: World, client: Client) -> None:
    job_id = client.put(ttr=2)
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    here.cluster.apply = always(Busy("14"))  # type: ignore[method-assign]
    here.run(5.0)
    for command in (b"delete %d\r\n", b"stats-job %d\r\n", b"release %d 0 0\r\n"):
        assert asked_in_time(here, client, command % job_id) == INTERNAL_ERROR


def test_a_busy_segment_is_not_tried_without_pause(here: World, client: Client) -> None:
    client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    tries = 0

    def busy(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise Busy("14")

    here.cluster.apply = busy  # type: ignore[method-assign, assignment]
    client.hang_up()
    here.run(60.0)
    assert 60 < tries < 300


@pytest.mark.planted_bug
def test_a_bug_in_a_reserve_job_leaves_no_command_without_a_reply(
    here: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = client.put()

    monkeypatch.setattr(world, "_apply", any_failure)
    here.cluster.shift = always(ZeroDivisionError())  # type: ignore[method-assign]
    assert asked_in_time(here, client, b"reserve-job %d\r\n" % job_id) == INTERNAL_ERROR


def test_reserve_job_is_tried_again_while_its_segment_is_busy(here: World, client: Client) -> None:
    job_id = client.put()
    here.cluster.shift = busy_for(here, 1.0, here.cluster.shift)  # type: ignore[method-assign]
    assert client.ask(b"reserve-job %d\r\n" % job_id).startswith(b"RESERVED")


def test_a_ring_that_is_full_of_living_segments_grows_while_clients_put() -> None:
    here = World(1, records=4)
    client = here.front_end().connect()
    here.run(2.0)
    for number in range(40):
        client.ask(b"use t%d\r\n" % number)
        asked_at = here.time
        client.put()
        assert here.time - asked_at < 0.2
    assert 64 <= here.cluster.reserve_places("segment", 1).size <= 256


def test_a_segment_that_finds_no_place_at_all_is_told_of_and_not_looked_for_without_pause(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    client = here.front_end().connect()
    here.run(2.0)
    tries = 0

    def refusing(*_: Any) -> None:
        nonlocal tries
        tries += 1
        raise Refused("27")

    here.cluster.create = refusing  # type: ignore[method-assign]
    assert asked_in_time(here, client, PUT) == OUT_OF_MEMORY
    assert tries == 32
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the store has no room; puts are refused until it has: 32 records of segments in a row are in use"
    ]


@pytest.mark.parametrize("failing", ["enlist", "list_page"])
def test_a_directory_that_is_full_is_told_of_once_and_leaves_no_segment_behind(
    here: World, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    client, other = [here.front_end().connect() for _ in range(2)]
    here.run(2.0)
    if failing == "list_page":
        here.cluster.inline_max = 0
    works = getattr(here.cluster, failing)
    setattr(here.cluster, failing, always(TooBig("13: record too big")))
    for _ in range(5):
        assert asked_in_time(here, client, PUT) == OUT_OF_MEMORY
        here.run(2.0)
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == [
        "the directory of tube default, or its shard, is full; puts into it are refused: 13: record too big"
    ]
    assert {record.state for record in here.cluster._segments.values()} == {DEAD}
    setattr(here.cluster, failing, works)
    other.put()
    client.put()


def test_a_large_put_into_a_full_store_is_told_so(here: World, client: Client) -> None:
    client.put()
    here.cluster.write_body = here.cluster.number_bodies = always(Full("8"))  # type: ignore[method-assign]
    body = here.chance.randbytes(5000)
    assert client.ask(b"put 0 0 60 5000\r\n" + body + b"\r\n") == b"OUT_OF_MEMORY\r\n"
    assert not client.front_end.engine.room.left


def test_a_record_that_would_be_too_large_lets_its_jobs_stay(here: World, client: Client) -> None:
    first = client.put()
    holder = client.front_end.connect()
    assert holder.ask(b"reserve\r\n").startswith(b"RESERVED")
    apply = here.cluster.apply

    def limited(number: int, lease: int, change: Any) -> Any:
        if change.puts and number == segment_of(first):
            raise Refused("13: record too big")
        return apply(number, lease, change)

    here.cluster.apply = limited  # type: ignore[method-assign]
    assert segment_of(client.put()) != segment_of(first)
    assert holder.ask(b"delete %d\r\n" % first) == b"DELETED\r\n"


def test_a_segment_stays_small_when_small_jobs_go_and_large_ones_stay(here: World, client: Client) -> None:
    large = b"put 100 0 60 1024\r\n" + b"y" * 1024 + b"\r\n"

    def size(record: Any) -> int:
        places = (*record.queues.values(), *record.leases.values())
        return sum(len(key) + len(packed) for entries in places for key, packed in entries.items())

    for _ in range(30):
        client.post(large * 10 + PUT * 50)
        here.run(1.0)
        client.received = b""
        client.post(b"reserve\r\n" * 50)
        here.run(1.0)
        small = re.findall(rb"RESERVED (\d+) 1\r", client.received)
        assert len(small) == 50
        client.post(b"".join(b"delete %b\r\n" % job_id for job_id in small))
        here.run(1.0)
        client.received = b""
    assert max(size(record) for record in here.cluster._segments.values()) < 140_000


def test_a_segment_whose_closing_was_in_doubt_is_closed(here: World, client: Client) -> None:
    apply = here.cluster.apply
    lost: list[int] = []

    def losing(number: int, lease: int, change: Any) -> Any:
        if change.close and not (change.puts or change.moves or change.take) and not lost:
            lost.append(number)
            raise Unknown("9: never arrived")
        return apply(number, lease, change)

    here.cluster.apply = losing  # type: ignore[method-assign]
    for _ in range(300):
        client.put(b"y" * 1000)
    for _ in range(300):
        job_id = int(client.ask(b"reserve\r\n").split()[1])
        assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    client.front_end.connect().post(b"reserve\r\n")
    here.run(120.0)
    assert lost
    open_now = client.front_end.engine.tube("default").open
    assert {r.number for r in here.cluster._segments.values() if r.state != DEAD} == {open_now.number}


def test_errors_are_forgotten_however_many_commands_fail_at_once(here: World) -> None:
    front_end = here.front_end()
    clients = [front_end.connect() for _ in range(20)]
    job_id = clients[0].put()
    contexts: list[int] = []

    def failing(*_: object) -> Any:
        error = sys.exc_info()[1]
        contexts.append(0)
        while error is not None:
            contexts[-1] += 1
            error = error.__context__
        raise Busy("14")

    read, apply = here.cluster.read, here.cluster.apply
    for _ in range(8):
        here.cluster.read = here.cluster.apply = failing  # type: ignore[method-assign]
        for number, client in enumerate(clients):
            client.post(b"peek %d\r\n" % job_id if number % 2 else PUT)
        here.run(5.0)
        here.cluster.read, here.cluster.apply = read, apply  # type: ignore[method-assign]
        here.run(5.0)
    # An error that a compiled coroutine waits in an `except` for would be in the context of all that follow, for ever.
    assert max(contexts) < 5


def test_a_segment_that_cannot_be_listed_is_not_entered_all_the_time(here: World, client: Client) -> None:
    here.run(1.0)
    entered: list[str] = []

    def busy(tube: str, _: int) -> None:
        entered.append(tube)
        raise Busy("18: device overload")

    enlist, here.cluster.enlist = here.cluster.enlist, busy  # type: ignore[method-assign]
    assert client.ask(b"put 0 0 60 1\r\nx\r\n", 3.0) == b"INTERNAL_ERROR\r\n"
    here.run(20.0)
    assert len(entered) < 100
    here.cluster.enlist = enlist  # type: ignore[method-assign]
    client.put()

"""Two versions side by side: what is of a newer format is left alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from versions import AGREED, NEXT, NEXT_FORM

from beanspiked.engine.aerospike.segment.codec import FORMATS, Packed, pack
from beanspiked.engine.aerospike.store import formats
from beanspiked.engine.aerospike.store.keys import RING_MAX, SLOT_BITS, job_slot, lease_key
from beanspiked.engine.aerospike.store.seam import BURIED, DEAD, DELAYED, FIRST, READY, Busy, Damaged, Newer
from beanspiked.engine.errors import DamagedEntry, NewerEntry

if TYPE_CHECKING:
    from world import Client, FrontEnd, World

    from beanspiked.engine.aerospike.store.seam import Change, Outcome

INTERNAL_ERROR = b"INTERNAL_ERROR\r\n"


def test_this_version_knows_the_same_formats_of_records_and_of_jobs() -> None:
    assert FORMATS.newest == formats.NEWEST


def test_a_job_of_a_later_format_is_packed_and_taken_apart_by_what_was_given_for_it() -> None:
    job = Packed(1, 2, 3, 4, b"body", form=NEXT_FORM)
    packed = NEXT.pack(job)
    assert NEXT.unpack(packed).body == b"body"
    assert NEXT.unpack(packed).form == NEXT_FORM
    assert (NEXT.knows(packed), FORMATS.knows(packed)) == (True, False)


@pytest.mark.parametrize("first_byte", [0x40, 0x42, 0x80, 0xFF])
def test_a_job_of_a_format_that_is_not_known_is_newer_and_not_damaged(first_byte: int) -> None:
    packed = bytes([first_byte]) + pack(Packed(1, 2, 3, 4, b"body"))[1:]
    for known in (FORMATS, NEXT):
        if not known.knows(packed):
            with pytest.raises(NewerEntry):
                known.unpack(packed)


def test_a_job_too_short_for_any_format_is_damaged() -> None:
    for packed in (b"", b"\x00"):
        with pytest.raises(DamagedEntry) as raised:
            FORMATS.unpack(packed)
        assert not isinstance(raised.value, NewerEntry)


# --- records


def test_a_record_without_a_number_is_of_the_first_format() -> None:
    assert formats.form({}) == FIRST


@pytest.mark.parametrize(("value", "error"), [(formats.NEWEST + 1, Newer), ("1", Damaged)])
def test_a_record_of_a_newer_format_is_not_damaged(value: object, error: type[Damaged]) -> None:
    with pytest.raises(Damaged) as raised:
        formats.form({"f": value})
    assert type(raised.value) is error


def test_a_newer_record_is_told_of_once_and_as_no_error(caplog: pytest.LogCaptureFixture) -> None:
    aside = formats.SetAside()
    for _ in range(3):
        aside.read("the news of session 7", lambda: formats.blob({"f": 9, "news": b""}, "news"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "format 9" in record.getMessage()


def test_of_a_newer_session_what_it_announces_is_known_and_nothing_else() -> None:
    bins = {"f": 9, "reads": 9, "writes": 8, "dead": 1, "payload": b"x", "silent": 20_000}
    record = formats.session(5, 0, bins, formats.SetAside())
    assert (record.newer, record.reads, record.writes) == (True, 9, 8)
    assert (record.dead, record.payload) == (False, b"")


def test_a_session_that_announces_nothing_reads_the_first_format() -> None:
    record = formats.session(5, 0, {"dead": 0, "payload": b"", "silent": 0}, formats.SetAside())
    assert (record.newer, record.reads, record.writes) == (False, FIRST, FIRST)


# --- a job of a newer format in a segment that can be read


def of_next_version(here: World, job_id: int, queue: str) -> bytes:
    """Have a newer version change a job; return what stands there then."""
    entries = here.cluster.segment(job_id >> SLOT_BITS).queues[queue]
    (key,) = [key for key in entries if job_slot(key) == job_id & ((1 << SLOT_BITS) - 1)]
    job = FORMATS.unpack(entries[key])
    job.form = NEXT_FORM
    entries[key] = NEXT.pack(job)
    return entries[key]


def stands(here: World, job_id: int, queue: str, packed: bytes) -> bool:
    return packed in here.cluster.segment(job_id >> SLOT_BITS).queues[queue].values()


def operations(here: World, front_end: FrontEnd, seconds: float) -> int:
    """Count what a front-end asks of the store."""
    send, count = here.send, 0

    def counting(loop: object, name: str, operation: object) -> object:
        nonlocal count
        count += loop is front_end.loop and name not in ("news", "head")
        return send(loop, name, operation)  # type: ignore[arg-type]

    here.send = counting  # type: ignore[method-assign, assignment]
    here.run(seconds)
    here.send = send  # type: ignore[method-assign]
    return count


def test_it_is_not_given_out_nor_buried_and_its_neighbours_are_given_out(here: World, client: Client) -> None:
    job_id, others = client.put(), [client.put() for _ in range(3)]
    packed = of_next_version(here, job_id, READY)
    for other in others:
        assert client.ask(b"reserve-with-timeout 1\r\n").startswith(b"RESERVED %d " % other)
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert client.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"
    assert stands(here, job_id, READY, packed)
    assert client.stats("stats-tube default")["current-jobs-ready"] == "1"


def test_it_comes_to_who_knows_its_format(here: World, client: Client) -> None:
    newer = here.front_end(formats=NEXT).connect()
    here.run(3.0)
    job_id = client.put(b"body")
    of_next_version(here, job_id, READY)
    client.post(b"reserve\r\n")
    here.run(0.5)
    newer.post(b"reserve\r\n")
    assert here.run(1.0, newer.answered)
    assert newer.take() == b"RESERVED %d 4\r\nbody\r\n" % job_id
    assert not client.answered()


def test_it_comes_to_who_waits_for_it_while_another_front_end_gives_it_back_unread(here: World, client: Client) -> None:
    newer = here.front_end(formats=NEXT).connect()
    here.run(3.0)
    job_id = client.put(b"body")
    of_next_version(here, job_id, READY)
    apply, free_at = here.cluster.apply, here.time + 0.5

    def busy(number: int, lease: int, change: Change) -> Outcome:
        if change.moves and here.time < free_at:
            raise Busy("14: key busy")
        return apply(number, lease, change)

    here.cluster.apply = busy  # type: ignore[method-assign]
    client.post(b"reserve\r\n")
    here.run(0.2)
    newer.post(b"reserve\r\n")
    assert here.run(2.0, newer.answered)
    assert here.time > free_at
    assert newer.take() == b"RESERVED %d 4\r\nbody\r\n" % job_id


def test_who_waits_beside_it_costs_no_more_than_usual(here: World, client: Client) -> None:
    job_id = client.put()
    of_next_version(here, job_id, READY)
    client.post(b"reserve\r\n")
    here.run(5.0)
    assert operations(here, client.front_end, 10.0) < 60
    other = client.front_end.connect()
    other_id = other.put()
    assert here.run(1.0, client.answered)
    assert client.take().startswith(b"RESERVED %d " % other_id)


def test_a_due_one_stays_where_it_is_and_the_others_become_ready(here: World, client: Client) -> None:
    job_id, other = client.put(delay=2), client.put(delay=3)
    packed = of_next_version(here, job_id, DELAYED)
    assert client.ask(b"reserve-with-timeout 9\r\n").startswith(b"RESERVED %d " % other)
    assert client.stats("stats-tube default")["current-jobs-delayed"] == "1"
    assert client.ask(b"peek-delayed\r\n") == b"NOT_FOUND\r\n"
    client.post(b"reserve\r\n")
    here.run(5.0)
    assert operations(here, client.front_end, 10.0) < 60
    assert stands(here, job_id, DELAYED, packed)


def test_a_due_job_beside_one_can_be_looked_at_by_its_id(here: World, client: Client) -> None:
    job_id, other = client.put(delay=1), client.put(delay=1)
    of_next_version(here, job_id, DELAYED)
    here.run(2.0)
    assert client.stats(f"stats-job {other}")["state"] == "ready"


def test_a_buried_one_stays_buried(here: World, client: Client) -> None:
    job_id, other = client.buried(), client.buried()
    packed = of_next_version(here, job_id, BURIED)
    assert client.ask(b"peek-buried\r\n").startswith(b"FOUND %d " % other)
    assert client.ask(b"kick 10\r\n") == b"KICKED 1\r\n"
    assert client.ask(b"kick 10\r\n") == b"KICKED 0\r\n"
    assert stands(here, job_id, BURIED, packed)


@pytest.mark.parametrize("queue", [READY, DELAYED, BURIED])
@pytest.mark.parametrize("command", [b"peek", b"stats-job", b"kick-job", b"reserve-job", b"delete"])
def test_nothing_is_done_to_it_by_its_id(here: World, client: Client, command: bytes, queue: str) -> None:
    job_id = client.buried() if queue == BURIED else client.put(delay=1 if queue == DELAYED else 0)
    packed = of_next_version(here, job_id, queue)
    here.run(2.0)
    assert client.ask(b"%b %d\r\n" % (command, job_id)) == INTERNAL_ERROR
    assert stands(here, job_id, queue, packed)


def test_it_is_told_of_once(here: World, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    job_id = client.put()
    of_next_version(here, job_id, READY)
    for _ in range(3):
        client.ask(b"reserve-with-timeout 1\r\n")
        client.ask(b"peek-ready\r\n")
    told = [record for record in caplog.records if f"job {job_id}" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]


def test_one_whose_body_is_of_a_newer_format_is_not_lost(here: World, client: Client) -> None:
    job_id, other = client.put(here.chance.randbytes(5000)), client.put()
    here.cluster._body_forms[job_id >> SLOT_BITS, 1] = NEXT_FORM
    assert client.ask(b"reserve-with-timeout 9\r\n").startswith(b"RESERVED %d " % other)
    assert client.ask(b"peek %d\r\n" % job_id) == INTERNAL_ERROR
    client.post(b"reserve\r\n")
    here.run(5.0)
    assert operations(here, client.front_end, 10.0) < 60
    assert here.front_end(formats=NEXT).connect().stats("stats-tube default")["current-jobs-ready"] == "1"


# --- a segment of a newer format


def newer_segment(here: World, body: bytes = b"body") -> tuple[Client, Client, int]:
    """Let a newer front-end put a job, and a front-end of this version start afterwards."""
    newer = here.front_end(formats=NEXT).connect()
    here.run(AGREED)
    job_id = newer.put(body)
    assert here.cluster.segment(job_id >> SLOT_BITS).form == NEXT_FORM
    older = here.front_end().connect()
    here.run(AGREED)
    return newer, older, job_id


def test_its_jobs_are_for_who_knows_it(here: World) -> None:
    newer, older, job_id = newer_segment(here)
    assert older.ask(b"reserve-with-timeout 1\r\n") == b"TIMED_OUT\r\n"
    assert older.stats("stats-tube default")["current-jobs-ready"] == "0"
    for command in (b"peek", b"delete", b"reserve-job", b"kick-job"):
        assert older.ask(b"%b %d\r\n" % (command, job_id)) == INTERNAL_ERROR
    assert newer.ask(b"reserve-with-timeout 1\r\n") == b"RESERVED %d 4\r\nbody\r\n" % job_id


def test_a_large_body_goes_with_it(here: World) -> None:
    body = here.chance.randbytes(5000)
    newer, _, job_id = newer_segment(here, body)
    assert set(here.cluster._body_forms.values()) == {NEXT_FORM}
    assert newer.ask(b"reserve-with-timeout 1\r\n") == b"RESERVED %d 5000\r\n%b\r\n" % (job_id, body)


def test_it_is_not_deleted_with_its_tube_and_all_else_of_it_is(here: World) -> None:
    _, older, job_id = newer_segment(here)
    other = older.put()
    tube = older.front_end.engine.tube("default")
    failed: list[object] = []

    def delete() -> None:
        later = older.front_end.engine.delete_tube(tube)
        assert later is not None
        later.then(lambda done: failed.append(done.error))

    older.front_end.inside(delete)
    here.run(2.0)
    assert isinstance(failed[0], Newer)
    assert here.cluster.segment(job_id >> SLOT_BITS).queues[READY]
    assert older.ask(b"peek %d\r\n" % other) == b"NOT_FOUND\r\n"


def test_its_record_is_not_used_again_by_who_does_not_know_it(here: World) -> None:
    _, _, job_id = newer_segment(here)
    number = job_id >> SLOT_BITS
    here.cluster.segment(number).state = DEAD
    again = number + RING_MAX
    with pytest.raises(Exception, match="in use"):
        here.cluster.create(again, "t", lease_key(1, 1), FIRST, 0, FIRST)
    here.cluster.create(again, "t", lease_key(1, 1), FIRST, 0, NEXT_FORM)


def test_what_a_newer_front_end_held_when_it_died_a_newer_one_gives_back(here: World) -> None:
    newer, _, job_id = newer_segment(here)
    assert newer.ask(b"reserve\r\n").startswith(b"RESERVED")
    number = newer.front_end.engine.membership.session.number
    newer.front_end.kill()
    here.run(200.0)
    assert number in here.cluster.listed_sessions()
    assert here.cluster.segment(job_id >> SLOT_BITS).held() == 1
    last = here.front_end(formats=NEXT).connect()
    assert last.ask(b"reserve-with-timeout 30\r\n", 40.0) == b"RESERVED %d 4\r\nbody\r\n" % job_id


def test_a_session_whose_record_is_newer_is_declared_dead_by_who_knows_it(here: World) -> None:
    here.front_end(formats=NEXT)
    here.run(AGREED)
    dying = here.front_end(formats=NEXT)
    here.run(AGREED)
    number = dying.engine.membership.session.number
    assert here.cluster._sessions[number].form == NEXT_FORM
    here.front_ends[0].kill()
    dying.kill()
    older = here.front_end()
    here.run(60.0)
    assert older.engine.membership.alive()
    assert not here.cluster._sessions[number].dead
    here.front_end(formats=NEXT)
    here.run(30.0)
    assert here.cluster._sessions[number].dead

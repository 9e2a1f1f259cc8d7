"""A fault stays with its thing: one damaged job, one bug in a call, concern one job or one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulated import Client, HandJournal, VirtualAlarm, keep

from beanspiked.engine.compression import squeeze
from beanspiked.engine.contract import PLAIN, Details
from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timed

if TYPE_CHECKING:
    from simulated import Wire

    from beanspiked.engine.contract import Job

RESERVED = b"RESERVED %d 1\r\nx\r\n"
DAMAGED = b"\xf0\xf0\xf0\xf0"


class ReadJournal(HandJournal):
    """What was read from a file, in which some bodies were damaged."""

    def __init__(self, wire: Wire, delay: float = 0.0, damaged: tuple[int, ...] = (1,), count: int = 3) -> None:
        super().__init__(wire)
        rows = []
        for job_id in range(1, count + 1):
            raw_size, body = (3, DAMAGED) if job_id in damaged else (PLAIN, b"x")
            state = 1 if delay else 0
            times = (delay, 60.0, wire.clock.time, wire.clock.time + delay)
            rows.append((job_id, "default", state, 0, *times, body, *[0] * 5, "", "", 0, 0, raw_size))
        wire.engine = EmbeddedEngine(wire.timers, wire.broker, self)
        wire.broker.engine = wire.engine
        wire.engine.load([rows], [], count)  # type: ignore[list-item]


def test_a_damaged_job_is_buried_when_its_turn_comes_and_the_next_one_is_given(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    ReadJournal(wire)
    client = wire.connect()
    assert client.send(b"reserve\r\n") == RESERVED % 2
    assert not client.is_closed
    assert client.stats("stats-job 1")["state"] == "buried"
    assert caplog.text.count("job 1 of tube default is buried, because its body is damaged") == 1


def test_a_damaged_job_that_comes_due_stops_no_timer(wire: Wire) -> None:
    ReadJournal(wire, delay=5.0)
    worker, other = wire.connect(), wire.connect()
    worker.send(b"reserve-with-timeout 8\r\n")
    other.send(b"watch others\r\nignore default\r\nreserve-with-timeout 6\r\n")
    other.take()
    wire.advance(5)
    assert worker.take() == RESERVED % 2
    wire.advance(1)
    assert other.take() == b"TIMED_OUT\r\n"


def test_a_tube_of_damaged_jobs_has_none_for_anybody(wire: Wire) -> None:
    ReadJournal(wire, damaged=(1, 2, 3))
    client = wire.connect()
    assert client.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert client.stats("stats-tube default")["current-jobs-buried"] == "3"


@pytest.mark.parametrize("command", [b"peek 1", b"peek-ready", b"reserve-job 1"])
def test_who_asks_for_a_damaged_body_is_told_so_and_stays_connected(wire: Wire, command: bytes) -> None:
    ReadJournal(wire)
    client = wire.connect()
    assert client.send(command + b"\r\nlist-tube-used\r\n") == b"INTERNAL_ERROR\r\nUSING default\r\n"
    assert client.stats("stats-job 1")["state"] == "ready"


def test_a_damaged_job_can_be_deleted(wire: Wire) -> None:
    journal = ReadJournal(wire)
    client = wire.connect()
    client.send(b"delete 1\r\n")
    journal.commit()
    assert client.take() == b"DELETED\r\n"


def test_what_was_to_be_proven_is_forgotten_once_it_is_or_the_job_is_gone(wire: Wire) -> None:
    journal = ReadJournal(wire, damaged=(1, 2, 3), count=4)
    for job_id in (1, 2):
        job = wire.engine.find_job(job_id)
        assert job is not None
        job.body, raw_size, _ = squeeze(b"x" * 1000)
        job.details = Details(raw_size=raw_size)
    client = wire.connect()
    assert wire.engine._unproven == {1, 2, 3}
    assert client.send(b"reserve\r\n").startswith(b"RESERVED 1 1000\r\n")
    assert wire.engine._unproven == {2, 3}
    client.send(b"delete 2\r\ndelete 3\r\n")
    journal.commit()
    assert wire.engine._unproven == set()


def test_a_damaged_job_that_is_kicked_is_buried_again(wire: Wire) -> None:
    journal = ReadJournal(wire, count=1)
    client = wire.connect()
    assert client.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    client.send(b"kick 5\r\n")
    journal.commit()
    assert client.take() == b"KICKED 1\r\n"
    assert client.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert client.stats("stats-job 1")["buries"] == "2"


# --- bugs


class Broken(Timed):
    """A bug in a call at a time."""

    calls = 0

    def on_time(self, now: float) -> None:  # noqa: ARG002 - the timer's signature
        self.calls += 1
        raise RuntimeError("a bug")


@pytest.mark.planted_bug
def test_a_bug_in_a_timer_holds_up_no_other_and_is_tried_again_later(wire: Wire) -> None:
    worker = wire.connect()
    broken = Broken(wire.timers.new_id())
    wire.timers.schedule(broken, wire.clock.time + 1)
    worker.send(b"reserve-with-timeout 1\r\n")
    wire.advance(1)
    assert worker.take() == b"TIMED_OUT\r\n"
    assert broken.calls == 1
    wire.advance(2)
    assert broken.calls == 3


@pytest.mark.planted_bug
def test_a_bug_in_the_timer_of_a_connection_ends_this_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    unlucky, worker = wire.connect(), wire.connect()
    job_id = unlucky.put(ttr=1)
    unlucky.send(b"reserve\r\n")
    worker.send(b"reserve-with-timeout 2\r\n")
    give_back = wire.engine.give_back

    def fail_once(job: object, timed_out: bool) -> None:
        monkeypatch.setattr(wire.engine, "give_back", give_back)
        give_back(job, timed_out)  # type: ignore[arg-type]
        raise RuntimeError("a bug")

    if not hasattr(wire.engine, "__dict__"):
        pytest.skip("a compiled engine takes no bug from a test")
    monkeypatch.setattr(wire.engine, "give_back", fail_once)
    wire.advance(1)
    assert unlucky.take() == b"INTERNAL_ERROR\r\n"
    assert unlucky.is_closed
    assert worker.take() == RESERVED % job_id


@pytest.mark.planted_bug
@pytest.mark.parametrize("held", [False, True], ids=["before it is held", "once it is held"])
def test_a_job_that_a_bug_keeps_from_one_who_waits_goes_to_the_next_one_alone(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    unlucky, worker, last = wire.connect(), wire.connect(), wire.connect()
    holds = unlucky.flow.session.holds
    if not hasattr(holds, "__dict__"):
        pytest.skip("compiled holds take no bug from a test")
    for client in (unlucky, worker, last):
        client.send(b"reserve\r\n")
    add = holds.add

    def fail(job: Job) -> None:
        if held:
            add(job)
        raise RuntimeError("a bug")

    monkeypatch.setattr(holds, "add", fail)
    wire.connect().put()
    assert unlucky.take() == b"INTERNAL_ERROR\r\n"
    assert unlucky.is_closed
    assert worker.take() == RESERVED % 1
    assert last.take() == b""


@pytest.mark.planted_bug
def test_a_bug_in_what_follows_a_change_holds_up_nobody_else() -> None:
    heard: list[int] = []
    later = Later()

    def broken(_: Later) -> None:
        raise RuntimeError("a bug")

    later.then(broken)
    later.then(lambda _: heard.append(1))
    later.settle()
    later.then(broken)
    later.then(lambda _: heard.append(2))
    assert heard == [1, 2]


@pytest.mark.planted_bug
def test_a_bug_in_an_outcome_leaves_no_reply_out_for_ever(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = HandJournal(wire)
    keep(wire, journal)
    unlucky, other = wire.connect(), wire.connect()
    unlucky.flow.receive(b"put 0 0 9 1\r\nx\r\n")
    other.flow.receive(b"put 0 0 9 1\r\nx\r\n")
    wire.broker.end_turn()
    if not hasattr(unlucky.flow.session.out, "__dict__"):
        pytest.skip("a compiled session takes no bug from a test")

    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(unlucky.flow.session.out, "_drain", broken)
    journal.commit()
    assert unlucky.is_closed
    assert unlucky.take() == b"INTERNAL_ERROR\r\n"
    assert other.take() == b"INSERTED 2\r\n"


@pytest.mark.planted_bug
def test_a_bug_in_the_end_of_a_connection_with_a_bug_holds_up_nobody_else(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky, other = wire.connect(), wire.connect()
    session = unlucky.flow.session
    if not hasattr(session, "__dict__"):
        pytest.skip("a compiled session takes no bug from a test")

    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(session, "close", broken)
    monkeypatch.setattr(session.out, "flush", broken)
    unlucky.flow.receive(b"list-tube-used\r\n")
    other.flow.receive(b"list-tube-used\r\n")
    wire.broker.end_turn()
    assert unlucky.is_closed
    assert other.take() == b"USING default\r\n"


class Deaf(Client):
    """A sink that fails."""

    def write(self, data: bytes) -> None:
        raise OSError(f"a bug with {data!r}")


@pytest.mark.planted_bug
def test_a_turn_ends_and_is_called_again_whatever_fails_in_it(wire: Wire) -> None:
    deaf, worker = Deaf(wire), wire.connect()
    worker.send(b"reserve-with-timeout 3\r\n")
    assert isinstance(wire.broker.alarm, VirtualAlarm)
    deaf.flow.receive(b"list-tube-used\r\n")
    wire.broker.end_turn()
    assert deaf.is_closed
    assert worker.send(b"") == b""
    wire.advance(3)
    assert worker.take() == b"TIMED_OUT\r\n"


# --- late calls


class HeardFirst(VirtualAlarm):
    """Has a client's bytes in its socket, which are read before anything is called late."""

    def __init__(self, client: Client, data: bytes) -> None:
        super().__init__()
        self.client = client
        self.data = data

    def hear(self) -> None:
        data, self.data = self.data, b""
        self.client.flow.receive(data)


@pytest.mark.parametrize(("command", "reply"), [(b"delete %d", b"DELETED"), (b"touch %d", b"TOUCHED")])
def test_what_a_holder_sent_in_time_is_read_before_its_job_times_out(wire: Wire, command: bytes, reply: bytes) -> None:
    holder, worker = wire.connect(), wire.connect()
    job_id = holder.put(ttr=2)
    holder.send(b"reserve\r\n")
    worker.send(b"reserve\r\n")
    wire.broker.alarm = HeardFirst(holder, command % job_id + b"\r\n")
    wire.clock.time += 3
    wire.broker.on_alarm()
    assert holder.take() == reply + b"\r\n"
    assert worker.take() == b""


def test_a_put_that_came_in_time_is_read_before_the_reserve_times_out(wire: Wire) -> None:
    worker, producer = wire.connect(), wire.connect()
    worker.send(b"reserve-with-timeout 1\r\n")
    wire.broker.alarm = HeardFirst(producer, b"put 0 0 9 1\r\nx\r\n")
    wire.clock.time += 3
    wire.broker.on_alarm()
    assert worker.take() == RESERVED % 1

"""What concerns very many jobs goes on in slices: others are served meanwhile, and in the end all of it is done."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from simulated import HandJournal, keep

from beanspiked.engine.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulated import Client, Wire

MANY = 5000
# How far the clock goes on whenever somebody looks at it, in seconds.
TICK = 0.004
# No more than so many jobs move between two commands of somebody else.
SLICE = 1000


@pytest.fixture
def slow(wire: Wire) -> Wire:
    """A wire whose clock goes on: a turn ends when it has lasted for long enough."""
    wire.clock.tick = TICK
    return wire


def reserve(client: Client, count: int) -> None:
    client.send(b"reserve\r\n" * count)


def bury_all(client: Client, count: int) -> list[int]:
    ids = [client.put() for _ in range(count)]
    reserve(client, count)
    client.send(b"".join(b"bury %d 0\r\n" % job_id for job_id in ids))
    client.take()
    return ids


def in_turns(wire: Wire, read: str, client: Client) -> Iterator[int]:
    """Let a turn follow the other, and tell what `stats` says of `read` after each."""
    while True:
        yield int(client.stats_now("stats")[read])
        if not wire.turn():
            return


def moves_in_slices(wire: Wire, client: Client, read: str, total: int) -> None:
    numbers = list(in_turns(wire, read, client))
    steps = [abs(after - before) for before, after in itertools.pairwise(numbers)]
    assert numbers[-1] == total
    assert len(steps) > MANY // SLICE
    assert max(steps) <= SLICE


def test_who_hangs_up_gives_many_jobs_back_in_slices(slow: Wire) -> None:
    holder, other = slow.connect(), slow.connect()
    for _ in range(MANY):
        holder.put()
    reserve(holder, MANY)
    holder.flow.close()
    slow.broker.end_turn()
    assert slow.broker.leaving == 1
    moves_in_slices(slow, other, "current-jobs-ready", MANY)
    assert slow.broker.leaving == 0


def test_who_hangs_up_leaves_many_tubes_in_slices(slow: Wire) -> None:
    watcher, other = slow.connect(), slow.connect()
    watcher.send(b"".join(b"watch t%d\r\n" % number for number in range(MANY)))
    watcher.flow.close()
    slow.broker.end_turn()
    moves_in_slices(slow, other, "current-tubes", 1)


def test_many_jobs_that_are_due_at_once_become_ready_in_slices(slow: Wire) -> None:
    client = slow.connect()
    slow.clock.tick = 0
    for _ in range(MANY):
        client.put(delay=10)
    slow.clock.time += 11
    slow.clock.tick = TICK
    slow.broker.on_alarm()
    moves_in_slices(slow, client, "current-jobs-ready", MANY)


def test_many_jobs_whose_time_is_up_at_once_become_ready_in_slices(slow: Wire) -> None:
    holder, other = slow.connect(), slow.connect()
    slow.clock.tick = 0
    for _ in range(MANY):
        holder.put(ttr=10)
    reserve(holder, MANY)
    slow.clock.time += 11
    slow.clock.tick = TICK
    slow.broker.on_alarm()
    moves_in_slices(slow, other, "current-jobs-ready", MANY)
    assert other.stats("stats")["job-timeouts"] == str(MANY)


def test_a_kick_of_many_jobs_goes_on_in_slices_and_counts_them_all(slow: Wire) -> None:
    kicker, other = slow.connect(), slow.connect()
    slow.clock.tick = 0
    bury_all(kicker, MANY)
    slow.clock.tick = TICK
    kicker.flow.receive(b"kick 4000\r\nlist-tube-used\r\nstats-tube default\r\n")
    slow.broker.end_turn()
    assert kicker.take() == b"", "nothing overtakes the reply"
    moves_in_slices(slow, other, "current-jobs-ready", 4000)
    reply = kicker.take()
    assert reply.startswith(b"KICKED 4000\r\nUSING default\r\nOK ")
    assert b"current-jobs-ready: 4000\n" in reply


def test_a_kick_does_not_count_what_others_delete_meanwhile(slow: Wire) -> None:
    kicker, other = slow.connect(), slow.connect()
    slow.clock.tick = 0
    ids = bury_all(kicker, MANY)
    slow.clock.tick = TICK
    kicker.flow.receive(b"kick 4294967295\r\n")
    slow.broker.end_turn()
    other.flow.receive(b"delete %d\r\ndelete %d\r\n" % (ids[-1], ids[-2]))
    slow.settle()
    assert kicker.take() == b"KICKED %d\r\n" % (MANY - 2)


def test_many_who_wait_for_a_paused_tube_are_served_in_slices(slow: Wire) -> None:
    workers = [slow.connect() for _ in range(MANY)]
    producer = slow.connect()
    slow.clock.tick = 0
    producer.send(b"pause-tube default 10\r\n")
    for worker in workers:
        worker.flow.receive(b"reserve\r\n")
    for _ in workers:
        producer.put()
    slow.clock.time += 11
    slow.clock.tick = TICK
    slow.broker.on_alarm()
    moves_in_slices(slow, producer, "current-jobs-reserved", MANY)
    order = [int(worker.take().split()[1]) for worker in workers]
    assert order == sorted(order), "the longest-waiting first"


@pytest.mark.slow
def test_watching_costs_the_same_with_many_tubes(wire: Wire) -> None:
    client = wire.connect()
    client.send(b"".join(b"watch t%d\r\n" % number for number in range(100_000)))
    looks = []

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            looks.append(other)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    for tube in client.flow.session.tubes.watched:
        tube.name = Name(tube.name)
    client.send(b"watch t99999\r\nwatch new\r\nignore t50000\r\nignore none\r\n")
    assert len(looks) < 10


class TestWithAJournal:
    @pytest.fixture
    def journal(self, wire: Wire) -> HandJournal:
        journal = HandJournal(wire)
        keep(wire, journal)
        return journal

    def test_a_kick_of_many_jobs_is_written_in_slices(self, wire: Wire, journal: HandJournal) -> None:
        client = self.with_buried_jobs(wire, journal)
        client.flow.receive(b"kick 4000\r\n")
        wire.broker.end_turn()
        sizes = []
        while journal.sent:
            sizes.append(sum(len(write.jobs) for write in journal.sent))
            journal.commit()
        assert sizes == [500] * 8
        assert client.take() == b"KICKED 4000\r\n"

    def test_a_kick_tells_of_what_was_kicked_before_a_write_failed(self, wire: Wire, journal: HandJournal) -> None:
        client = self.with_buried_jobs(wire, journal)
        client.flow.receive(b"kick 4000\r\n")
        wire.broker.end_turn()
        journal.commit()
        journal.commit(StoreFailed("no"))
        assert client.take() == b"KICKED 500\r\n"
        assert client.stats("stats")["current-jobs-buried"] == str(MANY - 500)

    def test_a_kick_whose_first_write_fails_is_an_error(self, wire: Wire, journal: HandJournal) -> None:
        client = self.with_buried_jobs(wire, journal)
        client.flow.receive(b"kick 4000\r\n")
        wire.broker.end_turn()
        journal.commit(StoreFailed("no"))
        assert client.take() == b"INTERNAL_ERROR\r\n"

    def with_buried_jobs(self, wire: Wire, journal: HandJournal) -> Client:
        client = wire.connect()
        for command in (b"put 0 0 9 1\r\nx\r\n", b"reserve\r\n"):
            for _ in range(MANY // 500):
                client.send(command * 500)
                journal.commit()
        for start in range(1, MANY, 500):
            client.send(b"".join(b"bury %d 0\r\n" % job_id for job_id in range(start, start + 500)))
            journal.commit()
        client.take()
        assert client.stats("stats")["current-jobs-buried"] == str(MANY)
        return client

"""The order of replies, visibility and failure when changes go to a journal first: here one that the test commits by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulated import HandJournal, keep

from beanspiked.engine.errors import StoreFailed, StoreFull
from beanspiked.protocol import commands as verbs

if TYPE_CHECKING:
    from simulated import Client, Wire


def held_job(wire: Wire, journal: HandJournal, ttr: int = 60) -> tuple[Client, int]:
    client = wire.connect()
    client.send(b"put 0 0 %d 1\r\nx\r\n" % ttr)
    journal.commit()
    job_id = int(client.take().split()[1])
    client.send(b"reserve\r\n")
    return client, job_id


def test_a_put_is_acknowledged_and_visible_when_it_is_committed(wire: Wire, journal: HandJournal) -> None:
    producer, other = wire.connect(), wire.connect()
    assert producer.send(b"put 0 0 9 1\r\nx\r\n") == b""
    assert other.send(b"peek-ready\r\nreserve-with-timeout 0\r\n") == b"NOT_FOUND\r\nTIMED_OUT\r\n"
    journal.commit()
    assert producer.take() == b"INSERTED 1\r\n"
    assert other.send(b"peek-ready\r\n") == b"FOUND 1 1\r\nx\r\n"


def test_writes_of_one_packet_share_a_commit(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\n" * 16)
    assert journal.batches == [16]
    journal.commit()
    assert client.take() == b"".join(b"INSERTED %d\r\n" % number for number in range(1, 17))
    assert len(client.writes) == 1


def test_a_reply_that_is_known_waits_for_those_before_it(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    assert client.send(b"put 0 0 9 1\r\nx\r\nuse a\r\nfoo\r\n") == b""
    journal.commit()
    assert client.take() == b"INSERTED 1\r\nUSING a\r\nUNKNOWN_COMMAND\r\n"


class PromptJournal(HandJournal):
    """Commits while the broker ends a turn, and notes what has left by then."""

    clients: tuple[Client, ...] = ()

    def flush(self) -> None:
        self.left = [client.take() for client in self.clients]
        super().flush()
        sent, self.sent = self.sent, []
        for write in sent:
            write.settle()


def test_what_does_not_depend_on_a_commit_leaves_before_it_and_the_rest_of_a_connection_in_one_write(
    wire: Wire,
) -> None:
    journal = PromptJournal(wire)
    keep(wire, journal)
    writer, other, both = journal.clients = (wire.connect(), wire.connect(), wire.connect())
    writer.flow.receive(b"put 0 0 9 1\r\nx\r\n")
    other.flow.receive(b"peek-ready\r\n")
    both.flow.receive(b"use a\r\nput 0 0 9 1\r\ny\r\nuse b\r\n")
    wire.broker.end_turn()
    assert journal.left == [b"", b"NOT_FOUND\r\n", b""]
    assert (writer.take(), other.take(), both.take()) == (
        b"INSERTED 1\r\n",
        b"",
        b"USING a\r\nINSERTED 2\r\nUSING b\r\n",
    )
    assert len(both.writes) == 1


def test_a_connection_without_more_commands_is_not_called_once_its_changes_are_committed(wire: Wire) -> None:
    keep(wire, PromptJournal(wire))
    client = wire.connect()
    for commands, again in ((b"put 0 0 9 1\r\nx\r\n" * 2, False), (b"put 0 0 9 1\r\nx\r\npeek 1\r\n", True)):
        client.flow.receive(commands)
        wire.broker.end_turn()
        assert wire.alarm.is_soon == again
        wire.settle()
    assert client.take().endswith(b"FOUND 1 1\r\nx\r\n")


@pytest.mark.parametrize(
    "look",
    [
        b"peek-ready",
        b"reserve",
        b"stats-job 1",
        b"peek 1",
        b"reserve-job 1",
        b"stats-tube default",
        b"list-tubes",
        b"kick 1",
        b"stats",
    ],
)
def test_a_look_waits_for_the_connections_own_writes(wire: Wire, journal: HandJournal, look: bytes) -> None:
    client = wire.connect()
    assert client.send(b"put 0 0 9 1\r\nx\r\n" + look + b"\r\n") == b""
    journal.commit()
    reply = client.take()
    assert reply.startswith(b"INSERTED 1\r\n")
    assert b"NOT_FOUND" not in reply
    assert len(reply) > len(b"INSERTED 1\r\n")


def test_a_look_at_others_does_not_wait(wire: Wire, journal: HandJournal) -> None:
    writer, other = wire.connect(), wire.connect()
    writer.send(b"put 0 0 9 1\r\nx\r\n")
    assert other.send(b"peek-ready\r\n") == b"NOT_FOUND\r\n"
    assert len(journal.sent) == 1


def test_a_stalled_command_is_counted_once(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\nput 0 0 9 1\r\ny\r\npeek-ready\r\n")
    journal.commit(count=1)
    journal.commit()
    client.take()
    assert client.stats("stats")["cmd-peek-ready"] == "1"


def test_a_put_that_fails_was_never_there(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"use a\r\nput 0 0 9 1\r\nx\r\nput 0 0 9 1\r\ny\r\n")
    client.take()
    journal.commit(StoreFull("full"), count=1)
    journal.commit(StoreFailed("failed"))
    assert client.take() == b"OUT_OF_MEMORY\r\nOUT_OF_MEMORY\r\n"
    assert client.send(b"peek-ready\r\n") == b"NOT_FOUND\r\n"
    assert client.stats("stats")["total-jobs"] == "0"


@pytest.mark.parametrize("command", [b"delete %d", b"release %d 5 7", b"bury %d 5"])
def test_a_failed_change_leaves_the_job_with_its_holder(wire: Wire, journal: HandJournal, command: bytes) -> None:
    client, job_id = held_job(wire, journal)
    client.send(command % job_id + b"\r\n")
    journal.commit(StoreFailed("failed"))
    assert client.take() == b"INTERNAL_ERROR\r\n"
    stats = client.stats(f"stats-job {job_id}")
    assert (stats["state"], stats["pri"], stats["releases"], stats["buries"]) == ("reserved", "0", "0", "0")
    assert client.send(b"touch %d\r\n" % job_id) == b"TOUCHED\r\n"


@pytest.mark.parametrize("command", [b"delete %d", b"release %d 5 0", b"bury %d 5"])
def test_a_failed_change_of_a_connection_that_left_leaves_the_job_ready(
    wire: Wire, journal: HandJournal, command: bytes
) -> None:
    client, job_id = held_job(wire, journal)
    client.send(command % job_id + b"\r\n")
    client.hang_up()
    journal.commit(StoreFailed("failed"))
    other = wire.connect()
    assert other.stats(f"stats-job {job_id}")["state"] == "ready"


@pytest.mark.parametrize("state", ["ready", "delayed", "buried"])
def test_a_failed_delete_by_another_leaves_the_job_where_it_was(wire: Wire, journal: HandJournal, state: str) -> None:
    client = wire.connect()
    client.send(b"put 0 %d 9 1\r\nx\r\n" % (50 if state == "delayed" else 0))
    journal.commit()
    if state == "buried":
        client.send(b"reserve\r\nbury 1 0\r\n")
        journal.commit()
    client.take()
    other = wire.connect()
    other.send(b"delete 1\r\n")
    assert client.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    journal.commit(StoreFailed("failed"))
    assert other.take() == b"INTERNAL_ERROR\r\n"
    assert client.stats("stats-job 1")["state"] == state
    assert client.send(f"peek-{state}\r\n".encode()) == b"FOUND 1 1\r\nx\r\n"
    wire.advance(60)
    assert client.send(b"reserve-with-timeout 0\r\n") == (
        b"TIMED_OUT\r\n" if state == "buried" else b"RESERVED 1 1\r\nx\r\n"
    )


def test_a_job_goes_to_who_waits_once_its_delete_has_failed(wire: Wire, journal: HandJournal) -> None:
    client, worker = wire.connect(), wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\n")
    journal.commit()
    client.send(b"delete 1\r\n")
    assert worker.send(b"reserve\r\n") == b""
    journal.commit(StoreFailed("failed"))
    assert worker.take() == b"RESERVED 1 1\r\nx\r\n"


def test_a_delayed_job_that_came_due_during_a_change_that_failed_is_ready(wire: Wire, journal: HandJournal) -> None:
    client, worker = wire.connect(), wire.connect()
    client.send(b"put 0 5 9 1\r\nx\r\n")
    journal.commit()
    client.send(b"delete 1\r\n")
    worker.send(b"reserve\r\n")
    wire.advance(10)
    journal.commit(StoreFailed("failed"))
    wire.advance(1)
    assert worker.take() == b"RESERVED 1 1\r\nx\r\n"


def test_a_delete_on_its_way_is_not_revived_by_its_deadline_nor_by_closing(wire: Wire, journal: HandJournal) -> None:
    client, job_id = held_job(wire, journal, ttr=1)
    other = wire.connect()
    client.send(b"delete %d\r\n" % job_id)
    wire.advance(5)
    client.hang_up()
    assert other.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    journal.commit()
    assert other.send(b"peek %d\r\n" % job_id) == b"NOT_FOUND\r\n"


@pytest.mark.parametrize(("fails", "reply"), [(False, b"NOT_FOUND\r\n"), (True, b"DELETED\r\n")])
def test_a_second_delete_of_one_job_waits_for_the_first(
    wire: Wire, journal: HandJournal, fails: bool, reply: bytes
) -> None:
    client, other = wire.connect(), wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\n")
    journal.commit()
    client.send(b"delete 1\r\n")
    assert other.send(b"delete 1\r\n") == b""
    journal.commit(StoreFailed("failed") if fails else None)
    journal.commit()
    assert other.take() == reply


def test_a_delete_behind_the_put_of_the_same_job_waits_for_it(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\ndelete 1\r\n")
    journal.commit()
    journal.commit()
    assert client.take() == b"INSERTED 1\r\nDELETED\r\n"


def test_a_kicked_job_is_ready_when_the_kick_is_committed(wire: Wire, journal: HandJournal) -> None:
    client, worker = wire.connect(), wire.connect()
    client.send(b"put 0 99 9 1\r\nx\r\n")
    journal.commit()
    client.take()
    worker.send(b"reserve\r\n")
    client.send(b"kick 10\r\n")
    assert (client.take(), worker.take()) == (b"", b"")
    journal.commit()
    assert (client.take(), worker.take()) == (b"KICKED 1\r\n", b"RESERVED 1 1\r\nx\r\n")


def test_quit_waits_for_the_replies_before_it(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    assert client.send(b"put 0 0 9 1\r\nx\r\nquit\r\n") == b""
    assert not client.is_closed
    journal.commit()
    assert client.take() == b"INSERTED 1\r\n"
    assert client.is_closed


def test_half_closing_waits_for_the_replies_before_it(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\n")
    assert client.shut_down() == b""
    journal.commit()
    assert client.take() == b"INSERTED 1\r\n"
    assert client.is_closed


def test_a_tube_lasts_while_a_put_to_it_is_on_its_way(wire: Wire, journal: HandJournal) -> None:
    client, other = wire.connect(), wire.connect()
    client.send(b"use a\r\nput 0 0 9 1\r\nx\r\nuse default\r\n")
    assert b"- a\n" in other.send(b"list-tubes\r\n")
    journal.commit(StoreFull("full"))
    assert b"- a\n" not in other.send(b"list-tubes\r\n")


def test_a_pause_holds_when_it_is_committed_and_is_forgotten_with_its_tube(wire: Wire, journal: HandJournal) -> None:
    client, other = wire.connect(), wire.connect()
    client.send(b"watch a\r\npause-tube a 60\r\n")
    client.take()
    assert other.stats("stats-tube a")["pause"] == "0"
    journal.commit()
    assert client.take() == b"PAUSED\r\n"
    assert other.stats("stats-tube a")["pause"] == "60"
    client.send(b"ignore a\r\n")
    assert [(write.name, write.delay) for write in journal.sent] == [("a", 0.0)]


# --- bounds, stopping and giving back while changes are on their way


def test_changes_of_one_connection_on_their_way_are_bounded(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.flow.receive(b"put 0 0 9 1\r\nx\r\n" * 6000)
    wire.broker.end_turn()
    wire.settle()
    assert len(journal.sent) == 1000
    assert not client.reading
    while journal.sent:
        journal.commit()
    assert client.take().count(b"INSERTED") == 6000
    assert client.reading


def test_replies_that_wait_for_a_commit_are_bounded(wire: Wire, journal: HandJournal) -> None:
    client, _ = held_job(wire, journal)
    client.send(b"put 0 0 9 60000\r\n" + b"y" * 60000 + b"\r\n")
    journal.commit()
    client.take()
    client.send(b"put 0 0 9 1\r\nx\r\n" + b"use %b\r\n" % (b"t" * 200) * 3000)
    assert client.flow.parser.buffered > 100_000
    journal.commit()
    wire.settle()
    assert client.take().count(b"USING") == 3000


def test_replies_that_have_left_are_forgotten_although_one_is_always_on_its_way(
    wire: Wire, journal: HandJournal
) -> None:
    client = wire.connect()
    put = b"put 0 0 9 1\r\nx\r\n"
    client.send(put)
    for job_id in range(1, 1000):
        client.send(put)
        journal.commit(count=1)
        assert client.take() == b"INSERTED %d\r\n" % job_id
    assert len(client.flow._out._slots or []) < 150


def test_a_stop_tells_of_what_was_on_its_way(wire: Wire, journal: HandJournal) -> None:
    client, job_id = held_job(wire, journal)
    client.send(b"put 0 0 9 1\r\nx\r\n" * 3)
    client.flow.end()
    wire.broker.end_turn()
    assert not client.is_closed
    assert wire.connect().stats(f"stats-job {job_id}")["state"] == "ready"
    journal.commit()
    assert client.take() == b"INSERTED 2\r\nINSERTED 3\r\nINSERTED 4\r\n"
    assert client.is_closed


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("leave", [False, True])
def test_a_held_job_of_a_deleted_tube_is_nobodys_until_that_is_known(
    wire: Wire, journal: HandJournal, fails: bool, leave: bool
) -> None:
    client, job_id = held_job(wire, journal, ttr=5)
    other = wire.connect()
    wire.engine.delete_tube(wire.engine.tube("default"))
    wire.engine.flush()
    client.hang_up() if leave else wire.advance(10)
    assert other.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    journal.commit(StoreFailed("failed") if fails else None)
    expected = b"RESERVED %d 1\r\nx\r\n" % job_id if fails else b"TIMED_OUT\r\n"
    assert other.send(b"reserve-with-timeout 0\r\n") == expected
    assert other.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"


def test_a_failed_update_of_a_job_whose_time_is_up_leaves_it_ready_once(wire: Wire, journal: HandJournal) -> None:
    client, job_id = held_job(wire, journal, ttr=5)
    job = wire.engine.find_job(job_id)
    assert job is not None
    wire.engine.update(job, b"new")
    wire.engine.flush()
    wire.advance(10)
    journal.commit(StoreFailed("failed"))
    assert client.send(b"reserve-with-timeout 0\r\n" * 2) == b"RESERVED %d 1\r\nx\r\nTIMED_OUT\r\n" % job_id
    assert wire.engine.counts.jobs() == 1


def test_the_time_of_a_command_ends_when_its_reply_leaves(wire: Wire, journal: HandJournal) -> None:
    wire.broker.measure()
    client = wire.connect()
    # The second one waits for the first one's commit, and so does the reply of `use`.
    client.send(b"put 0 0 9 1\r\nx\r\n")
    wire.advance(1)
    client.send(b"use t\r\n")
    wire.advance(1)
    client.send(b"peek 1\r\n")
    wire.advance(3)
    assert wire.broker.times is not None
    of = wire.broker.times.commands.of
    assert [sum(of[verb].counts) for verb in (verbs.PUT, verbs.USE, verbs.PEEK)] == [0, 0, 0]
    journal.commit()
    assert [of[verb].total for verb in (verbs.PUT, verbs.USE, verbs.PEEK)] == [5, 4, 3]
    # What came before leaves nothing behind for the next ones.
    wire.advance(1)
    client.send(b"peek 1\r\n")
    assert (sum(of[verbs.PEEK].counts), of[verbs.PEEK].total) == (2, 3)

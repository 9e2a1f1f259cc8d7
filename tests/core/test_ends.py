"""How connections and tubes end, also while changes are on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.engine.timers import NEVER

if TYPE_CHECKING:
    from simulated import HandJournal, Wire


def test_what_comes_behind_a_quit_is_read_and_dropped_however_much_it_is(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\nquit\r\n" + b"x" * 100_000)
    # A socket that is closed with unread bytes resets the connection, and the client may not get its last replies.
    assert client.reading
    assert client.flow.parser.buffered == 0
    journal.commit()
    assert client.take() == b"INSERTED 1\r\n"
    assert client.is_closed


def test_a_server_that_begins_to_stop_leaves_no_change_without_its_reply(wire: Wire, journal: HandJournal) -> None:
    producer = wire.connect()
    producer.send(b"put 0 0 9 1\r\nx\r\n")
    producer.flow.stop()
    assert not producer.is_closed
    journal.commit()
    assert producer.take() == b"INSERTED 1\r\n"
    assert producer.is_closed


def test_a_server_that_begins_to_stop_answers_who_waits_for_the_change_of_another(
    wire: Wire, journal: HandJournal
) -> None:
    first, second = wire.connect(), wire.connect()
    first.send(b"put 0 0 9 1\r\nx\r\n")
    journal.commit()
    for client in (first, second):
        client.send(b"delete 1\r\n")
    second.flow.stop()
    assert not second.is_closed
    journal.commit()
    assert second.take() == b"NOT_FOUND\r\n"
    assert second.is_closed


def test_a_tube_without_a_pause_goes_without_a_write(wire: Wire, journal: HandJournal) -> None:
    wire.connect().send(b"use a\r\nuse b\r\nuse default\r\n")
    assert [tube.name for tube in wire.engine.tubes()] == ["default"]
    assert not journal.sent


def test_a_tube_goes_with_the_pause_of_who_left_before_that_was_committed(wire: Wire, journal: HandJournal) -> None:
    client = wire.connect()
    client.send(b"watch a\r\npause-tube a 60\r\n")
    client.hang_up()
    assert wire.engine.find_tube("a") is not None
    journal.commit()
    assert wire.engine.find_tube("a") is None
    assert [(write.name, write.delay) for write in journal.sent] == [("a", 0.0)]


def test_a_tube_that_is_dropped_again_takes_no_other_of_its_name_along(wire: Wire) -> None:
    gone = wire.engine.tube("a")
    wire.engine.forget(gone)
    wire.engine.forget(gone)
    new = wire.engine.tube("a")
    wire.engine.forget(gone)
    assert wire.engine.find_tube("a") is new


def test_a_tube_that_is_gone_is_not_remembered_until_its_pause_would_end(wire: Wire) -> None:
    wire.connect().send(b"use a\r\npause-tube a 4000000000\r\nuse b\r\n")
    assert wire.engine.find_tube("a") is None
    assert wire.timers.next_at() == NEVER

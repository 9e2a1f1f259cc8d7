"""Many commands in one packet, one command in many packets, and slow readers (§2.2)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Connect

LIMIT = 65_535


@pytest.mark.rule("2.2/replies-in-order")
def test_replies_come_in_the_order_of_the_commands(connect: Connect, tube: str) -> None:
    connection = connect()
    name = tube.encode()
    connection.send(
        b"use %s\r\nwatch %s\r\nignore default\r\nput 0 0 60 3\r\nabc\r\nreserve\r\nfoo\r\ndelete x\r\n"
        b"peek-ready\r\nlist-tube-used\r\nput 0 0 60 0\r\n\r\n" % (name, name)
    )
    assert connection.replies(3) == [b"USING " + name, b"WATCHING 2", b"WATCHING 1"]
    first = int(connection.reply().removeprefix(b"INSERTED "))
    assert connection.job_reply() == (b"RESERVED", first, b"abc")
    assert connection.replies(4) == [b"UNKNOWN_COMMAND", b"BAD_FORMAT", b"NOT_FOUND", b"USING " + name]
    assert int(connection.reply().removeprefix(b"INSERTED ")) > first


@pytest.mark.rule("2.2/replies-in-order")
def test_a_thousand_puts_reserves_and_deletes_in_one_go_each(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    count = 1_000
    connection.send(b"".join(b"put 5 0 60 %d\r\n%d\r\n" % (len(b"%d" % n), n) for n in range(count)))
    ids = [int(connection.reply().removeprefix(b"INSERTED ")) for _ in range(count)]
    assert ids == sorted(set(ids))
    connection.send(b"reserve\r\n" * count)
    assert [connection.job_reply()[1:] for _ in range(count)] == [(ids[n], b"%d" % n) for n in range(count)]
    connection.send(b"".join(b"delete %d\r\n" % job_id for job_id in ids))
    assert connection.replies(count) == [b"DELETED"] * count


@pytest.mark.rule("2.2/own-writes")
def test_a_look_sees_what_the_same_connection_wrote_before(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    connection.send(b"put 0 0 60 1\r\na\r\npeek-ready\r\nput 0 0 60 1\r\nb\r\nreserve\r\npeek-ready\r\nkick 5\r\n")
    first = int(connection.reply().removeprefix(b"INSERTED "))
    assert connection.job_reply() == (b"FOUND", first, b"a")
    second = int(connection.reply().removeprefix(b"INSERTED "))
    assert connection.job_reply() == (b"RESERVED", first, b"a")
    assert connection.job_reply() == (b"FOUND", second, b"b")
    assert connection.reply() == b"KICKED 0"


@pytest.mark.rule("2.2/blocked-reads-nothing")
def test_commands_behind_a_waiting_reserve_wait_with_it(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve\r\nuse " + tube.encode() + b".2\r\nput 0 0 60 1\r\na\r\n")
    assert worker.is_silent()
    assert f"{tube}.2" not in producer.tubes()
    job_id = producer.insert()
    assert worker.job_reply()[1] == job_id
    assert worker.reply() == f"USING {tube}.2".encode()
    assert worker.reply().startswith(b"INSERTED ")


@pytest.mark.rule("2.2/blocked-reads-nothing")
def test_a_command_sent_while_waiting_is_answered_after_the_reserve(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve\r\n")
    assert worker.is_silent(0.05)
    worker.send(b"list-tube-used\r\n")
    assert worker.is_silent()
    job_id = producer.insert()
    assert worker.job_reply()[1] == job_id
    assert worker.reply() == b"USING default"


@pytest.mark.rule("1.1/splitting")
def test_bytes_may_come_one_by_one(connect: Connect, tube: str) -> None:
    connection = connect(use=tube, watch=tube)
    stream = b"put 1 0 60 6\r\na\r\n\r\nb\r\nreserve-with-timeout 0\r\nlist-tubes-watched\r\nfoo\r\n"
    connection.send_slowly(stream, [1] * len(stream))
    assert connection.reply().startswith(b"INSERTED ")
    word, _, body = connection.job_reply()
    assert (word, body) == (b"RESERVED", b"a\r\n\r\nb")
    watched = f"---\n- {tube}\n".encode()
    assert connection.reply() == b"OK %d" % len(watched)
    assert connection.data(len(watched)) == watched
    assert connection.reply() == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/splitting")
@pytest.mark.parametrize("at", [11, 12, 13, 14, 15, 16, 17, 18])
def test_a_packet_may_end_anywhere_around_a_body(connect: Connect, tube: str, at: int) -> None:
    connection = connect(use=tube)
    connection.send_slowly(b"put 0 0 60 3\r\nabc\r\nlist-tube-used\r\n", [at])
    assert connection.reply().startswith(b"INSERTED ")
    assert connection.reply() == b"USING " + tube.encode()
    assert connection.peek_ready().body == b"abc"


@pytest.mark.rule("1.1/splitting")
@pytest.mark.parametrize("at", [100, 223, 224, 225, 448])
def test_an_overlong_line_may_be_split_anywhere(connect: Connect, at: int) -> None:
    connection = connect()
    connection.send_slowly(b"delete " + b"9" * 600 + b"\r\nlist-tube-used\r\n", [at])
    assert connection.replies(2) == [b"BAD_FORMAT", b"USING default"]


@pytest.mark.rule("2.3/slow-reader", "2.2/replies-in-order")
def test_a_client_that_reads_late_gets_every_reply_whole(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    body = bytes(range(256)) * (LIMIT // 256)
    job_id = connection.insert(body)
    count = 300
    sender = threading.Thread(target=connection.send, args=(b"peek %d\r\n" % job_id * count,))
    sender.start()
    other = connect()
    assert other.ask(b"list-tube-used") == b"USING default"
    for _ in range(count):
        assert connection.job_reply() == (b"FOUND", job_id, body)
    sender.join()

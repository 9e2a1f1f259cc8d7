"""put: its numbers, its body, and the order in which it is judged (§1.2, §2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .wire import eventually

if TYPE_CHECKING:
    from .conftest import Connect
    from .servers import Farm
    from .wire import Connection

U32_MAX = 2**32 - 1


def size_limit(connection: Connection) -> int:
    return int(connection.fields(b"stats")["max-job-size"])


@pytest.mark.rule("1.2/put", "2.1/ids-rise")
def test_put_answers_with_an_id_that_rises_and_fits_a_double(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    ids = [connection.insert() for _ in range(20)]
    assert ids == sorted(set(ids))
    assert ids[0] > 0
    assert ids[-1] < 2**53


@pytest.mark.rule("1.2/put", "1.2/bodies")
@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"\0", b"\r", b"a\r\nput 0 0 0 0\r\n\r\n", bytes(range(256)), b"END\r\n.\r\n", b"x" * 5_000],
    ids=["empty", "crlf", "nul", "cr", "command", "all-bytes", "ends", "long"],
)
def test_a_body_comes_back_byte_for_byte(connect: Connect, tube: str, body: bytes) -> None:
    connection = connect(use=tube, watch=tube)
    job_id = connection.insert(body)
    assert connection.peek(job_id).body == body
    job = connection.reserve(0)
    assert (job.id, job.body) == (job_id, body)


@pytest.mark.rule("1.2/put-numbers")
def test_put_takes_the_largest_numbers(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    job_id = connection.insert(pri=U32_MAX, delay=U32_MAX, ttr=U32_MAX)
    stats = connection.stats_job(job_id)
    assert (stats["pri"], stats["delay"], stats["ttr"]) == (U32_MAX, U32_MAX, U32_MAX)
    assert stats["state"] == "delayed"


@pytest.mark.rule("1.2/ttr-zero")
def test_a_ttr_of_0_means_1(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    assert connection.stats_job(connection.insert(ttr=0))["ttr"] == 1


@pytest.mark.rule("1.2/size-limit")
def test_a_body_of_exactly_the_largest_size_is_taken(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    body = b"m" * size_limit(connection)
    job_id = connection.insert(body)
    assert connection.peek(job_id).body == body


@pytest.mark.rule("1.2/size-limit", "2.1/too-big-swallows")
def test_a_body_one_byte_too_long_is_swallowed_and_refused(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    size = size_limit(connection) + 1
    connection.send(b"put 0 0 60 %d\r\n" % size + b"m" * size + b"\r\nlist-tube-used\r\n")
    assert connection.replies(2) == [b"JOB_TOO_BIG", b"USING " + tube.encode()]
    assert connection.stats_tube(tube)["total-jobs"] == 0


@pytest.mark.rule("2.1/too-big-swallows")
def test_too_big_swallows_size_and_two_bytes_whatever_these_are(connect: Connect) -> None:
    connection = connect()
    size = size_limit(connection) + 100
    connection.send(b"put 0 0 60 %d\r\n" % size + b"\r\n" * (size // 2) + b"m" * (size % 2))
    assert connection.is_silent(0.05)
    connection.send(b"..list-tube-used\r\n")
    assert connection.replies(2) == [b"JOB_TOO_BIG", b"USING default"]


@pytest.mark.rule("2.1/checks")
def test_too_big_is_judged_before_garbage_behind_the_size(connect: Connect) -> None:
    connection = connect()
    size = size_limit(connection) + 1
    connection.send(b"put 0 0 60 %dx\r\n" % size + b"m" * size + b"\r\nlist-tube-used\r\n")
    assert connection.replies(2) == [b"JOB_TOO_BIG", b"USING default"]


@pytest.mark.rule("2.1/checks")
def test_after_a_bad_put_line_its_body_is_read_as_commands(connect: Connect) -> None:
    connection = connect()
    connection.send(b"put -1 0 100 1\r\na\r\nput 0 0 100 14x\r\nlist-tube-used\r\n")
    assert connection.replies(4) == [b"BAD_FORMAT", b"UNKNOWN_COMMAND", b"BAD_FORMAT", b"USING default"]


@pytest.mark.rule("2.1/expected-crlf")
def test_a_longer_body_than_announced_is_refused_and_its_rest_is_a_command(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    connection.send(b"put 0 0 0 1\r\nabc\r\nlist-tube-used\r\n")
    assert connection.replies(3) == [b"EXPECTED_CRLF", b"UNKNOWN_COMMAND", b"USING " + tube.encode()]
    assert connection.stats_tube(tube)["total-jobs"] == 0


@pytest.mark.rule("2.1/expected-crlf")
@pytest.mark.parametrize("trailer", [b"\n\r", b"\r\r", b"\n\n", b"x\n", b"\rx"])
def test_exactly_two_bytes_must_be_crlf(connect: Connect, tube: str, trailer: bytes) -> None:
    connection = connect(use=tube)
    connection.send(b"put 0 0 0 1\r\na" + trailer + b"list-tube-used\r\n")
    assert connection.replies(2) == [b"EXPECTED_CRLF", b"USING " + tube.encode()]


@pytest.mark.rule("2.1/expected-crlf")
def test_no_reply_before_the_two_bytes_after_the_body_have_come(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    connection.send(b"put 0 0 0 3\r\nabc\r")
    assert connection.is_silent()
    connection.send(b"\n")
    assert connection.reply().startswith(b"INSERTED ")


@pytest.mark.rule("2.1/used-tube")
def test_a_job_goes_to_the_tube_that_was_used_when_its_line_came(connect: Connect, tube: str) -> None:
    connection = connect()
    connection.send(b"use " + tube.encode() + b"\r\nput 0 0 0 1\r\na\r\nuse default\r\n")
    assert connection.reply().startswith(b"USING ")
    job_id = int(connection.reply().split()[1])
    assert connection.reply() == b"USING default"
    assert connection.stats_job(job_id)["tube"] == tube


@pytest.mark.rule("2.1/id-at-line")
@pytest.mark.cluster_relaxed("ids and places are given out per front-end")
def test_the_place_of_a_job_is_that_of_its_put_line_not_of_its_last_byte(connect: Connect, tube: str) -> None:
    early, late = connect(use=tube), connect(use=tube, watch=tube)
    early.send(b"put 7 0 60 5\r\nfirst")
    assert early.is_silent()
    late.insert(b"second", pri=7)
    early.send(b"\r\n")
    assert early.reply().startswith(b"INSERTED ")
    assert [late.reserve(0).body, late.reserve(0).body] == [b"first", b"second"]


@pytest.mark.rule("2.1/id-at-line")
@pytest.mark.shared_store_relaxed("ids are given when jobs are stored")
def test_the_id_of_a_job_is_that_of_its_put_line_not_of_its_last_byte(connect: Connect, tube: str) -> None:
    early, late = connect(use=tube), connect(use=tube)
    early.send(b"put 7 0 60 5\r\nfirst")
    assert early.is_silent()
    second = late.insert(b"second", pri=7)
    early.send(b"\r\n")
    assert int(early.reply().split()[1]) < second


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.1/id-gaps")
def test_a_put_refused_for_its_trailer_costs_an_id_and_an_earlier_refusal_does_not(farm: Farm) -> None:
    connection = farm.start("-z", "10").connect()
    assert connection.insert() == 1
    connection.send(b"put 0 0 0 1\r\nabcd\r\n")
    assert connection.reply() == b"EXPECTED_CRLF"
    assert connection.reply() == b"UNKNOWN_COMMAND"
    assert connection.insert() == 3
    assert connection.ask(b"put 0 0 0 11\r\n" + b"m" * 11) == b"JOB_TOO_BIG"
    assert connection.ask(b"put 0 0 0 1x") == b"BAD_FORMAT"
    assert connection.insert() == 4


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.1/ids-rise")
def test_ids_begin_at_1_on_a_new_server_and_count_up_over_all_tubes(farm: Farm) -> None:
    server = farm.start()
    one, other = server.connect(use="one"), server.connect(use="other")
    assert [one.insert(), other.insert(), one.insert(), other.insert()] == [1, 2, 3, 4]


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.1/disconnect", "2.1/id-gaps")
def test_a_connection_lost_in_the_body_leaves_no_job_but_a_gap(farm: Farm) -> None:
    server = farm.start()
    watcher = server.connect()
    producer = server.connect(use="t")
    producer.send(b"put 0 0 0 10\r\nabc")
    assert eventually(lambda: watcher.stats()["cmd-put"] == 1)
    producer.close()
    assert eventually(lambda: watcher.stats()["current-connections"] == 1)
    stats = watcher.stats()
    assert (stats["cmd-put"], stats["total-jobs"], stats["current-jobs-ready"]) == (1, 0, 0)
    assert watcher.insert() == 2


@pytest.mark.rule("2.1/half-uploaded")
@pytest.mark.beanstalkd_bug("a job is found, with uninitialised memory, before its body has come")
@pytest.mark.parametrize("command", [b"peek", b"stats-job"])
def test_a_job_whose_body_has_not_come_yet_is_not_found(farm: Farm, command: bytes) -> None:
    server = farm.start()
    producer, other = server.connect(), server.connect()
    producer.send(b"put 0 0 60 5\r\nabc")
    assert eventually(lambda: other.stats()["cmd-put"] == 1)
    assert other.ask(command + b" 1") == b"NOT_FOUND"


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.1/half-uploaded")
@pytest.mark.parametrize("command", [b"delete", b"kick-job", b"reserve-job"])
def test_a_job_whose_body_has_not_come_yet_cannot_be_touched_by_id(farm: Farm, command: bytes) -> None:
    server = farm.start()
    producer, other = server.connect(), server.connect()
    producer.send(b"put 0 0 60 5\r\nabc")
    assert eventually(lambda: other.stats()["cmd-put"] == 1)
    assert other.ask(command + b" 1") == b"NOT_FOUND"
    assert other.ask(b"peek-ready") == b"NOT_FOUND"
    producer.send(b"de\r\n")
    assert producer.reply() == b"INSERTED 1"
    assert other.peek(1).body == b"abcde"


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.12/flag-z")
def test_the_size_limit_may_be_0(farm: Farm) -> None:
    connection = farm.start("-z", "0").connect()
    assert connection.ask(b"put 0 0 0 0\r\n") == b"INSERTED 1"
    assert connection.ask(b"put 0 0 0 1\r\na") == b"JOB_TOO_BIG"

"""What a client sees that depends on time, on other clients, or on how its bytes come, on a virtual clock."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.timers import NEVER

if TYPE_CHECKING:
    from simulated import Wire
    from world import World


RESERVED = b"RESERVED %d 1\r\nx\r\n"


# --- reserve


def test_a_blocked_reserve_is_served_by_a_later_put(wire: Wire) -> None:
    worker, producer = wire.connect(), wire.connect()
    assert worker.send(b"reserve\r\n") == b""
    job_id = producer.put()
    assert worker.take() == RESERVED % job_id


def test_those_who_wait_are_served_in_the_order_in_which_they_came(wire: Wire) -> None:
    workers = [wire.connect() for _ in range(20)]
    for worker in workers:
        worker.send(b"reserve\r\n")
    producer = wire.connect()
    ids = [producer.put() for _ in workers]
    assert [worker.take() for worker in workers] == [RESERVED % job_id for job_id in ids]


def test_a_waiter_on_several_tubes_is_served_once(wire: Wire) -> None:
    worker, producer = wire.connect(), wire.connect()
    worker.send(b"watch a\r\nwatch b\r\nreserve\r\n")
    worker.take()
    producer.send(b"use a\r\n")
    first = producer.put()
    producer.send(b"use b\r\n")
    second = producer.put()
    assert worker.take() == RESERVED % first
    assert worker.send(b"reserve\r\n") == RESERVED % second


def test_a_reserve_times_out_at_its_time_and_not_before(wire: Wire) -> None:
    worker = wire.connect()
    worker.send(b"reserve-with-timeout 3\r\n")
    wire.advance(2.999)
    assert worker.take() == b""
    wire.advance(0.001)
    assert worker.take() == b"TIMED_OUT\r\n"


def test_commands_behind_a_blocked_reserve_wait_for_its_reply(wire: Wire) -> None:
    worker, other = wire.connect(), wire.connect()
    assert worker.send(b"reserve\r\nput 0 0 9 1\r\ny\r\n") == b""
    assert other.send(b"peek-ready\r\n") == b"NOT_FOUND\r\n"
    job_id = other.put()
    assert worker.take() == RESERVED % job_id + b"INSERTED %d\r\n" % (job_id + 1)


def test_sessions_that_wake_each_other_do_not_recurse(wire: Wire) -> None:
    tubes = 3000
    clients = [wire.connect() for _ in range(tubes)]
    for number, client in enumerate(clients):
        client.flow.receive(b"watch t%d\r\nuse t%d\r\nreserve\r\nput 0 0 9 1\r\nx\r\n" % (number, number + 1))
    wire.broker.end_turn()
    wire.clock.tick = 0.0001
    starter = wire.connect()
    starter.send(b"use t0\r\n")
    starter.flow.receive(b"put 0 0 9 1\r\nx\r\n")
    wire.broker.end_turn()
    assert clients[-1].take() == b"WATCHING 2\r\nUSING t%d\r\n" % tubes, "one turn does not do it all"
    wire.settle()
    assert b"RESERVED" in clients[-1].take()


# --- deadlines


def test_a_job_whose_time_is_up_is_ready_again_and_counts_the_timeout(wire: Wire) -> None:
    worker, other = wire.connect(), wire.connect()
    job_id = worker.put(ttr=5)
    worker.send(b"reserve\r\n")
    wire.advance(4.999)
    assert other.stats(f"stats-job {job_id}")["state"] == "reserved"
    wire.advance(0.001)
    assert worker.send(b"touch %d\r\n" % job_id) == b"NOT_FOUND\r\n"
    stats = other.stats(f"stats-job {job_id}")
    assert (stats["state"], stats["timeouts"], stats["releases"]) == ("ready", "1", "0")
    assert other.stats("stats")["job-timeouts"] == "1"


def test_touch_gives_the_whole_time_again(wire: Wire) -> None:
    worker = wire.connect()
    job_id = worker.put(ttr=5)
    worker.send(b"reserve\r\n")
    wire.advance(4)
    assert worker.send(b"touch %d\r\n" % job_id) == b"TOUCHED\r\n"
    wire.advance(4.5)
    assert worker.send(b"delete %d\r\n" % job_id) == b"DELETED\r\n"


def test_deadline_soon_ends_a_blocked_reserve_a_second_before_the_deadline(wire: Wire) -> None:
    worker = wire.connect()
    worker.put(ttr=3)
    worker.send(b"reserve\r\n")
    assert worker.send(b"reserve-with-timeout 60\r\n") == b""
    wire.advance(1.999)
    assert worker.take() == b""
    wire.advance(0.001)
    assert worker.take() == b"DEADLINE_SOON\r\n"


def test_deadline_soon_comes_before_timed_out(wire: Wire) -> None:
    worker = wire.connect()
    worker.put(ttr=1)
    worker.send(b"reserve\r\n")
    assert worker.send(b"reserve-with-timeout 0\r\n") == b"DEADLINE_SOON\r\n"


def test_a_ready_job_is_reserved_even_within_the_margin(wire: Wire) -> None:
    worker = wire.connect()
    worker.put(ttr=1)
    worker.send(b"reserve\r\n")
    job_id = worker.put()
    assert worker.send(b"reserve\r\n") == RESERVED % job_id


def test_a_job_that_times_out_goes_to_who_waits_for_it(wire: Wire) -> None:
    holder, worker = wire.connect(), wire.connect()
    job_id = holder.put(ttr=2)
    holder.send(b"reserve\r\n")
    worker.send(b"reserve\r\n")
    wire.advance(2)
    assert worker.take() == RESERVED % job_id


# --- delay and pause


def test_a_delayed_job_is_ready_when_it_is_due(wire: Wire) -> None:
    worker = wire.connect()
    job_id = worker.put(delay=10)
    worker.send(b"reserve\r\n")
    wire.advance(9.999)
    assert worker.take() == b""
    wire.advance(0.001)
    assert worker.take() == RESERVED % job_id


def test_an_earlier_delay_that_comes_later_is_not_overslept(wire: Wire) -> None:
    worker = wire.connect()
    worker.put(delay=100)
    soon = worker.put(delay=1)
    worker.send(b"reserve\r\n")
    wire.advance(1)
    assert worker.take() == RESERVED % soon


def test_a_paused_tube_serves_nobody_until_its_pause_ends(wire: Wire) -> None:
    worker, other = wire.connect(), wire.connect()
    worker.send(b"reserve\r\n")
    assert other.send(b"pause-tube default 5\r\n") == b"PAUSED\r\n"
    job_id = other.put()
    assert other.send(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    wire.advance(4.5)
    stats = other.stats("stats-tube default")
    assert (stats["pause"], stats["pause-time-left"], stats["cmd-pause-tube"]) == ("5", "0", "1")
    assert worker.take() == b""
    wire.advance(0.5)
    assert worker.take() == RESERVED % job_id
    assert other.stats("stats-tube default")["pause"] == "0"


def test_a_pause_of_zero_ends_a_pause(wire: Wire) -> None:
    worker, other = wire.connect(), wire.connect()
    other.send(b"pause-tube default 500\r\n")
    worker.send(b"reserve\r\n")
    job_id = other.put()
    assert worker.take() == b""
    other.send(b"pause-tube default 0\r\n")
    assert worker.take() == RESERVED % job_id


# --- closing


@pytest.mark.parametrize("leave", ["hang_up", "quit"])
def test_who_leaves_gives_its_jobs_back_without_counting_that(wire: Wire, leave: str) -> None:
    holder, worker = wire.connect(), wire.connect()
    job_id = holder.put(pri=7)
    holder.send(b"reserve\r\n")
    worker.send(b"reserve\r\n")
    holder.send(b"quit\r\nstats\r\n") if leave == "quit" else holder.hang_up()
    assert worker.take() == RESERVED % job_id
    stats = worker.stats(f"stats-job {job_id}")
    assert (stats["pri"], stats["releases"], stats["timeouts"], stats["reserves"]) == ("7", "0", "0", "2")
    assert holder.take() == b""


def test_who_left_while_waiting_gets_no_job(wire: Wire) -> None:
    gone, producer = wire.connect(), wire.connect()
    gone.send(b"reserve\r\n")
    gone.hang_up()
    job_id = producer.put()
    assert gone.take() == b""
    assert producer.send(b"reserve\r\n") == RESERVED % job_id


def test_half_closing_ends_all_reserves_that_were_read_ahead(here: World) -> None:
    # A shared store is asked for all of them together.
    client = here.front_end().connect()
    client.post(b"reserve\r\n" * 1000)
    client.front_end.loop.call_soon(client.flow.receive_eof)
    assert here.run(10.0, lambda: client.is_closed)
    assert client.received == b"TIMED_OUT\r\n" * 1000


def test_half_closing_ends_a_blocked_reserve_and_answers_what_is_left(wire: Wire) -> None:
    worker = wire.connect()
    worker.send(b"reserve\r\nlist-tube-used\r\nreserve-with-timeout 60\r\n")
    assert worker.shut_down() == b"TIMED_OUT\r\nUSING default\r\nTIMED_OUT\r\n"
    assert worker.is_closed


@pytest.mark.parametrize("pieces", [1, 10_000])
def test_a_request_of_http_is_answered_once_and_nothing_of_it_is_executed(wire: Wire, pieces: int) -> None:
    page, other = wire.connect(), wire.connect()
    request = b"POST / HTTP/1.1\r\nHost: db1:11300\r\n\r\nput 0 0 9 1\r\nx\r\n"
    step = max(1, len(request) // pieces)
    replies = [page.send(request[at : at + step]) for at in range(0, len(request), step)]
    assert b"".join(replies) == b"UNKNOWN_COMMAND\r\n"
    assert page.is_closed
    assert other.send(b"peek-ready\r\n") == b"NOT_FOUND\r\n"


def test_a_tube_is_gone_with_its_last_reference(wire: Wire) -> None:
    client, other = wire.connect(), wire.connect()
    client.send(b"use a\r\n")
    job_id = client.put()
    client.send(b"use b\r\nwatch c\r\n")
    assert other.send(b"list-tubes\r\n") == b"OK 32\r\n---\n- default\n- a\n- b\n- c\n\r\n".replace(b"32", b"26")
    other.send(b"delete %d\r\n" % job_id)
    client.hang_up()
    assert other.send(b"list-tubes\r\n") == b"OK 14\r\n---\n- default\n\r\n"


def test_closed_sessions_are_freed_without_the_garbage_collector(wire: Wire) -> None:
    gc.disable()
    try:
        client = wire.connect()
        client.send(b"watch a\r\nput 0 0 1 1\r\nx\r\nreserve\r\nreserve-with-timeout 5\r\n")
        client.hang_up()
        alive = weakref.ref(client)
        del client
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("waits", [b"reserve-with-timeout 2000000000\r\n", b"put 0 0 4000000000 1\r\nx\r\nreserve\r\n"])
def test_who_left_is_not_remembered_until_a_time_that_may_be_years_away(wire: Wire, waits: bytes) -> None:
    client = wire.connect()
    client.send(waits)
    assert wire.timers.next_at() < NEVER
    client.hang_up()
    assert wire.timers.next_at() == NEVER


# --- ids, counters, draining


def test_ids_are_taken_when_the_put_line_is_read(wire: Wire) -> None:
    slow, fast = wire.connect(), wire.connect()
    slow.send(b"put 0 0 9 1\r\n")
    assert fast.put() == 2
    assert slow.send(b"x\r\n") == b"INSERTED 1\r\n"
    assert fast.send(b"reserve\r\n") == RESERVED % 1


def test_a_half_uploaded_job_is_nowhere(wire: Wire) -> None:
    slow, other = wire.connect(), wire.connect()
    slow.send(b"put 0 0 9 2\r\nx")
    assert other.send(b"peek 1\r\nstats-job 1\r\ndelete 1\r\n") == b"NOT_FOUND\r\n" * 3


def test_draining_refuses_puts_after_their_body_and_nothing_else(wire: Wire) -> None:
    client = wire.connect()
    job_id = client.put()
    wire.broker.draining = True
    assert client.send(b"put 0 0 9 1\r\nx\r\n") == b"DRAINING\r\n"
    assert client.send(b"put 0 0 9 1\r\nxyz\r\n") == b"EXPECTED_CRLF\r\nUNKNOWN_COMMAND\r\n"
    assert client.send(b"reserve\r\n") == RESERVED % job_id
    assert client.send(b"release %d 0 0\r\n" % job_id) == b"RELEASED\r\n"
    stats = client.stats("stats")
    assert (stats["draining"], stats["cmd-put"], stats["total-jobs"]) == ("true", "3", "1")


def test_a_stopping_server_lets_a_client_finish_its_job_and_no_other(wire: Wire) -> None:
    busy, idle, waiting = wire.connect(), wire.connect(), wire.connect()
    job_id = busy.put()
    busy.send(b"reserve\r\n")
    waiting.send(b"reserve\r\n")
    for client in (busy, idle, waiting):
        client.flow.stop()
    wire.broker.end_turn()
    assert (busy.is_closed, idle.is_closed, waiting.is_closed) == (False, True, True)
    assert waiting.take() == b""
    assert busy.send(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    assert busy.is_closed


# --- who gets which of several jobs


def test_a_stopping_server_does_not_wait_for_who_holds_a_job_and_waits_for_another(wire: Wire) -> None:
    worker = wire.connect()
    worker.send(b"put 0 0 60 1\r\nx\r\nreserve\r\nreserve\r\n")
    worker.flow.stop()
    assert worker.is_closed
    assert wire.connect().stats("stats-job 1")["state"] == "ready"


def test_jobs_that_are_given_back_at_a_stop_do_not_go_to_who_waited_meanwhile(wire: Wire) -> None:
    worker = wire.connect()
    worker.send(b"put 0 0 60 1\r\nx\r\nreserve\r\n")
    worker.flow.stop()
    worker.send(b"reserve\r\n")
    worker.flow.end()
    assert worker.is_closed
    assert wire.broker.waiting == 0
    assert wire.connect().stats("stats-job 1")["state"] == "ready"


def test_the_first_job_kicked_goes_to_who_waits_even_if_a_later_one_is_more_urgent(wire: Wire) -> None:
    client, worker = wire.connect(), wire.connect()
    first = client.put(pri=5, delay=100)
    client.put(pri=0, delay=200)
    worker.send(b"reserve\r\n")
    client.send(b"kick 2\r\n")
    assert worker.take() == RESERVED % first


def test_jobs_of_who_leaves_go_back_in_the_order_in_which_they_were_reserved(wire: Wire) -> None:
    holder, worker = wire.connect(), wire.connect()
    ids = [holder.put(ttr=ttr) for ttr in (1000, 10, 100)]
    holder.send(b"reserve\r\n" * 3 + b"touch %d\r\n" % ids[0])
    worker.send(b"reserve\r\n")
    holder.hang_up()
    assert worker.take() == RESERVED % ids[0]


# --- faults and stopping


def test_a_stopping_server_waits_no_longer_than_for_the_last_deadline(wire: Wire) -> None:
    client = wire.connect()
    client.put(ttr=2)
    client.send(b"reserve\r\n")
    client.flow.stop()
    wire.broker.end_turn()
    assert not client.is_closed
    wire.advance(2)
    assert client.is_closed


@pytest.mark.planted_bug
def test_a_bug_with_one_connection_leaves_the_others_alone(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clients = [wire.connect() for _ in range(3)]
    for client in clients:
        client.send(b"reserve\r\n")

    def fail(data: bytes) -> None:
        raise RuntimeError(f"a bug with {data!r}")

    monkeypatch.setattr(clients[1], "write", fail)
    producer = wire.connect()
    assert producer.send(b"put 0 0 9 1\r\nx\r\n" * 3).count(b"INSERTED") == 3
    assert (clients[0].take(), clients[2].take()) == (RESERVED % 1, RESERVED % 3)
    assert clients[1].is_closed
    assert "a bug" in caplog.text

"""How much one client may send, leave unread or have executed, and in which pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulated import Wire
    from world import World


def test_replies_of_one_turn_leave_in_one_write(wire: Wire) -> None:
    client = wire.connect()
    client.send(b"put 0 0 9 1\r\nx\r\n" * 16 + b"reserve\r\n" * 16)
    assert len(client.writes) == 1


def test_a_reply_leaves_whole(wire: Wire) -> None:
    client = wire.connect()
    job_id = client.put(b"y" * 60000)
    client.writes.clear()
    client.send(b"peek %d\r\n" % job_id)
    assert client.writes == [b"FOUND %d 60000\r\n" % job_id + b"y" * 60000 + b"\r\n"]


def test_a_client_that_does_not_read_is_not_executed_nor_read_without_bound(wire: Wire) -> None:
    client = wire.connect()
    client.flow.choke()
    assert client.send(b"list-tube-used\r\n" * 100) == b""
    assert client.reading
    client.send(b"list-tube-used\r\n" * 10000)
    assert not client.reading
    client.flow.unchoke()
    wire.broker.end_turn()
    wire.settle()
    assert client.take() == b"USING default\r\n" * 10100
    assert client.reading


def test_a_flood_behind_a_blocked_reserve_is_not_read_without_bound(wire: Wire) -> None:
    client = wire.connect()
    client.send(b"reserve\r\n" + b"x" * 100000)
    assert not client.reading
    client.flow.end_waiting()
    wire.broker.end_turn()
    wire.settle()
    assert client.take() == b"TIMED_OUT\r\n"
    assert client.reading


def test_who_hung_up_behind_a_flood_waits_for_no_job_again(wire: Wire) -> None:
    client = wire.connect()
    client.send(b"reserve\r\n" * 2 + b"list-tube-used\r\n" * 5000)
    assert not client.reading
    client.flow.end_waiting()
    wire.broker.end_turn()
    wire.settle()
    assert client.take() == b"TIMED_OUT\r\n" * 2 + b"USING default\r\n" * 5000


def test_one_connection_has_no_more_than_its_share_of_a_turn(wire: Wire) -> None:
    greedy, modest = wire.connect(), wire.connect()
    wire.clock.tick = 0.001
    greedy.flow.receive(b"list-tube-used\r\n" * 500)
    modest.flow.receive(b"list-tube-used\r\n")
    wire.broker.end_turn()
    assert modest.take() == b"USING default\r\n"
    had = len(greedy.take()) // len(b"USING default\r\n")
    assert 0 < had < 100
    wire.settle()
    assert greedy.take() == b"USING default\r\n" * (500 - had)


def test_a_command_that_does_more_than_usual_counts_as_several(wire: Wire) -> None:
    client = wire.connect()
    wire.clock.tick = 0.001
    client.flow.receive(b"kick 1\r\n" * 100)
    wire.broker.end_turn()
    assert 0 < len(client.take()) // len(b"KICKED 0\r\n") < 8


def test_reserves_that_a_shared_store_is_asked_for_together_are_bounded(here: World) -> None:
    client = here.front_end().connect()
    client.post(b"reserve\r\n" * 5000)
    here.run(1.0)
    assert client.flow.parser.buffered == 4000 * len(b"reserve\r\n")
    client.half_close()
    assert here.run(30.0, lambda: client.is_closed)
    assert client.received == b"TIMED_OUT\r\n" * 5000


def test_the_more_have_work_the_smaller_is_the_share_of_each(wire: Wire) -> None:
    wire.clock.tick = 0.00001
    shares = []
    for count in (1, 20, 500):
        clients = [wire.connect() for _ in range(count)]
        wire.broker.plan(count)
        for client in clients:
            client.flow.receive(b"list-tube-used\r\n" * 1000)
        shares.append(len(clients[0].writes) + len(clients[0].flow._out._known))
        wire.broker.end_turn()
        wire.settle()
    assert shares[0] > 2 * shares[1] > 4 * shares[2] > 0


def test_large_replies_are_handed_on_before_the_turn_ends(wire: Wire) -> None:
    client = wire.connect()
    job_id = client.put(b"y" * 60000)
    client.writes.clear()
    client.send(b"peek %d\r\n" % job_id * 100)
    assert max(map(len, client.writes)) < 400000
    assert len(client.writes) > 10


def test_a_body_may_come_in_any_pieces(wire: Wire) -> None:
    client = wire.connect()
    for piece in (b"put 0 0 9 1", b"0\r\n01", b"234567", b"89", b"\r"):
        assert client.send(piece) == b""
    assert client.send(b"\n") == b"INSERTED 1\r\n"


def test_input_that_comes_between_two_turns_does_not_buy_more_of_the_next(wire: Wire) -> None:
    client = wire.connect()
    wire.clock.tick = 0.001
    client.flow.receive(b"list-tube-used\r\n" * 500)
    wire.broker.end_turn()
    before = client.take()
    client.flow.receive(b"list-tube-used\r\n" * 500)
    wire.broker.end_turn()
    assert before != b""
    assert client.take() == b""

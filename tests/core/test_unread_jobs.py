"""A client that requests many jobs of a shared store at once, and does not read them."""

from __future__ import annotations

from world import Client, World

BODY = b"x" * 60_000
UNREAD_MAX = 4 * 262_144


class SlowReader(Client):
    """A connection that takes some bytes, and no more until it reads."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.received) > UNREAD_MAX // 4:
            self.flow.choke()

    def read(self) -> bytes:
        """Read what has come, and let more come."""
        come, self.received = self.received, b""
        self.front_end.inside(self.flow.unchoke)
        self.front_end.inside(self.front_end.broker.end_turn)
        return come


def test_it_gets_no_more_than_it_reads_and_each_job_in_its_turn(here: World, client: Client) -> None:
    ids = [client.put(BODY, ttr=600) for _ in range(60)]
    slow = SlowReader(client.front_end)
    slow.post(b"reserve\r\n" * 80 + b"list-tube-used\r\n")
    here.run(3.0)
    assert len(slow.received) < UNREAD_MAX
    assert int(client.stats("stats-tube default")["current-jobs-reserved"]) < 20
    come = b""
    for _ in range(60):
        come += slow.read()
        here.run(1.0)
        assert len(slow.received) < UNREAD_MAX
    ids += [client.put(b"y") for _ in range(20)]
    here.run(3.0)
    come += slow.read()
    # The command behind them is executed after all of them.
    assert (
        come
        == b"".join(
            b"RESERVED %d %d\r\n%b\r\n" % (id_, len(body), body)
            for id_, body in zip(ids, [BODY] * 60 + [b"y"] * 20, strict=True)
        )
        + b"USING default\r\n"
    )


def test_it_gets_all_jobs_also_where_no_command_follows(here: World, client: Client) -> None:
    slow = SlowReader(client.front_end)
    slow.post(b"reserve\r\n" * 20)
    here.run(1.0)
    for _ in range(20):
        client.put(BODY, ttr=600)
    here.run(3.0)
    assert slow.received.count(b"RESERVED") < 20
    come = b""
    for _ in range(5):
        come += slow.read()
        here.run(1.0)
    assert (come + slow.received).count(b"RESERVED") == 20


def test_it_may_leave_while_jobs_wait_for_it(here: World, client: Client) -> None:
    for _ in range(30):
        client.put(BODY)
    slow = SlowReader(client.front_end)
    slow.post(b"reserve\r\n" * 80)
    here.run(3.0)
    slow.hang_up()
    here.run(3.0)
    counts = client.stats("stats-tube default")
    assert (counts["current-jobs-ready"], counts["current-jobs-reserved"]) == ("30", "0")

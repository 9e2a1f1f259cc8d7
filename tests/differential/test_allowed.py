"""The listed differences that can be shown: what beanstalkd does, and what we do instead."""

import pytest
from twins.pair import Pair
from twins.process import Twin
from twins.replies import Reply, ReplyReader

pytestmark = pytest.mark.real

BAD = b"BAD_FORMAT"


class Line:
    """One connection to the server under test alone."""

    def __init__(self, server: Twin) -> None:
        self.sock = server.dial_when_listening()
        self.reader = ReplyReader()
        self.replies: list[Reply] = []

    def say(self, data: bytes, count: int) -> list[Reply]:
        """Send, and wait for that many replies."""
        self.sock.sendall(data)
        while len(self.replies) < count:
            got = self.sock.recv(1 << 16)
            assert got, "the server closed the connection"
            self.replies += self.reader.feed(got)
        replies, self.replies = self.replies[:count], self.replies[count:]
        return replies


def _ours(pair: Pair, count: int = 1) -> list[Line]:
    return [Line(pair.sides[1].server) for _ in range(count)]


def test_a_lone_cr_does_not_hang(pair: Pair) -> None:
    (line,) = _ours(pair)
    odd, used = line.say(b"foo\rbar\r\nlist-tube-used\r\n", 2)
    assert odd.line in {BAD, b"UNKNOWN_COMMAND"}
    assert used.line == b"USING default"
    line.sock.close()


@pytest.mark.parametrize("length", [222, 223, 224, 446, 447, 448, 671])
def test_a_cr_at_the_limit_is_seen(pair: Pair, length: int) -> None:
    (line,) = _ours(pair)
    replies = line.say(b"x" * length + b"\r\nlist-tube-used\r\n", 2)
    assert [reply.line for reply in replies] == [b"UNKNOWN_COMMAND" if length == 222 else BAD, b"USING default"]
    line.sock.close()


def test_http_is_not_listened_to(pair: Pair) -> None:
    request = b"POST / HTTP/1.1\r\n\r\nlist-tube-used\r\n"
    theirs, ours = (Line(side.server) for side in pair.sides)
    assert [reply.line for reply in theirs.say(request, 3)] == [b"UNKNOWN_COMMAND"] * 2 + [b"USING default"]
    assert ours.say(request, 1)[0].line == b"UNKNOWN_COMMAND"
    with pytest.raises(AssertionError, match="closed the connection"):
        ours.say(b"", 1)
    theirs.sock.close()
    ours.sock.close()


def test_a_job_still_arriving_is_not_found(pair: Pair) -> None:
    (one, other) = _ours(pair, 2)
    last = one.say(b"use t\r\nput 0 0 100 0\r\n\r\n", 2)[1].job_id or 0
    one.say(b"delete %d\r\n" % last, 1)
    one.sock.sendall(b"put 0 0 100 5\r\nhal")
    looks = [b"peek %d" % (last + 1), b"stats-job %d" % (last + 1), b"delete %d" % (last + 1), b"use t\r\npeek-ready"]
    assert [other.say(look + b"\r\n", look.count(b"\n") + 1)[-1].line for look in looks] == [b"NOT_FOUND"] * 4
    assert one.say(b"f.\r\n", 1)[0].line == b"INSERTED %d" % (last + 1)
    one.sock.close()
    other.sock.close()


@pytest.mark.parametrize("argument", [b"", b" ", b"abc", b"-1", b"+1", b"2147483648", b"4294967296"])
def test_a_timeout_is_read_strictly(pair: Pair, argument: bytes) -> None:
    (line,) = _ours(pair)
    assert line.say(b"reserve-with-timeout " + argument + b"\r\n", 1)[0].line == BAD
    line.sock.close()


def test_names_are_quoted(pair: Pair) -> None:
    (line,) = _ours(pair)
    job_id = line.say(b"use t\r\nput 0 0 100 0\r\n\r\n", 2)[1].job_id or 0
    job, tube = line.say(b"stats-job %d\r\nstats-tube t\r\n" % job_id, 2)
    assert b'\ntube: "t"\n' in (job.body or b"")
    assert b'---\nname: "t"\n' in (tube.body or b"")
    line.sock.close()


def test_waiters_are_served_in_order(pair: Pair) -> None:
    *waiters, feeder = _ours(pair, 9)
    for number, waiter in enumerate(waiters):
        waiter.sock.sendall(b"reserve\r\n")
        while b"\ncurrent-waiting: %d\n" % (number + 1) not in (feeder.say(b"stats\r\n", 1)[0].body or b""):
            pass
    for _ in waiters:
        feeder.say(b"put 0 0 100 0\r\n\r\n", 1)
    served = [waiter.say(b"", 1)[0].job_id or 0 for waiter in waiters]
    assert served == sorted(served)
    for line in [*waiters, feeder]:
        line.sock.close()


def test_our_stats_end_with_our_version(pair: Pair) -> None:
    (line,) = _ours(pair)
    body = line.say(b"stats\r\n", 1)[0].body or b""
    assert b'\nversion: "1.13"\n' in body
    assert body.split(b"\n")[-2].startswith(b"beanspiked-version: ")
    line.sock.close()

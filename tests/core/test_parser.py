"""Bytes in, commands out."""

import io
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beanspiked.protocol import commands as verbs
from beanspiked.protocol.commands import PREFIXES, Command
from beanspiked.protocol.lines import valid_tube_name
from beanspiked.protocol.parser import MAX_LINE, Parser

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def shown(command: Command) -> tuple[object, ...]:
    return (
        command.verb,
        command.id,
        command.pri,
        command.delay,
        command.ttr,
        command.name,
        command.body,
        command.reply,
        command.counts,
    )


def parsed(*pieces: bytes, lenient: bool = False, max_job_size: int = 100) -> list[tuple[object, ...]]:
    """Parse pieces; a put and its body that came apart are shown as the put that they make together."""
    parser = Parser(max_job_size, lenient)
    found: list[Command] = []
    for piece in pieces:
        parser.feed(piece)
        while (command := parser.next()) is not None:
            if command.verb == verbs.BODY:
                found[-1].body = command.body
                found[-1].reply = command.reply
            else:
                found.append(command)
    return [shown(command) for command in found]


def reply_to(line: bytes) -> bytes:
    (command,) = parsed(line + b"\r\n")
    return command[7] if command[0] == verbs.REFUSED else b""


LINES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([prefix for prefix, _, _ in PREFIXES]),
    st.builds(
        lambda prefix, args: prefix + args,
        st.sampled_from([prefix for prefix, _, _ in PREFIXES]),
        st.text("0123456789 -+ax\r\n\0", max_size=20).map(str.encode),
    ),
    st.binary(max_size=120).map(lambda body: b"put 1 2 3 %d\r\n%b" % (len(body), body)),
    st.integers(200, 500).map(lambda size: b"x" * size),
    st.builds(
        lambda method, size, end: b"%b /%b%b" % (method, b"x" * size, end),
        st.sampled_from([b"GET", b"POST", b"x", b"put 0", b"a b"]),
        st.sampled_from([0, 1, 100, 205, 206, 207, 208, 209, 210, 500]),
        st.sampled_from([b" HTTP/1.1", b" HTTP/1.1\r", b" HTTP/1.12", b" HTTP/1.", b"HTTP/1.1", b" HTTP/1.\r1"]),
    ),
    st.integers(0, 300).map(lambda size: b"\x16\x03\x01" + b"x" * size),
)


@given(st.lists(LINES, max_size=8), st.sampled_from([b"\r\n", b"\n"]), st.booleans(), st.data())
def test_the_same_bytes_give_the_same_commands_however_they_are_split(
    lines: list[bytes], end_of_line: bytes, lenient: bool, data: st.DataObject
) -> None:
    stream = end_of_line.join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = parsed(stream, lenient=lenient) if stream else []
    assert parsed(*[piece for piece in pieces if piece], lenient=lenient) == whole


@given(st.binary(max_size=400), st.booleans())
def test_no_input_raises(stream: bytes, lenient: bool) -> None:
    parsed(stream, lenient=lenient)


@given(st.lists(LINES, max_size=4).map(b"\r\n".join))
def test_what_was_fed_is_counted_until_it_is_consumed(stream: bytes) -> None:
    parser = Parser(100)
    parser.feed(stream)
    while parser.next() is not None:
        pass
    assert 0 <= parser.buffered <= max(MAX_LINE, 102)


@pytest.mark.parametrize(
    "line",
    [
        b"foo", b"", b"PUT 0 0 0 0", b"put", b"peek", b"delete", b"use", b"watch", b"ignore", b"kick", b"kick-job", b"touch",
        b"bury", b"release", b"list-tube", b"foo\rbar", b" stats", b"clear-tube x", b"help", b"version",
    ],
)  # fmt: skip
def test_a_line_that_begins_with_no_command_is_unknown(line: bytes) -> None:
    assert reply_to(line) == b"UNKNOWN_COMMAND\r\n"


@pytest.mark.parametrize(
    "line",
    [
        # The argument is missing, but the word is a longer one's beginning.
        b"stats-job", b"stats-tube", b"reserve-job", b"reserve-with-timeout", b"pause-tube",
        # What follows a command without arguments.
        b"stats ", b"statsx", b"reservex", b"reserve ", b"reserve-mode x", b"list-tubesx", b"list-tubes-watched ", b"peek-readyx",
        b"peek-ready x", b"peek-delayed ", b"peek-buried1", b"list-tube-used 1",
        # Missing and malformed numbers.
        b"put ", b"put 1", b"put 0 0 0", b"put -1 0 0 0", b"put 4294967296 0 0 0", b"put 0 4294967296 0 0", b"put 0 0 0 4294967296",
        b"put 1x 0 0 0", b"put 0 0 0 1 ", b"put 0 0 0 1x", b"put a b c d", b"put 0 0 0 +1",
        b"delete ", b"delete x", b"delete 1 ", b"delete -1", b"delete 18446744073709551616", b"delete 1 2", b"delete 1\0",
        b"peek ", b"peek 1x", b"touch ", b"kick-job x", b"stats-job x", b"reserve-job ",
        b"release 1", b"release 1 2", b"release 1 2 3 4", b"release 1 2 3 ", b"release x 2 3", b"release 1 4294967296 0", b"release ",
        b"bury ", b"bury 1", b"bury 1 2 3", b"bury 1 -2",
        b"kick ", b"kick x", b"kick 18446744073709551616", b"kick -", b"kick + 1", b"kick -18446744073709551616", b"kick 1\0",
        b"reserve-with-timeout ", b"reserve-with-timeout x", b"reserve-with-timeout -1", b"reserve-with-timeout 2147483648",
        b"pause-tube ", b"pause-tube x", b"pause-tube x ", b"pause-tube x y", b"pause-tube x -1", b"pause-tube x 1 2", b"pause-tube : 1",
        # Tube names.
        b"use ", b"use  x", b"use x ", b"use -x", b"use a b", b"use a:b", b"use " + b"x" * 201, b"watch ", b"ignore  x", b"stats-tube -",
        # A NUL anywhere.
        b"foo\0", b"stats\0", b"quit\0", b"\0", b"use a\0", b"put\0",
    ],
)  # fmt: skip
def test_a_known_command_with_wrong_arguments_is_badly_formed(line: bytes) -> None:
    assert reply_to(line) == b"BAD_FORMAT\r\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"delete 7", {"verb": verbs.DELETE, "id": 7}),
        (b"delete   7", {"verb": verbs.DELETE, "id": 7}),
        (b"delete 0007", {"verb": verbs.DELETE, "id": 7}),
        (b"peek 18446744073709551615", {"verb": verbs.PEEK, "id": 18446744073709551615}),
        (b"release 1 2 3", {"verb": verbs.RELEASE, "id": 1, "pri": 2, "delay": 3}),
        (b"release  1  2  3", {"verb": verbs.RELEASE, "id": 1, "pri": 2, "delay": 3}),
        (b"bury 1 4294967295", {"verb": verbs.BURY, "id": 1, "pri": 4294967295}),
        (b"kick 5abc", {"verb": verbs.KICK, "id": 5}),
        (b"kick 1 2", {"verb": verbs.KICK, "id": 1}),
        (b"kick +3", {"verb": verbs.KICK, "id": 3}),
        (b"kick \t 3", {"verb": verbs.KICK, "id": 3}),
        (b"kick -1", {"verb": verbs.KICK, "id": 4294967295}),
        (b"kick 4294967296", {"verb": verbs.KICK, "id": 0}),
        (b"kick 18446744073709551615", {"verb": verbs.KICK, "id": 4294967295}),
        (b"reserve-with-timeout 0abc", {"verb": verbs.RESERVE_WITH_TIMEOUT, "id": 0}),
        (b"reserve-with-timeout 0 5", {"verb": verbs.RESERVE_WITH_TIMEOUT, "id": 0}),
        (b"reserve-with-timeout  2147483647", {"verb": verbs.RESERVE_WITH_TIMEOUT, "id": 2147483647}),
        (b"pause-tube x 5", {"verb": verbs.PAUSE_TUBE, "name": "x", "delay": 5}),
        (b"pause-tube   x   5", {"verb": verbs.PAUSE_TUBE, "name": "x", "delay": 5}),
        (b"pause-tubedefault 0", {"verb": verbs.PAUSE_TUBE, "name": "default", "delay": 0}),
        (b"use aZ09-+/;.$_()", {"verb": verbs.USE, "name": "aZ09-+/;.$_()"}),
        (b"watch " + b"x" * 200, {"verb": verbs.WATCH, "name": "x" * 200}),
        (b"quitXYZ", {"verb": verbs.QUIT}),
        (b"quit now", {"verb": verbs.QUIT}),
        (b"reserve", {"verb": verbs.RESERVE}),
        (b"stats", {"verb": verbs.STATS}),
    ],
)
def test_arguments_are_read_as_beanstalkd_reads_them(line: bytes, expected: dict[str, object]) -> None:
    parser = Parser(100)
    parser.feed(line + b"\r\n")
    command = parser.next()
    assert command is not None
    assert {key: getattr(command, key) for key in expected} == expected


def test_a_put_carries_its_body() -> None:
    assert parsed(b"put 1 2 3 5\r\na\r\nb\0\r\n") == [(verbs.PUT, 0, 1, 2, 3, "", b"a\r\nb\0", b"", -1)]


def test_a_put_line_is_told_before_its_body_is_there() -> None:
    parser = Parser(100)
    parser.feed(b"put 1 2 3 5\r\nab")
    command = parser.next()
    assert command is not None
    assert (command.verb, command.body) == (verbs.PUT, None)
    assert parser.next() is None
    parser.feed(b"cde\r\n")
    body = parser.next()
    assert body is not None
    assert (body.verb, body.body) == (verbs.BODY, b"abcde")


def test_a_wrong_trailer_consumes_two_bytes_and_the_rest_is_a_command() -> None:
    found = parsed(b"put 0 0 0 1\r\nabc\r\n")
    assert [command[7] for command in found] == [b"EXPECTED_CRLF\r\n", b"UNKNOWN_COMMAND\r\n"]


@pytest.mark.parametrize("size", [5, 200_000])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_lenient_body_ends_with_its_lf_and_the_next_command_is_seen_at_once(size: int, end: bytes) -> None:
    pieces = [b"put 1 2 3 %d\r\n" % size, b"x" * size, *(bytes([byte]) for byte in end), b"stats\n"]
    put, stats = parsed(*pieces, lenient=True, max_job_size=1 << 20)
    assert (put[0], put[6], put[7]) == (verbs.PUT, b"x" * size, b"")
    assert stats[0] == verbs.STATS


@pytest.mark.parametrize(("end", "reply"), [(b"\r\n", b""), (b"\rx", b"EXPECTED_CRLF\r\n")])
@settings(max_examples=50)
@given(cuts=st.lists(st.integers(0, 200_020), max_size=8))
def test_a_large_body_may_come_in_any_pieces(end: bytes, reply: bytes, cuts: list[int]) -> None:
    body = bytes(range(250)) * 800
    data = b"put 1 2 3 %d\r\n" % len(body) + body + end + b"list-tubes\r\n"
    places = [0, *sorted(cuts), len(data)]
    parser = Parser(1 << 20)
    commands = []
    for start, stop in itertools.pairwise(places):
        parser.feed(data[start:stop])
        while (command := parser.next()) is not None:
            commands.append(command)
    put, *more, last = commands
    assert (put.verb, last.verb) == (verbs.PUT, verbs.LIST_TUBES)
    whole = more[0] if more else put
    assert (whole.body, whole.reply) == (body, reply)
    assert parser.buffered == 0


def test_a_badly_formed_put_leaves_its_body_to_be_read_as_commands() -> None:
    found = parsed(b"put -1 0 100 1\r\na\r\n")
    assert [command[7] for command in found] == [b"BAD_FORMAT\r\n", b"UNKNOWN_COMMAND\r\n"]


def test_the_body_of_a_job_that_is_too_big_is_swallowed_without_a_look_at_its_end() -> None:
    found = parsed(b"put 0 0 0 101 garbage\r\n" + b"x" * 103 + b"stats\r\n")
    assert [command[0] for command in found] == [verbs.PUT_TOO_BIG, verbs.REFUSED, verbs.STATS]
    assert found[1][7] == b"JOB_TOO_BIG\r\n"


def test_trailing_garbage_refuses_a_put_that_is_counted() -> None:
    (command,) = parsed(b"put 0 0 0 1 x\r\n")
    assert (command[7], command[8]) == (b"BAD_FORMAT\r\n", verbs.PUT)


def test_a_bad_name_refuses_a_pause_that_is_counted() -> None:
    (command,) = parsed(b"pause-tube -x 1\r\n")
    assert (command[7], command[8]) == (b"BAD_FORMAT\r\n", verbs.PAUSE_TUBE)


@pytest.mark.parametrize("excess", [1, 2, 100, 224, 225, 448, 1000])
def test_an_over_long_line_is_one_mistake_and_the_next_command_is_read(excess: int) -> None:
    line = b"x" * (MAX_LINE - 2 + excess)
    found = parsed(line + b"\r\nstats\r\n")
    assert [(command[0], command[7]) for command in found] == [(verbs.REFUSED, b"BAD_FORMAT\r\n"), (verbs.STATS, b"")]


def test_a_line_of_224_bytes_is_not_too_long() -> None:
    assert [command[0] for command in parsed(b"use " + b"x" * 200 + b"\r\n", b"quit" + b" " * 218 + b"\r\n")] == [
        verbs.USE,
        verbs.QUIT,
    ]


def test_a_bare_line_feed_ends_nothing() -> None:
    assert parsed(b"stats\n") == []


def test_a_bare_line_feed_ends_lines_and_bodies_where_that_was_asked_for() -> None:
    found = parsed(b"put 0 0 0 5\nhello\nput 0 0 0 5\r\nhello\r\nput 0 0 0 1\nab\nstats\n", lenient=True)
    assert [(command[0], command[6], command[7]) for command in found] == [
        (verbs.PUT, b"hello", b""),
        (verbs.PUT, b"hello", b""),
        (verbs.PUT, b"a", b"EXPECTED_CRLF\r\n"),
        (verbs.STATS, None, b""),
    ]


@given(st.binary(max_size=4))
def test_tube_names_are_judged_byte_by_byte(name: bytes) -> None:
    allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-+/;.$_()"
    assert valid_tube_name(name) == (
        len(name) > 0 and not name.startswith(b"-") and all(byte in allowed for byte in name)
    )


def test_a_bare_line_feed_ends_a_body_that_is_too_big_where_that_was_asked_for() -> None:
    found = parsed(
        b"put 0 0 0 101\n" + b"x" * 101 + b"\nstats\nput 0 0 0 101\r\n" + b"x" * 101 + b"\r\nstats\n", lenient=True
    )
    assert [command[0] for command in found] == [verbs.PUT_TOO_BIG, verbs.REFUSED, verbs.STATS] * 2


# --- another protocol

LONG_TARGET = b"/" + b"x" * 1000


def begin(line: bytes) -> str:
    """The name of a case."""
    return repr(line[:20])


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1", b"POST /put HTTP/1.1", b"OPTIONS * HTTP/1.0", b"PRI * HTTP/2.0", b"M-SEARCH * HTTP/1.1",
        b"CONNECT db1:11300 HTTP/1.1", b"GET http://db1:11300/ HTTP/1.1", b"POST %b HTTP/1.1" % LONG_TARGET,
        # The methods that a page chooses may be commands.
        b"put / HTTP/1.1", b"use / HTTP/1.1", b"stats /?\0 HTTP/1.1",
        # A line of 224 bytes, and one that is too long by one.
        b"GET /%b HTTP/1.1" % (b"x" * 208), b"GET /%b HTTP/1.1" % (b"x" * 209),
    ],
    ids=begin,
)  # fmt: skip
def test_after_a_request_of_http_nothing_is_executed(line: bytes) -> None:
    stream = line + b"\r\nHost: db1:11300\r\n\r\nput 0 0 0 1\r\na\r\n"
    assert [command[0] for command in parsed(stream)] == [verbs.FOREIGN]
    assert [command[0] for command in parsed(*(bytes([byte]) for byte in stream))] == [verbs.FOREIGN]


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST %b HTTP/1.1" % LONG_TARGET], ids=begin)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=repr)
def test_a_request_of_http_is_known_by_any_end_of_line(line: bytes, end: bytes) -> None:
    assert [command[0] for command in parsed(line + end + b"stats\r\n", lenient=True)] == [verbs.FOREIGN]


@pytest.mark.parametrize("size", [0, 1000])
def test_after_a_handshake_of_tls_nothing_is_executed(size: int) -> None:
    # A page may choose what stands in it, as in the name of a server.
    hello = b"\x16\x03\x01\x02\0" + b"x" * size + b"\r\nput 0 0 0 1\r\na\r\n"
    assert [command[0] for command in parsed(hello)] == [verbs.FOREIGN]


def test_a_handshake_of_tls_is_told_of_before_its_end() -> None:
    # None of its bytes need be the end of a line, and the client waits for an answer.
    assert [command[0] for command in parsed(b"\x16\x03\x01" + b"x" * 221)] == [verbs.FOREIGN]


@pytest.mark.parametrize(
    "line",
    [
        b"GET /", b"GET / HTTP/1", b"GET / HTTP/1.1 ", b"GET / HTTP/a.b", b" / HTTP/1.1", b"G\tT / HTTP/1.1", b"/HTTP/1.1",
        b"(x) %b HTTP/1.1" % LONG_TARGET, b"GET %b HTTP/1" % LONG_TARGET, LONG_TARGET, b"\x16\x04",
    ],
    ids=begin,
)  # fmt: skip
def test_what_only_looks_like_another_protocol_is_a_mistake_like_any_other(line: bytes) -> None:
    assert [command[0] for command in parsed(line + b"\r\nstats\r\n")] == [verbs.REFUSED, verbs.STATS]


def test_only_the_first_line_tells_the_protocol() -> None:
    later = b"GET / HTTP/1.1\r\nGET %b HTTP/1.1\r\n\x16\x03\r\nstats\r\n" % LONG_TARGET
    for first in (
        b"list-tubes\r\n",
        b"x\r\n",
        b"x" * 300 + b"\r\n",
        b"put 0 0 0 1\r\na\r\n",
        b"put 0 0 0 101\r\n" + b"x" * 103,
    ):
        found = [command[0] for command in parsed(first + later)]
        assert found[-4:] == [verbs.REFUSED, verbs.REFUSED, verbs.REFUSED, verbs.STATS]


def test_a_large_body_that_is_on_its_way_is_gathered_where_it_stays() -> None:
    parser = Parser(1 << 20)
    parser.feed(b"put 1 2 3 200000\r\n" + b"x" * 100)
    assert parser.next() is not None
    assert parser.next() is None
    assert parser.in_large_body()


@pytest.mark.parametrize("room", [0, 100000])
def test_a_body_for_which_there_is_no_memory_is_swallowed_and_refused(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    class Small(io.BytesIO):
        def write(self, data: "ReadableBuffer") -> int:
            if self.tell() + len(memoryview(data)) > room:
                raise MemoryError
            return super().write(data)

    monkeypatch.setattr("beanspiked.protocol.parser.io.BytesIO", Small)
    parser = Parser(1 << 20)
    commands = []
    for piece in (b"put 1 2 3 200000\r\n", *[b"x" * 50000] * 4, b"\r\nput 1 2 3 1\r\ny\r\n"):
        parser.feed(piece)
        while (command := parser.next()) is not None:
            commands.append((command.verb, command.reply))
    assert commands == [(verbs.PUT, b""), (verbs.BODY, b"OUT_OF_MEMORY\r\n"), (verbs.PUT, b"")]

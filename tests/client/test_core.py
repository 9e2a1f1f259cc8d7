"""Bytes in, replies out, without a socket."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import beanspiked.client
from beanspiked.client import errors, requests
from beanspiked.client.core import Core
from beanspiked.client.documents import mapping, sequence
from beanspiked.client.replies import EXPECTED
from beanspiked.client.requests import Job, Request
from beanspiked.protocol import yaml
from beanspiked.protocol.commands import FOREIGN, PREFIXES, REFUSED
from beanspiked.protocol.parser import MAX_LINE, Parser
from beanspiked.protocol.replies import ok

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each command with its bytes, and each reply that it may get with what that means.
COMMANDS: list[tuple[Request[Any], bytes, list[tuple[bytes, object]]]] = [
    (
        requests.put(b"a\r\nb", priority=1, delay=2, ttr=3),
        b"put 1 2 3 4\r\na\r\nb\r\n",
        [
            (b"INSERTED 18446744073709551615\r\n", 18446744073709551615),
            (b"BURIED 5\r\n", errors.JobBuried),
            (b"EXPECTED_CRLF\r\n", errors.NotUnderstood),
            (b"JOB_TOO_BIG\r\n", errors.JobTooBig),
            (b"DRAINING\r\n", errors.Draining),
        ],
    ),
    (requests.put(b""), b"put 1024 0 60 0\r\n\r\n", [(b"INSERTED 1\r\n", 1)]),
    (requests.use("a/b"), b"use a/b\r\n", [(b"USING a/b\r\n", "a/b")]),
    (
        requests.reserve(),
        b"reserve\r\n",
        [
            (b"RESERVED 7 4\r\na\r\nb\r\n", Job(7, b"a\r\nb")),
            (b"RESERVED 7 0\r\n\r\n", Job(7, b"")),
            (b"DEADLINE_SOON\r\n", errors.DeadlineSoon),
            (b"TIMED_OUT\r\n", None),
        ],
    ),
    (
        requests.reserve_with_timeout(9),
        b"reserve-with-timeout 9\r\n",
        [
            (b"RESERVED 7 1\r\na\r\n", Job(7, b"a")),
            (b"DEADLINE_SOON\r\n", errors.DeadlineSoon),
            (b"TIMED_OUT\r\n", None),
        ],
    ),
    (
        requests.reserve_job(8),
        b"reserve-job 8\r\n",
        [(b"RESERVED 8 1\r\na\r\n", Job(8, b"a")), (b"NOT_FOUND\r\n", None)],
    ),
    (requests.delete(8), b"delete 8\r\n", [(b"DELETED\r\n", True), (b"NOT_FOUND\r\n", False)]),
    (
        requests.release(8, priority=1, delay=2),
        b"release 8 1 2\r\n",
        [(b"RELEASED\r\n", None), (b"BURIED\r\n", errors.JobBuried), (b"NOT_FOUND\r\n", errors.JobLost)],
    ),
    (requests.bury(8, priority=1), b"bury 8 1\r\n", [(b"BURIED\r\n", None), (b"NOT_FOUND\r\n", errors.JobLost)]),
    (requests.touch(8), b"touch 8\r\n", [(b"TOUCHED\r\n", None), (b"NOT_FOUND\r\n", errors.JobLost)]),
    (requests.watch("t"), b"watch t\r\n", [(b"WATCHING 2\r\n", 2)]),
    (requests.ignore("t"), b"ignore t\r\n", [(b"WATCHING 1\r\n", 1), (b"NOT_IGNORED\r\n", errors.NotIgnored)]),
    (requests.peek(8), b"peek 8\r\n", [(b"FOUND 8 1\r\na\r\n", Job(8, b"a")), (b"NOT_FOUND\r\n", None)]),
    (requests.peek_ready(), b"peek-ready\r\n", [(b"FOUND 8 1\r\na\r\n", Job(8, b"a")), (b"NOT_FOUND\r\n", None)]),
    (requests.peek_delayed(), b"peek-delayed\r\n", [(b"FOUND 8 1\r\na\r\n", Job(8, b"a")), (b"NOT_FOUND\r\n", None)]),
    (requests.peek_buried(), b"peek-buried\r\n", [(b"FOUND 8 1\r\na\r\n", Job(8, b"a")), (b"NOT_FOUND\r\n", None)]),
    (requests.kick(3), b"kick 3\r\n", [(b"KICKED 2\r\n", 2)]),
    (requests.kick_job(8), b"kick-job 8\r\n", [(b"KICKED\r\n", None), (b"NOT_FOUND\r\n", errors.JobNotFound)]),
    (
        requests.stats(),
        b"stats\r\n",
        [(ok(b"---\nid: 0123456789012345\ndraining: false\n"), {"id": "0123456789012345", "draining": False})],
    ),
    (
        requests.stats_job(8),
        b"stats-job 8\r\n",
        [(ok(b"---\nid: 8\ntube: 17\n"), {"id": 8, "tube": "17"}), (b"NOT_FOUND\r\n", None)],
    ),
    (
        requests.stats_tube("t"),
        b"stats-tube t\r\n",
        [(ok(b'---\nname: "t"\n'), {"name": "t"}), (b"NOT_FOUND\r\n", None)],
    ),
    (requests.list_tubes(), b"list-tubes\r\n", [(ok(b"---\n- default\n- 1\n"), ["default", "1"])]),
    (requests.list_tube_used(), b"list-tube-used\r\n", [(b"USING default\r\n", "default")]),
    (requests.list_tubes_watched(), b"list-tubes-watched\r\n", [(ok(b"---\n- a\n"), ["a"])]),
    (
        requests.pause_tube("t", 5),
        b"pause-tube t 5\r\n",
        [(b"PAUSED\r\n", None), (b"NOT_FOUND\r\n", errors.TubeNotFound)],
    ),
]
ANY_TIME = [
    (b"OUT_OF_MEMORY\r\n", errors.StoreFull),
    (b"INTERNAL_ERROR\r\n", errors.StoreFailed),
    (b"BAD_FORMAT\r\n", errors.NotUnderstood),
    (b"UNKNOWN_COMMAND\r\n", errors.NotUnderstood),
]
# Of all of them, but for those to a put after which the stream is out of step.
EXCHANGES = [
    (request, reply, meaning)
    for request, _, replies in COMMANDS
    for reply, meaning in replies + (ANY_TIME[:2] if request.verb == "put" else ANY_TIME)
]


def results(core: Core) -> list[object]:
    """Take all results that there are; a refusal, or what ended the connection, is its class."""
    found: list[object] = []
    try:
        while (answer := core.next()) is not None:
            request, reply = answer
            try:
                found.append(request.outcome(reply))
            except errors.Refused as error:
                found.append(type(error))
    except errors.ClientError as error:
        found.append(type(error))
    return found


def asked(*sent: Request[Any]) -> Core:
    core = Core()
    for request in sent:
        core.send(request)
    return core


@pytest.mark.parametrize(("request_", "data"), [(request, data) for request, data, _ in COMMANDS])
def test_a_request_is_the_command_that_the_server_reads(request_: Request[Any], data: bytes) -> None:
    assert Core().send(request_) == data
    parser = Parser(1 << 20)
    parser.feed(data)
    command = parser.next()
    assert command is not None
    assert command.verb not in (REFUSED, FOREIGN)


def test_every_command_of_the_protocol_is_there() -> None:
    words = {word.decode().strip() for word, _, _ in PREFIXES}
    assert set(EXPECTED) == words
    assert {request.verb for request, _, _ in COMMANDS} == words - {"quit"}


@pytest.mark.parametrize(("request_", "reply", "meaning"), EXCHANGES)
def test_every_reply_means_something(request_: Request[Any], reply: bytes, meaning: object) -> None:
    core = asked(request_)
    core.feed(reply)
    assert results(core) == [meaning]
    assert core.pending == 0


def pieces(stream: bytes, data: st.DataObject) -> Iterator[bytes]:
    """Split bytes anywhere."""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        yield stream[:size]
        stream = stream[size:]


@given(st.lists(st.sampled_from(EXCHANGES)), st.data())
def test_however_the_bytes_are_split_the_replies_are_the_same(exchanges: list[Any], data: st.DataObject) -> None:
    core = asked(*(request for request, _, _ in exchanges))
    found: list[object] = []
    for piece in pieces(b"".join(reply for _, reply, _ in exchanges), data):
        core.feed(piece)
        found += results(core)
    assert found == [meaning for _, _, meaning in exchanges]


@given(st.lists(st.sampled_from(EXCHANGES), min_size=1), st.binary(max_size=300), st.data())
def test_however_nonsense_is_split_it_is_the_same(exchanges: list[Any], nonsense: bytes, data: st.DataObject) -> None:
    sent = [request for request, _, _ in exchanges]
    stream = exchanges[0][1] + nonsense + exchanges[0][1]
    whole, split = asked(*sent), asked(*sent)
    whole.feed(stream)
    expected = results(whole)
    found: list[object] = []
    for piece in pieces(stream, data):
        split.feed(piece)
        found += results(split)
        if found and found[-1] is errors.BrokenReply:
            break
    assert found == expected


@pytest.mark.parametrize(
    "reply",
    [
        b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"FOUND 1 1\r\na\r\n",
        b"reserved 1 1\r\na\r\n",
        b"RESERVED 1\r\n",
        b"RESERVED 1 1 1\r\na\r\n",
        b"RESERVED  1 1\r\na\r\n",
        b"RESERVED -1 1\r\na\r\n",
        b"RESERVED 18446744073709551616 1\r\na\r\n",
        b"RESERVED 1 4294967296\r\na\r\n",
        b"RESERVED 1 " + b"9" * 100 + b"\r\na\r\n",
        b"RESERVED 1 1\r\nab\r\n",
        b"TIMED_OUT 1\r\n",
        b"TIMED_OUT\n",
        b"x" * 224,
        b"\xff\x00\x1b[2J\r\n",
    ],
)
def test_what_is_no_reply_to_a_reserve_ends_the_connection(reply: bytes) -> None:
    core = asked(requests.reserve(), requests.reserve())
    core.feed(reply + b"TIMED_OUT\r\n")
    for _ in range(2):
        with pytest.raises(errors.BrokenReply) as caught:
            core.next()
        assert str(caught.value).isprintable()
    with pytest.raises(errors.BrokenReply):
        core.send(requests.stats())


def test_a_put_that_is_not_understood_ends_the_connection() -> None:
    # Its body is taken for commands.
    core = asked(requests.put(b"delete 1"), requests.stats_tube("t"))
    core.feed(b"BAD_FORMAT\r\nNOT_FOUND\r\n")
    assert results(core) == [errors.BrokenReply]


def test_a_server_that_speaks_first_is_no_beanstalkd() -> None:
    core = Core()
    core.feed(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(errors.BrokenReply, match="before a request"):
        core.next()


@pytest.mark.parametrize("received", [b"", b"RESERVED", b"RESERVED 1 5\r\nab", b"RESERVED 1 1\r\na\r"])
def test_the_end_of_the_connection_is_the_end_of_all_that_wait(received: bytes) -> None:
    core = asked(requests.reserve())
    core.feed(received)
    core.feed_eof()
    assert results(core) == [errors.ServerGone]
    with pytest.raises(errors.ServerGone):
        core.send(requests.stats())


def test_what_came_before_the_end_is_given_out() -> None:
    core = asked(requests.delete(1), requests.delete(2))
    core.feed(b"DELETED\r\n")
    core.feed_eof()
    assert results(core) == [True, errors.ServerGone]


def test_quit_is_answered_by_the_end_and_nothing_follows_it() -> None:
    core = asked(requests.delete(1), requests.quit_())
    with pytest.raises(errors.ServerGone):
        core.send(requests.stats())
    core.feed(b"DELETED\r\n")
    core.feed_eof()
    assert results(core) == [True, None]


@pytest.mark.parametrize(
    "make",
    [
        lambda: requests.put(b"", priority=-1),
        lambda: requests.put(b"", delay=2**32),
        lambda: requests.put(b"", ttr=2**32),
        lambda: requests.use(""),
        lambda: requests.use("a b"),
        lambda: requests.use("a\r\ndelete 1"),
        lambda: requests.watch("-a"),
        lambda: requests.stats_tube("a" * 201),
        lambda: requests.pause_tube("\udcff", 1),
        lambda: requests.delete(2**64),
        lambda: requests.kick(2**32),
        lambda: requests.reserve_with_timeout(2**31),
    ],
)
def test_what_no_server_could_understand_is_not_sent(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


def test_stats_of_both_beanstalkds_are_read() -> None:
    old = b'---\nhostname: box\nos: #1 SMP PREEMPT\nversion: "1.12"\nrusage-utime: 0.012345\npid: 12\n'
    new = old.replace(b"box", b'"box"').replace(b"#1 SMP PREEMPT", b'"#1 SMP PREEMPT"')
    read = {"hostname": "box", "os": "#1 SMP PREEMPT", "version": "1.12", "rusage-utime": 0.012345, "pid": 12}
    assert mapping(old) == mapping(new) == read


@given(
    st.dictionaries(st.sampled_from(["name", "tube", "os"]), st.text(st.characters(exclude_categories=["Cs", "Cc"])))
)
def test_what_the_server_quotes_is_read_as_it_was(fields: dict[str, str]) -> None:
    assert mapping(yaml.mapping([(key, yaml.quoted(value)) for key, value in fields.items()])) == fields


@given(st.lists(st.from_regex(r"[A-Za-z0-9+/;.$_()][A-Za-z0-9+/;.$_()-]*", fullmatch=True)))
def test_lists_are_read_as_they_were(names: list[str]) -> None:
    assert sequence(yaml.sequence(names)) == names


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_a_line_that_is_too_long_is_no_reply_whether_or_not_it_ends(end: bytes) -> None:
    core = Core()
    core.send(requests.list_tube_used())
    core.feed(b"USING " + b"x" * MAX_LINE + end)
    with pytest.raises(errors.BrokenReply):
        core.next()


def test_an_end_within_a_line_is_no_answer_to_a_quit() -> None:
    core = Core()
    core.send(requests.quit_())
    core.feed(b"INSERT")
    core.feed_eof()
    with pytest.raises(errors.ServerGone):
        core.next()


def test_an_escape_of_no_character_is_left_as_it_is() -> None:
    assert sequence(b'---\n- "\\U0010ffff"\n- "\\U00110000"\n- "\\Uffffffff"\n') == [
        "\U0010ffff",
        "\\U00110000",
        "\\Uffffffff",
    ]


@pytest.mark.parametrize("document", [b"", b"id: 1\n", b"---\nid\n", b"---\nid: 1", b"---\n- a\n"])
def test_a_document_of_another_kind_is_a_broken_reply(document: bytes) -> None:
    with pytest.raises(errors.BrokenReply):
        mapping(document)


def test_a_list_of_another_kind_is_a_broken_reply() -> None:
    with pytest.raises(errors.BrokenReply):
        sequence(b"---\nid: 1\n")


def test_a_client_needs_the_protocol_and_nothing_else_of_ours() -> None:
    folder = Path(beanspiked.client.__file__).parent
    named = {
        name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    ours = {".".join(name.split(".")[:2]) for name in named if name.startswith("beanspiked")}
    assert ours == {"beanspiked.client", "beanspiked.protocol"}

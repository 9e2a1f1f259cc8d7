"""The harness itself: that it reads streams as beanstalkd does, and that it notices a server that differs."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from twins import liar
from twins.allowed import ALLOWED, same
from twins.calm import Rewriter
from twins.framing import complete, put_size
from twins.machine import bound
from twins.pair import MismatchError, Pair
from twins.replies import Reply, ReplyReader

LIES = [
    ("BURIED\r\n", "RELEASED\r\n"),
    ("WATCHING 2", "WATCHING 1"),
    ("TIMED_OUT", "DEADLINE_SOON"),
    ("\npri: 5\n", "\npri: 6\n"),
    ("\ncurrent-workers: 2", "\ncurrent-workers: 1"),
]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), LIES)
def test_a_lie_is_noticed(reference: str, old: str, new: str) -> None:
    quick = settings(
        max_examples=150,
        stateful_step_count=25,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with (
        Pair([reference], [sys.executable, str(Path(liar.__file__)), reference, old, new]) as pair,
        pytest.raises(MismatchError),
    ):
        run_state_machine_as_test(bound(pair), settings=quick)


@pytest.mark.real
def test_a_server_that_agrees_with_itself(reference: str) -> None:
    with Pair([reference], [reference]) as pair:
        pair.open(1)
        pair.send(1, b"use a\r\nput 0 0 100 1\r\na\r\nstats-job 2\r\nstats\r\n", [3, 20])
        replies = pair.settle()[1]
        assert [reply.line[:8] for reply in replies[1:4]] == [b"USING a", b"INSERTED", b"OK 141"[:8]] or len(
            replies
        ) == 6
        pair.send(1, b"watch a\r\nreserve\r\nreserve\r\nlist-tube-used\r\n")
        pair.settle()
        assert pair.pending(1)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"put 0 0 0 5", 5),
        (b"put  1   2 3 65535", 65535),
        (b"put 0 0 0 5 ", None),
        (b"put 0 0 0 5x", None),
        (b"put 0 0 0 65536 x", 65536),
        (b"put 4294967296 0 0 5", None),
        (b"put -1 0 0 5", None),
        (b"put 0 0 0", None),
        (b"put 1234", None),
        (b"put 0 0 0 5\0", None),
        (b"put 0 0 0 " + b"5".rjust(212, b"0"), 5),
        (b"put 0 0 0 " + b"5".rjust(213, b"0"), None),
        (b"PUT 0 0 0 5", None),
    ],
)
def test_which_lines_have_bodies(line: bytes, size: int | None) -> None:
    assert put_size(line) == size


@pytest.mark.parametrize(
    ("raw", "whole"),
    [
        (b"", b""),
        (b"stats", b"stats\r\n"),
        (b"put 0 0 0 3\r\nabc\r\n", b"put 0 0 0 3\r\nabc\r\n"),
        (b"put 0 0 0 3\r\na", b"put 0 0 0 3\r\na..\r\n"),
        (b"put 0 0 0 1\r\na\r", b"put 0 0 0 1\r\na\r\n"),
        (b"put 0 0 0 1\r\nabc\r\n", b"put 0 0 0 1\r\nabc\r\n"),
        (b"put 0 0 0 2\r\nabc\r\n", b"put 0 0 0 2\r\nabc\r\n\r\n"),
    ],
)
def test_a_stream_is_completed(raw: bytes, whole: bytes) -> None:
    assert complete(raw, lambda line: line).data == whole


@given(st.lists(st.sampled_from([b"put 0 0 0 3", b"\r\n", b"abc", b"\n", b"quit", b" "]), max_size=20))
def test_what_is_complete_stays_so(tokens: list[bytes]) -> None:
    once = complete(b"".join(tokens), lambda line: line)
    assert complete(once.data, lambda line: line) == once


@given(st.binary(max_size=30), st.lists(st.integers(0, 200), max_size=6))
def test_replies_do_not_depend_on_packets(body: bytes, cuts: list[int]) -> None:
    data = b"INSERTED 1\r\nRESERVED 1 %d\r\n%s\r\nNOT_FOUND\r\nOK 4\r\n---\n\r\nUSING" % (len(body), body)
    reader = ReplyReader()
    edges = [0, *sorted(cuts), len(data)]
    found = [reply for start, end in pairwise(edges) for reply in reader.feed(data[start:end])]
    assert found == [
        Reply(b"INSERTED 1"),
        Reply(b"RESERVED 1 %d" % len(body), body),
        Reply(b"NOT_FOUND"),
        Reply(b"OK 4", b"---\n"),
    ]
    assert reader.rest == b"USING"


def test_lines_the_servers_may_disagree_on_are_not_sent() -> None:
    rewrite = Rewriter(lambda: False, lambda _: True)
    assert rewrite(b"reserve") == rewrite(b"reserve-with-timeout x") == b"reserve-with-timeout 0"
    assert rewrite(b"reserve-with-timeout 4294967296") == rewrite(b"reserve-with-timeout ") == b"reserve-with-timeout 0"
    assert rewrite(b"reserve-with-timeout  0abc") == b"reserve-with-timeout  0abc"
    assert rewrite(b"a\rb") == b"a?b"
    assert len(rewrite(b"a" * 223)) == 224
    assert rewrite(b"put 1 2 3 4") == b"put 1 10002 10003 4"
    assert rewrite(b"release 1 2 3") == b"release 1 2 10003"
    assert rewrite(b"pause-tubea 7") == b"pause-tubea 10007"


def _yaml(*lines: bytes) -> Reply:
    body = b"---\n" + b"".join(line + b"\n" for line in lines)
    return Reply(b"OK %d" % len(body), body)


def test_the_comparison_permits_what_is_listed_and_no_more() -> None:
    assert same(_yaml(b"id: 1", b"tube: a", b"age: 3"), _yaml(b"id: 1", b'tube: "a"', b"age: 4"))
    assert not same(_yaml(b"id: 1", b"tube: a"), _yaml(b"id: 1", b'tube: "b"'))
    assert not same(_yaml(b"id: 1", b"age: 3"), _yaml(b"id: 1", b"age: 5"))
    assert not same(_yaml(b"id: 1", b"pri: 3"), _yaml(b"id: 1", b"pri: 4"))
    assert not same(_yaml(b"id: 1", b"pri: 3", b"age: 1"), _yaml(b"id: 1", b"age: 1", b"pri: 3"))
    assert same(
        _yaml(b"current-jobs-urgent: 1", b"pid: 3"),
        _yaml(b"current-jobs-urgent: 1", b"pid: 4", b'beanspiked-version: "1"'),
    )
    assert not same(_yaml(b"current-jobs-urgent: 1", b"cmd-put: 3"), _yaml(b"current-jobs-urgent: 1", b"cmd-put: 4"))
    assert not same(_yaml(b"- a", b"- b"), _yaml(b"- b", b"- a"))


def test_every_allowance_says_why() -> None:
    assert len({allowance.name for allowance in ALLOWED}) == len(ALLOWED)
    assert all(allowance.reason and allowance.section for allowance in ALLOWED)

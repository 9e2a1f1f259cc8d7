"""How bytes become command lines, and which lines are commands (§1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Connect

LONGEST_LINE = 224
HUGE_ID = 2**64 - 1


def padded(line_length: int, id_text: bytes = b"%d" % HUGE_ID) -> bytes:
    """Return a delete command of this length with CRLF: spaces before a number are skipped."""
    return b"delete " + id_text.rjust(line_length - len(b"delete \r\n")) + b"\r\n"


@pytest.mark.rule("1.1/crlf")
def test_a_line_ends_at_crlf_and_not_at_a_bare_newline(connect: Connect) -> None:
    connection = connect()
    connection.send(b"list-tube-used\n")
    assert connection.is_silent()
    connection.send(b"\r\n")
    assert connection.reply() == b"BAD_FORMAT"
    assert connection.ask(b"list-tube-used") == b"USING default"


@pytest.mark.rule("1.1/crlf")
def test_crlf_may_come_in_two_packets(connect: Connect) -> None:
    connection = connect()
    connection.send(b"list-tube-used\r")
    assert connection.is_silent(0.05)
    connection.send(b"\n")
    assert connection.reply() == b"USING default"


@pytest.mark.rule("1.1/lone-cr")
@pytest.mark.beanstalkd_bug("only the first CR of the buffer is looked at, so the line never ends")
@pytest.mark.parametrize("line", [b"foo\rbar", b"\rlist-tube-used", b"foo\r"])
def test_a_cr_inside_a_line_neither_ends_it_nor_hides_its_end(connect: Connect, line: bytes) -> None:
    connection = connect()
    connection.send(line + b"\r\nlist-tube-used\r\n")
    assert connection.reply(timeout=0.7) in {b"BAD_FORMAT", b"UNKNOWN_COMMAND"}
    assert connection.reply() == b"USING default"


@pytest.mark.rule("1.1/case")
@pytest.mark.parametrize("line", [b"STATS", b"List-Tubes", b"USE x", b"Quit"])
def test_command_words_are_lower_case(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/commands")
@pytest.mark.parametrize("word", [b"clear-tube x", b"help", b"version", b"auth x", b"info", b"list", b"x"])
def test_other_words_are_unknown_commands(connect: Connect, word: bytes) -> None:
    assert connect().ask(word) == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/line-limit")
@pytest.mark.parametrize("length", [LONGEST_LINE - 1, LONGEST_LINE])
def test_a_line_of_224_bytes_with_its_crlf_is_read(connect: Connect, length: int) -> None:
    connection = connect()
    connection.send(padded(length))
    assert connection.reply() == b"NOT_FOUND"


@pytest.mark.rule("1.1/line-limit")
@pytest.mark.parametrize("length", [226, 300, 448, 1_000, 20_000])
def test_a_longer_line_is_dropped_whole_and_answered_once(connect: Connect, length: int) -> None:
    connection = connect()
    connection.send(padded(length) + b"list-tube-used\r\n")
    assert connection.replies(2) == [b"BAD_FORMAT", b"USING default"]
    assert connection.is_silent(0.05)


@pytest.mark.rule("1.1/line-limit")
def test_a_longer_line_is_answered_only_when_it_ends(connect: Connect) -> None:
    connection = connect()
    connection.send(b"x" * 300)
    assert connection.is_silent()
    connection.send(b"x" * 300 + b"\r\n")
    assert connection.reply() == b"BAD_FORMAT"


@pytest.mark.rule("1.1/cr-at-224")
@pytest.mark.beanstalkd_bug("a CR that is byte 224 is thrown away with its buffer, and the next command with it")
@pytest.mark.parametrize("length", [225, 449])
def test_a_long_line_whose_cr_is_byte_224_ends_like_any_other(connect: Connect, length: int) -> None:
    connection = connect()
    connection.send(padded(length))
    assert connection.reply(timeout=0.7) == b"BAD_FORMAT"
    assert connection.ask(b"list-tube-used") == b"USING default"


@pytest.mark.rule("1.1/nul")
@pytest.mark.parametrize("line", [b"\0", b"stats\0", b"x\0y", b"use x\0", b"delete 1\0"])
def test_a_nul_byte_is_bad_format(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/empty")
@pytest.mark.parametrize("line", [b"", b" ", b" stats"])
def test_an_empty_line_and_a_leading_space_are_unknown_commands(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/bytes")
@pytest.mark.parametrize("line", [b"\xff\xfe", "größe".encode(), b"\x80stats"])
def test_bytes_outside_ascii_are_no_command(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/no-space")
@pytest.mark.parametrize(
    "word",
    [b"put", b"peek", b"delete", b"release", b"bury", b"use", b"kick", b"kick-job", b"touch", b"watch", b"ignore"],
)
def test_without_a_space_a_word_that_takes_arguments_is_unknown(connect: Connect, word: bytes) -> None:
    assert connect().ask(word) == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/no-argument")
@pytest.mark.parametrize(
    "word",
    [
        *(b"put", b"peek", b"delete", b"release", b"bury", b"use", b"kick", b"kick-job", b"touch", b"watch", b"ignore"),
        *(b"reserve-job", b"stats-job", b"stats-tube", b"pause-tube"),
    ],
)
def test_with_a_space_but_no_argument_it_is_bad_format(connect: Connect, word: bytes) -> None:
    assert connect().ask(word + b" ") == b"BAD_FORMAT"


@pytest.mark.rule("1.1/prefix")
@pytest.mark.parametrize(
    "line",
    [
        *(b"stats-job", b"stats-tube", b"statsx", b"stats x", b"stats-jobs 1"),
        *(b"reserve-job", b"reserve-with-timeout", b"reserve-mode x", b"reservex", b"reserve x"),
        *(b"list-tubesx", b"list-tubes x", b"list-tube-usedx", b"list-tubes-watchedx", b"list-tubes-watch"),
        *(b"peek-readyx", b"peek-delayed 1", b"peek-buriedx", b"pause-tube", b"pause-tubes x"),
    ],
)
def test_what_begins_like_a_command_without_arguments_is_bad_format(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/prefix")
@pytest.mark.parametrize("line", [b"stats ", b"reserve ", b"list-tubes ", b"list-tube-used ", b"peek-ready "])
def test_a_trailing_space_after_a_command_without_arguments_is_bad_format(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/prefix")
@pytest.mark.parametrize("line", [b"stat", b"list-tube", b"peek-", b"reserv", b"pause", b"kick-jobs", b"qui"])
def test_an_abbreviation_is_unknown(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"UNKNOWN_COMMAND"


@pytest.mark.rule("1.1/quit-prefix", "1.2/quit")
@pytest.mark.parametrize("line", [b"quit", b"quitting time", b"quit 1", b"quit "])
def test_whatever_begins_with_quit_ends_the_connection_without_reply(connect: Connect, line: bytes) -> None:
    connection = connect()
    connection.send(line + b"\r\n")
    assert connection.is_ended()


@pytest.mark.rule("1.1/pause-prefix")
def test_pause_tube_needs_no_space_before_the_name(connect: Connect, tube: str) -> None:
    name = tube.encode()
    connection = connect(use=tube)
    assert connection.ask(b"pause-tube" + name + b" 0") == b"PAUSED"
    assert connection.ask(b"pause-tube   " + name + b"   0") == b"PAUSED"


@pytest.mark.rule("1.1/goes-on")
def test_a_connection_goes_on_after_any_error(connect: Connect) -> None:
    connection = connect()
    wrong = [b"nonsense", b"delete x", b"", b"x" * 500, b"\0", b"put 1 2 3"]
    connection.send(b"".join(line + b"\r\n" for line in wrong) + b"list-tube-used\r\n")
    assert connection.replies(len(wrong) + 1) == [
        *(b"UNKNOWN_COMMAND", b"BAD_FORMAT", b"UNKNOWN_COMMAND", b"BAD_FORMAT", b"BAD_FORMAT", b"BAD_FORMAT"),
        b"USING default",
    ]

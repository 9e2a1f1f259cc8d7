"""Numbers and tube names in command lines (§1.1)."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Connect

U32_MAX = 2**32 - 1
NO_SUCH_ID = b"18446744073709551615"
BAD_NUMBERS = [b"-1", b"+1", b"0x10", b"1.0", b"1e3", b"x", b"1x", b"1 ", b"\t1", b"1\t", b"'1'", b"\xd9\xa3"]
ID_COMMANDS = [b"delete", b"peek", b"touch", b"kick-job", b"stats-job", b"reserve-job"]


@pytest.mark.rule("1.1/digits", "1.1/trailing")
@pytest.mark.parametrize("command", ID_COMMANDS)
@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_an_id_is_digits_and_nothing_else(connect: Connect, command: bytes, number: bytes) -> None:
    assert connect().ask(command + b" " + number) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/spaces")
@pytest.mark.parametrize("command", ID_COMMANDS)
def test_spaces_before_a_number_are_skipped(connect: Connect, command: bytes) -> None:
    assert connect().ask(command + b"    " + NO_SUCH_ID) == b"NOT_FOUND"


@pytest.mark.rule("1.1/digits", "1.2/ids-u64")
@pytest.mark.parametrize("command", ID_COMMANDS)
def test_an_id_has_64_bits(connect: Connect, command: bytes) -> None:
    connection = connect()
    assert connection.ask(command + b" 18446744073709551615") == b"NOT_FOUND"
    assert connection.ask(command + b" 18446744073709551616") == b"BAD_FORMAT"
    assert connection.ask(command + b" 99999999999999999999999") == b"BAD_FORMAT"
    assert connection.ask(command + b" 0") == b"NOT_FOUND"


@pytest.mark.rule("1.1/digits", "1.1/trailing", "1.2/release", "1.2/bury", "1.2/put-numbers")
@pytest.mark.parametrize("number", [number for number in BAD_NUMBERS if number != b"1 "])
@pytest.mark.parametrize(
    "line",
    [
        *(b"release %s 0 0", b"release 1 %s 0", b"release 1 0 %s", b"bury %s 0", b"bury 1 %s"),
        *(b"put %s 0 0 0", b"put 0 %s 0 0", b"put 0 0 %s 0", b"put 0 0 0 %s"),
    ],
)
def test_every_number_of_put_release_and_bury_is_digits(connect: Connect, line: bytes, number: bytes) -> None:
    assert connect().ask(line % number) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/digits", "1.1/trailing", "1.2/release", "1.2/bury", "1.2/put-numbers")
@pytest.mark.parametrize(
    "line",
    [
        *(b"release 1", b"release 1 2", b"release 1 2 3 ", b"release 1 2 3 4", b"bury 1", b"bury 1 2 ", b"bury 1 2 3"),
        *(b"put 0", b"put 0 0", b"put 0 0 0", b"put 0 0 0 ", b"put 0 0 0 1 ", b"put 0 0 0 1 1"),
    ],
)
def test_put_release_and_bury_want_all_their_numbers_and_no_more(connect: Connect, line: bytes) -> None:
    assert connect().ask(line) == b"BAD_FORMAT"


@pytest.mark.rule("1.2/release", "1.2/bury", "1.2/put-numbers")
@pytest.mark.parametrize("line", [b"release 1 %d 0", b"release 1 0 %d", b"bury 1 %d", b"put %d 0 0 0", b"put 0 0 0 %d"])
def test_priority_delay_and_size_have_32_bits(connect: Connect, line: bytes) -> None:
    assert connect().ask(line % (U32_MAX + 1)) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/spaces")
def test_put_skips_spaces_before_each_number(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    assert connection.ask(b"put   7    0  9   3\r\nabc").startswith(b"INSERTED ")
    assert connection.fields(b"stats-job %d" % connection.peek_ready().id)["pri"] == "7"


@pytest.mark.rule("1.1/kick-number", "1.2/kick")
@pytest.mark.parametrize(
    ("argument", "kicks"),
    [
        *((b"1", 1), (b"2", 2), (b"99", 3), (b"0", 0), (b" 2", 2), (b"2abc", 2), (b"1 2", 1), (b"+2", 2), (b"-1", 3)),
        *((b"4294967295", 3), (b"4294967296", 0), (b"4294967298", 2)),
    ],
)
def test_kick_reads_its_bound_loosely_into_32_bits(connect: Connect, tube: str, argument: bytes, kicks: int) -> None:
    connection = connect(use=tube)
    for _ in range(3):
        connection.insert(delay=100)
    assert connection.ask(b"kick " + argument) == b"KICKED %d" % kicks


@pytest.mark.rule("1.1/kick-number")
@pytest.mark.parametrize("argument", [b"", b"abc", b"99999999999999999999", b" ", b"."])
def test_kick_without_a_number_or_with_one_beyond_64_bits_is_bad_format(connect: Connect, argument: bytes) -> None:
    assert connect().ask(b"kick " + argument) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/reserve-number")
@pytest.mark.parametrize("argument", [b"0", b"0abc", b"0 0", b"  0", b"0 "])
def test_reserve_with_timeout_overlooks_what_follows_the_number(connect: Connect, tube: str, argument: bytes) -> None:
    assert connect(watch=tube).ask(b"reserve-with-timeout " + argument) == b"TIMED_OUT"


@pytest.mark.rule("1.2/reserve-timeout-range")
@pytest.mark.since_1_13("before, the number was read by strtol, which takes a word as 0 and -1 as for ever")
@pytest.mark.parametrize("argument", [b"", b"abc", b"-1", b"+1", b"2147483648", b"4294967295"])
def test_reserve_with_timeout_wants_31_bits(connect: Connect, tube: str, argument: bytes) -> None:
    assert connect(watch=tube).ask(b"reserve-with-timeout " + argument, timeout=0.5) == b"BAD_FORMAT"


@pytest.mark.rule("1.2/reserve-timeout-range")
def test_reserve_with_timeout_takes_2147483647_seconds(connect: Connect, tube: str) -> None:
    worker, producer = connect(watch=tube), connect(use=tube)
    worker.send(b"reserve-with-timeout 2147483647\r\n")
    assert worker.is_silent()
    job_id = producer.insert(b"at last")
    assert worker.job_reply() == (b"RESERVED", job_id, b"at last")


@pytest.mark.rule("1.1/name-letters")
def test_a_tube_name_may_have_letters_digits_and_nine_signs(connect: Connect, tube: str) -> None:
    connection = connect()
    name = f"{tube}-+/;.$_()"
    connection.use(name)
    assert connection.using() == name
    letters = f"{string.ascii_letters}{string.digits}"
    assert connection.watch(letters) == 2
    assert connection.watching() == ["default", letters]


@pytest.mark.rule("1.1/name-letters")
@pytest.mark.parametrize(
    "sign", [b":", b"@", b"#", b"*", b"=", b",", b"\\", b"'", b'"', b"\xc3\xa4", b"\x7f", b"\t", b"[", b"~"]
)
@pytest.mark.parametrize("command", [b"use %s", b"watch %s", b"ignore %s", b"stats-tube %s", b"pause-tube %s 0"])
def test_another_sign_in_a_tube_name_is_bad_format(connect: Connect, command: bytes, sign: bytes) -> None:
    assert connect().ask(command % (b"a" + sign + b"b")) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/name-dash")
@pytest.mark.parametrize("command", [b"use %s", b"watch %s", b"ignore %s", b"stats-tube %s", b"pause-tube %s 0"])
def test_a_tube_name_does_not_begin_with_a_dash(connect: Connect, command: bytes) -> None:
    connection = connect()
    assert connection.ask(command % b"-a") == b"BAD_FORMAT"
    assert connection.ask(command % b"-") == b"BAD_FORMAT"


@pytest.mark.rule("1.1/name-length")
def test_a_tube_name_has_200_bytes_at_most(connect: Connect, tube: str) -> None:
    name = tube.ljust(200, "n").encode()
    connection = connect()
    assert connection.ask(b"use " + name) == b"USING " + name
    assert connection.ask(b"watch " + name) == b"WATCHING 2"
    assert connection.ask(b"pause-tube " + name + b" 4294967295") == b"PAUSED"
    assert connection.fields(b"stats-tube " + name)["name"].strip('"') == name.decode()
    assert connection.ask(b"ignore " + name) == b"WATCHING 1"
    for command in (b"use %s", b"watch %s", b"ignore %s", b"stats-tube %s", b"pause-tube %s 0"):
        assert connection.ask(command % (name + b"n")) == b"BAD_FORMAT"


@pytest.mark.rule("1.1/name-spaces")
@pytest.mark.parametrize("command", [b"use", b"watch", b"ignore", b"stats-tube"])
def test_a_tube_name_begins_after_one_space_and_fills_the_line(connect: Connect, command: bytes) -> None:
    connection = connect()
    assert connection.ask(command + b"  default") == b"BAD_FORMAT"
    assert connection.ask(command + b" default ") == b"BAD_FORMAT"
    assert connection.ask(command + b" default x") == b"BAD_FORMAT"


@pytest.mark.rule("1.2/pause-range", "1.1/trailing")
@pytest.mark.parametrize("argument", [b"", b" ", b" -1", b" x", b" 1x", b" 1 ", b" 4294967296", b" 1 1"])
def test_pause_tube_wants_one_number_of_32_bits(connect: Connect, argument: bytes) -> None:
    assert connect().ask(b"pause-tube default" + argument) == b"BAD_FORMAT"


@pytest.mark.rule("1.2/pause-range")
def test_pause_tube_takes_136_years(connect: Connect, tube: str) -> None:
    connection = connect(use=tube)
    connection.pause_tube(tube, U32_MAX)
    assert connection.stats_tube(tube)["pause"] == U32_MAX

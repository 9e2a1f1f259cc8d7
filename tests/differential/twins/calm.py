"""Keep time out of an example: nothing that is sent comes due before it ends.

Delays, pauses and timeouts become either 0 or hours; a TTR becomes hours. What happens on time is for test_timed.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from twins.allowed import avoid
from twins.framing import JOB_LIMIT, LINE_LIMIT, put_size

LONG_S = 10_000
BIGGEST = JOB_LIMIT + 5
# Behind a blocked reserve nothing is read: when the socket's buffers are full, the end of the stream does not arrive either.
BIGGEST_BEHIND = 1000

_PUT = re.compile(rb"(put  *+\d++ *+)(\d++)( *+)(\d++)( *+)(\d++)(.*)", re.DOTALL)
_RELEASE = re.compile(rb"(release  *+\d++ *+\d++ *+)(\d++)()")
_PAUSE = re.compile(rb"(pause-tube *+[^ ]++ *+)(\d++)()")
_WAIT = re.compile(rb"(reserve-with-timeout  *+)(\d++)(.*)", re.DOTALL)
_LOOK = re.compile(rb"(?:peek|stats-job)  *+(\d++)")
_WATCH = re.compile(rb"watch ([^ ]+)")


def _long_or_none(number: bytes) -> bytes:
    value = int(number)
    return number if value == 0 or value >= LONG_S else b"%d" % (LONG_S + value)


def calm(line: bytes, biggest: int = BIGGEST) -> bytes:
    """Rewrite the times of a command line, and the size of a body nobody would want to send."""
    for pattern in (_RELEASE, _PAUSE, _WAIT):
        if match := pattern.fullmatch(line):
            return match[1] + _long_or_none(match[2]) + match[3]
    if put_size(line) is not None and (match := _PUT.fullmatch(line)):
        before, delay, gap, ttr, space, size, rest = match.groups()
        ttr = ttr if int(ttr) >= LONG_S else b"%d" % (LONG_S + int(ttr))
        size = size if int(size) <= biggest else b"%d" % biggest
        return before + _long_or_none(delay) + gap + ttr + space + size + rest
    return line


def may_block(line: bytes) -> bool:
    """Tell whether this command can make its connection wait."""
    match = _WAIT.fullmatch(line)
    return line == b"reserve" or (match is not None and int(match[2]) > 0)


def asks_sentinel(line: bytes) -> bool:
    """Tell whether the example itself peeks at the harness's job, number 1."""
    return len(line) + 2 <= LINE_LIMIT and re.fullmatch(rb"peek  *0*1", line) is not None


def watched(line: bytes) -> bytes | None:
    """Return the tube that this command adds to the watch list, if it is such a command."""
    match = _WATCH.fullmatch(line)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Turns a generated line into one whose replies both servers must agree on."""

    may_wait: Callable[[], bool]
    told: Callable[[int], bool]
    biggest: Callable[[], int] = lambda: BIGGEST

    def __call__(self, line: bytes) -> bytes:
        """Rewrite until nothing changes: one rule may bring a line into the reach of another."""
        for _ in range(4):
            before = line
            line = avoid(calm(line, self.biggest()))
            if len(line) + 2 <= LINE_LIMIT and may_block(line) and not self.may_wait():
                line = b"reserve-with-timeout 0"
            if (match := _LOOK.fullmatch(line)) and not self.told(int(match[1])):
                line = b"peek 0"
            if line == before:
                break
        return line

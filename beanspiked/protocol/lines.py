"""The arguments of each command, read from a line as prot.c does (dispatch_cmd, read_u32, read_u64, read_tube_name)."""

from typing import Final

from beanspiked.protocol.commands import (
    BURY,
    ID,
    KICK,
    PAUSE_TUBE,
    QUIT,
    REFUSED,
    RELEASE,
    RESERVE_WITH_TIMEOUT,
    TUBE,
    Command,
)
from beanspiked.protocol.replies import BAD_FORMAT

__all__ = ["MAX_TIMEOUT", "MAX_U32", "MAX_U64", "number", "refused", "valid_tube_name", "with_arguments"]

MAX_TUBE_NAME: Final = 200
MAX_U32: Final = 4294967295
MAX_U64: Final = 18446744073709551615
# prot.c: INT_MAX, the longest timeout of a reserve in seconds.
MAX_TIMEOUT: Final = 2147483647

# From so many digits on Python's own conversion is the faster one.
LONG: Final = 10

# The bytes of tube names (prot.c).
NAME_CHARS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-+/;.$_()"
# isspace() in the C locale, which strtoul skips.
C_SPACE: Final = b" \t\n\v\f\r"


def valid_tube_name(name: bytes) -> bool:
    """Tell whether a name is 1 to 200 of the allowed bytes and does not begin with `-` (prot.c: is_valid_tube)."""
    return 0 < len(name) <= MAX_TUBE_NAME and name[0] != 0x2D and not name.translate(None, NAME_CHARS)


def number(line: bytes, start: int, limit: int) -> tuple[int, int]:
    """Read digits after any spaces; return the number and the place after it, or -1 twice (prot.c: read_u32, read_u64).

    A start of -1 is left by an earlier failure, and fails again.
    """
    if start < 0:
        return -1, -1
    size = len(line)
    while start < size and line[start] == 0x20:
        start += 1
    value = 0
    end = start
    while end < size:
        digit = line[end] - 0x30
        if not 0 <= digit <= 9:
            break
        value = value * 10 + digit
        end += 1
    if end == start or value > limit:
        return -1, -1
    return value, end


def refused(reply: bytes, counts: int = -1) -> Command:
    """Return the command for a line that is answered with this reply; `counts` is the verb that is counted nevertheless."""
    return Command(REFUSED, reply=reply, counts=counts)


def with_arguments(verb: int, shape: int, args: bytes) -> Command:
    """Return the command of a verb and its arguments; `put`, whose body follows, is read elsewhere."""
    if shape == ID:
        if len(args) >= LONG and args.isdigit():
            # Micro-optimization: `number` multiplies, which takes a detour from 2^31 on.
            job_id = int(args)
            return Command(verb, id=job_id) if job_id <= MAX_U64 else refused(BAD_FORMAT)
        job_id, end = number(args, 0, MAX_U64)
        return Command(verb, id=job_id) if end == len(args) else refused(BAD_FORMAT)
    if 0 in args:
        return refused(BAD_FORMAT)
    if shape == TUBE:
        return Command(verb, name=args.decode("ascii")) if valid_tube_name(args) else refused(BAD_FORMAT)
    if verb == RELEASE:
        return _release(args)
    if verb == BURY:
        return _bury(args)
    if verb == RESERVE_WITH_TIMEOUT:
        timeout, end = number(args, 0, MAX_TIMEOUT)
        # Anything after the number is ignored.
        return Command(verb, id=timeout) if end > 0 else refused(BAD_FORMAT)
    if verb == KICK:
        return _kick(args)
    if verb == PAUSE_TUBE:
        return _pause_tube(args)
    return Command(QUIT)


def _release(args: bytes) -> Command:
    job_id, end = number(args, 0, MAX_U64)
    pri, end = number(args, end, MAX_U32)
    delay, end = number(args, end, MAX_U32)
    return Command(RELEASE, id=job_id, pri=pri, delay=delay) if end == len(args) else refused(BAD_FORMAT)


def _bury(args: bytes) -> Command:
    job_id, end = number(args, 0, MAX_U64)
    pri, end = number(args, end, MAX_U32)
    return Command(BURY, id=job_id, pri=pri) if end == len(args) else refused(BAD_FORMAT)


def _kick(args: bytes) -> Command:
    """Read the bound as strtoul does, into 32 bits: a sign is accepted, and anything after the digits is ignored."""
    digits = args.lstrip(C_SPACE)
    negative = digits.startswith(b"-")
    if negative or digits.startswith(b"+"):
        digits = digits[1:]
    if not digits or not 0x30 <= digits[0] <= 0x39:
        return refused(BAD_FORMAT)
    bound, _ = number(digits, 0, MAX_U64)
    if bound < 0:
        return refused(BAD_FORMAT)
    if negative:
        bound = -bound
    return Command(KICK, id=bound % (MAX_U32 + 1))


def _pause_tube(args: bytes) -> Command:
    """Read name and delay; the command is counted before the name is checked (prot.c: OP_PAUSE_TUBE)."""
    stripped = args.lstrip(b" ")
    rest = stripped.lstrip(NAME_CHARS)
    name = stripped[: len(stripped) - len(rest)]
    delay, end = number(rest, 0, MAX_U32)
    if not name or end != len(rest):
        return refused(BAD_FORMAT)
    if not valid_tube_name(name):
        return refused(BAD_FORMAT, counts=PAUSE_TUBE)
    return Command(PAUSE_TUBE, name=name.decode("ascii"), delay=delay)

"""Where commands begin and end in a stream of bytes, as beanstalkd sees it.

The generator makes arbitrary bytes. To know that a server has finished with them, the harness appends a command of its own, so it
must know that this command will be read as one: not as part of a line without end, nor as part of a job's body.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

LINE_LIMIT = 224  # prot.c: LINE_BUF_SIZE, with the CRLF
JOB_LIMIT = 65535  # the default of -z
U32 = 2**32 - 1

# Possessive: "12" is one number, never two. Spaces may stand before each number, and only before the first must one.
_PUT = re.compile(rb"put  *+(\d++) *+(\d++) *+(\d++) *+(\d++)(.*)", re.DOTALL)


def put_size(line: bytes) -> int | None:
    """Return how many bytes of body follow this line (without CRLF), or None if it is not a put that reads one."""
    if len(line) + 2 > LINE_LIMIT or b"\0" in line:
        return None
    match = _PUT.fullmatch(line)
    if match is None or any(int(number) > U32 for number in match.groups()[:4]):
        return None
    size = int(match[4])
    # prot.c looks at the size before it looks for trailing garbage.
    return None if match[5] and size <= JOB_LIMIT else size


@dataclass(slots=True)
class Stream:
    """A whole number of commands: their lines, and the bytes of each with its body."""

    lines: list[bytes] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    quits: bool = False

    @property
    def data(self) -> bytes:
        """All bytes."""
        return b"".join(self.pieces)


def complete(raw: bytes, rewrite: Callable[[bytes], bytes]) -> Stream:
    """Cut raw bytes into commands, rewrite each line, add what the last command lacks, and drop what follows a quit."""
    stream = Stream()
    at = 0
    while at < len(raw) and not stream.quits:
        end = raw.find(b"\r\n", at)
        line = raw[at:] if end < 0 else raw[at:end]
        at = len(raw) if end < 0 else end + 2
        line = rewrite(line)
        stream.lines.append(line)
        piece = line + b"\r\n"
        stream.quits = len(line) + 2 <= LINE_LIMIT and b"\0" not in line and line.startswith(b"quit")
        size = put_size(line)
        if size is not None:
            body = raw[at : at + size + 2]
            at += len(body)
            body += b"." * (size - len(body))
            piece += body + b"\r\n"[len(body) - size :]
        stream.pieces.append(piece)
    return stream

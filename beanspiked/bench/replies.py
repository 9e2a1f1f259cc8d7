"""Reads the server's replies, whole buffers at a time.

A benchmark needs only a part of the replies: how many puts and deletes the server has answered, and the ids of the
reserved jobs. A reader takes all bytes that it has not used yet and returns:

    used      bytes read; the caller keeps the rest, an unfinished reply, and calls again when more has come
    inserted  number of INSERTED
    ids       ids of the jobs RESERVED
    deleted   number of DELETED
    empty     number of TIMED_OUT, an empty tube's reply to `reserve-with-timeout 0`
    fault     the first reply of another kind; the numbers then count the replies before it
"""

from __future__ import annotations

import re
from collections.abc import Callable

Replies = tuple[int, int, list[bytes], int, int, bytes | None]
Reader = Callable[[bytes], Replies]

MAX_LINE = 224
"""No reply line of beanstalkd is longer (prot.c: LINE_BUF_SIZE)."""

_RESERVED = re.compile(rb"RESERVED ([0-9]{1,20}) ([0-9]{1,10})\r\n")
_RESERVED_ID = re.compile(rb"RESERVED ([0-9]{1,20}) ")


def read_any(data: bytes) -> Replies:
    """Read replies one by one, whatever the bodies contain."""
    at = inserted = deleted = empty = 0
    ids: list[bytes] = []
    while end := data.find(b"\n", at) + 1:
        if data.startswith(b"INSERTED ", at):
            inserted += 1
        elif data.startswith(b"DELETED\r", at):
            deleted += 1
        elif header := _RESERVED.match(data, at):
            end += int(header[2]) + 2
            if end > len(data):
                return at, inserted, ids, deleted, empty, None
            ids.append(header[1])
        elif data.startswith(b"TIMED_OUT\r", at):
            empty += 1
        else:
            return at, inserted, ids, deleted, empty, data[at:end].rstrip(b"\r\n")
        at = end
    # Otherwise this would keep a line that never ends, and search it again with each call.
    fault = data[at : at + MAX_LINE] if len(data) - at > MAX_LINE else None
    return at, inserted, ids, deleted, empty, fault


def reader_of_own(body: bytes) -> Reader:
    r"""Make a reader for tubes in which every job has `body`. The body has no line feed and no reply's name.

    Micro-optimization: it counts words instead of walking from reply to reply, which takes half of `read_any`'s time when a
    buffer has 16 replies. When the sums do not add up, `read_any` reads the buffer.
    """
    tail = b" %d\r\n%b\r\n" % (len(body), body)

    def read_own(data: bytes) -> Replies:
        end = data.rfind(b"\n") + 1
        last = data.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if data.startswith(b"RESERVED ", last):
            end = last  # Its body has not come yet.
        ids = _RESERVED_ID.findall(data, 0, end)
        inserted = data.count(b"INSERTED ", 0, end)
        deleted = data.count(b"DELETED\r", 0, end)
        if (
            inserted + deleted + 2 * len(ids) != data.count(b"\n", 0, end)
            or (ids and data.count(tail, 0, end) != len(ids))
            or len(data) - end > MAX_LINE + len(tail)
        ):
            return read_any(data)
        return end, inserted, ids, deleted, 0, None

    return read_own

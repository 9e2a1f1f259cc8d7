"""The server's log, on standard error: it never waits for its reader.

A pipe fills when its reader stops, and Ctrl-S stops a terminal. A wait would stop the server, so the log drops and counts lines. Before the
next line that it can write, a line says how many. The module imports little, since it is used before the socket listens.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys

# `typing` has this too, but takes longer to import than all of this.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from _typeshed import ReadableBuffer

__all__ = ["dropped", "guard", "start"]

STANDARD_ERROR: Final = 2
# PIPE_BUF, in bytes: a pipe with any room takes a write of this size whole, and so does a terminal with a reader.
MAX_WRITE: Final = 4096


class Output(io.RawIOBase):
    """A file that takes all lines and never waits.

    Args:
        fd: The descriptor to write to; it stays open.

    Attributes:
        dropped: How many lines were dropped since the start.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.dropped = 0
        self._untold = 0
        # Whether the last write ended in the middle of a line.
        self._torn = False
        self._fd = _own_way_to(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def writable(self) -> bool:
        """Return True: it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the lines that can be written now; drop and count the others."""
        lines = bytes(data)
        for piece in _pieces(lines):
            if not self._write(piece):
                count = max(1, piece.count(b"\n"))
                self.dropped += count
                self._untold += count
        return len(lines)

    def _write(self, piece: bytes) -> bool:
        if self._untold:
            told = self._untold
            lines = "1 line of the log was" if told == 1 else f"{told} lines of the log were"
            if not self._send(b"beanspiked: %b dropped\n" % lines.encode()):
                return False
            self._untold -= told
        return self._send(piece)

    def _send(self, piece: bytes) -> bool:
        if self._torn:
            piece = b"\n" + piece
        try:
            # A descriptor whose reader has gone is writable too; the write fails.
            if not self._poll.poll(0):
                return False
            sent = os.write(self._fd, piece)
        except OSError:
            # The pipe is closed, the terminal is gone or the disk is full. No other place takes the line, so it is only counted.
            return False
        if sent:
            self._torn = sent < len(piece)
        return sent == len(piece)


def _own_way_to(fd: int) -> int:
    """Open a pipe or a terminal once more, for writes that do not wait. If that fails, return the descriptor itself.

    O_NONBLOCK belongs to the open file, which other processes share: set there, it would break them. To open the file again needs /proc
    and permission. If that fails, one line may wait, if another process fills the pipe between our poll and our write.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return fd
    return fd


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Cut bytes into pieces of whole lines, at most MAX_WRITE bytes long. Keep only the beginning of a longer line."""
    while len(lines) > MAX_WRITE:
        end = lines.rfind(b"\n", 0, MAX_WRITE) + 1
        if end:
            yield lines[:end]
        else:
            yield lines[: MAX_WRITE - 1] + b"\n"
            end = lines.find(b"\n") + 1 or len(lines)
        lines = lines[end:]
    if lines:
        yield lines


_output: Output | None = None


def guard() -> None:
    """Make all writes to standard error non-blocking, even those of Python itself and of other libraries."""
    global _output  # noqa: PLW0603 - a process has one standard error
    if _output is None:
        _output = Output(STANDARD_ERROR)
        sys.stderr = io.TextIOWrapper(_output, "utf-8", "backslashreplace", line_buffering=True)


def start(verbose: int, who: str = "") -> None:
    """Start logging.

    Args:
        verbose: 0 for warnings, 1 for connections as well, 2 for commands as well.
        who: A prefix of each message, if several processes log to one place.
    """
    import logging  # noqa: PLC0415 - the socket listens before this

    guard()
    level = logging.DEBUG if verbose > 1 else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format=f"beanspiked: {who}%(message)s", stream=sys.stderr)


def dropped() -> int:
    """Return how many lines of the log were dropped since the start."""
    return 0 if _output is None else _output.dropped

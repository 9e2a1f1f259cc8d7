"""A file of the log: frames, one after the other, each with the records of one batch.

A file begins with a header: whose journal it belongs to, a salt, and the number of its first frame. The file keeps its size and is
written again from its start under a new salt, so behind its last frame stand older ones. The salt is random and goes into each checksum:
no older frame, and no body that looks like a frame, is taken for a frame of now.

Frames are numbered over both files. A frame also says up to which number frames were on disk when it was written. So after a frame that
cannot be read a later one tells whether the missing one was lost with the power, before anybody relied on it, or is damaged.
"""

import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from beanspiked.engine.errors import StoreUnusable

__all__ = ["START", "Frame", "Header", "LogFile", "frames_of", "header_of", "relied_on"]

logger = logging.getLogger(__name__)

MAGIC: Final = b"bspklog1"
# The magic, the journal, the salt, the number of the first frame, a checksum.
HEADER: Final = Struct("<8s8s8sQI")
# Where frames begin.
START: Final = 64
MARK: Final = b"bspf"
# The mark, a checksum of what follows, and: the payload's size, the frame's number, the number of the last one on disk.
FRAME: Final = Struct("<4sI")
NUMBERS: Final = Struct("<QQQ")
FRAME_SIZE: Final = FRAME.size + NUMBERS.size
BLOCK: Final = 1 << 18


class Header(NamedTuple):
    """What a file says of itself."""

    journal: bytes
    salt: bytes
    first: int


class Frame(NamedTuple):
    """A valid frame.

    Attributes:
        number: Its number.
        durable: The number of the last frame that was on disk when this one was written.
        data: The records.
        end: Where it ends in its file.
    """

    number: int
    durable: int
    data: bytes
    end: int


def header_of(fd: int, path: Path) -> Header | None:
    """Read a file's header; None if it holds no frames.

    Raises:
        StoreUnusable: It is damaged.
        OSError: It cannot be read.
    """
    data = os.pread(fd, HEADER.size, 0)
    if not data.strip(b"\0"):
        return None
    if len(data) == HEADER.size:
        magic, journal, salt, first, checksum = HEADER.unpack(data)
        if magic == MAGIC and checksum == zlib.crc32(data[:-4]):
            return Header(journal, salt, first)
    raise StoreUnusable(f"{path}: its header is damaged")


def frames_of(fd: int, header: Header, start: int = START, number: int = 0) -> Iterator[Frame]:
    """Read frames while they are valid, from the first one, or from frame `number` at `start`.

    Raises:
        OSError: They cannot be read.
    """
    seed = zlib.crc32(header.salt)
    number = number or header.first
    block = b""
    block_at = at = start
    while True:
        frame: Frame | int | None = FRAME_SIZE
        while isinstance(frame, int):
            needed = frame
            if at - block_at + needed > len(block):
                block = _read(fd, at, max(needed, BLOCK))
                block_at = at
                if len(block) < needed:
                    return
            frame = _frame(block, at - block_at, seed, at)
        if frame is None or frame.number != number:
            return
        yield frame
        at = frame.end
        number += 1


def relied_on(fd: int, header: Header, start: int, number: int) -> bool:
    """Tell whether a frame behind `start` says that frame `number` was on disk."""
    seed = zlib.crc32(header.salt)
    data = _read(fd, start, os.fstat(fd).st_size)
    at = data.find(MARK)
    while at >= 0:
        if at + FRAME_SIZE <= len(data):
            _, later, durable = NUMBERS.unpack_from(data, at + FRAME.size)
            if later > number and durable >= number and isinstance(_frame(data, at, seed, 0), Frame):
                return True
        at = data.find(MARK, at + 1)
    return False


def _frame(block: bytes, at: int, seed: int, place: int) -> Frame | int | None:
    """Return the frame at a place of a block, its size if the block has not all of it, or None if there is none."""
    mark, checksum = FRAME.unpack_from(block, at)
    if mark != MARK:
        return None
    size, number, durable = NUMBERS.unpack_from(block, at + FRAME.size)
    if at + FRAME_SIZE + size > len(block):
        return FRAME_SIZE + int(size)
    with memoryview(block) as view:
        if zlib.crc32(view[at + FRAME.size : at + FRAME_SIZE + size], seed) != checksum:
            return None
    start = at + FRAME_SIZE
    return Frame(number, durable, block[start : start + size], place + FRAME_SIZE + size)


def _read(fd: int, at: int, size: int) -> bytes:
    """Read so many bytes, or all that there are."""
    parts: list[bytes] = []
    # A damaged size may be any number.
    left = min(size, max(0, os.fstat(fd).st_size - at))
    while left:
        part = os.pread(fd, left, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
        left -= len(part)
    return b"".join(parts)


class LogFile:
    """A file of the log, as its writer has it.

    Args:
        path: Its path; it is made if it does not exist.

    Attributes:
        fd: Its descriptor.
        size: How many bytes of it are on disk, to be written without a need for more room.
        end: Where its next frame will stand.
        last: The number of its last frame; below `header.first` when it has none.
        header: What its header says.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        self.size = os.fstat(self.fd).st_size
        self.end = START
        self.last = -1
        self.header = Header(b"", b"", 0)
        self._seed = 0
        # Up to where it is on disk, and the number of the last frame there.
        self._durable_end = START
        self._durable = -1

    def resume(self, header: Header, end: int, last: int) -> None:
        """Go on behind its last frame; nothing behind that will ever be read.

        Raises:
            OSError: It cannot be written.
        """
        self.header, self.end, self.last = header, end, last
        self._seed = zlib.crc32(header.salt)
        self._zero(end, self.size)
        self.sync()

    def begin(self, journal: bytes, first: int) -> None:
        """Begin anew, with frame `first`. What is in it must not be needed any more.

        Raises:
            OSError: It cannot be written.
        """
        header = Header(journal, os.urandom(8), first)
        data = HEADER.pack(MAGIC, *header, 0)[:-4]
        _write(self.fd, data + zlib.crc32(data).to_bytes(4, "little"), 0)
        self.header, self.end, self.last = header, START, first - 1
        self._seed = zlib.crc32(header.salt)
        self._durable_end, self._durable = START, first - 1

    def forget(self) -> None:
        """Have it hold no frames.

        Raises:
            OSError: It cannot be written.
        """
        self._zero(0, min(self.size, START))
        os.fdatasync(self.fd)

    def grow(self, size: int) -> None:
        """Have so many bytes of it on disk, all of them zero at first.

        Raises:
            OSError: There is no room; it has its size of before.
        """
        try:
            self._zero(self.size, size)
            os.fsync(self.fd)
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size = max(self.size, size)

    def shrink(self, size: int) -> None:
        """Give back what is behind so many bytes.

        Raises:
            OSError: It cannot be changed.
        """
        os.ftruncate(self.fd, size)
        self.size = size

    def room(self, size: int) -> bool:
        """Tell whether a frame with so many bytes of records has room in what is on disk."""
        return self.end + FRAME_SIZE + size <= self.size

    def append(self, pieces: list[bytes], durable: int, sync: bool) -> None:
        """Write a frame, and sync it on demand.

        Args:
            pieces: Its records.
            durable: The number of the last frame that is on disk.
            sync: Whether it has to be on disk.

        Raises:
            OSError: It cannot be written or synced. It will not be read, unless the disk does not even take that.
        """
        number = self.last + 1
        numbers = NUMBERS.pack(sum(map(len, pieces)), number, durable)
        checksum = zlib.crc32(numbers, self._seed)
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        head = FRAME.pack(MARK, checksum) + numbers
        at = self.end
        try:
            if len(pieces) == 1:
                at += _write(self.fd, head + pieces[0], at)
            else:
                for piece in (head, *pieces):
                    at += _write(self.fd, piece, at)
            if sync:
                os.fdatasync(self.fd)
        except OSError:
            self._spoil()
            raise
        self.size = max(self.size, at)
        self.end = at
        self.last = number
        if sync:
            self._durable_end, self._durable = at, number

    def is_durable(self) -> bool:
        """Tell whether all its frames are on disk."""
        return self._durable == self.last

    def sync(self) -> None:
        """Sync all its frames.

        Raises:
            OSError: That failed; use `write_again` from then on.
        """
        end, last = self.end, self.last
        os.fdatasync(self.fd)
        self._durable_end, self._durable = end, last

    def write_again(self) -> None:
        """Write the frames again that may not be on disk, and sync them.

        The kernel reports pages that it could not write once, and may then count them as written, so that another sync would prove nothing.

        Raises:
            OSError: That failed, or they cannot be read any more.
        """
        if self.is_durable():
            return
        last = self._durable
        for frame in frames_of(self.fd, self.header, self._durable_end, self._durable + 1):
            last = frame.number
            if last == self.last:
                break
        if last != self.last:
            raise OSError(f"{self.path}: frame {last + 1} cannot be read any more")
        _write(self.fd, _read(self.fd, self._durable_end, self.end - self._durable_end), self._durable_end)
        self.sync()

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)

    def _spoil(self) -> None:
        """Keep a frame that was refused from being read."""
        try:
            os.pwrite(self.fd, bytes(FRAME_SIZE), self.end)
        except OSError as failed:
            # Then it is read after a crash, unless the next one takes its place.
            logger.debug("%s: %s", self.path, failed)

    def _zero(self, start: int, end: int) -> None:
        while start < end:
            start += _write(self.fd, bytes(min(BLOCK, end - start)), start)


def _write(fd: int, data: bytes, at: int) -> int:
    """Write all of it; return its size."""
    done = os.pwrite(fd, data, at)
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], at + done)
    return done

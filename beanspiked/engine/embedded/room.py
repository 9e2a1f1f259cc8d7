"""Room on the disk: a reserve of it for deletes, and how the want of it is told from other faults."""

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import Final

from beanspiked.engine.embedded.database import PRIVATE

__all__ = ["Room"]

logger = logging.getLogger(__name__)

# Larger than the write-ahead log gets (database.WAL_PAGES): a checkpoint on a full disk copies up to all of it.
RESERVE_BYTES: Final = 8 << 20
# What the kernel says when a disk, a quota or a file can take no more, and how much is written to find out.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE_BYTES: Final = 64 << 10


class Room:
    """The disk that a journal's directory is on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def restore(self) -> bool:
        """Set space aside for deletes on a full disk; tell whether it stands."""
        path = self._directory / "reserve"
        try:
            if path.exists() and path.stat().st_size == RESERVE_BYTES:
                return True
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in NO_ROOM:
                self.release()
                return False
            # A file system that cannot set space aside: deletes on a full disk are then refused like puts.
            logger.debug("%s: no reserve: %s", path, error)
        return True

    def release(self) -> None:
        """Let it go."""
        with contextlib.suppress(OSError):
            (self._directory / "reserve").unlink()

    def want(self, *files: Path) -> str:
        """Tell which want of room, if any, is behind what SQLite calls an I/O error: of those it knows ENOSPC alone.

        Args:
            files: The journal's.
        """
        path = self._directory / "probe"
        size = max(file.stat().st_size for file in files if file.exists())
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
            try:
                left = b"probe---" * (PROBE_BYTES // 8)
                while left:
                    left = left[os.write(fd, left) :]
                # One byte more than the largest file has. Not to that file: who closes any descriptor of it loses SQLite's locks.
                os.pwrite(fd, b"-", size)
                # Some file systems only tell then.
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            return error.strerror or "no room" if error.errno in NO_ROOM else ""
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        return ""

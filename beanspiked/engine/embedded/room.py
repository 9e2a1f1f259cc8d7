"""Room on the disk: a reserve for deletes, and how a full disk is told from other faults."""

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from beanspiked.engine.embedded.database import PRIVATE

__all__ = ["NO_ROOM", "Room"]

logger = logging.getLogger(__name__)

# Larger than the write-ahead log gets (database.WAL_PAGES): a checkpoint on a full disk copies up to all of it.
RESERVE_BYTES: Final = 8 << 20
# The kernel's errors for a full disk, quota or file, and how many bytes are written at a time to find out.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PROBE: Final = b"probe---" * 8192


class Room:
    """The disk of a journal's directory. Any thread may use it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.RLock()
        self._lent = False

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        """Give the reserve up, and keep other threads from taking its space again meanwhile."""
        with self._lock:
            self.release()
            self._lent = True
        try:
            yield
        finally:
            self._lent = False

    def restore(self) -> bool:
        """Reserve space for deletes on a full disk; tell whether that succeeded."""
        with self._lock:
            return not self._lent and self._restore()

    def _restore(self) -> bool:
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
            # A file system that cannot reserve space: deletes on a full disk are then refused like puts.
            logger.debug(
                "%s: no space can be reserved: %s; deletes will be refused while the disk is full", path, error
            )
        return True

    def release(self) -> bool:
        """Give the reserve up; tell whether there was one."""
        with self._lock, contextlib.suppress(OSError):
            (self._directory / "reserve").unlink()
            return True
        return False

    def want(self, room: int, *files: Path) -> str:
        """Return the lack of room behind SQLite's I/O error, if there is one: SQLite itself recognises ENOSPC only.

        Args:
            room: How many bytes SQLite may have needed.
            files: The journal's.
        """
        path = self._directory / "probe"
        size = max(file.stat().st_size for file in files if file.exists())
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
            try:
                while room > 0:
                    room -= os.write(fd, PROBE)
                # A file of one byte more than the largest one; not that file itself: closing any descriptor of it releases SQLite's locks.
                os.pwrite(fd, b"-", size)
                # Some file systems fail only here.
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            return error.strerror or "no room" if error.errno in NO_ROOM else ""
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        return ""

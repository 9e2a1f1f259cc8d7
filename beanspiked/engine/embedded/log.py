"""The log: what is committed is appended to it, and folded into the database later.

It has two files in turns. While one is folded, commits go to the other. Only a fold that is on disk makes a file free to be written
again. The database says which frame was folded last, so every other frame is either in the log or damaged.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from beanspiked.engine.contract import ALL
from beanspiked.engine.embedded.database import PRIVATE, log_paths
from beanspiked.engine.embedded.frames import Frame, Header, LogFile, frames_of, header_of, relied_on
from beanspiked.engine.errors import StoreUnusable

__all__ = ["SIZES", "Found", "Log", "Sizes", "read_log"]

logger = logging.getLogger(__name__)

# A file's size doubles while the disk has so many times as much room.
ROOM_TIMES: Final = 16
# How many times its size at most a file grows to while the other one is folded.
GROWN_TIMES: Final = 4


class Sizes:
    """A file's size at first and at most, in bytes."""

    def __init__(self, first: int, most: int) -> None:
        self.first: int = first
        self.most: int = most


SIZES: Final = Sizes(1 << 18, 16 << 20)


class Found(NamedTuple):
    """A file with frames that are not folded yet, and the last of these."""

    path: Path
    header: Header
    end: int
    last: int


def read_log(directory: Path, journal: bytes, folded: int, take: Callable[[bytes], object]) -> list[Found]:
    """Read the frames that are not folded yet, in order.

    Args:
        directory: The journal's directory.
        journal: The journal's name for itself.
        folded: The number of the last frame that was folded.
        take: Called with the records of each frame.

    Returns:
        The files that have such frames, the older one first.

    Raises:
        StoreUnusable: A file is damaged, or belongs to another journal.
    """
    files: list[tuple[Header, Path, int]] = []
    found: list[Found] = []
    short: list[Path] = []
    try:
        # The newer file is looked at first. If it has frames, the older one will get no more, also in a journal that is in use.
        for path in log_paths(directory):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                short.append(path)
                continue
            files.append((Header(b"", b"", 0), path, fd))
            if os.fstat(fd).st_size < SIZES.first:
                short.append(path)
            header = header_of(fd, path)
            if header is None:
                continue
            if header.journal != journal:
                raise StoreUnusable(
                    f"{path}: belongs to another journal than the database beside it; move it away if the database was restored"
                )
            files[-1] = (header, path, fd)
        whole: dict[Path, list[Frame]] = {}
        live = sorted((file for file in files if file[0].journal), key=lambda file: file[0].first, reverse=True)
        below = ALL
        for header, path, fd in live:
            # Behind the older file's last frame a refused one may stand, with the number of the newer file's first one.
            # Where both begin with the same, one has no frames.
            whole[path] = [frame for frame in frames_of(fd, header) if frame.number < below or header.first == below]
            below = header.first
        number = folded + 1
        for header, path, fd in reversed(live):
            frames = whole[path]
            for frame in frames:
                if frame.number == number:
                    take(frame.data)
                    number += 1
            last = frames[-1] if frames else None
            if last is not None and folded < last.number < number:
                found.append(Found(path, header, last.end, last.number))
            # What is behind the last valid frame, or all if frames before the first one are missing.
            is_next = last is not None and last.number == number - 1
            start = last.end if last is not None and is_next else 0
            # A server that goes on writing may have added frame `number` after its file was read.
            if relied_on(fd, header, start, number) and (
                not start or next(frames_of(fd, header, start, number), None) is None
            ):
                raise StoreUnusable(
                    f"{path}: damaged: frame {number} is missing or cannot be read, and later ones follow"
                )
    except OSError as error:
        raise StoreUnusable(f"{directory}: the log cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise StoreUnusable(f"{directory}: the log cannot be read: {error}; start a newer beanspiked") from error
    finally:
        for _, _, fd in files:
            os.close(fd)
    if short and any(header.journal for header, _, _ in files):
        # Both have their size before either has a header, and lose their headers before either goes. So it was in use: what is missing
        # may be all that was not folded, however old what the other one holds.
        raise StoreUnusable(
            f"{short[0]}: damaged: it is missing or cut short, and the log may have jobs that are not in the database;"
            " restore it, or move both files of the log away and lose what they hold"
        )
    return found


class Log:
    """The log of a journal that is in use.

    Args:
        directory: The journal's directory.
        journal: The journal's name for itself.
        folded: The number of the last frame that was folded.
        found: What `read_log` found.

    Attributes:
        lock: Held while a frame is written or the files change places.
        current: Where frames are written.
        full: The file that waits to be folded, or None.
        spare: The file that can be written next, or None.

    Raises:
        StoreUnusable: It cannot be written.
    """

    def __init__(self, directory: Path, journal: bytes, folded: int, found: list[Found]) -> None:
        self.lock = threading.Lock()
        self.full: LogFile | None = None
        self.spare: LogFile | None = None
        self._directory = directory
        self._journal = journal
        files: list[LogFile] = []
        try:
            files += [LogFile(path, PRIVATE) for path in log_paths(directory)]
            by_path = {file.path: file for file in files}
            used = [by_path[place.path] for place in found]
            free = [file for file in files if file not in used]
            for file, place in zip(used, found, strict=True):
                file.resume(place.header, place.end, place.last)
            for file in free:
                file.forget()
                if file.size < SIZES.first:
                    file.grow(SIZES.first)
            # The files' names have to be on disk, too, before a header says that there are two of them.
            fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            if used:
                self.current = used[-1]
            else:
                self.current = free.pop(0)
                self.current.begin(journal, folded + 1)
            self.full = used[0] if len(used) > 1 else None
            self.spare = free[0] if free else None
            if self.spare is not None:
                # No frame has this number. The header tells that the log is in use, should the other file be missing.
                self.spare.begin(journal, 0)
        except OSError as error:
            for file in files:
                file.close()
            raise StoreUnusable(f"{directory}: the log cannot be written: {error.strerror or error}") from error
        self._files = files
        # The number of the last frame that is on disk.
        self._durable: int = self.current.last

    def append(self, pieces: list[bytes], sync: bool) -> None:
        """Write a frame, with the lock held.

        Raises:
            OSError: It cannot be written or synced.
        """
        self.current.append(pieces, self._durable, sync)
        if sync:
            self._durable = self.current.last

    def has_frames(self) -> bool:
        """Tell whether the current file has frames."""
        return self.current.last >= self.current.header.first

    def share(self, size: int) -> float:
        """Tell which share the current file would have of the size that it may grow to with a frame of so many bytes of records.

        Raises:
            OSError: The disk cannot be asked.
        """
        # Its name may be gone, and its directory moved away.
        disk = os.fstatvfs(self.current.fd)
        return (self.current.end + size) / min(GROWN_TIMES * SIZES.most, disk.f_bavail * disk.f_frsize / ROOM_TIMES + 1)

    def switch(self) -> bool:
        """Go on in the other file if that is free, with the lock held; tell whether that was so.

        Raises:
            OSError: The other file cannot be written.
        """
        spare = self.spare
        if spare is None:
            return False
        spare.begin(self._journal, self.current.last + 1)
        self.full, self.current, self.spare = self.current, spare, None
        return True

    def is_durable(self) -> bool:
        """Tell whether all frames are on disk, or folded."""
        return self._durable == self.current.last

    def sync(self, again: bool) -> None:
        """Sync all frames, with the lock held.

        Args:
            again: Whether an earlier sync has failed, so that they have to be written again.

        Raises:
            OSError: That failed.
        """
        for file in (self.full, self.current):
            if file is not None and not file.is_durable():
                if again:
                    file.write_again()
                else:
                    file.sync()
        self._durable = self.current.last

    def folded(self) -> None:
        """Let the file that was folded be written again; make it larger if its size was too small and the disk has room."""
        file = self.full
        assert file is not None
        try:
            if file.size > SIZES.most:
                file.shrink(SIZES.most)
            size = min(2 * file.size, SIZES.most)
            disk = os.fstatvfs(file.fd)
            if file.size < size and file.end > file.size // 2 and disk.f_bavail * disk.f_frsize > ROOM_TIMES * size:
                file.grow(size)
        except OSError as error:
            logger.debug("%s: its size cannot be changed: %s", file.path, error)
        with self.lock:
            self._durable = max(self._durable, file.last)
            self.full, self.spare = None, file

    def close(self, remove: bool) -> None:
        """Close the files, and remove them if all is folded."""
        try:
            if remove:
                # After a crash between the two, the one that is left must not seem to lack the other.
                for file in self._files:
                    file.forget()
                for file in self._files:
                    file.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning(
                "%s: the log cannot be removed, but nothing in it is needed: %s",
                self._directory,
                error.strerror or error,
            )
        finally:
            for file in self._files:
                file.close()

"""File systems too small or read-only, in mount namespaces of their own, so that nothing of them is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOUNT = 'mount -t tmpfs -o "size=$2" beanspiked-test "$1" && echo mounted && exec sleep 1000'


class SmallDisk:
    """A file system in memory.

    Attributes:
        directory: Its path, as the processes on it see it.
        within: Words before a command that runs on it.
        seen: Its path for everybody else.
    """

    def __init__(self, directory: Path, keeper: subprocess.Popen[bytes], within: Sequence[str]) -> None:
        self.directory = directory
        self.within = within
        self.seen = Path(f"/proc/{keeper.pid}/root{directory}")
        self._keeper = keeper

    @classmethod
    def make(cls, directory: Path, megabytes: int) -> SmallDisk | None:
        """Mount one on this directory, or return None where that is not permitted."""
        unshare, nsenter = shutil.which("unshare"), shutil.which("nsenter")
        if unshare is None or nsenter is None:
            return None
        for mine, theirs in (([], []), (["--user", "--map-root-user"], ["--user", "--preserve-credentials"])):
            keeper = subprocess.Popen(
                [unshare, *mine, "--mount", "sh", "-c", MOUNT, "sh", str(directory), f"{megabytes}m"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert keeper.stdout is not None
            with keeper.stdout:
                is_mounted = keeper.stdout.readline() == b"mounted\n"
            if is_mounted:
                return cls(directory, keeper, [nsenter, "--target", str(keeper.pid), *theirs, "--mount"])
            keeper.wait()
        return None

    def free(self) -> int:
        """Bytes that are free."""
        numbers = os.statvfs(self.seen)
        return numbers.f_bavail * numbers.f_frsize

    def fill(self) -> Path:
        """Take all space that is left by a file, and return the file."""
        path = self.seen / "filler"
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return path

    def make_read_only(self) -> None:
        subprocess.run([*self.within, "mount", "-o", "remount,ro", str(self.directory)], check=True)

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.wait()

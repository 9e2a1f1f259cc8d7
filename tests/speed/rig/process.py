"""The compared servers, each on a free loopback port."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

# The scripts run by themselves, without pytest's paths.
sys.path.append(str(Path(__file__).parents[2] / "shared"))

from launcher import Farm, NotServingError, ServerProcess, cpu_s

from rig.client import Client

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BrokenError", "Server", "Side", "cpu_s"]


class BrokenError(Exception):
    """A server or the load generator failed. The text says which and how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the compared servers.

    Attributes:
        name: Its name in tables and charts.
        command: Its command line. The command must become the server itself, since its process id is measured.
        durable: The options after `-b DIR` that make it sync before each reply.
    """

    name: str
    command: tuple[str, ...]
    durable: tuple[str, ...]


class Server:
    """A server's process, from its start to its end.

    Raises:
        BrokenError: It does not serve.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._farm: Farm[ServerProcess] = Farm()
        try:
            self._process = self._farm.launch(self._start)
        except BaseException as error:
            self._farm.close()
            if isinstance(error, NotServingError):
                raise BrokenError(str(error)) from error
            raise
        address = self._process.address
        assert isinstance(address, tuple)
        self.port = address[1]
        self.pid = self._process.pid
        self.cpu_s = self._process.cpu_s
        self.rss_bytes = self._process.rss_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        fault = (
            None if self._process.alive else self._process.fault(f"it ended with {self._process.process.returncode}")
        )
        self.stop()
        if error is not None and fault is not None:
            raise BrokenError(str(fault)) from error

    def _start(self, port: int) -> ServerProcess:
        try:
            return ServerProcess([*self._command, "-l", "127.0.0.1", "-p", str(port)], ("127.0.0.1", port))
        except OSError as error:
            raise BrokenError(f"cannot start {self._command[0]}: {error.strerror}") from error

    def stop(self) -> None:
        """End the process and wait for it."""
        self._farm.close()

    def connect(self) -> Client:
        """Open a connection to it."""
        return Client(self.port)

    def about(self) -> str:
        """Return the server's version; for a Python server also its Python, and whether its core is compiled."""
        version = _printed(*self._command, "-v")
        interpreter = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        if not Path(interpreter).name.startswith("python"):
            return version
        compiled = re.search(r"/beanspiked/.*\.so$", Path(f"/proc/{self.pid}/maps").read_text(), re.MULTILINE)
        return f"{version} ({_printed(interpreter, '-V')}, {'compiled' if compiled else 'pure Python'} core)"


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()

"""Start servers on free loopback ports, read what the kernel knows about them, and end them by their process id."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rig.client import Client

if TYPE_CHECKING:
    from types import TracebackType

START_WITHIN_S = 20.0
STOP_WITHIN_S = 15.0
# Another process may take a free port before the server does.
START_ATTEMPTS = 3


class BrokenError(Exception):
    """A server or the load generator did not do its part; the text says which and how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two servers that are compared.

    Attributes:
        name: `ours` or `peer`.
        command: Its command line; it must become the server itself, for its process id is what is measured.
        durable: The options after `-b DIR` that make it sync before each reply.
    """

    name: str
    command: tuple[str, ...]
    durable: tuple[str, ...]


def free_port() -> int:
    """Return a loopback port that nobody listened on a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Server:
    """A server's process, from its start to its end.

    Raises:
        BrokenError: It does not serve.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
            self._process = self._spawn(command)
            try:
                self._wait_until_it_listens()
            except BrokenError:
                self.stop()
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        ended = self._process.poll()
        said = self.stop()
        if error is not None and ended is not None:
            raise BrokenError(f"the server ended with {ended}: {said}") from error

    def _spawn(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BEANSPIKED_")}
        try:
            return subprocess.Popen(
                [*command, "-l", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=environment,
            )
        except OSError as error:
            self._errors.close()
            raise BrokenError(f"cannot start {command[0]}: {error.strerror}") from error

    def _wait_until_it_listens(self) -> None:
        until = time.monotonic() + START_WITHIN_S
        while True:
            ended = self._process.poll()
            if ended is not None:
                raise BrokenError(f"the server ended with {ended} instead of serving: {self._said()}")
            try:
                with self.connect() as client:
                    client.ask("list-tube-used")
                return
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise BrokenError(f"the server does not listen within {START_WITHIN_S:.0f} s") from None
                time.sleep(0.01)

    def _said(self) -> str:
        """Return the end of what the server wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-500:]

    def stop(self) -> str:
        """End the process, wait for it, and return the end of what it wrote to its standard error."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_WITHIN_S)
        with contextlib.closing(self._errors):
            return self._said()

    def connect(self) -> Client:
        """Open a connection to it."""
        return Client(self.port)

    # --- what the kernel knows

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Return the processor time that it has used.

        It is the sum of utime and stime in `/proc/PID/stat`, but in nanoseconds instead of ticks of 10 ms: the clock that
        `clock_getcpuclockid(3)` names, which Linux makes of the process id in this way.
        """
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def rss_bytes(self) -> int:
        """Return the size of its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def about(self) -> str:
        """Say what serves, and for a Python server on which Python and whether its core is compiled."""
        version = _printed(*self._command, "-v")
        interpreter = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        if not Path(interpreter).name.startswith("python"):
            return version
        compiled = re.search(r"/beanspiked/.*\.so$", Path(f"/proc/{self.pid}/maps").read_text(), re.MULTILINE)
        return f"{version} ({_printed(interpreter, '-V')}, {'compiled' if compiled else 'pure Python'} core)"


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()

"""Servers under test: started by the user's command where nobody else listens, and always ended by their process id."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ports import free_port

from lab.client import HANG_SECONDS, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EXIT_PORT_BUSY = 111
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def server_command() -> list[str]:
    """The command under test, as words."""
    named = os.environ.get("BEANSPIKED_TEST_COMMAND")
    return shlex.split(named) if named else [str(Path(sys.executable).with_name("beanspiked"))]


def until(check: Callable[[], bool], seconds: float = HANG_SECONDS) -> bool:
    """Ask again and again until `check` is true; false when the time is up."""
    give_up_at = time.monotonic() + seconds
    while not check():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)
    return True


class Server:
    """A server process.

    Attributes:
        address: (host, port), or the path of a unix socket.
        started_at: When its process was started, by `time.monotonic`.
    """

    def __init__(
        self,
        words: list[str],
        address: tuple[str, int] | str,
        environ: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.address = address
        self._clients: list[Client] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **environ},
            pass_fds=pass_fds,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def dial(self) -> socket.socket:
        """Open a socket to the server."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        if isinstance(self.address, tuple) and ":" in self.address[0]:
            family = socket.AF_INET6
        sock = socket.socket(family)
        try:
            sock.settimeout(HANG_SECONDS)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self) -> Client:
        """Open a connection that is closed with the server."""
        client = Client(self.dial)
        self._clients.append(client)
        return client

    def dial_when_listening(self) -> socket.socket:
        """Connect as soon as that is possible."""
        give_up_at = time.monotonic() + HANG_SECONDS
        while True:
            try:
                return self.dial()
            except OSError:
                assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log()}"
                assert time.monotonic() < give_up_at, f"does not listen on {self.address}: {self.log()}"
                time.sleep(0.002)

    def wait_until_serving(self) -> None:
        """Wait for the first reply: a server listens before it serves."""
        probe = Client(self.dial_when_listening)
        try:
            assert probe.ask(b"") is not None
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{error}; status {self.process.poll()}; {self.log()}") from error
        finally:
            probe.close()

    def log(self) -> str:
        """What the process wrote to its output and error output so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode("utf-8", "replace")

    def rss(self) -> int:
        """Resident memory, in bytes."""
        rows = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmRSS:"))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait(HANG_SECONDS)
        self._disconnect()

    def terminate(self) -> int:
        """End the process as a service manager would; return its exit status."""
        self.process.terminate()
        return self.wait()

    def wait(self, seconds: float = HANG_SECONDS) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        """End the process whatever its state. May be repeated."""
        self._disconnect()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(6)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def _disconnect(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()


class Servers:
    """Starts servers and ends them all."""

    def __init__(self) -> None:
        self._started: list[Server] = []

    def start(
        self,
        *flags: str | Path,
        wait: bool = True,
        port: int | None = None,
        path: Path | None = None,
        within: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Server:
        """Start a server.

        Args:
            flags: Its command line, but for where it listens.
            wait: Whether to wait until it serves.
            port: A loopback port; a free one if not given.
            path: A unix socket instead.
            within: Words before the command that become it in the end, such as a tracer's.
            environ: What its environment has besides ours.
        """
        for attempts_left in (2, 1, 0):
            address: tuple[str, int] | str = ("127.0.0.1", free_port() if port is None else port)
            listen = ["-l", address[0], "-p", str(address[1])]
            if path is not None:
                address = str(path)
                listen = ["-l", f"unix:{path}"]
            words = [*within, *server_command(), *listen, *map(str, flags)]
            server = Server(words, address, environ or {})
            self._started.append(server)
            if not wait:
                return server
            try:
                server.wait_until_serving()
            except AssertionError:
                # Between our look for a free port and the server's bind somebody else may have taken it.
                if port is not None or not attempts_left or server.process.poll() != EXIT_PORT_BUSY:
                    raise
                continue
            return server
        raise AssertionError("unreachable")

    def adopt(self, server: Server) -> Server:
        """Have a server ended with the others."""
        self._started.append(server)
        return server

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for server in self._started:
                stack.callback(server.close)
        self._started.clear()


def run(*words: str | Path, within: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command of beanspiked's that ends by itself."""
    line = [*within, *server_command(), *map(str, words)]
    return subprocess.run(
        line, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=HANG_SECONDS
    )


def refuse(journal: Path, *flags: str, within: Sequence[str] = ()) -> str:
    """Start a server that must refuse its journal with beanstalkd's exit code 10; return the one line that it says."""
    done = run("-l", "127.0.0.1", "-p", str(free_port()), "-b", journal, *flags, within=within)
    assert done.returncode == 10, (done.returncode, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]

"""Fresh servers: started on a free loopback port by the user's command, and always ended by their process id."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from .wire import READ_TIMEOUT_S, Connection, Endpoint

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Sequence
    from pathlib import Path

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
EXIT_PORT_BUSY = 111
# Becomes the server, with the socket of the first argument as descriptor 3, as systemd would start it.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def free_port() -> int:
    """Return a TCP port that nobody uses, on any address.

    It lies below the range from which the kernel serves other probes and outgoing connections, which parallel tests open
    between this call and the server's bind.
    """
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


class Command:
    """The template of `--fresh-server-command`.

    `{host}` and `{port}` are filled in where they occur; without them `-l HOST -p PORT` is appended. Flags that a test
    wants come last. For a unix socket the host is `unix:PATH`.
    """

    def __init__(self, template: str) -> None:
        """Split the template like a shell would."""
        self._words = shlex.split(template)

    def line(self, host: str, port: int, flags: Iterable[str] = ()) -> list[str]:
        """Return the argument list that starts a server there."""
        words = [word.replace("{host}", host).replace("{port}", str(port)) for word in self._words]
        if "{port}" not in "".join(self._words):
            words += ["-l", host, "-p", str(port)]
        return [*words, *flags]

    def run(self, *flags: str, timeout: float = 10.0) -> subprocess.CompletedProcess[str]:
        """Run a server that should end by itself, as it does for `-v` or a wrong flag.

        Raises:
            subprocess.TimeoutExpired: it went on to serve; it has been killed.
        """
        return subprocess.run(
            self.line("127.0.0.1", free_port(), flags),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )


class FreshServer:
    """A running server process of our own."""

    def __init__(
        self, command: Command, flags: Sequence[str], endpoint: Endpoint, inherited: socket.socket | None = None
    ) -> None:
        """Start the process; `wait_until_serving` tells when it can be used."""
        self.endpoint = endpoint
        self._connections: list[Connection] = []
        self._probe: socket.socket | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        line = command.line(f"unix:{endpoint.path}" if endpoint.path else endpoint.host, endpoint.port, flags)
        passed: tuple[int, ...] = ()
        if inherited is not None:
            passed = (inherited.fileno(),)
            line = [sys.executable, "-c", ACTIVATE, str(inherited.fileno()), *line]
            name = inherited.getsockname()
            self.endpoint = Endpoint(path=name) if isinstance(name, str) else Endpoint(host=name[0], port=name[1])
        self.process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, pass_fds=passed
        )

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self.process.pid

    def wait_until_serving(self) -> None:
        """Wait for the first reply: a server may listen before it can serve.

        The connection is kept for the first `connect`, and what it asks is no command: servers count both.

        Raises:
            RuntimeError: the process ended, or did not serve in time.
        """
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while self._probe is None:
            if self.process.poll() is not None:
                raise RuntimeError(f"server ended with {self.process.returncode} at once: {self.log()}")
            try:
                self._probe = self.endpoint.dial()
            except OSError:
                if time.monotonic() > give_up_at:
                    raise RuntimeError(f"server does not listen on {self.endpoint}: {self.log()}") from None
                time.sleep(0.01)
        self._probe.settimeout(START_TIMEOUT_S)
        self._probe.sendall(b"\r\n")
        reply = b""
        while not reply.endswith(b"\r\n"):
            try:
                received = self._probe.recv(100)
            except OSError as error:
                raise RuntimeError(f"server does not answer ({error}): {self.log()}") from None
            if not received:
                raise RuntimeError(f"server hung up: {self.log()}")
            reply += received
        self._probe.settimeout(READ_TIMEOUT_S)

    def connect(self, *, use: str = "default", watch: str | Iterable[str] = "default") -> Connection:
        """Open a connection that is closed with the server."""
        sock, self._probe = self._probe or self.endpoint.dial(), None
        connection = Connection(sock, use=use, watch=watch)
        self._connections.append(connection)
        return connection

    def log(self) -> str:
        """Return what the process wrote to its output and error output so far."""
        end = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), end, 0).decode("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT_S) -> int:
        """Wait for the process to end and return its exit status."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """End the process as a crash would, and drop the connections to it."""
        self.process.kill()
        self.process.wait()
        self._disconnect()

    def close(self) -> None:
        """End the process whatever its state, and drop all that belongs to it. May be repeated."""
        self._disconnect()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        if self._probe is not None:
            self._probe.close()
            self._probe = None


class Farm:
    """Starts fresh servers and ends them all."""

    def __init__(self, command: Command) -> None:
        """Use this command for all of them."""
        self.command = command
        self._servers: list[FreshServer] = []

    def start(
        self,
        *flags: str | Path,
        host: str = "127.0.0.1",
        port: int | None = None,
        path: str | Path = "",
        inherited: socket.socket | None = None,
    ) -> FreshServer:
        """Start a server and wait for it.

        Args:
            flags: further flags on its command line.
            host: the address it listens on.
            port: its port; a free one if not given.
            path: a unix socket, instead of host and port.
            inherited: a listening socket to be handed over as systemd does; host, port and path are then overruled.

        Raises:
            RuntimeError: it did not come up.
        """
        for attempts_left in (2, 1, 0):
            endpoint = Endpoint(path=str(path), host=host, port=free_port() if port is None else port)
            server = FreshServer(self.command, [str(flag) for flag in flags], endpoint, inherited)
            self._servers.append(server)
            try:
                server.wait_until_serving()
            except RuntimeError:
                # Between our look for a free port and the server's bind somebody else may have taken it.
                busy = port is None and not path and server.process.poll() == EXIT_PORT_BUSY
                if not (busy and attempts_left):
                    raise
                continue
            return server
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End all servers started here."""
        with contextlib.ExitStack() as stack:
            for server in self._servers:
                stack.callback(server.close)
        self._servers.clear()

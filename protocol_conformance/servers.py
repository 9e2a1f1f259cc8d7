"""Fresh servers: started by the user's command, with the connections to them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from . import launcher
from .launcher import ServerProcess, free_port
from .wire import Connection, Endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# Becomes the server, with the socket of the first argument as descriptor 3, as systemd would start it.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


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


class FreshServer(ServerProcess):
    """A running server process of our own."""

    def __init__(
        self, command: Command, flags: Sequence[str], endpoint: Endpoint, inherited: socket.socket | None = None
    ) -> None:
        """Start the process; `wait_until_serving` tells when it can be used."""
        self.endpoint = endpoint
        self._connections: list[Connection] = []
        self._probe: socket.socket | None = None
        line = command.line(f"unix:{endpoint.path}" if endpoint.path else endpoint.host, endpoint.port, flags)
        passed: tuple[int, ...] = ()
        if inherited is not None:
            passed = (inherited.fileno(),)
            line = [sys.executable, "-c", ACTIVATE, str(inherited.fileno()), *line]
            name = inherited.getsockname()
            self.endpoint = Endpoint(path=name) if isinstance(name, str) else Endpoint(host=name[0], port=name[1])
        super().__init__(line, self.endpoint.path or (self.endpoint.host, self.endpoint.port), pass_fds=passed)

    def wait_until_serving(self) -> None:
        """Wait for the first reply on a connection that is kept for the first `connect`: servers count them.

        Raises:
            NotServingError: The process ended, or did not serve in time.
        """
        self._probe = self.first_served()

    def connect(self, *, use: str = "default", watch: str | Iterable[str] = "default") -> Connection:
        """Open a connection that is closed with the server."""
        sock, self._probe = self._probe or self.endpoint.dial(), None
        connection = Connection(sock, use=use, watch=watch)
        self._connections.append(connection)
        return connection

    def kill(self) -> None:
        """End the process as a crash would, and drop the connections to it."""
        super().kill()
        self._disconnect()

    def close(self) -> None:
        """End the process whatever its state, and drop all that belongs to it. May be repeated."""
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        if self._probe is not None:
            self._probe.close()
            self._probe = None


class Farm(launcher.Farm[FreshServer]):
    """Starts fresh servers and ends them all."""

    def __init__(self, command: Command) -> None:
        """Use this command for all of them."""
        super().__init__()
        self.command = command

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
            NotServingError: it did not come up.
        """
        words = [str(flag) for flag in flags]

        def start(port: int) -> FreshServer:
            return FreshServer(self.command, words, Endpoint(path=str(path), host=host, port=port), inherited)

        return self.launch(start, port=port)

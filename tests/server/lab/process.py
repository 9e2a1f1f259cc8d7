"""Servers under test, with connections that end with them."""

from __future__ import annotations

import shlex
import subprocess
import time
from typing import TYPE_CHECKING

from launcher import Address, Farm, ServerProcess, free_port
from suite import COMMAND

from lab.client import HANG_SECONDS, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def server_command() -> list[str]:
    """The command under test, as words."""
    return shlex.split(COMMAND)


def until(check: Callable[[], bool], seconds: float = HANG_SECONDS) -> bool:
    """Ask again and again until `check` is true; false when the time is up."""
    give_up_at = time.monotonic() + seconds
    while not check():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)
    return True


class Server(ServerProcess):
    """A server process, and the connections to it."""

    def __init__(
        self,
        words: Sequence[str],
        address: Address,
        environ: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        output: int | None = None,
    ) -> None:
        self._clients: list[Client] = []
        super().__init__(words, address, environ=environ, pass_fds=pass_fds, output=output)

    def connect(self) -> Client:
        """Open a connection that is closed with the server."""
        client = Client(self.dial)
        self._clients.append(client)
        return client

    def kill(self) -> None:
        """End the process as a crash would."""
        super().kill()
        self._disconnect()

    def close(self) -> None:
        """End the process whatever its state. May be repeated."""
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()


class Servers(Farm[Server]):
    """Starts servers and ends them all.

    Args:
        io: How they hear their sockets.
    """

    def __init__(self, io: str = "auto") -> None:
        super().__init__()
        self._io = io

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

        def start(port: int) -> Server:
            listen = ["-l", "127.0.0.1", "-p", str(port)] if path is None else ["-l", f"unix:{path}"]
            address: Address = ("127.0.0.1", port) if path is None else str(path)
            return Server(
                [*within, *server_command(), *listen, *map(str, flags)],
                address,
                {"BEANSPIKED_IO": self._io, **(environ or {})},
            )

        return self.launch(start, port=port) if wait else self.adopt(start(free_port() if port is None else port))


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

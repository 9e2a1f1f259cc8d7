"""Start a beanstalk server on a free loopback port and end it by its process id."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from ports import free_port

START_PATIENCE_S = 20.0


def reference_command() -> str | None:
    """Find beanstalkd; Debian's lies outside many users' PATH."""
    return shutil.which("beanstalkd") or shutil.which("beanstalkd", path="/usr/bin:/usr/sbin:/usr/local/bin")


def test_command() -> list[str]:
    """Return the command of the server under test: BEANSPIKED_TEST_COMMAND, or the console script of this Python."""
    given = os.environ.get("BEANSPIKED_TEST_COMMAND")
    return shlex.split(given) if given else [str(Path(sys.executable).parent / "beanspiked")]


class ServerProcess:
    """One running server.

    Nobody connects to it before the harness does: a health check would show in `total-connections`.
    """

    def __init__(self, command: list[str], options: list[str] | None = None) -> None:
        self.command = command
        self.port = free_port()
        self.process = subprocess.Popen(
            [*command, "-l", "127.0.0.1", "-p", str(self.port), *(options or [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def connect(self) -> socket.socket:
        """Connect, waiting for a server that is still starting.

        Raises:
            RuntimeError: if the process ended, or does not listen in time.
        """
        until = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    raise RuntimeError(
                        f"{self.command} ended with {self.process.returncode} instead of serving"
                    ) from None
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.command} does not listen on port {self.port}") from None
                time.sleep(0.005)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process and wait for it."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

"""Starts servers under test on free ports, waits until they serve, and always ends them by their process id.

The module needs nothing but Python, so scripts can use it as well.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["EXIT_PORT_BUSY", "Address", "Farm", "NotServingError", "ServerProcess", "cpu_s", "free_port", "serving"]

# A host and a port, or the path of a unix socket.
Address = tuple[str, int] | str

START_WITHIN_S = 20.0
STOP_WITHIN_S = 15.0
DIAL_WITHIN_S = 5.0
EXIT_PORT_BUSY = 111
START_ATTEMPTS = 3
# The caller's own settings. A server gets only the settings that the test gives it.
SETTINGS = ("BEANSPIKED_", "AEROSPIKE_")


class NotServingError(Exception):
    """A server ended or did not answer in time. The text names it and has its output."""


def free_port() -> int:
    """Return a TCP port that nobody uses, on any address.

    It lies below the range from which the kernel takes ports for other probes and outgoing connections, since parallel tests
    open thousands of them between this call and the server's bind.
    """
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(15000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds.

    It is the sum of utime and stime in `/proc/PID/stat`, in nanoseconds instead of ticks of 10 ms. It reads the clock that
    `clock_getcpuclockid(3)` returns, whose number Linux makes from the process id in this way.
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


class ServerProcess:
    """A server process, from its start to its end.

    Attributes:
        words: Its command line.
        address: The address that it listens on.
        process: The process itself.
        started_at: When it was started, by `time.monotonic`.
    """

    def __init__(
        self,
        words: Sequence[str],
        address: Address,
        *,
        environ: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        output: IO[bytes] | int | None = None,
    ) -> None:
        """Start it. `wait_until_serving` tells when it can be used.

        Args:
            words: The command line, which must become the server itself.
            address: The address that it will listen on.
            environ: Variables that are added to our environment.
            pass_fds: Descriptors that it inherits.
            output: Takes its output; by default a file that `log` reads.

        Raises:
            OSError: There is no such command.
        """
        self.words = list(words)
        self.address = address
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        output = self._log if output is None else output
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        self.started_at = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=kept | dict(environ or {}),
                pass_fds=pass_fds,
            )
        except OSError:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def dial(self) -> socket.socket:
        """Open a socket to the server.

        Raises:
            OSError: It does not listen.
        """
        if isinstance(self.address, tuple):
            sock = socket.create_connection(self.address[:2], DIAL_WITHIN_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(DIAL_WITHIN_S)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def dial_when_listening(self) -> socket.socket:
        """Connect as soon as that is possible.

        Raises:
            NotServingError: It ended, or does not listen in time.
        """
        give_up_at = time.monotonic() + START_WITHIN_S
        while True:
            try:
                return self.dial()
            except OSError as error:
                if not self.alive:
                    raise self.fault(f"it ended with {self.process.returncode} instead of serving") from None
                if time.monotonic() > give_up_at:
                    raise self.fault(f"it does not listen on {self.address} ({error})") from None
                time.sleep(0.002)

    def wait_until_serving(self) -> None:
        """Wait for the first reply, since a server may listen before it serves.

        Raises:
            NotServingError: It ended, hung up, or does not answer in time.
        """
        self.first_served().close()

    def first_served(self) -> socket.socket:
        """Wait for the first reply; return the connection that got it. The request is no command, since servers count commands.

        Raises:
            NotServingError: It ended, hung up, or does not answer in time.
        """
        probe = self.dial_when_listening()
        try:
            probe.settimeout(START_WITHIN_S)
            probe.sendall(b"\r\n")
            reply = b""
            while not reply.endswith(b"\r\n"):
                received = probe.recv(100)
                if not received:
                    raise self.fault("it hung up")
                reply += received
            probe.settimeout(DIAL_WITHIN_S)
        except BaseException as error:
            probe.close()
            if isinstance(error, OSError):
                raise self.fault(f"it does not answer ({error})") from error
            raise
        return probe

    def fault(self, what: str) -> NotServingError:
        """Return an error with its fault and its output."""
        return NotServingError(f"{' '.join(self.words)}: {what}: {self.log()[-2000:]}")

    def log(self) -> str:
        """Return its output and error output so far, unless `output` takes them."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    # --- figures of the kernel

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        return cpu_s(self.pid)

    def rss_bytes(self) -> int:
        """Return the size of its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # --- its end

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_WITHIN_S) -> int:
        """Wait for its end; return its exit status."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(STOP_WITHIN_S)

    def terminate(self) -> int:
        """End it as a service manager would; return its exit status."""
        self.process.terminate()
        return self.wait()

    def close(self) -> None:
        """End it in any state. May be repeated."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()


AServer = TypeVar("AServer", bound=ServerProcess)


class Farm(Generic[AServer]):
    """Starts servers and ends them all."""

    def __init__(self) -> None:
        """Begin with none."""
        self._servers: list[AServer] = []

    def adopt(self, server: AServer) -> AServer:
        """Let a server be ended with the others."""
        self._servers.append(server)
        return server

    def launch(self, start: Callable[[int], AServer], *, port: int | None = None) -> AServer:
        """Start a server on a port and wait until it serves.

        Args:
            start: Starts it on a given port.
            port: The port; by default a free one, and another if a process takes that before the server's bind.

        Raises:
            NotServingError: It does not serve.
        """
        for attempts_left in reversed(range(START_ATTEMPTS)):
            server = self.adopt(start(free_port() if port is None else port))
            try:
                server.wait_until_serving()
            except NotServingError:
                if port is not None or not attempts_left or server.process.poll() != EXIT_PORT_BUSY:
                    raise
            else:
                return server
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End all servers."""
        with contextlib.ExitStack() as stack:
            for server in self._servers:
                stack.callback(server.close)
        self._servers.clear()


@contextlib.contextmanager
def serving(
    words: Sequence[str], *flags: str, path: str = "", environ: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Serve with a command on a free loopback port, or on a unix socket; end the server afterwards.

    Raises:
        NotServingError: It does not serve.
        OSError: There is no such command.
    """
    farm: Farm[Any] = Farm()

    def start(port: int) -> ServerProcess:
        listen = ["-l", f"unix:{path}"] if path else ["-l", "127.0.0.1", "-p", str(port)]
        return ServerProcess([*words, *listen, *flags], path or ("127.0.0.1", port), environ=environ)

    try:
        yield farm.launch(start)
    finally:
        farm.close()

"""Compiles bsload and runs it, and probes a server while it runs."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rig.process import BrokenError, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).parent.parent / "bsload.c"
COMPILE_WITHIN_S = 60.0
LOAD_WITHIN_S = 900.0
PROBE_EVERY_S = 0.001
BODY_BYTES = 100
COMMANDS_PER_CYCLE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The results of one run of bsload.

    Attributes:
        jobs: How many jobs went through.
        cpu_s: Processor time that the server used meanwhile.
        said: The figures that bsload printed.
    """

    jobs: int
    cpu_s: float
    said: dict[str, float]

    @property
    def jobs_per_s(self) -> float:
        """Jobs a second."""
        return self.said["jobs_per_s"]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.said["seconds"]

    @property
    def cpu_us_per_command(self) -> float:
        """The server's processor time for a command, in microseconds, of a `cycle`."""
        return self.cpu_s * 1e6 / (self.jobs * COMMANDS_PER_CYCLE)


@dataclass(slots=True)
class Delays:
    """How long a probing connection waited for its replies, in seconds.

    Attributes:
        seen: From sending the command to having the reply.
        own: The same without the time in which the server or the probe was ready to run but had no processor.
    """

    seen: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def add(self, other: Delays) -> None:
        """Add another probe's delays."""
        self.seen += other.seen
        self.own += other.own


class Bsload:
    """The load generator.

    Args:
        folder: The folder in which to compile it.

    Raises:
        BrokenError: The compiler failed.
    """

    def __init__(self, folder: Path) -> None:
        self._program = folder / "bsload"
        command = ["cc", "-O2", "-o", str(self._program), str(SOURCE)]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_WITHIN_S, check=False)
        except OSError as error:
            raise BrokenError(f"cannot run cc: {error.strerror}") from error
        if made.returncode != 0:
            raise BrokenError(f"cc cannot compile bsload: {made.stderr.strip()}")

    def run(
        self,
        server: Server,
        mode: str,
        connections: int,
        depth: int,
        jobs: int,
        meanwhile: Callable[[], None] | None = None,
        tubes: int = 0,
    ) -> Load:
        """Load a server with jobs of 100 bytes, in `default` or over this many tubes; call `meanwhile` again and again."""
        # bsload gives each connection the same number of jobs.
        jobs -= jobs % connections
        cpu_s = server.cpu_s()
        with self._running(server.port, mode, connections, depth, jobs, tubes) as process:
            if meanwhile is not None:
                until = time.monotonic() + LOAD_WITHIN_S
                while process.poll() is None and time.monotonic() < until:
                    meanwhile()
            output, errors = process.communicate(timeout=LOAD_WITHIN_S)
        if process.returncode != 0:
            raise BrokenError(f"bsload {mode} ended with {process.returncode}: {errors.strip()}")
        said = {name: float(value) for name, _, value in (word.partition("=") for word in output.split())}
        return Load(jobs=jobs, cpu_s=server.cpu_s() - cpu_s, said=said)

    @contextlib.contextmanager
    def _running(
        self, port: int, mode: str, connections: int, depth: int, jobs: int, tubes: int
    ) -> Iterator[subprocess.Popen[str]]:
        numbers = (connections, depth, jobs, BODY_BYTES, tubes)
        with subprocess.Popen(
            [self._program, str(port), mode, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def cycle_for(self, server: Server, connections: int, depth: int, seconds: float) -> Load:
        """Warm the server up; return how many jobs keep it busy for about this long, by its speed."""
        jobs = connections * depth
        load = self.run(server, "cycle", connections, depth, jobs)
        while load.seconds < seconds / 10:
            jobs *= 4
            load = self.run(server, "cycle", connections, depth, jobs)
        return self.run(server, "cycle", connections, depth, max(connections * depth, int(load.jobs_per_s * seconds)))

    def run_probed(self, server: Server, mode: str, jobs: int) -> Delays:
        """Load a server over 50 connections and 16 commands in flight on each, and probe it every millisecond."""
        delays = Delays()
        with (
            server.connect() as client,
            _waits_of(server.pid) as server_waited_s,
            _waits_of(os.getpid()) as probe_waited_s,
        ):

            def probe() -> None:
                before, mine_before = server_waited_s(), probe_waited_s()
                sent = time.perf_counter()
                client.ask("list-tube-used")
                seen = time.perf_counter() - sent
                # The two waits may overlap, so only the longer one is subtracted. This favours no server.
                waited = max(server_waited_s() - before, probe_waited_s() - mine_before)
                delays.seen.append(seen)
                delays.own.append(max(0.0, seen - waited))
                time.sleep(PROBE_EVERY_S)

            # The probe's own garbage collections must not count as pauses of the server.
            gc.disable()
            try:
                self.run(server, mode, 50, 16, jobs, probe)
            finally:
                gc.enable()
        if not delays.seen:
            raise BrokenError("the load ended before the first probe")
        return delays


@contextlib.contextmanager
def _waits_of(pid: int) -> Iterator[Callable[[], float]]:
    """Yield a function that returns how long a process's first thread has waited for a processor, in seconds.

    It reads the second number of `/proc/PID/schedstat`. A kernel that does not count it gives zero.
    """
    try:
        counter = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)
    except FileNotFoundError:
        yield lambda: 0.0
        return
    try:
        yield lambda: int(os.pread(counter, 80, 0).split()[1]) / 1e9
    finally:
        os.close(counter)

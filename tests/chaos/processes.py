"""A server process that is started again and again, and only ever ended by its process id."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wire import HOST

# run.py is started on its own.
sys.path.append(str(Path(__file__).parents[1] / "shared"))

from launcher import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

STOPPED_WITHIN = 60.0


async def until(check: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Ask again and again until it is so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            if await check():
                return
            await asyncio.sleep(0.1)


class Process:
    """A server, its command, and the file that takes what it says."""

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._wanted = False
        self._command = command
        self._log = log
        self._process: ServerProcess | None = None

    def start(self) -> None:
        """Start it."""
        self._wanted = True
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = ServerProcess(self._command, (HOST, self.port), output=log)

    def died(self) -> bool:
        """Tell whether it ended without being told to."""
        return self._wanted and self._process is not None and not self._process.alive

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.signal(number)

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    async def end(self, number: signal.Signals) -> int:
        """End it with a signal and wait for that; return its exit code."""
        self._wanted = False
        self.signal(number)
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, STOPPED_WITHIN)

    def bugs(self) -> list[str]:
        """List what it said of bugs of its own."""
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        return [line for line in said.splitlines() if "internal error" in line]

    def destroy(self) -> None:
        """End it whatever state it is in."""
        if self._process is not None:
            self._process.kill()

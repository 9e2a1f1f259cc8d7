"""The front-ends under test."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from processes import Process, until
from wire import HOST, Connection, Lost

if TYPE_CHECKING:
    from pathlib import Path

SERVES_WITHIN = 30.0


class FrontEnd(Process):
    """One front-end, always on the same port."""

    def __init__(self, server: str, work: Path, number: int, port: int, url: str) -> None:
        command = [*shlex.split(server), "-l", HOST, "-p", str(port), "-V", "--store", url]
        super().__init__(f"front-end {number}", command, port, work / f"front{number}.log")
        self.number = number

    async def until_it_serves(self) -> None:
        """Wait until it reaches the cluster. Raises TimeoutError."""
        await until(self._serves, SERVES_WITHIN)

    async def _serves(self) -> bool:
        try:
            connection = await Connection.dial(self.port)
            reply = await connection.ask("peek 1")
        except Lost:
            return False
        connection.close()
        return reply.words[0] == "NOT_FOUND"

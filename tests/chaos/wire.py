"""A small client of beanstalkd's protocol: one command at a time, and the moments at which it was sent and answered."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

HOST = "127.0.0.1"
CONNECT_WITHIN = 5.0
# Longer than any outage: a server that is silent for so long has forgotten what it was asked.
PATIENCE = 45.0


class Lost(Exception):  # noqa: N818 - names what happened
    """The connection ended: whatever was asked is in doubt."""


class Silent(Lost):
    """Nothing was heard for as long as one waits."""


class Reply(NamedTuple):
    """A reply, and what follows its first line if it announces a body."""

    words: list[str]
    body: bytes

    def is_error(self) -> bool:
        """Tell whether the server could not say what became of the command."""
        return self.words[0] in {"INTERNAL_ERROR", "OUT_OF_MEMORY"}


class Connection:
    """One connection to a front-end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def dial(cls, port: int) -> Connection:
        """Connect. Raises Lost."""
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                return cls(*await asyncio.open_connection(HOST, port))
        except (OSError, TimeoutError) as error:
            raise Lost(str(error)) from error

    async def ask(self, command: str, body: bytes | None = None, *, patience: float = PATIENCE) -> Reply:
        """Send a command and read its reply. Raises Lost; the connection is closed then."""
        data = command.encode() + b"\r\n"
        if body is not None:
            data += body + b"\r\n"
        try:
            async with asyncio.timeout(patience):
                self._writer.write(data)
                line = await self._reader.readline()
                if not line.endswith(b"\r\n"):
                    raise Lost("the connection ended")
                words = line.decode().split()
                if words[0] in {"RESERVED", "FOUND", "OK"}:
                    content = await self._reader.readexactly(int(words[-1]) + 2)
                    return Reply(words, content[:-2])
                return Reply(words, b"")
        except TimeoutError as error:
            self.close()
            raise Silent(f"no reply for {patience:.1f} s to {command}") from error
        except (OSError, EOFError) as error:
            self.close()
            raise Lost(repr(error)) from error
        except Lost:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection at once."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()

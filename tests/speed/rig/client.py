"""A small client that pipelines. Unlike bsload, it lets one connection hold many jobs or watch many tubes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

REPLY_WITHIN_S = 60.0
# Commands sent before their replies are read.
CHUNK = 500


class UnexpectedReplyError(Exception):
    """The server sent a reply that the protocol does not allow here."""


class Client:
    """One connection to a server on the loopback interface."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._socket.close()

    def exchange(self, commands: bytes, lines: int) -> bytes:
        """Send commands and return their replies, which are this many lines. Without commands, return those of earlier ones."""
        self._socket.sendall(commands)
        parts: list[bytes] = []
        while lines > 0:
            part = self._socket.recv(1 << 20)
            if not part:
                raise UnexpectedReplyError("the server closed the connection")
            parts.append(part)
            lines -= part.count(b"\n")
        return b"".join(parts)

    def ask(self, command: str) -> str:
        """Send one command and return its reply, which is one line."""
        return self.exchange(f"{command}\r\n".encode(), 1).decode().rstrip()

    def exchange_exactly(self, commands: bytes, replies: bytes) -> None:
        """Send commands and check that the replies are these."""
        got = self.exchange(commands, replies.count(b"\n"))
        if got != replies:
            pairs = zip(got.split(b"\r\n"), replies.split(b"\r\n"), strict=False)
            said, wanted = next(((a, b) for a, b in pairs if a != b), (got[-80:], replies[-80:]))
            raise UnexpectedReplyError(f"the server said {said!r} instead of {wanted!r}")

    def watch(self, tubes: int) -> None:
        """Watch this many tubes besides `default`."""
        for first in range(0, tubes, CHUNK):
            numbers = range(first, min(first + CHUNK, tubes))
            self.exchange_exactly(
                b"".join(b"watch watched-%d\r\n" % number for number in numbers),
                b"".join(b"WATCHING %d\r\n" % (number + 2) for number in numbers),
            )

    def hold(self, jobs: int, body: bytes) -> list[int]:
        """Put jobs into the empty `default` and reserve them; return their ids."""
        ids: list[int] = []
        for first in range(0, jobs, CHUNK):
            count = min(CHUNK, jobs - first)
            put = self.exchange(b"put 1000 0 3600 %d\r\n%s\r\n" % (len(body), body) * count, count)
            mine = [int(line.removeprefix(b"INSERTED ")) for line in put.split(b"\r\n")[:count]]
            self.exchange_exactly(
                b"reserve\r\n" * count,
                b"".join(b"RESERVED %d %d\r\n%s\r\n" % (number, len(body), body) for number in mine),
            )
            ids += mine
        return ids

"""A blocking connection that sends what it is told and reads what comes back."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Longer than anything here takes; who waits so long hangs.
HANG_SECONDS = 20.0


class Reply(NamedTuple):
    """One reply: its line without CRLF, and the data behind it, if any."""

    line: bytes
    data: bytes = b""

    @property
    def word(self) -> bytes:
        return self.line.split(b" ", 1)[0]

    @property
    def number(self) -> int:
        """The job id or the count that the line tells."""
        return int(self.line.split(b" ")[1])

    def fields(self) -> dict[str, str]:
        """The fields of a stats reply."""
        assert self.word == b"OK", self.line
        return dict(row.split(": ", 1) for row in self.data.decode().splitlines()[1:])


class ReplyReader:
    """Bytes to replies, in any chunking."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next(self) -> Reply | None:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            return None
        line = bytes(self._buffer[self._at : end])
        start = end + 2
        if not line.startswith((b"RESERVED ", b"FOUND ", b"OK ")):
            self._at = start
            return Reply(line)
        size = int(line.rsplit(b" ", 1)[1])
        if len(self._buffer) < start + size + 2:
            return None
        self._at = start + size + 2
        return Reply(line, bytes(self._buffer[start : start + size]))


class Client:
    """One connection. Every wait ends with an error after a time that only a hang takes."""

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        self.sock = dial()
        self.sock.settimeout(HANG_SECONDS)
        self._reader = ReplyReader()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self) -> Reply:
        while True:
            reply = self._reader.next()
            if reply is not None:
                return reply
            data = self.sock.recv(262144)
            assert data, "the server closed the connection where a reply was due"
            self._reader.feed(data)

    def ask(self, line: bytes) -> Reply:
        """Send one command (CRLF is added) and return its reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def ask_all(self, lines: Iterable[bytes], at_once: int = 500) -> list[Reply]:
        """Send many commands, pipelined in portions, and return their replies in order."""
        lines = list(lines)
        replies: list[Reply] = []
        for start in range(0, len(lines), at_once):
            portion = lines[start : start + at_once]
            self.send(b"".join(line + b"\r\n" for line in portion))
            replies += [self.reply() for _ in portion]
        return replies

    def put(self, body: bytes = b"x", *, pri: int = 1000, delay: int = 0, ttr: int = 1000) -> int:
        """Put a job and return its id."""
        reply = self.ask(put(body, pri=pri, delay=delay, ttr=ttr))
        assert reply.word == b"INSERTED", reply.line
        return reply.number

    def put_all(self, bodies: Iterable[bytes]) -> list[int]:
        """Put many jobs and return their ids."""
        replies = self.ask_all((put(body) for body in bodies), at_once=100)
        assert {reply.word for reply in replies} <= {b"INSERTED"}, {reply.line for reply in replies}
        return [reply.number for reply in replies]

    def found(self, ids: Iterable[int]) -> list[bool]:
        """Tell of each job whether it is there."""
        words = [reply.word for reply in self.ask_all(b"peek %d" % job_id for job_id in ids)]
        assert set(words) <= {b"FOUND", b"NOT_FOUND"}, words
        return [word == b"FOUND" for word in words]

    def stats(self, what: bytes = b"stats") -> dict[str, str]:
        return self.ask(what).fields()

    def is_closed_silently(self) -> bool:
        """Wait for the server to close the connection; tell whether it sent nothing before."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Break the connection instead of closing it in order."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


def put(body: bytes, *, pri: int = 1000, delay: int = 0, ttr: int = 1000) -> bytes:
    """The put command, all but its last CRLF."""
    return b"put %d %d %d %d\r\n%s" % (pri, delay, ttr, len(body), body)


def dialer(address: str | tuple[str, int]) -> socket.socket:
    """Connect to a unix socket or a TCP port."""
    if isinstance(address, tuple):
        return socket.create_connection(address, 10)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(address)
    return sock


def serve_together(*addresses: str | tuple[str, int]) -> bool:
    """Tell whether what is put at the first address is seen at each."""
    clients = [Client(lambda address=address: dialer(address)) for address in addresses]  # type: ignore[misc]
    job_id = clients[0].put(b"seen")
    seen = [client.ask(b"peek %d" % job_id).data for client in clients]
    for client in clients:
        client.close()
    return seen == [b"seen"] * len(addresses)

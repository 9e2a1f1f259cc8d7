"""One client connection that speaks both through greenstalk and in raw bytes."""

from __future__ import annotations

import dataclasses
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

import greenstalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ_TIMEOUT_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens: a host with a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read `HOST:PORT`, `[V6ADDRESS]:PORT` or `unix:PATH`.

        Raises:
            ValueError: the text is none of these.
        """
        if text.startswith("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal():
            raise ValueError(f"expected HOST:PORT or unix:PATH, not {text!r}")
        return cls(host=host.strip("[]") or "127.0.0.1", port=int(port))

    def dial(self, timeout: float = READ_TIMEOUT_S) -> socket.socket:
        """Open a socket to the server; every later read or write on it has the same timeout."""
        if not self.path:
            sock = socket.create_connection((self.host, self.port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(self.path)
        except BaseException:
            sock.close()
            raise
        return sock


class Connection(greenstalk.Client[bytes]):
    """greenstalk's client with the raw socket within reach.

    The greenstalk methods (`put`, `reserve`, ...) say what they can; `send`, `reply` and `ask` say the rest. Both read
    through one buffer, so they may be mixed freely.
    """

    def __init__(self, sock: socket.socket, *, use: str = "default", watch: str | Iterable[str] = "default") -> None:
        """Speak over `sock`, which is closed with the connection, also when `use` or `watch` is refused."""
        try:
            super().__init__(sock, None, use=use, watch=watch)
        except BaseException:
            reader = getattr(self, "_reader", None)
            if reader is not None:
                reader.close()
            sock.close()
            raise

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._sock.sendall(data)

    def send_slowly(self, data: bytes, pieces: Iterable[int]) -> None:
        """Send `data` in pieces of the given sizes (the rest as one), each in a packet of its own."""
        at = 0
        for size in pieces:
            self.send(data[at : at + size])
            at += size
            time.sleep(0.001)
        self.send(data[at:])

    def reply(self, timeout: float = READ_TIMEOUT_S) -> bytes:
        """Read one reply line and return it without its CRLF."""
        self._sock.settimeout(timeout)
        try:
            line = self._reader.readline()
        finally:
            self._sock.settimeout(READ_TIMEOUT_S)
        assert line, "the server closed the connection where a reply was due"
        assert line.endswith(b"\r\n"), f"a reply line ends with CRLF, this one does not: {line!r}"
        return line[:-2]

    def replies(self, count: int) -> list[bytes]:
        """Read `count` reply lines."""
        return [self.reply() for _ in range(count)]

    def ask(self, line: bytes, timeout: float = READ_TIMEOUT_S) -> bytes:
        """Send one command line, for which CRLF is added, and return the reply line."""
        self.send(line + b"\r\n")
        return self.reply(timeout)

    def data(self, size: int) -> bytes:
        """Read `size` bytes and the CRLF behind them."""
        chunk = self._reader.read(size + 2)
        assert len(chunk) == size + 2, f"{size} bytes and CRLF were announced, {len(chunk)} bytes came"
        assert chunk.endswith(b"\r\n"), f"CRLF follows the data, not {chunk[-2:]!r}"
        return chunk[:-2]

    def job_reply(self, timeout: float = READ_TIMEOUT_S) -> tuple[bytes, int, bytes]:
        """Read a RESERVED or FOUND reply: the word, the id and the body."""
        line = self.reply(timeout)
        words = line.split(b" ")
        assert len(words) == 3, f"a job was due, not {line!r}"
        return words[0], int(words[1]), self.data(int(words[2]))

    def ask_job(self, line: bytes) -> tuple[bytes, int, bytes]:
        """Send one command line and read the job it is answered with."""
        self.send(line + b"\r\n")
        return self.job_reply()

    def ask_text(self, line: bytes) -> str:
        """Send a stats or list command and return the text of its OK reply."""
        words = self.ask(line).split(b" ")
        assert words[0] == b"OK", f"OK was due, not {words!r}"
        return self.data(int(words[1])).decode("ascii")

    def fields(self, line: bytes) -> dict[str, str]:
        """Send a stats command and return its fields in order, values as sent."""
        head, *rows = self.ask_text(line).splitlines()
        assert head == "---"
        return dict(row.split(": ", 1) for row in rows)

    def insert(self, body: bytes = b"x", *, pri: int = 1000, delay: int = 0, ttr: int = 60) -> int:
        """Put a job with this suite's defaults and return its id."""
        return self.put(body, priority=pri, delay=delay, ttr=ttr)

    def is_silent(self, for_seconds: float = 0.15) -> bool:
        """Tell whether nothing comes from the server for so long, neither data nor the end of the stream."""
        if self._buffered():
            return False
        readable, _, _ = select.select([self._sock], [], [], for_seconds)
        return not readable

    def is_ended(self, within_seconds: float = READ_TIMEOUT_S) -> bool:
        """Tell whether the server closes the connection in time, without having sent another byte."""
        self._sock.settimeout(within_seconds)
        try:
            return self._reader.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def half_close(self) -> None:
        """End our direction of the stream; the server may still answer."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection with a TCP reset instead of an orderly end."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _buffered(self) -> bool:
        self._sock.setblocking(False)
        try:
            return bool(self._reader.peek(1))
        finally:
            self._sock.settimeout(READ_TIMEOUT_S)


def eventually(check: Callable[[], bool], within_seconds: float = 3.0) -> bool:
    """Ask again and again, quickly at first, until `check` is true or the time is up."""
    give_up_at = time.monotonic() + within_seconds
    pause_s = 0.002
    while not check():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
    return True

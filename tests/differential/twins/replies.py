"""Cut a server's answers into replies."""

import re
from dataclasses import dataclass

_WITH_BODY = re.compile(rb"(?:OK|(?:FOUND|RESERVED) \d+) (\d+)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: its first line without CRLF, and its body if it has one."""

    line: bytes
    body: bytes | None = None

    def __repr__(self) -> str:
        if self.body is None:
            return repr(self.line)
        shown = repr(self.body) if len(self.body) <= 1500 else f"{self.body[:60]!r}... ({len(self.body)} bytes)"
        return f"{self.line!r} + {shown}"

    @property
    def job_id(self) -> int | None:
        """The id in this reply, if it carries one."""
        words = self.line.split(b" ")
        return int(words[1]) if words[0] in {b"INSERTED", b"RESERVED", b"FOUND", b"BURIED"} and len(words) > 1 else None


class ReplyReader:
    """Collects bytes and gives out the replies that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Reply]:
        """Add bytes and return the replies they complete."""
        self._buffer += data
        found: list[Reply] = []
        while (end := self._buffer.find(b"\r\n")) >= 0:
            line = bytes(self._buffer[:end])
            match = _WITH_BODY.fullmatch(line)
            if match is None:
                found.append(Reply(line))
                del self._buffer[: end + 2]
                continue
            stop = end + 2 + int(match[1])
            if len(self._buffer) < stop + 2:
                break
            body = bytes(self._buffer[end + 2 : stop])
            if self._buffer[stop : stop + 2] != b"\r\n":
                # A wrong length is a difference like another: show it, and let the comparison find it.
                body += b"<no CRLF here>" + bytes(self._buffer[stop : stop + 2])
            found.append(Reply(line, body))
            del self._buffer[: stop + 2]
        return found

    @property
    def rest(self) -> bytes:
        """The bytes of a reply that is not complete."""
        return bytes(self._buffer)

"""Turns bytes into replies, without a socket: the same bytes give the same replies however they are split."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from beanspiked.client.errors import BrokenReply, ClientError, ServerGone
from beanspiked.client.replies import ANY_TIME, EXPECTED, Reply, Shape
from beanspiked.protocol.lines import MAX_U32, MAX_U64
from beanspiked.protocol.parser import MAX_LINE

if TYPE_CHECKING:
    from beanspiked.client.requests import Request

__all__ = ["Core"]

# A reply's line in an error message, in bytes.
SHOWN: Final = 60


class Core:
    """One connection: the requests that were sent, and their replies in the same order.

    Attributes:
        pending: How many requests are not answered yet.
    """

    def __init__(self) -> None:
        self._requests: deque[Request[Any]] = deque()
        self._buffer = bytearray()
        # How far the parser has searched the buffer for the end of a line.
        self._searched = 0
        # The reply whose body is on its way, and the body's size.
        self._reply: Reply | None = None
        self._size = 0
        self._ended = False
        self._quitting = False
        self._error: ClientError | None = None

    @property
    def pending(self) -> int:
        """How many requests are not answered yet."""
        return len(self._requests)

    def send(self, request: Request[Any]) -> bytes:
        """Add a request; return the bytes to send.

        Raises:
            BrokenReply: An earlier reply was malformed.
            ServerGone: The connection has ended, or `quit` was sent.
        """
        if self._error is not None:
            raise self._error
        if self._ended or self._quitting:
            raise ServerGone("the connection is closed")
        self._quitting = request.verb == "quit"
        self._requests.append(request)
        return request.data

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def feed_eof(self) -> None:
        """Learn that the server closed the connection."""
        self._ended = True

    def next(self) -> tuple[Request[Any], Reply] | None:
        """Return the next answered request with its reply, or None until more comes.

        Raises:
            BrokenReply: The bytes are no reply, or none to the next request. Every later call raises it again.
            ServerGone: The connection ended before a reply. Every later call raises it again.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except ClientError as error:
            self._error = error
            raise

    def _next(self) -> tuple[Request[Any], Reply] | None:
        if self._reply is None:
            line = self._line()
            if line is None:
                return self._at_end()
            self._begin(line)
        reply = self._reply
        if reply is None:
            raise AssertionError
        if self._size >= 0:
            reply_with_body = self._with_body(reply)
            if reply_with_body is None:
                return self._at_end()
            reply = reply_with_body
        self._reply = None
        return self._requests.popleft(), reply

    def _at_end(self) -> tuple[Request[Any], Reply] | None:
        """Answer a `quit` with the end of the connection. Any other request stays unanswered."""
        if not self._ended or not self._requests:
            return None
        if self._requests[0].verb != "quit" or self._buffer:
            raise ServerGone("the server closed the connection")
        return self._requests.popleft(), Reply("")

    def _line(self) -> str | None:
        """Take a line off the buffer, without its CRLF; return None if it is incomplete."""
        end = self._buffer.find(b"\n", self._searched)
        self._searched = len(self._buffer)
        if end < 0:
            end = min(len(self._buffer), MAX_LINE)
            if end == MAX_LINE:
                raise self._broken(bytes(self._buffer[:end]))
            return None
        line = bytes(self._buffer[: end + 1])
        if not line.endswith(b"\r\n") or len(line) > MAX_LINE:
            raise self._broken(line)
        self._drop(end + 1)
        return line[:-2].decode("ascii", "backslashreplace")

    def _begin(self, line: str) -> None:
        """Read a reply's line."""
        word, *rest = line.split(" ")
        if not self._requests:
            raise BrokenReply(
                f"the server sent data before a request, so it is not beanstalkd ({_shown(line.encode())})"
            )
        verb = self._requests[0].verb
        shape = EXPECTED[verb].get(word) or ANY_TIME.get(word)
        if shape is None or (verb == "quit" and word in ANY_TIME):
            raise self._broken(line.encode())
        if verb == "put" and word in ("BAD_FORMAT", "UNKNOWN_COMMAND"):
            # The server then reads the rest of the body as commands.
            raise self._broken(line.encode())
        self._size = -1
        if shape is Shape.BARE and not rest:
            self._reply = Reply(word)
        elif shape is Shape.NAME and len(rest) == 1 and rest[0]:
            self._reply = Reply(word, name=rest[0])
        elif shape is Shape.NUMBER and len(rest) == 1:
            self._reply = Reply(word, self._number(rest[0], MAX_U64, line))
        elif shape is Shape.DOCUMENT and len(rest) == 1:
            self._size = self._number(rest[0], MAX_U32, line)
            self._reply = Reply(word)
        elif shape is Shape.JOB and len(rest) == 2:
            self._size = self._number(rest[1], MAX_U32, line)
            self._reply = Reply(word, self._number(rest[0], MAX_U64, line))
        else:
            raise self._broken(line.encode())

    def _with_body(self, reply: Reply) -> Reply | None:
        """Take the body off the buffer; return None if it is incomplete."""
        size = self._size
        if len(self._buffer) < size + 2:
            return None
        if self._buffer[size : size + 2] != b"\r\n":
            raise BrokenReply(f"no CRLF after the {size} bytes of a reply to {self._requests[0].command}")
        body = bytes(memoryview(self._buffer)[:size])
        self._drop(size + 2)
        return Reply(reply.word, reply.number, body=body)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0

    def _number(self, digits: str, limit: int, line: str) -> int:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 20) or int(digits) > limit:
            raise self._broken(line.encode())
        return int(digits)

    def _broken(self, line: bytes) -> BrokenReply:
        if not self._requests:
            return BrokenReply(f"the server sent data before a request, so it is not beanstalkd ({_shown(line)})")
        return BrokenReply(f"no reply to {self._requests[0].command}: {_shown(line)}")


def _shown(line: bytes) -> str:
    """Return received bytes as one line that cannot control a terminal."""
    text = line.rstrip(b"\r\n").decode("ascii", "backslashreplace")
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"{text[:SHOWN]}..." if len(text) > SHOWN else text

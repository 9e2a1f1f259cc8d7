"""An incremental parser of commands; it never raises on input.

The same bytes give the same commands however they are split. It treats mistakes as prot.c does, except in the two cases in which
beanstalkd loses its place in the input: a CR without LF, and an over-long line whose CR is the last byte of the 224-byte buffer.

After an HTTP or TLS request at the beginning of a connection it reads nothing more, while beanstalkd reads on. Any web page can have a
browser send such a request to a server that only the browser can reach, and its body would be executed as commands.
"""

import io
from typing import Final

from beanspiked.protocol.commands import BODY, FOREIGN, PLAIN, PREFIXES, PUT, PUT_TOO_BIG, REFUSED, Command
from beanspiked.protocol.lines import MAX_U32, number, refused, with_arguments
from beanspiked.protocol.replies import BAD_FORMAT, CRLF, EXPECTED_CRLF, JOB_TOO_BIG, OUT_OF_MEMORY, UNKNOWN_COMMAND

__all__ = ["MAX_LINE", "Parser"]

# prot.c: LINE_BUF_SIZE, the longest command with the longest tube name, CRLF included.
MAX_LINE: Final = 224

# A body of more bytes is gathered in its final buffer as it comes.
LARGE_BODY: Final = 65536

LINE: Final = 0
DISCARD_LINE: Final = 1
IN_BODY: Final = 2
SKIP_BODY: Final = 3
IN_LARGE_BODY: Final = 4
# The client speaks another protocol; nothing more is read.
DEAF: Final = 5

# The bytes of HTTP methods (RFC 9110: token).
METHOD_CHARS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
# The end of an HTTP request's first line; its digits may differ.
VERSION_SIZE: Final = len(b" HTTP/1.1")
# The first bytes of TLS: a handshake of version 3.
TLS: Final = b"\x16\x03"

# Most lines begin with exactly one of the known words; others are compared prefix by prefix.
WORDS: Final[dict[bytes, tuple[int, int]]] = {word: (verb, shape) for word, verb, shape in PREFIXES}
WORDS[b"pause-tube "] = WORDS.pop(b"pause-tube")


def _line_end(buf: bytes, start: int, lenient: bool) -> tuple[int, int]:
    """Return where the line from `start` ends and where the next begins, or -1 twice if it is incomplete or too long.

    Micro-optimization: compiled, this loop takes a quarter of the time of `bytes.find` for lines as short as commands are.
    """
    last = min(len(buf), start + MAX_LINE) - 1
    end = start
    while end < last:
        byte = buf[end]
        if byte == 0x0D and buf[end + 1] == 0x0A:
            return end, end + 2
        if byte == 0x0A and lenient:
            return end, end + 1
        end += 1
    if lenient and end == last and buf[end] == 0x0A:
        return end, end + 1
    return -1, -1


def _is_request(begin: bytes, end: bytes) -> bool:
    """Tell by its first and last bytes whether a line begins an HTTP request: METHOD SP target SP HTTP/x.y."""
    method = begin.partition(b" ")[0]
    version = end[-VERSION_SIZE:]
    return (
        0 < len(method) < len(begin)
        and not method.translate(None, METHOD_CHARS)
        and version.startswith(b" HTTP/")
        and version[6:7].isdigit()
        and version[7:8] == b"."
        and version[8:9].isdigit()
    )


class Parser:
    """Turns one connection's input into commands.

    Args:
        max_job_size: The largest body accepted, in bytes.
        lenient_eol: Whether a bare LF also ends a line or a body.

    Attributes:
        buffered: How many bytes were fed and not yet consumed.
    """

    def __init__(self, max_job_size: int, lenient_eol: bool = False) -> None:
        self._max_job_size = max_job_size
        self._lenient = lenient_eol
        self._buf = b""
        self._pos = 0
        self._chunks: list[bytes] = []
        self._mode = LINE
        self._size = 0
        # A BytesIO returns its content without a copy.
        self._large: io.BytesIO | None = None
        # Whether there was no memory for it.
        self._lost = False
        # Whether the first line is yet to come; the beginning of an over-long first line, and the end of its dropped part.
        self._fresh = True
        self._begin = b""
        self._end = b""
        self.buffered = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._large is not None and self._size:
            rest = data[self._size :]
            self._gather(data[: self._size])
            if not rest:
                return
            data = rest
        if self.buffered == 0:
            self._buf = data
            self._pos = 0
        else:
            self._chunks.append(data)
        self.buffered += len(data)

    def in_large_body(self) -> bool:
        """Tell whether the next bytes belong to a large body."""
        return self._large is not None

    def clear(self) -> None:
        """Drop all input that is left."""
        self._buf = b""
        self._pos = 0
        self._chunks = []
        self._large = None
        self.buffered = 0

    def next(self) -> Command | None:
        """Return the next command, or None until more bytes are fed."""
        while True:
            if self._mode == LINE:
                buf = self._buf
                pos = self._pos
                end, after = _line_end(buf, pos, self._lenient)
                if end >= 0:
                    self._consume(after - pos)
                    command = self._command(buf, pos, end)
                    if self._fresh:
                        self._fresh = False
                        if command.verb == REFUSED:
                            line = buf[pos:end]
                            if line.startswith(TLS) or _is_request(line, line):
                                return self._foreign()
                    return command
                if self._join():
                    continue
                if self.buffered < MAX_LINE:
                    return None
                self._mode = DISCARD_LINE
                if self._fresh:
                    self._begin = self._buf[self._pos : self._pos + MAX_LINE]
                    if self._begin.startswith(TLS):
                        return self._foreign()
            elif self._mode == IN_BODY:
                return self._body(Command(BODY))
            elif self._mode == IN_LARGE_BODY:
                return self._large_body()
            elif self._mode == SKIP_BODY:
                skipped = min(self._size, self.buffered)
                self._join()
                self._consume(skipped)
                self._size -= skipped
                if self._size or not self._skip_trailer():
                    return None
                self._mode = LINE
                return refused(JOB_TOO_BIG)
            elif self._mode == DISCARD_LINE:
                if not self._discard():
                    return None
                self._mode = LINE
                if self._fresh:
                    self._fresh = False
                    if _is_request(self._begin, self._end.removesuffix(b"\r") if self._lenient else self._end):
                        return self._foreign()
                return refused(BAD_FORMAT)
            else:
                self.clear()
                return None

    def _foreign(self) -> Command:
        """Report a client that speaks another protocol, and read nothing more."""
        self._mode = DEAF
        self.clear()
        return Command(FOREIGN)

    def _consume(self, count: int) -> None:
        self._pos += count
        self.buffered -= count
        if self.buffered == 0:
            self._buf = b""
            self._pos = 0

    def _join(self) -> bool:
        """Move all fed bytes into the buffer; tell whether there were any."""
        if not self._chunks:
            return False
        self._buf = self._buf[self._pos :] + b"".join(self._chunks)
        self._pos = 0
        self._chunks = []
        return True

    def _skip_trailer(self) -> bool:
        """Drop the trailer after a skipped body, whatever it is; tell whether it had come."""
        trailer = 2
        if self._lenient and self.buffered and self._buf[self._pos] == 0x0A:
            trailer = 1
        if self.buffered < trailer:
            return False
        self._consume(trailer)
        return True

    def _discard(self) -> bool:
        """Drop input up to the end of an over-long line; tell whether the end was found."""
        self._join()
        end = self._buf.find(b"\n" if self._lenient else CRLF, self._pos)
        if end >= 0:
            self._remember(end)
            self._consume(end + (1 if self._lenient else 2) - self._pos)
            return True
        # A final \r may be the first half of a CRLF.
        keep = 1 if self._buf.endswith(b"\r") else 0
        self._remember(len(self._buf) - keep)
        self._consume(self.buffered - keep)
        return False

    def _remember(self, end: int) -> None:
        """Keep the last of the dropped bytes of an over-long first line."""
        if self._fresh:
            # One more byte: a CR may stand before a bare LF.
            dropped = self._buf[max(self._pos, end - VERSION_SIZE - 1) : end]
            self._end = (self._end + dropped)[-VERSION_SIZE - 1 :]

    def _command(self, buf: bytes, start: int, end: int) -> Command:
        space = start
        while space < end and buf[space] != 0x20:
            space += 1
        if space == end:
            word = WORDS.get(buf[start:end])
            if word is not None and word[1] == PLAIN:
                return Command(word[0])
            return self._uncommon(buf[start:end])
        word = WORDS.get(buf[start : space + 1])
        if word is None:
            return self._uncommon(buf[start:end])
        return self._with_arguments(word[0], word[1], buf[space + 1 : end])

    def _uncommon(self, line: bytes) -> Command:
        """Return the verb that beanstalkd finds in a line without a known word (prot.c: which_cmd)."""
        if 0 in line:
            return refused(BAD_FORMAT)
        for prefix, verb, shape in PREFIXES:
            if line.startswith(prefix):
                if shape == PLAIN:
                    return Command(verb) if len(line) == len(prefix) else refused(BAD_FORMAT)
                return self._with_arguments(verb, shape, line[len(prefix) :])
        return refused(UNKNOWN_COMMAND)

    def _with_arguments(self, verb: int, shape: int, args: bytes) -> Command:
        if verb != PUT:
            return with_arguments(verb, shape, args)
        return refused(BAD_FORMAT) if 0 in args else self._put(args)

    def _put(self, args: bytes) -> Command:
        pri, end = number(args, 0, MAX_U32)
        delay, end = number(args, end, MAX_U32)
        ttr, end = number(args, end, MAX_U32)
        size, end = number(args, end, MAX_U32)
        if end < 0:
            return refused(BAD_FORMAT)
        if size > self._max_job_size:
            # The size is checked before the rest of the line.
            self._mode = SKIP_BODY
            self._size = size
            return Command(PUT_TOO_BIG)
        if end != len(args):
            return refused(BAD_FORMAT, counts=PUT)
        self._mode = IN_BODY
        self._size = size
        command = Command(PUT, pri=pri, delay=delay, ttr=ttr)
        self._body(command)
        return command

    def _body(self, command: Command) -> Command | None:
        """Give a command its body or, after a wrong trailer, its reply; return None while the body is incomplete."""
        size = self._size
        if self.buffered <= size or (self.buffered == size + 1 and not self._lenient):
            if size > LARGE_BODY:
                self._begin_large_body()
            return None
        self._join()
        start = self._pos
        end = start + size
        if self._lenient and self._buf[end] == 0x0A:
            trailer = 1
        elif self.buffered == size + 1:
            return None
        else:
            trailer = 2
            if self._buf[end] != 0x0D or self._buf[end + 1] != 0x0A:
                command.reply = EXPECTED_CRLF
        command.body = self._buf[start:end]
        self._mode = LINE
        self._consume(size + trailer)
        return command

    def _begin_large_body(self) -> None:
        """Start to gather a large body, with the bytes that are there."""
        self._join()
        self._large = io.BytesIO()
        self._lost = False
        self._mode = IN_LARGE_BODY
        here = min(self.buffered, self._size)
        piece = self._buf[self._pos : self._pos + here]
        self._consume(here)
        self._gather(piece)

    def _gather(self, piece: bytes) -> None:
        """Add bytes to the large body. If there is no memory for them, drop the body, and refuse its put as beanstalkd does."""
        self._size -= len(piece)
        if self._large is None or self._lost:
            return
        try:
            self._large.write(piece)
        except MemoryError:
            self._lost = True
            self._large = io.BytesIO()

    def _large_body(self) -> Command | None:
        """Return a large body with the reply for a wrong trailer; return None while it is incomplete."""
        large = self._large
        if large is None or self._size or not self.buffered:
            return None
        self._join()
        trailer = 1
        reply = b""
        if not self._lenient or self._buf[self._pos] != 0x0A:
            if self.buffered < 2:
                return None
            trailer = 2
            if self._buf[self._pos] != 0x0D or self._buf[self._pos + 1] != 0x0A:
                reply = EXPECTED_CRLF
        if self._lost:
            reply = OUT_OF_MEMORY
        self._consume(trailer)
        self._large = None
        self._mode = LINE
        command = Command(BODY, reply=reply)
        command.body = large.getvalue()
        return command

"""A client of one front-end in a simulated cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.server.flow import Flow
from beanspiked.server.reply_queue import Sink

if TYPE_CHECKING:
    from world import FrontEnd


class Client(Sink):
    """One connection."""

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self.received = b""
        self.is_closed = False
        front_end.inside(self._open)

    def _open(self) -> None:
        self.flow = Flow(self.front_end.broker, self)
        self.front_end.broker.end_turn()

    def write(self, data: bytes) -> None:
        self.received += data

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def post(self, data: bytes) -> None:
        """Send bytes. The front-end sees them as soon as it runs."""
        self.front_end.loop.call_soon(self._receive, data)

    def _receive(self, data: bytes) -> None:
        self.flow.receive(data)
        self.front_end.broker.end_turn()

    def half_close(self) -> None:
        """Send no more."""
        self.front_end.loop.call_soon(self._half_close)

    def _half_close(self) -> None:
        self.flow.receive_eof()
        self.front_end.broker.end_turn()

    def hang_up(self) -> None:
        self.is_closed = True
        self.front_end.loop.call_soon(self._hang_up)

    def _hang_up(self) -> None:
        self.flow.close()
        self.front_end.broker.end_turn()

    def ask(self, data: bytes, seconds: float = 30.0) -> bytes:
        """Send bytes and return the first whole reply."""
        self.post(data)
        assert self.front_end.world.run(seconds, self.answered), f"no reply to {data!r}: {self.received!r}"
        return self.take()

    def answered(self) -> bool:
        """Tell whether a whole reply is there."""
        line, end, rest = self.received.partition(b"\r\n")
        if not end:
            return False
        words = line.split()
        if words[0] in (b"RESERVED", b"FOUND", b"OK"):
            return len(rest) >= int(words[-1]) + 2
        return True

    def take(self) -> bytes:
        """Take the first whole reply."""
        line, _, rest = self.received.partition(b"\r\n")
        words = line.split()
        size = len(line) + 2
        if words[0] in (b"RESERVED", b"FOUND", b"OK"):
            size += int(words[-1]) + 2
        reply, self.received = self.received[:size], self.received[size:]
        assert rest is not None
        return reply

    def put(self, body: bytes = b"x", pri: int = 0, delay: int = 0, ttr: int = 60) -> int:
        reply = self.ask(b"put %d %d %d %d\r\n%b\r\n" % (pri, delay, ttr, len(body), body))
        assert reply.startswith(b"INSERTED "), reply
        return int(reply.split()[1])

    def buried(self, body: bytes = b"x") -> int:
        """Put a job into an empty tube, reserve it and bury it."""
        job_id = self.put(body)
        assert self.ask(b"reserve\r\n").startswith(b"RESERVED %d " % job_id)
        assert self.ask(b"bury %d 0\r\n" % job_id) == b"BURIED\r\n"
        return job_id

    def stats(self, what: str) -> dict[str, str]:
        reply = self.ask(what.encode() + b"\r\n")
        assert reply.startswith(b"OK "), reply
        return dict(line.split(": ", 1) for line in reply.decode().split("---\n")[1].splitlines() if line)

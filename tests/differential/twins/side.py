"""One server and the connections to it."""

import select
import socket
import time
from dataclasses import dataclass, field

from twins.process import Twin
from twins.replies import Reply, ReplyReader

SENTINEL_BODY = b"the harness asks whether you are done"
SENTINEL = b"peek 1\r\n"
SENTINEL_TUBE = b"harness"
PATIENCE_S = 3.0

_FAST_PROBES = 20


def _key(reply: Reply, name: bytes) -> int:
    """Read one number out of a stats reply."""
    if reply.body is None:
        raise RuntimeError(f"stats was answered with {reply}")
    return int(reply.body.split(b"\n" + name + b": ", 1)[1].split(b"\n", 1)[0])


@dataclass(slots=True)
class Wire:
    """One connection: its socket, what it answered, and what it still owes."""

    sock: socket.socket
    reader: ReplyReader = field(default_factory=ReplyReader)
    fresh: list[Reply] = field(default_factory=list)
    owed: int = 0
    ended: bool = False  # the server closed it
    gone: bool = False  # we closed it

    @property
    def pending(self) -> bool:
        """Whether the server has yet to answer the last sentinel, or to close."""
        return not self.ended and not self.gone and self.owed > 0

    def send(self, data: bytes) -> None:
        """Send, whatever the server thinks of it: `quit` may have closed the other end."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def read(self) -> bool:
        """Take what has arrived; return whether that was anything."""
        try:
            data = self.sock.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = True
            return True
        for reply in self.reader.feed(data):
            if reply.body == SENTINEL_BODY and reply.line.startswith(b"FOUND "):
                self.owed -= 1
            self.fresh.append(reply)
        return True


class Side:
    """A server, a control connection of the harness's own, and the connections of the example.

    The control connection holds the sentinel job, so that no command of the example can change it, and every connection can
    peek at it: the answer cannot be mistaken for another, and leaves the server as it was.
    """

    def __init__(self, command: list[str], options: list[str] | None = None) -> None:
        self.server = Twin(command, options)
        try:
            self.control = Wire(self.server.dial_when_listening())
        except BaseException:
            self.server.close()
            raise
        self.wires: dict[int, Wire] = {}
        self.recount = False
        self.stuck = False
        self.questions = 0
        self.state = "at rest"
        used, put, held = self.ask(
            b"use %s\r\nput 0 0 4294967295 %d\r\n%s\r\nreserve-job 1\r\n"
            % (SENTINEL_TUBE, len(SENTINEL_BODY), SENTINEL_BODY),
            3,
        )
        if put != Reply(b"INSERTED 1") or held.body != SENTINEL_BODY:
            raise RuntimeError(f"a fresh server answered {used}, {put}, {held}")

    def stop(self) -> None:
        """Close everything and end the server."""
        for wire in [*self.wires.values(), self.control]:
            wire.sock.close()
        self.server.close()

    def ask(self, data: bytes, count: int) -> list[Reply]:
        """Send on the control connection and wait for that many replies."""
        self.control.send(data)
        return self.answers(count)

    def answers(self, count: int) -> list[Reply]:
        """Wait for replies on the control connection."""
        until = time.monotonic() + 10 * PATIENCE_S
        while len(self.control.fresh) < count:
            select.select([self.control.sock], [], [], PATIENCE_S)
            if not self.control.read() and time.monotonic() > until:
                raise TimeoutError(f"no answer on the control connection, only {self.control.fresh}")
            if self.control.ended:
                raise ConnectionError("the server closed the control connection")
        replies, self.control.fresh = self.control.fresh[:count], self.control.fresh[count:]
        return replies

    def open(self, number: int) -> None:
        """Open a connection of the example."""
        self.wires[number] = Wire(self.server.dial_when_listening())

    def drain(self, timeout_s: float) -> bool:
        """Read from every connection that has something; return whether any had."""
        listening = {wire.sock: wire for wire in self.wires.values() if not wire.ended and not wire.gone}
        readable, _, _ = select.select(list(listening), [], [], timeout_s)
        for sock in readable:
            listening[sock].read()
        return bool(readable)

    def pending(self) -> frozenset[int]:
        """Return the connections that owe an answer."""
        return frozenset(number for number, wire in self.wires.items() if wire.pending)

    def settle(self) -> None:
        """Wait until each connection has answered everything, or is blocked in a reserve.

        `stats` tells how many connections wait. When that is the number of those that owe an answer, and these were the same before
        and after the question, every one of them waits and nothing else can happen. No sleeping is needed to know it.
        """
        self.stuck = False
        until = time.monotonic() + PATIENCE_S
        probes = 0
        acting = True
        while True:
            # A millisecond covers nearly every answer of the acting connection; what waits anyway is asked about at once.
            while self.drain(0.001 if acting else 0) and self.pending():
                pass
            acting = False
            before = self.pending()
            if not before and not self.recount:
                return
            if self._at_rest(before):
                self.recount = False
                return
            probes += 1
            if probes > _FAST_PROBES:
                self.drain(0.001)
            if time.monotonic() > until:
                self.stuck = True
                return

    def _at_rest(self, before: frozenset[int]) -> bool:
        self.questions += 1
        stats = self.ask(b"stats\r\n", 1)[0]
        self.drain(0)
        alive = sum(1 for wire in self.wires.values() if not wire.ended and not wire.gone)
        waiting, connections = _key(stats, b"current-waiting"), _key(stats, b"current-connections")
        self.state = f"{waiting} of {sorted(before)} wait, {connections} of {alive + 1} connections are open"
        return self.pending() == before and waiting == len(before) and connections == alive + 1

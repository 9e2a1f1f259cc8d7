"""A whole server without sockets: sessions, broker and engine on a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beanspiked.engine.embedded.engine import EmbeddedEngine
from beanspiked.engine.embedded.keeper import Keeper
from beanspiked.engine.timers import NEVER, Clock, Timers
from beanspiked.server.broker import Broker
from beanspiked.server.contract import Alarm
from beanspiked.server.flow import Flow
from beanspiked.server.reply_queue import Sink

if TYPE_CHECKING:
    from beanspiked.engine.embedded.write import Write
    from beanspiked.engine.errors import EngineError


class VirtualClock(Clock):
    """Stands still until a test moves it, or moves by `tick` seconds with each read.

    The wall clock is ahead of it by `wall_ahead` seconds.
    """

    def __init__(self) -> None:
        self.time = 1_700_000_000.0
        self.tick = 0.0
        self.wall_ahead = 0.0

    def now(self) -> float:
        self.time += self.tick
        return self.time

    def ahead(self) -> float:
        return self.wall_ahead


class VirtualAlarm(Alarm):
    """Notes the time at which the broker wants a call."""

    def __init__(self) -> None:
        self.at = NEVER
        self.is_soon = False

    def set(self, at: float) -> None:
        self.at = at

    def soon(self) -> None:
        self.is_soon = True


class Client(Sink):
    """One connection: the replies that it gets, and its state."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.received = b""
        self.writes: list[bytes] = []
        self.is_closed = False
        self.reading = True
        self.flow = Flow(wire.broker, self)

    def write(self, data: bytes) -> None:
        self.received += data
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def send(self, data: bytes) -> bytes:
        """Send bytes; return the replies of this turn."""
        self.flow.receive(data)
        self.wire.broker.end_turn()
        self.wire.settle()
        return self.take()

    def shut_down(self) -> bytes:
        self.flow.receive_eof()
        self.wire.broker.end_turn()
        return self.take()

    def hang_up(self) -> None:
        self.flow.close()
        self.wire.broker.end_turn()

    def take(self) -> bytes:
        data, self.received = self.received, b""
        return data

    def put(self, body: bytes = b"x", pri: int = 0, delay: int = 0, ttr: int = 60) -> int:
        reply = self.send(b"put %d %d %d %d\r\n%b\r\n" % (pri, delay, ttr, len(body), body))
        assert reply.startswith(b"INSERTED "), reply
        return int(reply.split()[1])

    def stats(self, what: str) -> dict[str, str]:
        return self._fields(self.send(what.encode() + b"\r\n"))

    def stats_now(self, what: str) -> dict[str, str]:
        """Ask within a turn, and let no other follow."""
        self.flow.receive(what.encode() + b"\r\n")
        self.flow.flush()
        return self._fields(self.take())

    def _fields(self, reply: bytes) -> dict[str, str]:
        assert reply.startswith(b"OK "), reply[:100]
        return dict(line.split(": ", 1) for line in reply.decode().split("---\n")[1].splitlines() if line)


class Wire:
    """A broker over an embedded engine, clients, and the time."""

    def __init__(self, max_job_size: int = 65535, lenient_eol: bool = False) -> None:
        self.clock = VirtualClock()
        self.timers = Timers(self.clock)
        self.alarm = VirtualAlarm()
        self.broker = Broker(self.timers, max_job_size, "test", lenient_eol)
        self.broker.alarm = self.alarm
        self.engine = EmbeddedEngine(self.timers, self.broker)
        self.broker.engine = self.engine

    def connect(self) -> Client:
        return Client(self)

    def turn(self) -> bool:
        """Run a turn if the broker asked for one at once."""
        asked, self.alarm.is_soon = self.alarm.is_soon, False
        if asked:
            self.broker.on_alarm()
        return asked

    def settle(self) -> None:
        """Run turns as long as the broker asks for one at once."""
        while self.turn():
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass, and call the broker at each time that it asked for."""
        end = self.clock.time + seconds
        while self.alarm.at <= end:
            self.clock.time = max(self.clock.time, self.alarm.at)
            self.alarm.at = NEVER
            self.broker.on_alarm()
            self.settle()
        self.clock.time = end


class HandJournal(Keeper):
    """Keeps changes on their way until the test decides their outcome."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire
        self.added: list[Write] = []
        self.sent: list[Write] = []
        self.batches: list[int] = []

    def add(self, write: Write) -> None:
        self.added.append(write)

    def gathers(self) -> bool:
        return bool(self.added)

    def flush(self) -> None:
        if self.added:
            self.batches.append(len(self.added))
        self.sent += self.added
        self.added = []

    def commit(self, error: EngineError | None = None, count: int | None = None) -> None:
        """Let the first changes on their way succeed or fail; by default all."""
        done, self.sent = self.sent[:count], [] if count is None else self.sent[count:]
        for write in done:
            write.settle(error)
        self.wire.broker.end_turn()
        self.wire.settle()


def keep(wire: Wire, journal: Keeper) -> None:
    """Have the wire's engine keep its changes in a journal."""
    wire.engine = wire.broker.engine = EmbeddedEngine(wire.timers, wire.broker, journal)

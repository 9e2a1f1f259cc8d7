"""One client connection of a benchmark.

Each connection has `depth` lanes. A lane repeats put, reserve and delete in the mode `cycle`, put in `put`, and
reserve-with-timeout 0 and delete in `drain`. Lanes are only counters: all lanes of a connection are alike, so the replies in a
buffer are counted by kind, and the next commands are sent in one write, deletes first.

A `reserve` in `cycle` does not wait long: the server has answered its lane's put, so there is a job for each reserve.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from beanspiked.bench.latency import Histogram
    from beanspiked.bench.options import Options
    from beanspiked.bench.replies import Reader
    from beanspiked.client.address import Address

KINDS = ("put", "reserve", "delete")
"""The commands that are timed; a command's kind is its place here."""


class Run(Protocol):
    """The part of a run that its connections use."""

    server: Address
    options: Options
    histograms: list[Histogram]
    """Latencies, by kind of command."""
    ran_empty: bool
    """Whether a drain found its tube empty."""
    first_command: bytes
    """The command that begins a job."""
    reader: Reader
    """The reader of the replies."""

    def fail(self, message: str) -> None:
        """End the run with an error."""

    def explain(self, reply: bytes) -> str:
        """Return the message for an unexpected reply."""

    def connection_ready(self) -> None:
        """Learn that one more connection has chosen its tube."""

    def lanes_ended(self) -> None:
        """Learn that the lanes of one more connection have ended."""


class LoadConnection(asyncio.Protocol):
    """One client connection and its lanes."""

    def __init__(self, run: Run, number: int) -> None:
        options = run.options
        self.replied = 0
        """Replies so far; starts again at 0 once the tube is chosen."""
        self.jobs = 0
        """Jobs finished: deleted, or in `put` mode inserted."""
        self.lanes = 0
        """Lanes at work, each with one command in flight."""
        self.todo = 0
        """Jobs not yet begun."""
        self._run = run
        self._transport: asyncio.WriteTransport | None = None
        self._rest = b""
        self._tube = options.tubes[number % len(options.tubes)].encode()
        self._setup: list[bytes] = []
        self._cycle = options.mode == "cycle"
        self._drain = options.mode == "drain"
        self._first = run.first_command
        self._read = run.reader
        self._awaited = [0, 0, 0]  # Commands in flight, by kind.
        self._sent = 0
        self._sampled_command = 0  # The timed command's number among those of this connection; 0 for none.
        self._sampled_kind = 0
        self._sampled_at = 0

    @property
    def busy(self) -> bool:
        """Whether the server owes this connection a reply."""
        return bool(self.lanes or self._setup)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Use and watch the tube."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = stream = cast("asyncio.WriteTransport", transport)
        tube = self._tube
        commands = b"use %b\r\nwatch %b\r\n" % (tube, tube)
        self._setup = [b"USING ", b"WATCHING "]
        if tube != b"default":
            commands += b"ignore default\r\n"
            self._setup.append(b"WATCHING ")
        stream.write(commands)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the run with an error, unless it has ended already."""
        reason = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        self._run.fail(f"{self._run.server} closed the connection{reason}")

    def close(self) -> None:
        """Close the connection without waiting for commands in flight."""
        if self._transport is not None:
            self._transport.abort()

    def start(self, todo: int) -> None:
        """Send the first command of each lane."""
        self.lanes = min(self._run.options.depth, todo)
        self.todo = todo - self.lanes
        out = self._first * self.lanes
        if self._drain:
            self._send(out, 0, self.lanes, 0)
        else:
            self._send(out, 0, 0, self.lanes)

    def data_received(self, data: bytes) -> None:
        """Count the replies and send the next commands."""
        if self._rest:
            data = self._rest + data
        if self._setup:
            self._finish_setup(data)
            return
        used, inserted, ids, deleted, empty, fault = self._read(data)
        self._rest = data[used:]
        if fault is not None:
            self._run.fail(self._run.explain(fault))
            return
        reserved = len(ids)
        replied = inserted + reserved + deleted + empty
        if not replied:
            return
        self.replied += replied
        if self._sampled_command and self.replied >= self._sampled_command:
            self._run.histograms[self._sampled_kind].record(time.perf_counter_ns() - self._sampled_at)
            self._sampled_command = 0
        awaited = self._awaited
        awaited[0] -= inserted
        awaited[1] -= reserved + empty
        awaited[2] -= deleted
        if min(awaited) < 0 or (empty and self._cycle):
            self._run.fail(self._run.explain(b"TIMED_OUT" if empty else data[:used].split(b"\r\n", 1)[0]))
            return
        self._go_on(inserted, ids, deleted, empty)

    def _go_on(self, inserted: int, ids: list[bytes], deleted: int, empty: int) -> None:
        finished = deleted if self._cycle or self._drain else inserted
        reserves = inserted if self._cycle else 0
        if empty:
            self._run.ran_empty = True
            self.todo = 0
            self.lanes -= empty
        again = min(finished, self.todo)
        if finished:
            self.jobs += finished
            self.todo -= again
            self.lanes -= finished - again
        out = b""
        if ids:
            out = b"delete " + b"\r\ndelete ".join(ids) + b"\r\n"
        if reserves:
            out += b"reserve\r\n" * reserves
        if again:
            out += self._first * again
        if out:
            if self._drain:
                self._send(out, len(ids), again, 0)
            else:
                self._send(out, len(ids), reserves, again)
        elif not self.lanes:
            self._run.lanes_ended()

    def _send(self, out: bytes, deletes: int, reserves: int, puts: int) -> None:
        """Send the commands in `out`; their kinds come in the order of the counts."""
        # No flow control is needed: at most `depth` commands can wait here.
        assert self._transport is not None
        awaited = self._awaited
        awaited[0] += puts
        awaited[1] += reserves
        awaited[2] += deletes
        count = deletes + reserves + puts
        if not self._sampled_command:
            if count == 1:  # Micro-optimization: at depth 1 nothing else is to do.
                self._sampled_kind = 2 if deletes else 1 if reserves else 0
                self._sampled_command = self._sent + 1
            else:
                self._choose_sample(deletes, reserves, puts)
            self._sampled_at = time.perf_counter_ns()
        self._sent += count
        self._transport.write(out)

    def _choose_sample(self, deletes: int, reserves: int, puts: int) -> None:
        """Choose which of the next commands is timed.

        This takes a command of the kind with the fewest samples, so that all kinds and all places in the buffer have samples.
        """
        samples = self._run.histograms
        before = {2: self._sent, 1: self._sent + deletes, 0: self._sent + deletes + reserves}
        counts = {2: deletes, 1: reserves, 0: puts}
        kind = min((kind for kind in counts if counts[kind]), key=lambda kind: samples[kind].count)
        self._sampled_kind = kind
        self._sampled_command = before[kind] + 1 + self.replied % counts[kind]

    def _finish_setup(self, data: bytes) -> None:
        """Read the replies to the commands that choose the tube."""
        while self._setup and (end := data.find(b"\n") + 1):
            if not data.startswith(self._setup.pop(0)):
                self._run.fail(self._run.explain(data[:end].rstrip(b"\r\n")))
                return
            self.replied += 1
            data = data[end:]
            if not self._setup:
                self.replied = 0
                self._run.connection_ready()
        self._rest = data

"""Measure how long one client waits while another sends a long command. Alternate between a server and beanstalkd.

    python tests/speed/stalls.py [--server CMD] [--peer CMD] [--jobs 1000000] [--rounds 3] [--only "ROW;..."] [--json FILE]

A probe sends `list-tube-used` each millisecond on a connection of its own, from a process of its own; the durable row probes with puts.
The longest wait over all rounds counts, and the median of the rounds' medians. A wait above its bar is printed as `missed`.
`make figures` turns the JSON into the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import select
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import default_peer, default_server
from rig.process import Server
from rig.report import machine, table, used_by_others

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE_EVERY_S = 0.001
# How many commands are sent before their replies are read.
CHUNK = 500
GREEDY_S = 4.0
WITHIN_S = 600.0
LIMIT_MS = 20.0
LIMIT_RATIO = 1.5
PEEKS = b"peek 99999999\r\n" * 2000


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A probe's waits, in milliseconds, and the server's largest size, in megabytes."""

    longest: float
    median: float
    peak_mb: float


# --- processes of their own


def probe(port: int, command: bytes) -> None:
    """Send a command each millisecond until a byte comes on standard input; print the longest and the median wait."""
    gc.disable()
    waits = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        while not select.select([0], [], [], PROBE_EVERY_S)[0]:
            began = time.perf_counter()
            sock.sendall(command)
            sock.recv(1000)
            waits.append(time.perf_counter() - began)
    print(max(waits) * 1e3, statistics.median(waits) * 1e3)


def be_greedy(port: int, connections: int, seconds: float) -> None:
    """Pipeline peeks on many connections without end."""
    buffer = bytearray(1 << 16)
    with select.epoll() as ready:
        socks = {}
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setblocking(False)
            socks[sock.fileno()] = [sock, 0]
            ready.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for fd, events in ready.poll(0.05):
                sock, sent = socks[fd]
                assert isinstance(sock, socket.socket)
                assert isinstance(sent, int)
                with contextlib.suppress(BlockingIOError):
                    if events & select.EPOLLIN:
                        sock.recv_into(buffer)
                    if events & select.EPOLLOUT:
                        socks[fd][1] = (sent + sock.send(PEEKS[sent:])) % len(PEEKS)


# --- one row


class Load:
    """A server, and a client that sends it long commands."""

    def __init__(self, server: Server, jobs: int) -> None:
        self.server = server
        self.jobs = jobs
        self.seen: list[tuple[float, float]] = []
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @contextlib.contextmanager
    def probed(self, command: bytes = b"list-tube-used\r\n", after_s: float = 0.5) -> Iterator[None]:
        """Probe while a function runs, and for a while after it."""
        words = [sys.executable, __file__, "--probe", str(self.server.port), command.decode()]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield
            time.sleep(after_s)
            said, _ = process.communicate("x", timeout=WITHIN_S)
            longest, median = said.split()
            self.seen.append((float(longest), float(median)))

    def exchange(self, commands: bytes, lines: int) -> None:
        """Send commands, and read this many lines of replies meanwhile."""
        sender = threading.Thread(target=self.sock.sendall, args=(commands,))
        sender.start()
        while lines > 0:
            data = self.sock.recv(1 << 20)
            assert data, "the server hung up"
            lines -= data.count(b"\n")
        sender.join()

    def in_chunks(self, commands: bytes, lines: int, count: int) -> None:
        """Send the same commands again and again."""
        for start in range(0, count, CHUNK):
            number = min(CHUNK, count - start)
            self.exchange(commands * number, lines * number)

    def put(self, delay: int = 0, ttr: int = 3600, count: int = 0) -> None:
        """Put jobs of a byte."""
        self.in_chunks(b"put 0 %d %d 1\r\nx\r\n" % (delay, ttr), 1, count or self.jobs)

    def bury(self) -> None:
        """Put, reserve and bury all jobs, a few at a time, since beanstalkd is slow with many reserved ones."""
        self.put()
        for first in range(1, self.jobs + 1, CHUNK):
            ids = range(first, min(first + CHUNK, self.jobs + 1))
            self.exchange(b"reserve\r\n" * len(ids), 2 * len(ids))
            self.exchange(b"".join(b"bury %d 0\r\n" % job_id for job_id in ids), len(ids))


def greedy(connections: int) -> Callable[[Load], None]:
    """Return the row of this many greedy clients."""

    def measure(load: Load) -> None:
        words = [sys.executable, __file__, "--greedy", str(load.server.port), str(connections), str(GREEDY_S)]
        with subprocess.Popen(words) as process:
            time.sleep(1.0)
            with load.probed(after_s=GREEDY_S / 2):
                pass
            process.wait(WITHIN_S)

    return measure


def hang_up(load: Load) -> None:
    """Hang up with all jobs reserved."""
    load.put()
    load.in_chunks(b"reserve\r\n", 2, load.jobs)
    with load.probed(after_s=3.0):
        load.sock.close()


def kick(load: Load) -> None:
    """Kick all jobs."""
    load.bury()
    with load.probed():
        load.exchange(b"kick %d\r\n" % load.jobs, 1)


def kick_durably(load: Load) -> None:
    """Kick all jobs while other clients put."""
    load.bury()
    with load.probed(b"put 0 0 60 1\r\nx\r\n"):
        load.exchange(b"kick %d\r\n" % load.jobs, 1)


def due(load: Load) -> None:
    """Let all delays end in the same second."""
    at = time.monotonic() + 8 + load.jobs / 50_000
    for start in range(0, load.jobs, CHUNK):
        delay = max(1, int(at - time.monotonic()))
        load.put(delay=delay, count=min(CHUNK, load.jobs - start))
    with load.probed():
        time.sleep(max(0.0, at - time.monotonic()) + 3.0)


def time_out(load: Load) -> None:
    """Let all reserved jobs time out in the same second."""
    at = time.monotonic() + 10 + load.jobs / 20_000
    for start in range(0, load.jobs, CHUNK):
        ttr = max(2, int(at - time.monotonic()))
        count = min(CHUNK, load.jobs - start)
        load.put(ttr=ttr, count=count)
        load.in_chunks(b"reserve\r\n", 2, count)
    with load.probed():
        time.sleep(max(0.0, at - time.monotonic()) + 3.0)


def big_job(load: Load) -> None:
    """Put a job of 48 MB in pieces of 16 KB, and reserve it."""
    size = min(48_000_000, 48 * load.jobs)
    body = b"x" * size
    with load.probed():
        load.sock.sendall(b"put 0 0 60 %d\r\n" % size)
        for start in range(0, size, 16384):
            load.sock.sendall(body[start : start + 16384])
        load.exchange(b"\r\n", 1)
        load.exchange(b"reserve\r\n", 2)


def watch(tubes: int) -> Callable[[Load], None]:
    """Return the row of one connection that watches this many tubes, then waits, ignores half of them and hangs up."""

    def measure(load: Load) -> None:
        count = min(tubes, load.jobs)
        with load.probed():
            load.exchange(b"".join(b"watch t%d\r\n" % number for number in range(count)), count)
            load.exchange(b"reserve-with-timeout 1\r\n", 1)
            load.exchange(b"".join(b"ignore t%d\r\n" % number for number in range(0, count, 2)), (count + 1) // 2)
        with load.probed(after_s=2.0):
            load.sock.close()

    return measure


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row: the work during the probe.

    Attributes:
        measure: Does the work and measures.
        flags: Further options of the server.
        limit_ms: The longest wait that is allowed, if that is more than 1.5 times beanstalkd's.
        peer: Whether beanstalkd is measured as well.
    """

    measure: Callable[[Load], None]
    flags: tuple[str, ...] = ()
    limit_ms: float = LIMIT_MS
    peer: bool = True
    durable: bool = False


ROWS: dict[str, Row] = {
    "50 clients that pipeline `peek` without pause": Row(measure=greedy(50)),
    "500 such clients": Row(measure=greedy(500)),
    "a hang-up of a client that holds all jobs": Row(measure=hang_up),
    "a kick of all jobs": Row(measure=kick),
    "all jobs are due at once": Row(measure=due),
    # For each job that times out, beanstalkd searches all jobs of the connection.
    "all jobs time out at once": Row(measure=time_out, peer=False),
    "a job of 48 MB": Row(measure=big_job, flags=("-z", "100000000")),
    "30,000 watched tubes": Row(measure=watch(30_000)),
    "100,000 watched tubes": Row(measure=watch(100_000)),
    "a durable kick of all jobs, while others put": Row(measure=kick_durably, limit_ms=50.0, peer=False, durable=True),
}


def run(command: tuple[str, ...], row: Row, jobs: int, folder: Path) -> Seen:
    """Start a server and measure a row on it."""
    flags = row.flags
    if row.durable:
        flags += ("-b", tempfile.mkdtemp(dir=folder))
    with Server((*command, *flags)) as server:
        load = Load(server, jobs)
        with contextlib.closing(load.sock):
            row.measure(load)
        peak = next(
            int(line.split()[1]) / 1024
            for line in Path(f"/proc/{server.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        )
    return Seen(
        longest=max(longest for longest, _ in load.seen),
        median=statistics.median(median for _, median in load.seen),
        peak_mb=peak,
    )


def summary(seen: list[Seen]) -> Seen:
    """Return the summary of several rounds."""
    return Seen(
        longest=max(each.longest for each in seen),
        median=statistics.median(each.median for each in seen),
        peak_mb=max(each.peak_mb for each in seen),
    )


def main() -> int:
    """Run the command line."""
    if sys.argv[1:2] == ["--probe"]:
        probe(int(sys.argv[2]), sys.argv[3].encode())
        return 0
    if sys.argv[1:2] == ["--greedy"]:
        be_greedy(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(
        description="Measure how long one client waits while another sends a long command."
    )
    parser.add_argument("--server", metavar="CMD", default=default_server(), help="the server (default: %(default)s)")
    parser.add_argument("--peer", metavar="CMD", default=default_peer(), help="what to compare with; empty for nothing")
    parser.add_argument("--jobs", metavar="N", type=int, default=1_000_000, help="how many jobs (default: %(default)s)")
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=3, help="how often each row is measured (default: 3)"
    )
    parser.add_argument("--only", metavar="ROW;...", default="", help="some of the rows; all if not given")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write every figure to this file, after each row"
    )
    given = parser.parse_args()
    named = [name for name in ROWS if not given.only or name in given.only.split(";")]
    if not named:
        parser.error(f"there is no such row; there are: {'; '.join(ROWS)}")
    ours, peer = tuple(shlex.split(given.server)), tuple(shlex.split(given.peer))
    found: dict[str, Any] = {
        "machine": machine(Path(tempfile.gettempdir())),
        "rounds": given.rounds,
        "jobs": given.jobs,
        "lines": [],
    }
    with tempfile.TemporaryDirectory(prefix="beanspiked-stalls-") as folder:
        for name in named:
            row = ROWS[name]
            mine: list[Seen] = []
            theirs: list[Seen] = []
            others = used_by_others()
            for number in range(given.rounds):
                sides = [(ours, mine)] + ([(peer, theirs)] if peer and row.peer else [])
                for command, seen in sides if number % 2 else reversed(sides):
                    seen.append(run(command, row, given.jobs, Path(folder)))
            found["lines"].append(line(name, row, others, summary(mine), summary(theirs) if theirs else None))
            if given.json is not None:
                given.json.write_text(json.dumps(found, indent=1) + "\n")
            print(table(*shown({**found, "lines": found["lines"][-1:]})), flush=True)
    print(f"\n{table(*shown(found))}")
    return 0


def line(name: str, row: Row, others: float, mine: Seen, theirs: Seen | None) -> dict[str, Any]:
    """Return a row's figures; `others` is the part of the processors that other programs used before it."""
    limit = row.limit_ms if theirs is None else max(row.limit_ms, LIMIT_RATIO * theirs.longest)
    peer = None if theirs is None else asdict(theirs)
    met = mine.longest <= limit
    return {"row": name, "others": others, "ours": asdict(mine), "peer": peer, "limit_ms": limit, "met": met}


def shown(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table's head and lines."""
    lines = []
    for each in found["lines"]:
        ours, peer = each["ours"], each["peer"]
        cells = [each["row"], f"{ours['longest']:.1f} ms", f"{ours['median']:.2f} ms", f"{ours['peak_mb']:.0f} MB"]
        cells += ["", ""] if peer is None else [f"{peer['longest']:.1f} ms", f"{peer['median']:.2f} ms"]
        lines.append([*cells, f"≤ {each['limit_ms']:.0f} ms", "met" if each["met"] else "missed"])
    head = [
        f"meanwhile, {found['jobs']:,} jobs",
        "longest",
        "median",
        "peak",
        "beanstalkd's longest",
        "median",
        "bar",
        "",
    ]
    return head, lines


if __name__ == "__main__":
    sys.exit(main() if os.name == "posix" else 1)

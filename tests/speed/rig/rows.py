"""The rows: the measurements of each on one server in one round, and their bars."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rig.client import CHUNK, Client
from rig.load import COMMANDS_PER_CYCLE, Bsload, Delays, Load
from rig.process import Server, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b"x" * 100
# A put, a reserve and a delete, sent together.
TRIPLES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The sizes of the measurements.

    Attributes:
        seconds: About how long one load lasts, if its length is free.
        stored: Jobs put for `bytes-per-job`, and waiting in `jobs` and `pauses`.
        probed: Jobs cycled while `pauses` probes.
        tubes: Tubes watched in `tubes`.
        held: Jobs reserved by one connection in `reserved`.
    """

    seconds: float
    stored: int
    probed: int
    tubes: int
    held: int


FULL = Sizes(seconds=3.0, stored=1_000_000, probed=1_000_000, tubes=20_000, held=5_000)
QUICK = Sizes(seconds=0.04, stored=10_000, probed=5_000, tubes=500, held=200)
FEW_JOBS = 10
FEW_HELD = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The limit for a figure.

    Attributes:
        of: `ratio` (ours to the peer's) or `ours`.
        at_least: Whether more is better.
        limit: The limit itself.
    """

    of: str
    at_least: bool
    limit: float

    def __str__(self) -> str:
        return f"{self.of} {'≥' if self.at_least else '≤'} {self.limit:g}"

    def met_by(self, value: float) -> bool:
        """Whether a value keeps the bar."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number that a row measures.

    Attributes:
        name: Its name, with its unit.
        bar: Its bar, or None.
        worst: Whether the greatest value of the rounds counts instead of the median.
    """

    name: str
    bar: Bar | None = None
    worst: bool = False


@dataclass(slots=True)
class Outcome:
    """The results of a row on one server in one round.

    Attributes:
        figures: Values by the names of the row's figures.
        delays: How long a probe waited, by the work that went on meanwhile.
    """

    figures: dict[str, float]
    delays: dict[str, Delays] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """The means of the measurements.

    Attributes:
        bsload: The load generator.
        sizes: The sizes.
        data_dir: The directory for journals.
    """

    bsload: Bsload
    sizes: Sizes
    data_dir: Path

    @contextlib.contextmanager
    def journaling(self, side: Side) -> Iterator[Server]:
        """Start a server with a journal in a new directory."""
        with (
            tempfile.TemporaryDirectory(prefix="beanspiked-speed-", dir=self.data_dir) as directory,
            Server((*side.command, "-b", directory, *side.durable)) as server,
        ):
            yield server


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of measurements.

    Attributes:
        figures: The figures that it measures.
        measure: Starts a server and measures them.
    """

    figures: tuple[Figure, ...]
    measure: Callable[[Bench, Side], Outcome]


# --- speed


def _speed(connections: int, depth: int, *, durable: bool = False) -> Callable[[Bench, Side], Outcome]:
    """Return a function that measures put, reserve and delete of each job, with this many commands in flight on each connection."""

    def measure(bench: Bench, side: Side) -> Outcome:
        with bench.journaling(side) if durable else Server(side.command) as server:
            load = bench.bsload.cycle_for(server, connections, depth, bench.sizes.seconds)
        figures = {"jobs/s": load.jobs_per_s, "CPU µs/job": load.cpu_us_per_command * COMMANDS_PER_CYCLE}
        if depth == 1:
            figures |= {"p50 µs": load.said["p50_us"], "p99 µs": load.said["p99_us"]}
        return Outcome(figures)

    return measure


def _speed_row(connections: int, depth: int, *, durable: bool = False, at_least: float | None = None) -> Row:
    names = ["CPU µs/job", *(["p50 µs", "p99 µs"] if depth == 1 else [])]
    bar = None if at_least is None else _at_least(at_least)
    return Row(
        figures=(Figure(name="jobs/s", bar=bar), *(Figure(name=name) for name in names)),
        measure=_speed(connections, depth, durable=durable),
    )


# --- memory


def _bytes_per_job(bench: Bench, side: Side) -> Outcome:
    jobs = bench.sizes.stored
    with Server(side.command) as server:
        bench.bsload.run(server, "cycle", 50, 16, max(jobs // 50, 800))
        before = server.rss_bytes()
        bench.bsload.run(server, "put", 50, 16, jobs)
        return Outcome({"bytes": (server.rss_bytes() - before) / jobs})


# --- growth: the same work on a server that has little, and on one that has much


def _growth(few: Load, many: Load) -> Outcome:
    return Outcome(
        {
            "CPU µs, few": few.cpu_us_per_command,
            "CPU µs, many": many.cpu_us_per_command,
            "CPU, many/few": many.cpu_us_per_command / few.cpu_us_per_command,
            "jobs/s, few": few.jobs_per_s,
            "jobs/s, many": many.jobs_per_s,
            "time, many/few": few.jobs_per_s / many.jobs_per_s,
        }
    )


def _tubes(bench: Bench, side: Side) -> Outcome:
    seconds = bench.sizes.seconds
    with Server(side.command) as server:
        few = bench.bsload.cycle_for(server, 50, 16, seconds)
    with Server(side.command) as server, server.connect() as idle:
        idle.watch(bench.sizes.tubes)
        many = bench.bsload.cycle_for(server, 50, 16, seconds)
    return _growth(few, many)


def _jobs(bench: Bench, side: Side) -> Outcome:
    loads: list[Load] = []
    for waiting, connections in ((FEW_JOBS, 1), (bench.sizes.stored, 50)):
        with Server(side.command) as server:
            bench.bsload.run(server, "put", connections, 16, waiting)
            loads.append(bench.bsload.cycle_for(server, 50, 16, bench.sizes.seconds))
    few, many = loads
    return _growth(few, many)


def _reserved(bench: Bench, side: Side) -> Outcome:
    costs: list[dict[str, float]] = []
    for held in (FEW_HELD, bench.sizes.held):
        with Server(side.command) as server, server.connect() as client:
            ids = client.hold(held, BODY)
            costs.append(
                {
                    "touch": _cpu_us(server, client, _touches(ids), bench.sizes.seconds / 2),
                    "cycle": _cpu_us(server, client, _cycles(ids[-1] + 1), bench.sizes.seconds / 2),
                }
            )
    few, many = costs
    figures: dict[str, float] = {}
    for work, cost in few.items():
        figures |= {
            f"{work} CPU µs, few": cost,
            f"{work} CPU µs, many": many[work],
            f"{work} CPU, many/few": many[work] / cost,
        }
    return Outcome(figures)


def _touches(ids: list[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """Touch one job after the other. Each would time out first, which costs a server most that keeps track of the first one."""
    # The client makes whole chunks beforehand, so that its own time does not count.
    turns = itertools.islice(itertools.cycle(ids), max(len(ids), CHUNK))
    chunks = [(len(chunk), b"".join(b"touch %d\r\n" % number for number in chunk)) for chunk in _batched(turns)]
    for count, commands in itertools.cycle(chunks):
        yield count, commands, b"TOUCHED\r\n" * count


def _batched(ids: Iterator[int]) -> Iterator[list[int]]:
    while chunk := list(itertools.islice(ids, CHUNK)):
        yield chunk


def _cycles(first: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Put, reserve and delete one job after another. No other client puts, so their ids are known beforehand."""
    size = len(BODY)
    for start in itertools.count(first, TRIPLES):
        ids = range(start, start + TRIPLES)
        commands = b"".join(
            b"put 1000 0 3600 %d\r\n%s\r\nreserve\r\ndelete %d\r\n" % (size, BODY, number) for number in ids
        )
        replies = b"".join(
            b"INSERTED %d\r\nRESERVED %d %d\r\n%s\r\nDELETED\r\n" % (number, number, size, BODY) for number in ids
        )
        yield TRIPLES * 3, commands, replies


def _cpu_us(server: Server, client: Client, work: Iterator[tuple[int, bytes, bytes]], seconds: float) -> float:
    """Return the server's processor time for a command, in microseconds, while work is sent to it for some seconds."""
    _work(client, work, seconds / 10)
    before = server.cpu_s()
    done = _work(client, work, seconds)
    return (server.cpu_s() - before) * 1e6 / done


def _work(client: Client, work: Iterator[tuple[int, bytes, bytes]], seconds: float) -> int:
    until = time.monotonic() + seconds
    done = 0
    for count, commands, replies in work:
        client.exchange_exactly(commands, replies)
        done += count
        if time.monotonic() >= until:
            break
    return done


# --- pauses


def _pauses(bench: Bench, side: Side) -> Outcome:
    with Server(side.command) as server:
        delays = {
            "filling": bench.bsload.run_probed(server, "put", bench.sizes.stored),
            "cycling": bench.bsload.run_probed(server, "cycle", bench.sizes.probed),
        }
    figures: dict[str, float] = {}
    for work, probed in delays.items():
        figures |= {f"{work}, max ms": max(probed.seen) * 1e3, f"{work}, max ms on a CPU": max(probed.own) * 1e3}
    return Outcome(figures, delays)


def _at_least(limit: float) -> Bar:
    return Bar(of="ratio", at_least=True, limit=limit)


def _at_most(limit: float) -> Bar:
    return Bar(of="ours", at_least=False, limit=limit)


def _few_and_many(what: str, unit: str) -> tuple[Figure, ...]:
    return (
        Figure(name=f"{unit}, few"),
        Figure(name=f"{unit}, many"),
        Figure(name=f"{what}, many/few", bar=_at_most(1.5)),
    )


_GROWTH = (*_few_and_many("CPU", "CPU µs"), *_few_and_many("time", "jobs/s"))

ROWS: dict[str, Row] = {
    "cycle-1x1": _speed_row(1, 1),
    "cycle-50x1": _speed_row(50, 1, at_least=1.0),
    "cycle-500x1": _speed_row(500, 1),
    "cycle-50x16": _speed_row(50, 16, at_least=2.5),
    "durable-1x1": _speed_row(1, 1, durable=True),
    "durable-50x1": _speed_row(50, 1, durable=True),
    "durable-50x16": _speed_row(50, 16, durable=True, at_least=10.0),
    "bytes-per-job": Row(figures=(Figure(name="bytes", bar=_at_most(400.0)),), measure=_bytes_per_job),
    "tubes": Row(figures=_GROWTH, measure=_tubes),
    "jobs": Row(figures=_GROWTH, measure=_jobs),
    "reserved": Row(
        figures=(*_few_and_many("touch CPU", "touch CPU µs"), *_few_and_many("cycle CPU", "cycle CPU µs")),
        measure=_reserved,
    ),
    "pauses": Row(
        figures=(
            Figure(name="filling, max ms", worst=True),
            Figure(name="filling, max ms on a CPU", bar=_at_most(20.0), worst=True),
            Figure(name="cycling, max ms", worst=True),
            Figure(name="cycling, max ms on a CPU", bar=_at_most(20.0), worst=True),
        ),
        measure=_pauses,
    ),
}

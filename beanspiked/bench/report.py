"""Turns results into a table or a JSON document."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from beanspiked.bench.connection import KINDS
from beanspiked.bench.latency import Histogram

if TYPE_CHECKING:
    from beanspiked.bench.load import RunResult
    from beanspiked.bench.options import Options

GENERATOR_LIMIT = 0.9
"""The share of one processor above which the load generator, not the server, limits the speed."""

_PERCENTILES = (50, 90, 99)


@dataclass(slots=True)
class ServerResult:
    """All rounds against one server."""

    server: str
    rounds: list[RunResult] = field(default_factory=list)

    @property
    def jobs_per_s(self) -> float:
        """The median round's speed."""
        return median(map(_jobs_per_s, self.rounds))

    @property
    def commands_per_s(self) -> float:
        """The median round's speed, in commands."""
        return median(_per_second(r.commands, r.seconds) for r in self.rounds)

    @property
    def generator_cpu(self) -> float:
        """The generator's share of one processor over all rounds."""
        return _per_second(sum(r.cpu_seconds for r in self.rounds), sum(r.seconds for r in self.rounds))

    @property
    def generator_bound(self) -> bool:
        """Whether the generator was the bottleneck."""
        return self.generator_cpu >= GENERATOR_LIMIT

    def latency(self) -> dict[str, Histogram]:
        """Return one histogram for each command sent, over all rounds."""
        merged: dict[str, Histogram] = {}
        for kind in KINDS:
            for result in self.rounds:
                if kind in result.latency:
                    merged.setdefault(kind, Histogram()).add(result.latency[kind])
        return merged


@dataclass(slots=True)
class Report:
    """All results of one call of `beanspiked bench`."""

    options: Options
    servers: list[ServerResult]
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)

    def measured(self) -> list[ServerResult]:
        """Return the servers with at least one round."""
        return [server for server in self.servers if server.rounds]

    def ratios(self) -> tuple[float, list[float]] | None:
        """Return the ratio of the medians, first server over second, and the ratio of each round's pair."""
        if len(self.servers) != 2 or len(self.measured()) != 2:
            return None
        first, second = self.servers
        # An interrupted round may have run on one server only. Then it has no ratio.
        pairs = [
            _jobs_per_s(a) / _jobs_per_s(b)
            for a, b in zip(first.rounds, second.rounds, strict=False)
            if a.jobs and b.jobs
        ]
        if not pairs or not second.jobs_per_s:
            return None
        return first.jobs_per_s / second.jobs_per_s, pairs

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        options = self.options
        ratios = self.ratios()
        return {
            "mode": options.mode,
            "connections": options.connections,
            "depth": options.depth,
            "jobs": options.jobs,
            "seconds": options.seconds,
            "body_bytes": None if options.mode == "drain" and not options.own_tubes else options.body,
            "tubes": list(options.tubes),
            "rounds": options.rounds,
            "latency_sampled": options.depth > 1,
            "servers": [_server_object(server) for server in self.measured()],
            "ratio": ratios
            and {"of_medians": ratios[0], "pairs": ratios[1], "min": min(ratios[1]), "max": max(ratios[1])},
            "notes": self.notes,
            "interrupted": self.interrupted,
        }

    def table(self) -> str:
        """Return the report as text."""
        measured = self.measured()
        if not measured:
            return "\n".join(["nothing was measured", *(f"note: {note}" for note in self.notes)])
        lines = [_headline(self.options)]
        rows = [["server", "rounds", "jobs", "seconds", "jobs/s", "commands/s", "generator CPU"]]
        rows += [
            [
                server.server,
                f"{len(server.rounds)}",
                f"{sum(r.jobs for r in server.rounds):,}",
                f"{sum(r.seconds for r in server.rounds):.2f}",
                f"{server.jobs_per_s:,.0f}",
                f"{server.commands_per_s:,.0f}",
                f"{server.generator_cpu:.0%}",
            ]
            for server in measured
        ]
        lines += ["", *_columns(rows, left=1)]
        rows = [["server", "latency, us", "samples", *(f"p{p}" for p in _PERCENTILES), "max"]]
        for server in measured:
            for kind, histogram in server.latency().items():
                values = [*(histogram.percentile_ns(p) for p in _PERCENTILES), histogram.max_ns]
                rows.append([server.server, kind, f"{histogram.count:,}", *(f"{ns / 1000:,.0f}" for ns in values)])
        lines += ["", *_columns(rows, left=2)]
        if ratios := self.ratios():
            of_medians, pairs = ratios
            names = " / ".join(server.server for server in self.servers)
            spread = f"(pairs {min(pairs):.3f}..{max(pairs):.3f})"
            lines += ["", f"ratio of medians, {names}: {of_medians:.3f} {spread}"]
        if self.notes:
            lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)


def _per_second(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def _jobs_per_s(result: RunResult) -> float:
    return _per_second(result.jobs, result.seconds)


def _headline(options: Options) -> str:
    parts = [f"{options.mode}: {options.connections} connections, depth {options.depth}"]
    if options.jobs is not None:
        parts.append(f"{options.jobs:,} jobs a run")
    elif options.seconds is not None:
        parts.append(f"{options.seconds:g} s a run")
    if options.mode != "drain" or options.own_tubes:
        parts.append(f"bodies of {options.body} bytes")
    first, *others = options.tubes
    parts.append(f"tubes {first} .. {others[-1]}" if others else f"tube {first}")
    return ", ".join(parts)


def _columns(rows: list[list[str]], *, left: int) -> list[str]:
    """Align rows in columns, the first `left` to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _server_object(server: ServerResult) -> dict[str, Any]:
    return {
        "server": server.server,
        "jobs_per_s": server.jobs_per_s,
        "commands_per_s": server.commands_per_s,
        "generator_cpu": server.generator_cpu,
        "generator_bound": server.generator_bound,
        "rounds": [
            {
                "jobs": result.jobs,
                "commands": result.commands,
                "seconds": result.seconds,
                "jobs_per_s": _jobs_per_s(result),
                "generator_cpu": _per_second(result.cpu_seconds, result.seconds),
            }
            for result in server.rounds
        ],
        "latency_us": {
            kind: {
                "samples": histogram.count,
                **{f"p{p}": histogram.percentile_ns(p) / 1000 for p in _PERCENTILES},
                "max": histogram.max_ns / 1000,
            }
            for kind, histogram in server.latency().items()
        },
    }

"""What was measured, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import statistics
import time
from bisect import bisect_left
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.load import Delays
from rig.rows import ROWS, Figure, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0)
BUCKET_NAMES = ("<1", "1-2", "2-5", "5-10", "10-20", ">20")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One measured run.

    Attributes:
        row: The row's name.
        round: Counted from 1.
        side: `ours` or `peer`.
        outcome: What it measured.
    """

    row: str
    round: int
    side: str
    outcome: Outcome

    def __str__(self) -> str:
        figures = "; ".join(f"{name} {shown(value)}" for name, value in self.outcome.figures.items())
        return f"{self.row}, round {self.round}, {self.side}: {figures}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        row: The row's name.
        figure: The figure's name.
        ours: Ours over all rounds: the median, or the greatest.
        peer: The peer's, if there is one.
        ratio: Ours to the peer's.
        lowest: The lowest ratio of any round.
        highest: The highest ratio of any round.
        bar: What it is held to, or nothing.
        met: Whether it is good enough; None without a bar or without a peer to compare with.
    """

    row: str
    figure: str
    ours: float
    peer: float | None
    ratio: float | None
    lowest: float | None
    highest: float | None
    bar: str
    met: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How long a probe waited for its replies.

    Attributes:
        side: `ours` or `peer`.
        work: What went on meanwhile.
        counted: `all` of each delay, or what of it was not spent waiting for a processor.
        counts: Replies by bucket.
        longest_ms: The longest delay.
    """

    side: str
    work: str
    counted: str
    counts: dict[str, int]
    longest_ms: float


@dataclass(slots=True)
class Report:
    """All runs, and where they were made."""

    machine: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    def lines(self) -> list[Line]:
        """Return the table's lines."""
        return [
            self._line(name, figure)
            for name, row in ROWS.items()
            if any(run.row == name for run in self.runs)
            for figure in row.figures
        ]

    def _line(self, row: str, figure: Figure) -> Line:
        values: dict[str, list[float]] = {"ours": [], "peer": []}
        for run in self.runs:
            if run.row == row:
                values[run.side].append(run.outcome.figures[figure.name])
        summary = max if figure.worst else statistics.median
        ours = summary(values["ours"])
        peer = summary(values["peer"]) if values["peer"] else None
        ratio = ours / peer if peer else None
        # One round gives one pair: the rounds come in order, one run for each side.
        pairs = [mine / theirs for mine, theirs in zip(values["ours"], values["peer"], strict=False) if theirs]
        held = ours if figure.bar is not None and figure.bar.of == "ours" else ratio
        return Line(
            row=row,
            figure=figure.name,
            ours=ours,
            peer=peer,
            ratio=ratio,
            lowest=min(pairs, default=None),
            highest=max(pairs, default=None),
            bar=str(figure.bar or ""),
            met=figure.bar.met_by(held) if figure.bar is not None and held is not None else None,
        )

    def histograms(self) -> list[Histogram]:
        """Return the delays of all rounds together."""
        together: dict[tuple[str, str], Delays] = {}
        for run in sorted(self.runs, key=lambda run: run.side):
            for work, delays in run.outcome.delays.items():
                together.setdefault((work, run.side), Delays()).add(delays)
        return [
            _histogram(side, work, counted, delays)
            for (work, side), both in together.items()
            for counted, delays in (("all", both.seen), ("on a CPU", both.own))
        ]

    def markdown(self) -> str:
        """Return everything as Markdown."""
        parts = [
            " · ".join(f"{name}: {value}" for name, value in self.machine.items()),
            _table(
                ["row", "figure", "ours", "peer", "ours/peer", "by round", "bar", ""],
                (
                    [
                        line.row,
                        line.figure,
                        shown(line.ours),
                        shown(line.peer),
                        shown(line.ratio),
                        "-" if line.lowest is None else f"{shown(line.lowest)}..{shown(line.highest)}",
                        line.bar,
                        {True: "met", False: "missed", None: ""}[line.met],
                    ]
                    for line in self.lines()
                ),
            ),
        ]
        histograms = self.histograms()
        if histograms:
            parts.append(
                "Replies to a probe that sends a command each millisecond, by how long it waited. `on a CPU` leaves out the time "
                "in which the server or the probe was ready to run while the load generator had the processors."
            )
            parts.append(
                _table(
                    ["server", "while", "delay", *(f"{name} ms" for name in BUCKET_NAMES), "max ms"],
                    (
                        [
                            histogram.side,
                            histogram.work,
                            histogram.counted,
                            *(str(count) for count in histogram.counts.values()),
                            shown(histogram.longest_ms),
                        ]
                        for histogram in histograms
                    ),
                )
            )
        return "\n\n".join(parts)

    def json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "machine": self.machine,
            "runs": [
                {"row": run.row, "round": run.round, "side": run.side, "figures": run.outcome.figures}
                for run in self.runs
            ],
            "table": [asdict(line) for line in self.lines()],
            "histograms": [asdict(histogram) for histogram in self.histograms()],
        }


def _histogram(side: str, work: str, counted: str, delays: list[float]) -> Histogram:
    counts = dict.fromkeys(BUCKET_NAMES, 0)
    for delay in delays:
        counts[BUCKET_NAMES[bisect_left(BUCKETS_MS, delay * 1e3)]] += 1
    return Histogram(side=side, work=work, counted=counted, counts=counts, longest_ms=max(delays) * 1e3)


def _table(head: list[str], lines: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def shown(value: float | None) -> str:
    """Return a number with three digits that matter, or all of a great one."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine(data_dir: Path) -> dict[str, str]:
    """Say what this machine is."""
    return {
        "CPU": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "journals on": _file_system(data_dir),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(len(where), kind) for where, kind in mounts if path.resolve().is_relative_to(where)]
    return max(holding)[1] if holding else "an unknown file system"

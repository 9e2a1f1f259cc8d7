"""The results of measurements, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from bisect import bisect_left
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.load import Delays
from rig.rows import ROWS, Figure, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The part of the processors that other programs may use on a quiet machine, and how long this is measured, in seconds.
QUIET = 0.1
LOOK_S = 0.2
BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0)
BUCKET_NAMES = ("<1", "1-2", "2-5", "5-10", "10-20", ">20")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One measured run.

    Attributes:
        row: The row's name.
        round: Counted from 1.
        side: The server's name.
        others: The part of the machine's processors that other programs used just before it.
        outcome: Its results.
    """

    row: str
    round: int
    side: str
    others: float
    outcome: Outcome

    def __str__(self) -> str:
        figures = "; ".join(f"{name} {shown(value)}" for name, value in self.outcome.figures.items())
        return f"{self.row}, round {self.round}, {self.side}: {figures}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A figure over all rounds.

    Attributes:
        value: The median, or the greatest value if that counts.
        lowest, highest: Its range.
    """

    value: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{shown(self.value)} ({shown(self.lowest)} to {shown(self.highest)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        row: The row's name.
        figure: The figure's name.
        sides: The figure of each server, by name.
        ratios: Ours divided by each peer's, by name. Each round gives one ratio.
        bar: The limit that it must keep, or nothing.
        met: Whether it keeps the bar; None without a bar or without a peer to compare with.
    """

    row: str
    figure: str
    sides: dict[str, Spread]
    ratios: dict[str, Spread]
    bar: str
    met: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How long a probe waited for its replies.

    Attributes:
        side: The server's name.
        work: The work that went on meanwhile.
        counted: `all` of each delay, or the part without waits for a processor.
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
    """All runs, and the machine on which they were made.

    Attributes:
        machine: Facts about the machine.
        sides: The servers by name: ours, then its peers. Bars compare with the first peer.
        runs: The runs.
    """

    machine: dict[str, str]
    sides: dict[str, str] = field(default_factory=dict)
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
        # The rounds come in order, with one run for each side.
        values: dict[str, list[float]] = {side: [] for side in self.sides}
        for run in self.runs:
            if run.row == row:
                values[run.side].append(run.outcome.figures[figure.name])
        ours, *peers = values
        ratios = {peer: spread([a / b for a, b in zip(values[ours], values[peer], strict=True) if b]) for peer in peers}
        sides = {side: spread(found, max if figure.worst else statistics.median) for side, found in values.items()}
        bar = figure.bar
        held = None
        if bar is not None and bar.of == "ours":
            held = sides[ours].value
        elif peers:
            held = ratios[peers[0]].value
        met = bar.met_by(held) if bar is not None and held is not None else None
        return Line(row=row, figure=figure.name, sides=sides, ratios=ratios, bar=str(bar or ""), met=met)

    def warning(self) -> str:
        """Say that the machine was not quiet; empty when it was."""
        if not self.runs:
            return ""
        others = [run.others for run in self.runs]
        busy = sum(value > QUIET for value in others)
        if not busy:
            return ""
        return (
            f"the machine was not always quiet: before {busy} of {len(others)} runs other programs used more than {QUIET:.0%} of its"
            f" processors, {max(others):.0%} at most"
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
        peers = list(self.sides)[1:]
        parts = [
            " · ".join(f"{name}: {value}" for name, value in (self.machine | self.sides).items()),
            *([f"**Warning:** {self.warning()}"] if self.warning() else []),
            table(
                ["row", "figure", *self.sides, *(f"ours / {peer}" for peer in peers), "bar", ""],
                (
                    [
                        line.row,
                        line.figure,
                        *map(str, line.sides.values()),
                        *map(str, line.ratios.values()),
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
                table(
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
        """Return everything in the form of the JSON."""
        return {
            "machine": self.machine,
            "sides": self.sides,
            "rounds": max((run.round for run in self.runs), default=0),
            "warning": self.warning(),
            "runs": [
                {
                    "row": run.row,
                    "round": run.round,
                    "side": run.side,
                    "others": run.others,
                    "figures": run.outcome.figures,
                }
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


def spread(values: list[float], summary: Callable[[list[float]], float] = statistics.median) -> Spread:
    """Sum up a figure over all rounds."""
    return Spread(value=summary(values), lowest=min(values), highest=max(values))


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def shown(value: float | None) -> str:
    """Return a number with three significant digits, or with all digits if it is large."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def used_by_others() -> float:
    """Return the part of the machine's processors that other programs use while no measurement runs."""
    before = _processor_times()
    time.sleep(LOOK_S)
    idle, total = (after - earlier for after, earlier in zip(_processor_times(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _processor_times() -> tuple[int, int]:
    """Return the idle ticks of all processors, and all their ticks (proc(5): /proc/stat)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def machine(data_dir: Path) -> dict[str, str]:
    """Return facts about this machine."""
    return {
        "CPU": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release().partition("-")[0],
        "journals on": _file_system(data_dir),
        "date": time.strftime("%Y-%m-%d"),
    }


def keep(path: Path | None, name: str, others: float, rounds: int, figures: dict[str, Any]) -> None:
    """Write a run's figures to a JSON file, beside those of runs with other names.

    Args:
        path: The file; nothing is written without one.
        name: The name of the measurement. The new run replaces an earlier one of that name.
        others: The part of the machine's processors that other programs used before it.
        rounds: How often it was measured.
        figures: The results.
    """
    if path is None:
        return
    found = json.loads(path.read_text()) if path.exists() else {}
    found[name] = {"machine": machine(Path(tempfile.gettempdir())), "others": others, "rounds": rounds, **figures}
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


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


def span(values: list[Any]) -> str:
    """Say what lies between the first and the last of some values."""
    return " to ".join(dict.fromkeys([str(min(values)), str(max(values))]))


def measured(runs: list[dict[str, Any]]) -> str:
    """Say when and where runs were measured, and whether the machine was quiet."""
    machine, dates, rounds = (
        runs[0]["machine"],
        [run["machine"]["date"] for run in runs],
        [run["rounds"] for run in runs],
    )
    text = f"Measured on {span(dates)}, {machine['cores']} cores ({machine['CPU']}); rounds: {span(rounds)}."
    others = max(run["others"] for run in runs)
    if others <= QUIET:
        return text
    return f"{text}\nNote: the machine was not quiet: other programs used up to {others:.0%} of its processors."

"""Make the documents' tables and charts from the JSON that the other scripts here wrote.

    python tests/speed/figures.py [--check] [--root DIR]

README.md and docs/benchmarks.md have blocks between `<!-- figures: NAME -->` and `<!-- end of figures -->`, and show the charts of
docs/figures. `make figures` writes both anew from the JSON there; --check writes nothing and exits with 1 where
something differs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.chart import Group, bars
from rig.published import COROUTINES, THEIRS_MS, THEIRS_PER_S
from rig.report import BUCKET_NAMES, measured, shown, table
from stalls import shown as stalls_shown

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
PAGES = ("README.md", "docs/benchmarks.md")
NAMES = {
    "cycle-1x1": "in memory, 1 connection, 1 command in flight",
    "cycle-50x1": "in memory, 50 connections, 1 command in flight",
    "cycle-500x1": "in memory, 500 connections, 1 command in flight",
    "cycle-50x16": "in memory, 50 connections, 16 in flight",
    "durable-1x1": "on disk before each reply, 1 connection, 1 command in flight",
    "durable-50x1": "on disk before each reply, 50 connections, 1 command in flight",
    "durable-50x16": "on disk before each reply, 50 connections, 16 in flight",
}
SHORT = ("cycle-1x1", "cycle-50x1", "cycle-50x16", "durable-50x16")
# Written by its name, since it looks like the letter x.
TIMES = "\N{MULTIPLICATION SIGN}"
OTHERS = {
    ("bytes-per-job", "bytes"): ("memory per waiting job of 100 bytes", "bytes"),
    ("tubes", "CPU, many/few"): ("processor time per command, 20,000 watched tubes to 1", TIMES),
    ("jobs", "CPU, many/few"): ("processor time per command, 1,000,000 waiting jobs to 10", TIMES),
    ("jobs", "time, many/few"): ("time per job, 1,000,000 waiting jobs to 10", TIMES),
    ("reserved", "touch CPU, many/few"): ("processor time per `touch`, 5,000 jobs held by the connection to 50", TIMES),
    ("reserved", "cycle CPU, many/few"): ("processor time per put, reserve, delete, 5,000 jobs held to 50", TIMES),
    ("pauses", "filling, max ms"): ("longest reply to a probe while 1,000,000 jobs come in", "ms"),
    ("pauses", "filling, max ms on a CPU"): ("the same, without waits for a processor", "ms"),
    ("pauses", "cycling, max ms"): ("longest reply to a probe while jobs are cycled", "ms"),
    ("pauses", "cycling, max ms on a CPU"): ("the same, without waits for a processor", "ms"),
}
FRONT_END_SIDES = ["one front-end", "beanstalkd in memory"]
# By connections, commands in flight and tubes.
LOAD_BARS = {
    (50, 16, 1): f"≥ 2 {TIMES}",
    (50, 1, 1): f"≥ 0.7 {TIMES}",
    (50, 16, 50): f"≥ 1 {TIMES}",
    (1000, 1, 1000): f"≥ 0.5 {TIMES}",
}

ON_PAPER = {
    (50, 16, 10): "16 in flight, each tube at one worker",
    (50, 1, 10): "one in flight, each tube at one worker",
    (1000, 1, 1000): "one in flight, nothing shares an operation",
}


@dataclass(slots=True)
class Figures:
    """A run of measure.py, from its JSON."""

    found: dict[str, Any]

    @property
    def sides(self) -> list[str]:
        """The servers' names, ours first."""
        return list(self.found["sides"])

    def lines(self, figure: str, rows: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
        """Return the measured lines of a figure in these rows."""
        lines = {line["row"]: line for line in self.found["table"] if line["figure"] == figure}
        return [(row, lines[row]) for row in rows if row in lines]

    def machine(self) -> str:
        """Say when, where and how the figures were measured."""
        machine, rounds = self.found["machine"], self.found["rounds"]
        words = f"{machine['date']}, {machine['cores']} cores ({machine['CPU']}), {machine['journals on']}"
        servers = ", ".join(
            about if about.startswith(name) else f"{name} ({about})" for name, about in self.found["sides"].items()
        )
        warning = self.found["warning"]
        text = f"Measured on {words}: {servers}. Medians of {rounds} rounds, with their ranges."
        return f"{text}\nNote: {warning}." if warning else text

    def speed(self) -> str:
        """Return the README's table."""
        return f"{self._speeds(SHORT, bar=False)}\n\n{self.machine()}"

    def speeds(self) -> str:
        """Return the table of all speeds."""
        return self._speeds(tuple(NAMES))

    def _speeds(self, rows: tuple[str, ...], *, bar: bool = True) -> str:
        peers = self.sides[1:]
        return table(
            ["jobs a second", *self.sides, *(f"ours / {peer}" for peer in peers), *(["bar"] if bar else [])],
            (
                [
                    NAMES[row],
                    *(shown(line["sides"][side]["value"]) for side in self.sides),
                    *(ratio(line["ratios"][peer]) for peer in peers),
                    *([line["bar"].replace("ratio ", "")] if bar else []),
                ]
                for row, line in self.lines("jobs/s", rows)
            ),
        )

    def processor(self) -> str:
        """Return the table of processor times."""
        return table(
            ["processor time a job, µs", *self.sides],
            (
                [NAMES[row], *(spread(line["sides"][side]) for side in self.sides)]
                for row, line in self.lines("CPU µs/job", tuple(NAMES))
            ),
        )

    def others(self) -> str:
        """Return the table of memory, growth and pauses."""
        lines = {(line["row"], line["figure"]): line for line in self.found["table"]}
        return table(
            ["", *self.sides, "bar"],
            (
                [
                    name,
                    *(f"{shown(lines[key]['sides'][side]['value'])} {unit}" for side in self.sides),
                    lines[key]["bar"].replace("ours ", ""),
                ]
                for key, (name, unit) in OTHERS.items()
                if key in lines
            ),
        )

    def waits(self) -> str:
        """Return the table of a probe's waits."""
        return table(
            ["", "while", *(f"{name} ms" for name in BUCKET_NAMES)],
            (
                [found["side"], WHILE[found["work"]], *(f"{found['counts'][name]:,}" for name in BUCKET_NAMES)]
                for found in self.found["histograms"]
                if found["counted"] == "all"
            ),
        )

    def chart(self, figure: str, title: str) -> str:
        """Return a chart of one figure, as SVG."""
        groups = [
            Group(NAMES[row], [line["sides"][side]["value"] for side in self.sides])
            for row, line in self.lines(figure, tuple(NAMES))
        ]
        return bars(title, self.sides, groups)


def stalls(found: dict[str, Any]) -> str:
    """Return the table of stalls.py, and when it was measured."""
    others = max(line["others"] for line in found["lines"])
    return f"{table(*stalls_shown(found))}\n\n{measured([{**found, 'others': others}])}"


def library(found: dict[str, Any]) -> str:
    """Return the table of library.py, and when it was measured."""
    names = ("put", "reserve", "release", "delete")
    published = [
        "go-beanspike, as published",
        *(f"{THEIRS_MS[name]} ms" if name in THEIRS_MS else "" for name in names),
        "",
    ]
    lines = [
        [f"`{kind}:`", *(f"{run['ms'][name]:.3f} ms" for name in names), f"{shown(run['jobs/s'])} jobs/s"]
        for kind, run in found.items()
    ]
    head = ["", *names, f"{COROUTINES} coroutines: put, reserve and delete"]
    return f"{table(head, [published, *lines])}\n\n{measured(list(found.values()))}"


def load(line: dict[str, Any]) -> str:
    """Name a load of a shared store."""
    depth = "1 command in flight" if line["depth"] == 1 else f"{line['depth']} in flight"
    spread_over = f", over {line['tubes']:,} tubes" if line["tubes"] > 1 else ""
    return f"{line['connections']:,} connections, {depth}{spread_over}"


@dataclass(slots=True)
class Shared:
    """The runs of shared.py, from their JSON."""

    found: dict[str, Any]

    def speeds(self) -> str:
        """Return the table of jobs a second, and when all was measured."""
        lines = (
            [
                load(line),
                *(shown(line[side]["value"]) for side in ("ours", "peer")),
                ratio(line["ratio"]),
                LOAD_BARS.get((line["connections"], line["depth"], line["tubes"]), ""),
            ]
            for line in self.found["speed"]["lines"]
        )
        head = ["jobs a second", *FRONT_END_SIDES, "ratio", "bar"]
        sides = ", ".join(self.found["speed"]["sides"])
        return f"{table(head, lines)}\n\n{sides}. {measured(list(self.found.values()))}"

    def latencies(self) -> str:
        """Return the table of one command in flight."""
        lines = (
            [
                f"{line['ready']:,} ready jobs",
                *(
                    f"{line[name]['us']:,.0f} µs, {line[name]['us'] / line[name]['bare us']:.2f} {TIMES}"
                    for name in ("put", "reserve", "delete")
                ),
                f"≤ 4 {TIMES}",
            ]
            for line in self.found["latency"]["lines"]
        )
        return table(["", "put", "reserve", "delete", "bar"], lines)

    def others(self) -> str:
        """Return the table of all other figures."""
        best = max(line["ours"]["value"] for line in self.found["speed"]["lines"] if line["tubes"] == 1)
        two, counted = self.found["two"], self.found["latency"]["stats-tube ms"]
        wake = two["wake ms"]
        lines = [
            [
                f"jobs a second in one tube, against go-beanspike's {THEIRS_PER_S} at best on such a server",
                f"{shown(best / THEIRS_PER_S)} {TIMES}",
                f"≥ 100 {TIMES}",
            ],
            ["one job in flight a tube, against a bare script", ratio(self.found["floor"]["ratio"]), f"≥ 0.8 {TIMES}"],
            ["two front-ends together, against one", ratio(two["ratio"]), f"≥ 1 {TIMES}"],
            [
                "a put at one front-end reaches a reserve that waits at another",
                f"{wake['value']:.1f} ms, {wake['highest']:.1f} ms at most",
                "≤ 15 ms",
            ],
            [
                "a front-end that waits on 1,000 tubes, beside another one",
                f"{self.found['idle']['part']:.1%} of a core",
                "≤ 5%",
            ],
            ["stored per waiting job of 100 bytes", f"{self.found['stored']['bytes']:.0f} bytes", ""],
        ]
        if counted:
            lines.insert(5, ["`stats-tube` of a tube with 1,000,000 jobs", f"{counted['value']:.1f} ms", "≤ 50 ms"])
        return table(["", "", "bar"], lines)

    def chart(self) -> str:
        """Return the chart of jobs a second, as SVG."""
        lines = self.found["speed"]["lines"]
        groups = [Group(load(line), [line["ours"]["value"], line["peer"]["value"]]) for line in lines]
        return bars("Jobs a second on a shared store (more is better)", FRONT_END_SIDES, groups)


def front_ends(found: dict[str, Any]) -> str:
    """Return the table of front_ends.py, and when it was measured."""
    busy, idle = found["busy"], found["idle"]
    lines = [
        [f"a put at one of {busy['front-ends'] - 1} wakes a reserve at another", f"{busy['median ms']:.1f} ms"],
        ["the same, 99th percentile", f"{busy['p99 ms']:.1f} ms"],
        ["in the second half of the time, median", f"{busy['later median ms']:.1f} ms"],
        ["the same, 99th percentile", f"{busy['later p99 ms']:.1f} ms"],
        [f"processor time of that other, which waits on {busy['watched']:,} tubes", f"{busy['part']:.1%} of a core"],
        ["the same, before the puts", f"{busy['part before']:.1%} of a core"],
        ["operations of two idle front-ends", f"{idle['operations/s']:.1f} a second"],
        ["processor time of an idle front-end", f"{idle['part']:.1%} of a core"],
    ]
    load = f"{busy['puts/s']:,.0f} puts a second over {busy['tubes']:,} tubes, {busy['front-ends']} front-ends"
    return f"{table([load, ''], lines)}\n\n{measured(list(found.values()))}"


def workers(found: dict[str, Any]) -> str:
    """Return the table of workers.py, and when it was measured."""
    run = found["workers"]
    head = [
        "",
        f"{run['workers']} workers, jobs a second",
        "one front-end",
        "ratio",
        "front-ends + node, a job: workers",
        "one",
    ]
    lines = (
        [
            load(line),
            *(shown(line[side]["jobs/s"]["value"]) for side in ("several", "one")),
            ratio(line["ratio"]),
            *(
                f"{shown(line[side]['front-end us']['value'])} + {shown(line[side]['node us']['value'])} µs"
                for side in ("several", "one")
            ),
        ]
        for line in run["lines"]
    )
    return f"{table(head, lines)}\n\n{run['server']}. {measured([run])}"


def on_paper(found: dict[str, Any]) -> str:
    """Return how many jobs a second 16 cores could serve, by the processor times that workers.py measured."""
    lines = {(line["connections"], line["depth"], line["tubes"]): line["several"] for line in found["workers"]["lines"]}
    return table(
        ["", "16 workers' cores are full at", "16 node cores are full at"],
        (
            [name, *(roughly(16e6 / lines[key][part]["value"]) for part in ("front-end us", "node us"))]
            for key, name in ON_PAPER.items()
            if lines[key]["node us"]["value"]
        ),
    )


def roughly(jobs_per_s: float) -> str:
    """Return a speed with two significant digits."""
    return f"{float(f'{jobs_per_s:.2g}'):,.0f} jobs/s"


WHILE = {"filling": "1,000,000 jobs come in", "cycling": "jobs are cycled"}


def ratio(found: dict[str, float]) -> str:
    """Return a ratio and its range."""
    return f"**{shown(found['value'])} {TIMES}** ({shown(found['lowest'])} to {shown(found['highest'])})"


def spread(found: dict[str, float]) -> str:
    """Return a figure and its range."""
    return f"{shown(found['value'])} ({shown(found['lowest'])} to {shown(found['highest'])})"


def made(root: Path) -> dict[Path, str]:
    """Return the text of each page and each chart, made from the JSON."""

    def found(name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((root / f"docs/figures/{name}.json").read_text())
        return read

    figures, shared = Figures(found("measure")), Shared(found("shared"))
    blocks: dict[str, Callable[[], str]] = {
        name: getattr(figures, name) for name in ("machine", "speed", "speeds", "processor", "others", "waits")
    }
    blocks |= {f"shared-{name}": getattr(shared, name) for name in ("speeds", "latencies", "others")}
    blocks["stalls"] = lambda: stalls(found("stalls"))
    blocks["library"] = lambda: library(found("library"))
    blocks["front-ends"] = lambda: front_ends(found("front_ends"))
    blocks["workers"] = lambda: workers(found("workers"))
    blocks["workers-on-paper"] = lambda: on_paper(found("workers"))
    texts = {
        root / page: BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]()}\n{found[3]}", (root / page).read_text())
        for page in PAGES
    }
    for name, figure, title in (
        ("speed", "jobs/s", "Jobs a second: put, reserve and delete of each (more is better)"),
        ("processor", "CPU µs/job", "Processor time a job, in microseconds (less is better)"),
    ):
        texts[root / f"docs/figures/{name}.svg"] = figures.chart(figure, title)
    texts[root / "docs/figures/shared.svg"] = shared.chart()
    return texts


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the documents' tables and charts from the JSON in docs/figures.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something differs")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help=argparse.SUPPRESS)
    given = parser.parse_args()
    stale = [path for path, text in made(given.root).items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(
            f"{path.relative_to(given.root)}: {'does not show the JSON; run make figures' if given.check else 'written'}"
        )
    if not given.check:
        for path, text in made(given.root).items():
            path.write_text(text)
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(main())

"""Prometheus metrics of a snapshot, in slices, under the names that built-in servers and both exporters use."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from beanspiked.admin.lag import BUCKETS
from beanspiked.admin.slices import sliced
from beanspiked.admin.snapshot import TubeRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from beanspiked.admin.lag import LoopWatch
    from beanspiked.admin.options import AdminOptions
    from beanspiked.admin.snapshot import Snapshot

__all__ = ["DIALECTS", "render"]

STATES: Final = ("urgent", "ready", "reserved", "delayed", "buried")
# How many samples are made before others have their turn.
SAMPLES_AT_ONCE: Final = 100


class One:
    """A registry of one family."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def collect(self) -> Iterable[Any]:
        """Return the family."""
        return [self._family]


async def rendered(families: Sequence[Any]) -> bytes:
    """Render families in slices, each with its header once."""
    parts: list[bytes] = []
    for family in families:
        samples = family.samples
        first = True
        async for some in sliced(samples, SAMPLES_AT_ONCE):
            family.samples = some
            text = generate_latest(One(family))
            if not first:
                # Its HELP and TYPE stand there already.
                text = text.split(b"\n", 2)[2]
            first = False
            parts.append(text)
    return b"".join(parts)


async def series(snapshot: Snapshot, options: AdminOptions) -> tuple[list[TubeRow], int]:
    """Return the tubes that have metrics of their own, under the names that these have, and how many tubes are left out."""
    merged: dict[str, TubeRow] = {}
    async for some in sliced(snapshot.tubes):
        for row in some:
            name = next((name for pattern, name in options.tube_series_map if pattern.fullmatch(row.name)), row.name)
            known = merged.get(name)
            merged[name] = row if known is None and name == row.name else summed(name, known, row)
    rows = list(merged.values())
    most = options.max_tube_series
    chosen = nlargest(most, rows, key=TubeRow.activity) if len(rows) > most else rows
    return chosen, len(rows) - len(chosen)


def summed(name: str, known: TubeRow | None, row: TubeRow) -> TubeRow:
    """Add a tube to others that are counted under the same name."""
    total = TubeRow.__new__(TubeRow)
    for field in TubeRow.__slots__:
        setattr(total, field, getattr(row, field))
    total.name = name
    if known is not None:
        for field in TubeRow.__slots__:
            if field == "name":
                continue
            one, other = getattr(known, field), getattr(row, field)
            setattr(total, field, max(one, other) if field in ("age", "pause", "pause_left") else one + other)
    return total


# --- our own names, which are those of other built-in servers


def gauge(name: str, text: str, value: float) -> Any:
    """Make a gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def counter(name: str, text: str, value: float) -> Any:
    """Make a counter without labels; its samples' names get `_total`."""
    return CounterMetricFamily(name, text, value=value)


def labelled(
    kind: Any, name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Any:
    """Make a family with labels."""
    family = kind(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def commands(snapshot: Snapshot) -> list[tuple[str, int]]:
    """List the commands that are counted, and their counts."""
    return [(key[4:], snapshot.number(key)) for key in snapshot.totals if key.startswith("cmd-")]


def of_server(snapshot: Snapshot) -> list[Any]:
    """Make the families that beanstalkd's own figures give."""
    totals, number = snapshot.totals, snapshot.number
    return [
        gauge("beanstalkd_up", "Whether the server answers.", 1),
        labelled(
            GaugeMetricFamily,
            "beanstalkd_build_info",
            "The version of the server.",
            ["version"],
            [([str(totals["beanspiked-version"])], 1)],
        ),
        labelled(
            GaugeMetricFamily,
            "beanstalkd_current_jobs",
            "Jobs by state; urgent ones are ready, too.",
            ["state"],
            [([state], number(f"current-jobs-{state}")) for state in STATES],
        ),
        labelled(
            CounterMetricFamily,
            "beanstalkd_commands",
            "Commands by name.",
            ["cmd"],
            [([name], count) for name, count in commands(snapshot)],
        ),
        counter("beanstalkd_job_timeouts", "Reservations whose time to run was over.", number("job-timeouts")),
        counter("beanstalkd_jobs", "Jobs that were put.", number("total-jobs")),
        gauge("beanstalkd_max_job_size_bytes", "The largest job.", number("max-job-size")),
        gauge("beanstalkd_current_tubes", "Tubes.", number("current-tubes")),
        gauge("beanstalkd_current_connections", "Open connections.", number("current-connections")),
        gauge("beanstalkd_current_producers", "Connections that have put a job.", number("current-producers")),
        gauge("beanstalkd_current_workers", "Connections that have reserved.", number("current-workers")),
        gauge("beanstalkd_current_waiting", "Connections that wait for a job.", number("current-waiting")),
        counter("beanstalkd_connections", "Connections that were accepted.", number("total-connections")),
        gauge("beanstalkd_uptime_seconds", "Time since the start.", number("uptime")),
        gauge("beanstalkd_draining", "Whether puts are refused.", totals["draining"] == "true"),
        labelled(
            CounterMetricFamily,
            "beanstalkd_cpu_seconds",
            "Processor time.",
            ["mode"],
            [(["user"], float(str(totals["rusage-utime"]))), (["system"], float(str(totals["rusage-stime"])))],
        ),
        gauge("beanstalkd_binlog_oldest_index", "The first journal file.", number("binlog-oldest-index")),
        gauge("beanstalkd_binlog_current_index", "The last journal file.", number("binlog-current-index")),
        gauge("beanstalkd_binlog_max_size_bytes", "What -s said.", number("binlog-max-size")),
        counter("beanstalkd_binlog_records_migrated", "Always 0.", number("binlog-records-migrated")),
        counter("beanstalkd_binlog_records_written", "Changes in the journal.", number("binlog-records-written")),
    ]


TUBE_GAUGES: Final[list[tuple[str, str, Callable[[TubeRow], float]]]] = [
    ("beanstalkd_tube_current_using", "Connections that use the tube.", lambda row: row.using),
    ("beanstalkd_tube_current_watching", "Connections that watch the tube.", lambda row: row.watching),
    ("beanstalkd_tube_current_waiting", "Connections that wait for a job of the tube.", lambda row: row.waiting),
    ("beanstalkd_tube_pause_seconds", "How long the pause in force is.", lambda row: row.pause),
    ("beanstalkd_tube_pause_time_left_seconds", "What is left of it.", lambda row: row.pause_left),
]


async def of_tubes(rows: Sequence[TubeRow]) -> list[Any]:
    """Make the families that have a series for each tube."""
    states = GaugeMetricFamily("beanstalkd_tube_current_jobs", "Jobs of a tube by state.", labels=["tube", "state"])
    jobs = CounterMetricFamily("beanstalkd_tube_jobs", "Jobs that were put into a tube.", labels=["tube"])
    counted = CounterMetricFamily("beanstalkd_tube_commands", "Commands on a tube.", labels=["tube", "cmd"])
    gauges = [GaugeMetricFamily(name, text, labels=["tube"]) for name, text, _ in TUBE_GAUGES]
    age = GaugeMetricFamily(
        "beanspiked_tube_next_ready_age_seconds",
        "Age of the ready job that is next: the oldest one, where all have the same priority.",
        labels=["tube"],
    )
    async for some in sliced(rows):
        for row in some:
            for state in STATES:
                states.add_metric([row.name, state], getattr(row, state))
            jobs.add_metric([row.name], row.total_jobs)
            counted.add_metric([row.name, "delete"], row.deletes)
            counted.add_metric([row.name, "pause-tube"], row.pauses)
            for family, (_, _, read) in zip(gauges, TUBE_GAUGES, strict=True):
                family.add_metric([row.name], read(row))
            if row.age >= 0:
                age.add_metric([row.name], row.age)
    return [states, jobs, counted, *gauges, age]


def of_process(snapshot: Snapshot, watch: LoopWatch, journal: str | None) -> list[Any]:
    """Make the families that only this server has."""
    now = watch.now()
    lag = HistogramMetricFamily("beanspiked_event_loop_lag_seconds", "How late timers are.")
    total, buckets = 0, []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), watch.counts, strict=True):
        total += count
        buckets.append((bound, total))
    lag.add_metric([], buckets=buckets, sum_value=watch.total)
    stats = snapshot.journal
    families = [
        gauge("beanspiked_ready", "Whether changes are accepted.", not snapshot.troubles),
        gauge(
            "beanspiked_event_loop_turn_max_seconds", "Longest turn of the last minute.", watch.longest_turn.value(now)
        ),
        gauge(
            "beanspiked_event_loop_lag_max_seconds", "Latest timer of the last minute.", watch.longest_lag.value(now)
        ),
        lag,
        counter("beanspiked_log_lines_dropped", "Lines of the log that nobody took.", snapshot.dropped),
        gauge("beanspiked_snapshot_seconds", "What it took to make this snapshot.", snapshot.seconds),
    ]
    if journal is not None:
        families += [
            counter("beanspiked_journal_records", "Changes in the journal.", stats.records),
            counter("beanspiked_journal_commits", "Transactions; records / commits is the batch size.", stats.commits),
            counter("beanspiked_journal_commit_seconds", "Time spent in them.", stats.commit_seconds),
            counter("beanspiked_journal_syncs", "Syncs of the journal.", stats.syncs),
            gauge("beanspiked_journal_full", "Whether the disk is full.", stats.full),
            gauge("beanspiked_journal_disk_free_bytes", "Room left on its disk.", shutil.disk_usage(journal).free),
        ]
    return families


async def ours(snapshot: Snapshot, options: AdminOptions, watch: LoopWatch, journal: str | None) -> list[Any]:
    """Make all families under our own names."""
    rows, left_out = await series(snapshot, options)
    truncated = gauge("beanspiked_tube_series_truncated", "Tubes without metrics of their own.", left_out)
    return [*of_server(snapshot), truncated, *await of_tubes(rows), *of_process(snapshot, watch, journal)]


# --- the names of the two exporters


async def messagebird(snapshot: Snapshot, options: AdminOptions, _watch: LoopWatch, _journal: str | None) -> list[Any]:
    """Make families as messagebird/beanstalkd_exporter names them: all gauges, keys of `stats` with underscores."""
    families = []
    for key, value in snapshot.totals.items():
        figure = _figure(value)
        if key == "version":
            figure = 0.0
        if figure is not None and key not in ("id", "pid", "hostname", "os", "platform", "beanspiked-version"):
            families.append(gauge(key.replace("-", "_"), f"{key} of stats.", figure))
    rows, _left_out = await series(snapshot, options)
    return families + await _exported(rows, lambda key: f"tube_{key.replace('-', '_')}")


async def tannock(snapshot: Snapshot, options: AdminOptions, _watch: LoopWatch, _journal: str | None) -> list[Any]:
    """Make families as davidtannock/beanstalkd_exporter names them: all gauges, prefixed, `_count` or `_total` behind."""
    families = [gauge("beanstalkd_up", "Whether the server answers.", 1)]
    for key, value in snapshot.totals.items():
        if key.startswith(("current-", "cmd-")) or key in ("job-timeouts", "total-jobs", "total-connections"):
            figure = _figure(value)
            assert figure is not None
            families.append(gauge(f"beanstalkd_{_tannocks(key)}", f"{key} of stats.", figure))
    rows, _left_out = await series(snapshot, options)
    return families + await _exported(rows, lambda key: f"beanstalkd_tube_{_tannocks(key)}")


def _tannocks(key: str) -> str:
    if key.startswith("pause"):
        return f"{key.replace('-', '_')}_seconds_total"
    return f"{key.replace('-', '_')}_{'total' if key.startswith('cmd-') else 'count'}"


def _figure(value: object) -> float | None:
    if value in ("true", "false"):
        return float(value == "true")
    try:
        return float(str(value))
    except ValueError:
        return None


EXPORTED: Final[list[tuple[str, Callable[[TubeRow], float]]]] = [
    ("current-jobs-urgent", lambda row: row.urgent),
    ("current-jobs-ready", lambda row: row.ready),
    ("current-jobs-reserved", lambda row: row.reserved),
    ("current-jobs-delayed", lambda row: row.delayed),
    ("current-jobs-buried", lambda row: row.buried),
    ("total-jobs", lambda row: row.total_jobs),
    ("current-using", lambda row: row.using),
    ("current-watching", lambda row: row.watching),
    ("current-waiting", lambda row: row.waiting),
    ("cmd-delete", lambda row: row.deletes),
    ("cmd-pause-tube", lambda row: row.pauses),
    ("pause", lambda row: int(row.pause)),
    ("pause-time-left", lambda row: int(row.pause_left)),
]


async def _exported(rows: Sequence[TubeRow], name_of: Callable[[str], str]) -> list[Any]:
    families = [GaugeMetricFamily(name_of(key), f"{key} of stats-tube.", labels=["tube"]) for key, _ in EXPORTED]
    async for some in sliced(rows):
        for row in some:
            for family, (_, read) in zip(families, EXPORTED, strict=True):
                family.add_metric([row.name], read(row))
    return families


Dialect = Callable[["Snapshot", "AdminOptions", "LoopWatch", "str | None"], Awaitable[list[Any]]]
DIALECTS: Final[dict[str, Dialect]] = {"": ours, "messagebird": messagebird, "tannock": tannock}


async def render(
    dialect: str, snapshot: Snapshot, options: AdminOptions, watch: LoopWatch, journal: str | None
) -> bytes:
    """Return the text of one dialect's metrics."""
    return await rendered(await DIALECTS[dialect](snapshot, options, watch, journal))

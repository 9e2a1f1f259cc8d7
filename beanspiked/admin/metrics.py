"""Prometheus metrics of a snapshot, made in slices, under our own names."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from beanspiked.admin.exposition import Family, by, counter, gauge, histogram, labels
from beanspiked.admin.slices import busiest, sliced
from beanspiked.admin.snapshot import TubeRow
from beanspiked.protocol.commands import PREFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.admin.lag import LoopWatch
    from beanspiked.admin.options import AdminOptions
    from beanspiked.admin.snapshot import Snapshot
    from beanspiked.engine.contract import StoreStats
    from beanspiked.server.times import Latencies, Times

__all__ = ["ours", "series"]

STATES: Final = ("urgent", "ready", "reserved", "delayed", "buried")


async def series(snapshot: Snapshot, options: AdminOptions) -> tuple[Sequence[TubeRow], int]:
    """Return the tubes that have metrics of their own, by the names in the metrics, and how many tubes are left out."""
    rows: Sequence[TubeRow] = snapshot.tubes
    if options.tube_series_map:
        merged: dict[str, TubeRow] = {}
        async for some in sliced(snapshot.tubes):
            for row in some:
                patterns = options.tube_series_map
                name = next((name for pattern, name in patterns if pattern.fullmatch(row.name)), row.name)
                known = merged.get(name)
                merged[name] = row if known is None and name == row.name else summed(name, known, row)
        rows = list(merged.values())
    most = options.max_tube_series
    chosen = rows if len(rows) <= most else await busiest(rows, TubeRow.activity, most)
    return chosen, len(rows) - len(chosen)


def summed(name: str, known: TubeRow | None, row: TubeRow) -> TubeRow:
    """Add a tube's figures to those of others with the same name."""
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


def of_server(snapshot: Snapshot) -> list[Family]:
    """Make the families of beanstalkd's own figures. Those of jobs and tubes are left out while these are not known."""
    totals, number = snapshot.totals, snapshot.number
    version = by(
        gauge("beanstalkd_build_info", "The version of the server."),
        "version",
        [(str(totals["beanspiked-version"]), 1)],
    )
    jobs = by(
        gauge("beanstalkd_current_jobs", "Jobs by state; urgent ones are ready, too."),
        "state",
        [(state, number(f"current-jobs-{state}")) for state in STATES],
    )
    commands = by(
        counter("beanstalkd_commands", "Commands by name."),
        "cmd",
        [(key[4:], number(key)) for key in totals if key.startswith("cmd-")],
    )
    processor = by(
        counter("beanstalkd_cpu_seconds", "Processor time."),
        "mode",
        [("user", float(str(totals["rusage-utime"]))), ("system", float(str(totals["rusage-stime"])))],
    )
    known = [jobs, gauge("beanstalkd_current_tubes", "Tubes.", number("current-tubes"))] if snapshot.whole else []
    return [
        gauge("beanstalkd_up", "Whether the server answers, and its store.", snapshot.whole),
        version,
        *known,
        commands,
        counter("beanstalkd_job_timeouts", "Reservations that timed out.", number("job-timeouts")),
        counter("beanstalkd_jobs", "Jobs that were put.", number("total-jobs")),
        gauge("beanstalkd_max_job_size_bytes", "The largest job.", number("max-job-size")),
        gauge("beanstalkd_current_connections", "Open connections.", number("current-connections")),
        gauge("beanstalkd_current_producers", "Connections that have put a job.", number("current-producers")),
        gauge("beanstalkd_current_workers", "Connections that have reserved.", number("current-workers")),
        gauge("beanstalkd_current_waiting", "Connections that wait for a job.", number("current-waiting")),
        counter("beanstalkd_connections", "Connections that were accepted.", number("total-connections")),
        gauge("beanstalkd_uptime_seconds", "Time since the start.", number("uptime")),
        gauge("beanstalkd_draining", "Whether puts are refused.", totals["draining"] == "true"),
        processor,
        gauge("beanstalkd_binlog_oldest_index", "The first journal file.", number("binlog-oldest-index")),
        gauge("beanstalkd_binlog_current_index", "The last journal file.", number("binlog-current-index")),
        gauge("beanstalkd_binlog_max_size_bytes", "The size of a journal file that -s set.", number("binlog-max-size")),
        counter("beanstalkd_binlog_records_migrated", "Always 0.", number("binlog-records-migrated")),
        counter("beanstalkd_binlog_records_written", "Changes in the journal.", number("binlog-records-written")),
    ]


async def of_tubes(rows: Sequence[TubeRow]) -> list[Family]:
    """Make the families that have a series for each tube. Each of twenty thousand tubes has fourteen lines."""
    states = gauge("beanstalkd_tube_current_jobs", "Jobs of a tube by state.")
    jobs = counter("beanstalkd_tube_jobs", "Jobs that were put into a tube.")
    commands = counter("beanstalkd_tube_commands", "Commands on a tube.")
    using = gauge("beanstalkd_tube_current_using", "Connections that use the tube.")
    watching = gauge("beanstalkd_tube_current_watching", "Connections that watch the tube.")
    waiting = gauge("beanstalkd_tube_current_waiting", "Connections that wait for a job of the tube.")
    pause = gauge("beanstalkd_tube_pause_seconds", "Length of the pause in force.")
    left = gauge("beanstalkd_tube_pause_time_left_seconds", "Rest of the pause in force.")
    age = gauge(
        "beanspiked_tube_oldest_ready_age_seconds", "Time since the put of the oldest ready job; a delay counts."
    )
    # Micro-optimization: one piece of text for all samples of a tube in a family.
    jobs_in, done = f"{states.name}{{state=", f"{commands.name}{{cmd="
    async for some in sliced(rows):
        for row in some:
            tube = labels(tube=row.name)
            end = tube[1:]
            states.lines.append(
                f'{jobs_in}"urgent",{end} {row.urgent}\n{jobs_in}"ready",{end} {row.ready}\n'
                f'{jobs_in}"reserved",{end} {row.reserved}\n{jobs_in}"delayed",{end} {row.delayed}\n'
                f'{jobs_in}"buried",{end} {row.buried}\n'
            )
            commands.lines.append(f'{done}"delete",{end} {row.deletes}\n{done}"pause-tube",{end} {row.pauses}\n')
            jobs.add(row.total_jobs, tube)
            using.add(row.using, tube)
            watching.add(row.watching, tube)
            waiting.add(row.waiting, tube)
            pause.add(row.pause, tube)
            left.add(row.pause_left, tube)
            if row.age >= 0:
                age.add(row.age, tube)
    return [states, jobs, commands, using, watching, waiting, pause, left, age]


def of_process(snapshot: Snapshot, watch: LoopWatch, journal: str | None, times: Times | None) -> list[Family]:
    """Make the families that only this server has."""
    now = watch.now()
    turn, late = watch.longest_turn.value(now), watch.longest_lag.value(now)
    stats = snapshot.journal
    families = [
        gauge("beanspiked_ready", "Whether changes are accepted.", not snapshot.troubles),
        gauge("beanspiked_event_loop_turn_max_seconds", "Longest turn of the last minute.", turn),
        gauge("beanspiked_event_loop_lag_max_seconds", "Latest timer of the last minute.", late),
        histogram("beanspiked_event_loop_lag_seconds", "How late timers are.", watch.lags),
        counter("beanspiked_log_lines_dropped", "Lines of the log that were dropped.", snapshot.dropped),
        gauge("beanspiked_snapshot_seconds", "Time that it took to make this snapshot.", snapshot.seconds),
    ]
    if times is not None:
        families += [
            histogram("beanspiked_job_queue_seconds", "Time from ready to the first reserve.", times.queue.measured),
            histogram(
                "beanspiked_job_work_seconds", "Time from reserved to deleted, released or buried.", times.work.measured
            ),
            of_commands(times.commands),
        ]
    if journal is not None:
        families += [
            counter("beanspiked_journal_records", "Changes in the journal.", stats.records),
            counter("beanspiked_journal_commits", "Transactions; records / commits is the batch size.", stats.commits),
            counter("beanspiked_journal_commit_seconds", "Time spent in transactions.", stats.commit_seconds),
            counter("beanspiked_journal_syncs", "Syncs of the journal.", stats.syncs),
            gauge("beanspiked_journal_full", "Whether the disk is full.", stats.full),
        ]
        # The server goes on without the directory if that was renamed, and so do its metrics.
        with suppress(OSError):
            free = shutil.disk_usage(journal).free
            families.append(gauge("beanspiked_journal_disk_free_bytes", "Room left on the journal's disk.", free))
    return families


def of_commands(latencies: Latencies) -> Family:
    """Make the family of the times that commands take. Commands that nobody has sent are left out."""
    text = (
        "Time from a command to its reply. A reserve that waits because no job is ready is left out. "
        "Of more than 5,000 commands a second some are measured and count for all."
    )
    family = Family("histogram", "beanspiked_command_seconds", text)
    for word, verb, _ in PREFIXES:
        if any(latencies.of[verb].counts):
            family.add_histogram(latencies.of[verb], cmd=word.decode().strip())
    return family


def of_store(stats: StoreStats) -> list[Family]:
    """Make the families of a store that front-ends share."""
    calls = Family("histogram", "beanspiked_store_call_seconds", "Duration of calls to the cluster.")
    for kind, measured in stats.calls.items():
        calls.add_histogram(measured, kind=kind)
    operations = counter("beanspiked_store_operations", "Operations in the cluster by outcome.")
    for (kind, outcome), count in stats.outcomes.items():
        operations.add(count, labels(kind=kind, outcome=outcome))
    records = by(gauge("beanspiked_store_records", "Records in the cluster."), "kind", stats.records.items())
    return [
        calls,
        operations,
        records,
        gauge("beanspiked_store_session_age_seconds", "Age of the session, 0 without one.", stats.session_age),
        gauge("beanspiked_store_heartbeat_age_seconds", "Time since a heartbeat succeeded.", stats.heartbeat_age),
        gauge("beanspiked_store_front_ends", "Other front-ends that live.", stats.front_ends),
        gauge("beanspiked_store_links", "Other front-ends whose news come over a link.", stats.links),
        gauge("beanspiked_store_news_lag_seconds", "Silence of the most silent link.", stats.news_lag),
        gauge("beanspiked_store_leases", "Segments in use here.", stats.leases),
        gauge("beanspiked_store_segments", "Segments known here.", stats.segments),
    ]


async def ours(
    snapshot: Snapshot, options: AdminOptions, watch: LoopWatch, journal: str | None, times: Times | None
) -> list[Family]:
    """Make all families under our own names."""
    rows, left_out = await series(snapshot, options)
    truncated = gauge("beanspiked_tube_series_truncated", "Tubes without metrics of their own.", left_out)
    shared = [] if snapshot.store is None else of_store(snapshot.store)
    process = of_process(snapshot, watch, journal, times)
    return [*of_server(snapshot), truncated, *await of_tubes(rows), *process, *shared]

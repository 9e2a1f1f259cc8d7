"""The dialects of the metrics: our names, or those of an exporter of beanstalkd's figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from beanspiked.admin.exposition import Family, gauge, labels
from beanspiked.admin.metrics import ours, series
from beanspiked.admin.slices import sliced
from beanspiked.admin.snapshot import TubeRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.admin.lag import LoopWatch
    from beanspiked.admin.options import AdminOptions
    from beanspiked.admin.snapshot import Snapshot
    from beanspiked.server.times import Times

__all__ = ["DIALECTS", "render"]

# How many pieces of text are joined and sent at a time.
AT_ONCE: Final = 500


async def messagebird(
    snapshot: Snapshot, options: AdminOptions, _watch: LoopWatch, _journal: str | None, _times: Times | None
) -> list[Family]:
    """Make families under the names of messagebird/beanstalkd_exporter: all gauges, keys of `stats` with underscores."""
    families = []
    for key, value in snapshot.totals.items():
        figure = _figure(value)
        if key == "version":
            figure = 0.0
        if figure is not None and key not in ("id", "pid", "hostname", "os", "platform", "beanspiked-version"):
            families.append(gauge(key.replace("-", "_"), f"{key} of stats.", figure))
    rows, _left_out = await series(snapshot, options)
    return families + await _exported(rows, lambda key: f"tube_{key.replace('-', '_')}")


async def tannock(
    snapshot: Snapshot, options: AdminOptions, _watch: LoopWatch, _journal: str | None, _times: Times | None
) -> list[Family]:
    """Make families under the names of davidtannock/beanstalkd_exporter: all gauges, with a prefix, and `_count` or `_total` at the end."""
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


async def _exported(rows: Sequence[TubeRow], name_of: Callable[[str], str]) -> list[Family]:
    families = [gauge(name_of(key), f"{key} of stats-tube.") for key, _ in EXPORTED]
    async for some in sliced(rows):
        for row in some:
            tube = labels(tube=row.name)
            for family, (_, read) in zip(families, EXPORTED, strict=True):
                family.add(read(row), tube)
    return families


Dialect = Callable[["Snapshot", "AdminOptions", "LoopWatch", "str | None", "Times | None"], Awaitable[list[Family]]]
DIALECTS: Final[dict[str, Dialect]] = {"": ours, "messagebird": messagebird, "tannock": tannock}


async def render(
    dialect: str,
    snapshot: Snapshot,
    options: AdminOptions,
    watch: LoopWatch,
    journal: str | None,
    times: Times | None,
) -> list[bytes]:
    """Return the text of one dialect's metrics, in pieces."""
    families = await DIALECTS[dialect](snapshot, options, watch, journal, times)
    return ["".join(some).encode() for family in families async for some in sliced(family.lines, AT_ONCE)]

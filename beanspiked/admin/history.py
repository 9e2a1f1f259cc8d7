"""The last hour of the whole server and of the busiest tubes, a point each ten seconds."""

from __future__ import annotations

import asyncio
import logging
from array import array
from typing import TYPE_CHECKING, Final

from beanspiked.admin.slices import busiest, sliced
from beanspiked.admin.snapshot import TubeRow
from beanspiked.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from beanspiked.admin.snapshot import Snapshot

__all__ = ["EVERY", "History"]

logger = logging.getLogger(__name__)

# The seconds between two points, and how many points an hour has.
EVERY: Final = 10.0
POINTS: Final = 360
# How many tubes have a history; each takes 9 KB.
MAX_TUBES: Final = 1000
# The number of points over which growth is measured: a minute.
GROWTH_POINTS: Final = 6

# The values that are kept as they are, and those that are kept as a rate a second, each with its counters.
TUBE_LEVELS: Final = ("ready", "reserved", "delayed", "buried")
TUBE_RATES: Final = {"puts": ("total_jobs",), "deletes": ("deletes",)}
LEVELS: Final = {
    "ready": "current-jobs-ready",
    "reserved": "current-jobs-reserved",
    "delayed": "current-jobs-delayed",
    "buried": "current-jobs-buried",
    "connections": "current-connections",
    "waiting": "current-waiting",
}
RATES: Final = {
    "puts": ("total-jobs",),
    "reserves": ("cmd-reserve", "cmd-reserve-with-timeout"),
    "deletes": ("cmd-delete",),
    "timeouts": ("job-timeouts",),
}


class Series:
    """Points of several values that belong together. The newest point overwrites the oldest."""

    def __init__(self, levels: Sequence[str], rates: Sequence[str]) -> None:
        self._names = (*levels, *rates)
        self._counted: Sequence[float] | None = None
        self._values = array("f", bytes(4 * POINTS * len(self._names)))
        self.first = -1
        self.last = -1

    def add(self, tick: int, levels: Sequence[float], counted: Sequence[float], seconds: float) -> None:
        """Add a point.

        Args:
            tick: Its number.
            levels: The values that are kept as they are.
            counted: Counters whose rates are kept.
            seconds: The time since the last point.
        """
        if self.first < 0:
            self.first = tick
        before, self._counted = self._counted, counted
        # A counter that has become smaller has started again from 0.
        rates = (
            [0.0] * len(counted)
            if before is None
            else [max(0.0, new - old) / seconds for old, new in zip(before, counted, strict=True)]
        )
        width = len(self._names)
        for missed in range(max(self.last + 1, tick - POINTS + 1, self.first), tick):
            start = missed % POINTS * width
            self._values[start : start + width] = array("f", [0.0] * width)
        start = tick % POINTS * width
        self._values[start : start + width] = array("f", [*levels, *rates])
        self.last = tick

    def at(self, tick: int, name: str) -> float | None:
        """Return a value of a point, or None if there is none."""
        if not max(self.first, self.last - POINTS + 1) <= tick <= self.last or self.first < 0:
            return None
        return self._values[tick % POINTS * len(self._names) + self._names.index(name)]

    def shown(self, tick: int) -> dict[str, list[float | None]]:
        """Return all points of the hour up to a tick, oldest first."""
        ticks = range(max(0, tick - POINTS + 1), tick + 1) if self.first >= 0 else range(0)
        return {
            name: [None if (v := self.at(at, name)) is None else round(v, 2) for at in ticks] for name in self._names
        }


class History:
    """Keeps the last hour."""

    def __init__(self) -> None:
        self._tick = -1
        self._at = 0.0
        self._totals = Series(list(LEVELS), list(RATES))
        self._tubes: dict[str, Series] = {}

    def growth(self, name: str, ready: int) -> float:
        """Return by how many ready jobs a minute a tube has grown within the last minute; 0 if nothing is remembered of it."""
        series = self._tubes.get(name)
        if series is None:
            return 0.0
        tick = max(series.first, self._tick - GROWTH_POINTS + 1)
        before = series.at(tick, "ready")
        if before is None:
            return 0.0
        return (ready - before) * 60 / (EVERY * max(1, self._tick - tick + 1))

    async def keep(self, snapshots: Callable[[], Awaitable[Snapshot]]) -> None:
        """Add points periodically, for ever."""
        while True:
            try:
                await self.add(await snapshots())
            except EngineError as error:
                logger.debug("no point in the history: %s", error)
            await asyncio.sleep(EVERY)

    async def add(self, snapshot: Snapshot) -> None:
        """Add a point."""
        seconds = max(0.001, snapshot.at - self._at)
        self._at = snapshot.at
        self._tick += 1
        tick = self._tick
        number = snapshot.number
        counted = [float(sum(number(name) for name in names)) for names in RATES.values()]
        self._totals.add(tick, [number(name) for name in LEVELS.values()], counted, seconds)
        # A tube that is gone makes room after an hour.
        self._tubes = {name: series for name, series in self._tubes.items() if tick - series.last < POINTS}
        rows = await self._chosen(snapshot.tubes)
        async for some in sliced(rows):
            for row in some:
                series = self._tubes.get(row.name)
                if series is None:
                    series = self._tubes[row.name] = Series(TUBE_LEVELS, list(TUBE_RATES))
                levels = (row.ready, row.reserved, row.delayed, row.buried)
                series.add(tick, levels, (row.total_jobs, row.deletes), seconds)

    async def _chosen(self, tubes: Sequence[TubeRow]) -> list[TubeRow]:
        """Choose the tubes that have a history: those that have one already, then the busiest."""
        known: list[TubeRow] = []
        new: list[TubeRow] = []
        async for some in sliced(tubes):
            for row in some:
                (known if row.name in self._tubes else new).append(row)
        room = MAX_TUBES - len(self._tubes)
        return known + (await busiest(new, TubeRow.activity, room) if room > 0 else [])

    def shown(self, tube: str | None = None) -> dict[str, object]:
        """Return the points of a tube, or of the whole server, as the API shows them; none for a tube without a history."""
        series = self._totals if tube is None else self._tubes.get(tube) or Series(TUBE_LEVELS, list(TUBE_RATES))
        return {"every": EVERY, "last": round(self._at, 3), "series": series.shown(self._tick)}

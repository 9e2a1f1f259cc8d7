"""One picture of the whole server, at most a second old. Metrics, the API and the console show the same one."""

from __future__ import annotations

import asyncio
import time
from math import log10
from typing import TYPE_CHECKING, Final

from beanspiked.admin.slices import sliced
from beanspiked.engine.contract import Answer, TubeUse
from beanspiked.server import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.admin.outcomes import Outcomes
    from beanspiked.engine.contract import Counts, JournalStats, StoreStats, Tube, TubeSight

__all__ = ["Snapshot", "Snapshots", "TubeRow"]

# How old a snapshot may be, in seconds. If one takes long to make, it may be older, so that snapshots take at most a tenth of the time.
MAX_AGE: Final = 1.0
SHARE: Final = 10


class TubeRow:
    """A tube at one moment.

    Attributes:
        name: Its name.
        urgent, ready, reserved, delayed, buried: How many jobs are in each state. Urgent jobs count as ready as well.
        total_jobs, deletes, pauses: How many there were since the tube was made.
        using, watching, waiting: How many connections use it, watch it, or wait for its jobs.
        pause, pause_left: The length of its pause, and the rest of it, in seconds.
        age: How long ago the oldest ready job was put, in seconds; -1 if there is none, or if that is not known. See TubeSight.
        growth: By how many ready jobs a minute it grows, or shrinks if negative.
        trouble: The tube that an operator should look at first has the highest number.
    """

    __slots__ = (
        "age",
        "buried",
        "delayed",
        "deletes",
        "growth",
        "name",
        "pause",
        "pause_left",
        "pauses",
        "ready",
        "reserved",
        "total_jobs",
        "trouble",
        "urgent",
        "using",
        "waiting",
        "watching",
    )

    def __init__(self, name: str, counts: Counts, use: TubeUse, pause: float, pause_left: float) -> None:
        self.name = name
        self.urgent = counts.urgent
        self.ready = counts.ready
        self.reserved = counts.reserved
        self.delayed = counts.delayed
        self.buried = counts.buried
        self.total_jobs = use.total_jobs
        self.deletes = use.deletes
        self.pauses = use.pauses
        self.using = use.using
        self.watching = use.watching
        self.waiting = use.waiting
        self.pause = pause
        self.pause_left = max(0.0, pause_left) if pause else 0.0
        self.age = -1.0
        self.growth = 0.0
        self.trouble = 0.0

    def jobs(self) -> int:
        """Count its jobs in any state."""
        return self.ready + self.reserved + self.delayed + self.buried

    def activity(self) -> int:
        """Tell how busy it is: jobs, and connections that use, watch or wait for it."""
        return self.jobs() + self.using + self.watching + self.waiting

    def judge(self) -> None:
        """Work out its trouble. Each sign counts by its order of magnitude, and age counts twice if nobody watches the tube."""
        self.trouble = 3 * log10(1 + self.buried)
        if self.ready:
            self.trouble += (2 if self.watching else 4) * log10(1 + max(0.0, self.age))
            self.trouble += 2 * log10(1 + max(0.0, self.growth))

    def shown(self) -> dict[str, object]:
        """Return it as the API shows it."""
        shown: dict[str, object] = {name: getattr(self, name) for name in self.__slots__ if name != "age"}
        shown["age"] = None if self.age < 0 else round(self.age, 3)
        for name in ("growth", "trouble", "pause", "pause_left"):
            shown[name] = round(getattr(self, name), 3)
        return shown


class Snapshot:
    """The server at one moment.

    Attributes:
        at: The time, in seconds since the epoch.
        totals: The values of `stats`, by its names, without YAML's quotes.
        journal: The journal's counters.
        store: This front-end's figures about a shared store.
        troubles: Why changes fail now.
        dropped: How many lines of the log were dropped.
        tubes: The tubes, in no particular order.
        seconds: How long it took to make.
        whole: Whether jobs and tubes are known; not while a shared store does not answer.
    """

    def __init__(self, at: float, totals: dict[str, object], journal: JournalStats, troubles: list[str]) -> None:
        self.at = at
        self.totals = totals
        self.journal = journal
        self.troubles = troubles
        self.store: StoreStats | None = None
        self.dropped = log.dropped()
        self.tubes: list[TubeRow] = []
        self.seconds = 0.0
        self.whole = True

    def number(self, name: str) -> int:
        """Return one of the totals, which is a whole number."""
        value = self.totals[name]
        assert isinstance(value, int)
        return value


class Snapshots:
    """Makes snapshots when a request needs one, and shares each among all requests that come meanwhile.

    Args:
        outcomes: Sends requests to the engine.
        growth: Tells by how many ready jobs a minute a tube grows, by its name and its ready jobs now.
    """

    def __init__(self, outcomes: Outcomes, growth: Callable[[str, int], float]) -> None:
        self._outcomes = outcomes
        self._growth = growth
        self._last: Snapshot | None = None
        self._making: asyncio.Task[Snapshot] | None = None

    async def get(self) -> Snapshot:
        """Return a snapshot that is young enough. Raises StoreFailed if a shared store does not answer."""
        last = self._last
        if last is not None and self._outcomes.broker.now() - last.at <= max(MAX_AGE, SHARE * last.seconds):
            return last
        if self._making is None:
            self._making = asyncio.get_running_loop().create_task(self._make())
            self._making.add_done_callback(self._made)
        # A client that hangs up does not cancel the snapshot for others.
        return await asyncio.shield(self._making)

    def without_jobs(self) -> Snapshot:
        """Return what this process knows by itself, while a shared store does not answer."""
        snapshot, _, _ = self._begin(Answer())
        snapshot.whole = False
        return snapshot

    async def row(self, name: str) -> TubeRow | None:
        """Return a tube of the snapshot. Look now at a tube that is newer than the snapshot. Raises StoreFailed as `get` does."""
        for row in (await self.get()).tubes:
            if row.name == name:
                return row
        broker = self._outcomes.broker
        engine = broker.engine

        def read(answer: Answer | None) -> TubeRow | None:
            tube = engine.find_tube(name) if answer is None else answer.tube
            return None if tube is None else self._row_of(tube, answer, broker.now())

        return await self._outcomes.look(engine.look_tube(name), read)

    def _made(self, task: asyncio.Task[Snapshot]) -> None:
        self._making = None
        if not task.cancelled() and task.exception() is None:
            self._last = task.result()

    async def _make(self) -> Snapshot:
        began = time.perf_counter()
        broker = self._outcomes.broker
        look = broker.with_siblings(broker.engine.look_tubes())
        snapshot, tubes, sights = await self._outcomes.look(look, self._begin)
        now = snapshot.at
        async for some in sliced(tubes):
            for tube in some:
                snapshot.tubes.append(self._row_of(tube, None, now))
        async for seen in sliced(sights):
            for sight in seen:
                row = TubeRow(sight.name, sight.counts, sight.use, sight.pause, sight.paused_until - now)
                if sight.oldest:
                    row.age = max(0.0, now - sight.oldest)
                snapshot.tubes.append(self._judged(row))
        snapshot.seconds = time.perf_counter() - began
        return snapshot

    def _judged(self, row: TubeRow) -> TubeRow:
        row.growth = self._growth(row.name, row.ready)
        row.judge()
        return row

    def _begin(self, answer: Answer | None) -> tuple[Snapshot, list[Tube], list[TubeSight]]:
        """Return a snapshot of the totals and all tubes, from the engine or from a look."""
        broker = self._outcomes.broker
        engine = broker.engine
        figures = broker.snapshot(answer)
        totals = {name: value.strip('"') if isinstance(value, str) else value for name, value in figures}
        snapshot = Snapshot(broker.now(), totals, engine.journal_stats(), engine.troubles())
        snapshot.store = engine.store_stats()
        return (snapshot, list(engine.tubes()), []) if answer is None else (snapshot, [], answer.tubes)

    def _row_of(self, tube: Tube, answer: Answer | None, now: float) -> TubeRow:
        """Return a tube as it is in this process, or as a look found it."""
        others = TubeUse() if answer is None else answer.others
        use = TubeUse()
        use.using = tube.using + others.using
        use.watching = tube.watching + others.watching
        use.waiting = tube.waiting() + others.waiting
        use.total_jobs = tube.total_jobs + others.total_jobs
        use.deletes = tube.deletes + others.deletes
        use.pauses = tube.pauses + others.pauses
        counts = tube.counts if answer is None else answer.counts
        row = TubeRow(tube.name, counts, use, tube.pause, tube.paused_until - now)
        if answer is None and row.ready and (job := self._outcomes.broker.engine.oldest_ready(tube)) is not None:
            row.age = max(0.0, now - job.born)
        return self._judged(row)

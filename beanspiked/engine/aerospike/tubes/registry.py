"""The tubes that this front-end knows: how they are used here, and which of them exist."""

import asyncio
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.cluster.listener import LocalTubes
from beanspiked.engine.aerospike.segment.surroundings import Surroundings
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.ranking import Ranking
from beanspiked.engine.aerospike.tubes.tube import Schedule, SharedTube
from beanspiked.engine.contract import StoreStats
from beanspiked.engine.timers import Timers

__all__ = ["DEFAULT", "Registry", "tube_usage"]

DEFAULT: Final = "default"


class Registry(LocalTubes):
    """The tubes that are known here, by name.

    Args:
        timers: Where tubes wait for what happens in them, and what numbers them.
        around: What their segments need of the front-end.
        agenda: What requests their jobs at the end of the turn.
        schedule: What makes their due jobs ready.
        ranking: Where they stand while waiters on many tubes are there.
    """

    def __init__(
        self, timers: Timers, around: Surroundings, agenda: Agenda, schedule: Schedule, ranking: Ranking
    ) -> None:
        self._timers = timers
        self._around = around
        self._agenda = agenda
        self._schedule = schedule
        self._ranking = ranking
        self._tubes: dict[str, SharedTube] = {}
        self.tube(DEFAULT)

    def tube(self, name: str) -> SharedTube:
        """Find or make a tube."""
        tube = self._tubes.get(name)
        if tube is None:
            number = self._timers.new_id()
            tube = SharedTube(number, name, self._around, self._agenda, self._schedule, self._ranking)
            self._tubes[name] = tube
        return tube

    def known_tubes(self) -> list[SharedTube]:
        """List all tubes that are known here, for whatever reason."""
        return list(self._tubes.values())

    def known_tube(self, name: str) -> SharedTube | None:
        """Find a tube that is known here, for whatever reason."""
        return self._tubes.get(name)

    def let_go(self, tube: SharedTube) -> None:
        """Forget a tube in which nothing is."""
        self._timers.cancel(tube)
        del self._tubes[tube.name]

    async def forgotten(self, name: str) -> None:
        """Wait until a tube has been forgotten that is being forgotten."""
        tube = self._tubes.get(name)
        if tube is not None and tube.forgetting is not None:
            await asyncio.wait([tube.forgetting])

    # --- which exist

    def find_tube(self, name: str) -> SharedTube | None:
        """Find a tube that is used here."""
        tube = self._tubes.get(name)
        return tube if tube is not None and _used_here(tube) else None

    def used_names(self) -> list[str]:
        """List the names of the tubes that are used here."""
        return [tube.name for tube in self._tubes.values() if _used_here(tube)]

    def used_here(self, name: str) -> bool:
        """Tell whether a client of this front-end uses or watches a tube."""
        tube = self._tubes.get(name)
        return name == DEFAULT or (tube is not None and bool(tube.using or tube.watching))

    # --- what is told of them

    def count(self) -> int:
        """Count all tubes that are known here."""
        return len(self._tubes)

    def tell(self, stats: StoreStats) -> None:
        """Tell how many segments are in use here, and known."""
        for tube in self._tubes.values():
            stats.leases += len(tube.committers)
            stats.segments += len(tube.committers) + len(tube.notes)

    def usage(self) -> dict[str, list[int]]:
        """Return what the others should know of how this front-end uses its tubes."""
        return _usage(self.known_tubes())

    def usage_slices(self, size: int) -> Callable[[int], dict[str, list[int]] | None]:
        """Return what tells that of so many tubes at once, by the number of the slice; None after the last one."""
        tubes = self.known_tubes()
        return lambda number: _usage(tubes[number * size : (number + 1) * size]) if number * size < len(tubes) else None

    def uncount(self, usage: dict[str, list[int]]) -> None:
        """Somebody else has added what a lost session had published to the tubes' records: count it no longer here."""
        for name, use in usage.items():
            tube = self._tubes.get(name)
            if tube is not None:
                tube.total_jobs -= use[3]
                tube.deletes -= use[4]
                tube.pauses -= use[5]

    def known_leases(self) -> set[int]:
        """List the leases that are in use here."""
        return {committer.lease for tube in self._tubes.values() for committer in tube.committers.values()}

    def knows_segment(self, number: int) -> bool:
        """Tell whether a segment is known here."""
        return any(number in tube.committers or number in tube.notes for tube in self._tubes.values())


def tube_usage(tube: SharedTube) -> list[int]:
    """Return how a tube is used here: users, watchers, those who wait, and what was counted of puts, deletes and pauses."""
    return [tube.using, tube.watching, tube.waiting(), tube.total_jobs, tube.deletes, tube.pauses]


def _usage(tubes: list[SharedTube]) -> dict[str, list[int]]:
    return {
        tube.name: tube_usage(tube)
        for tube in tubes
        if tube.using or tube.watching or tube.total_jobs or tube.deletes or tube.pauses
    }


def _used_here(tube: SharedTube) -> bool:
    return bool(tube.using or tube.watching or tube.arriving or tube.name == DEFAULT)

"""Tubes by their most urgent jobs: a waiter on a thousand tubes need not ask each of them for every job."""

import heapq
from collections.abc import Sequence
from typing import Final, TypeVar, cast

from beanspiked.engine.aerospike.segment.surroundings import Home
from beanspiked.engine.contract import Waiter
from beanspiked.engine.timers import Clock

__all__ = ["RankedTube", "Ranking"]

# So many entries may be stale beside one for each tube.
STALE_MAX: Final = 16
# So many tubes of other waiters are passed over before a waiter's own tubes are asked one by one.
PASS_MAX: Final = 32


class RankedTube(Home):
    """A tube that may stand in a ranking.

    Attributes:
        ranked: The key that it stands under there, never greater than that of its most urgent job; None if it does not.
    """

    __slots__ = ("ranked",)

    def __init__(self, id: int, name: str) -> None:  # noqa: A002 - as its base
        super().__init__(id, name)
        self.ranked: bytes | None = None

    def best(self) -> bytes | None:
        """Return the key of the most urgent job that is expected in it."""
        raise NotImplementedError

    def settled(self) -> bool:
        """Tell whether all is known of it, whatever the time."""
        raise NotImplementedError

    def paused(self, now: float) -> bool:
        """Tell whether no job may be taken now."""
        raise NotImplementedError


Ranked = TypeVar("Ranked", bound=RankedTube)


class Ranking:
    """Orders tubes by their most urgent jobs. It has those tubes that waiters on many tubes wait for and that expect a job.

    Args:
        clock: This process's time.

    Attributes:
        unsure: Those tubes of such waiters of which something may not be known, or that have delayed jobs; no others need to be asked.
    """

    def __init__(self, clock: Clock) -> None:
        self.unsure: dict[RankedTube, None] = {}
        self._clock = clock
        self._order: list[tuple[bytes, int, RankedTube]] = []
        self._count: int = 0

    def add(self, tube: RankedTube, key: bytes) -> None:
        """Take note that a job with this key is expected in a tube."""
        if tube.ranked is not None and tube.ranked <= key:
            return
        self._count += tube.ranked is None
        tube.ranked = key
        heapq.heappush(self._order, (key, tube.id, tube))
        self._compact()

    def drop(self, tube: RankedTube) -> None:
        """Forget a tube, until something is added to it."""
        if tube.ranked is not None:
            tube.ranked = None
            self._count -= 1
            self._compact()

    def unsure_of(self, waiter: Waiter, tubes: list[Ranked]) -> list[Ranked]:
        """Return those of a waiter's tubes of which not all may be known: of thousands of tubes these are few."""
        if not waiter.lingers:
            return tubes
        unsure, found = self.unsure, []
        # Other waiters' tubes may be many more than this one's.
        candidates = list(unsure) if len(unsure) <= len(tubes) else [tube for tube in tubes if tube in unsure]
        for tube in candidates:
            if tube.settled():
                del unsure[tube]
            elif tube.waits(waiter):
                found.append(tube)
        return cast("list[Ranked]", found)

    def _compact(self) -> None:
        if len(self._order) > 2 * self._count + STALE_MAX:
            self._order = [(key, id, tube) for key, id, tube in self._order if tube.ranked == key]  # noqa: A001 - a tube's
            heapq.heapify(self._order)

    def most_urgent(self, waiter: Waiter, tubes: Sequence[RankedTube]) -> RankedTube | None:
        """Return the one of a waiter's tubes with the most urgent job that may be taken now."""
        now = self._clock.now()
        if not waiter.lingers:
            return _first_of(tubes, now)
        order = self._order
        passed: list[tuple[bytes, int, RankedTube]] = []
        found: RankedTube | None = None
        while order and found is None and len(passed) < PASS_MAX:
            entry = heapq.heappop(order)
            tube = entry[2]
            if tube.ranked != entry[0]:
                continue
            best = tube.best()
            if best is None:
                self.drop(tube)
            elif best != entry[0]:
                tube.ranked = best
                heapq.heappush(order, (best, tube.id, tube))
            else:
                passed.append(entry)
                if tube.waits(waiter) and not tube.paused(now):
                    found = tube
        for entry in passed:
            heapq.heappush(order, entry)
        if found is None and len(passed) == PASS_MAX:
            return _first_of(tubes, now)
        return found


def _first_of(tubes: Sequence[RankedTube], now: float) -> RankedTube | None:
    found: RankedTube | None = None
    least: bytes | None = None
    for tube in tubes:
        key = tube.best()
        if key is not None and (least is None or key < least) and not tube.paused(now):
            found = tube
            least = key
    return found

"""How tubes end here: one that nobody uses is let go of, and its segments that are finished."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.usage import COUNTER_NAMES
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.store.seam import StoreError, Unknown
from beanspiked.engine.aerospike.store.tasks import side_by_side
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.forgetting import FORGOTTEN_AT_ONCE, Forgetting
from beanspiked.engine.aerospike.tubes.registry import DEFAULT, Registry
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.aerospike.tubes.view import Scout

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Lifecycle"]

logger = logging.getLogger(__name__)

# How many tubes a sweep looks at together, and how many of them it lets go of side by side.
SWEEP_AT_ONCE: Final = 64
LET_GO_AT_ONCE: Final = 8
# A sweep of many tubes is spread over so many seconds: all at once, the ends of their segments would hold up clients.
SWEEP_SECONDS: Final = 30.0
# How many segments are seen to before others have a turn.
SEGMENTS_AT_ONCE: Final = 256


class Lifecycle:
    """Lets go of tubes, and of the segments that they do not need any more.

    Args:
        store: The store.
        agenda: What is in flight.
        registry: The tubes that are known here.
        forgetting: What lets tubes begin anew.
        retirement: What lets segments die.
        view: What looks at segments.
    """

    def __init__(
        self,
        store: "SegmentStore",
        agenda: Agenda,
        registry: Registry,
        forgetting: Forgetting,
        retirement: Retirement,
        view: Scout,
    ) -> None:
        self._store = store
        self._agenda = agenda
        self._registry = registry
        self._forgetting = forgetting
        self._retirement = retirement
        self._view = view
        # The step at which the last sweep began.
        self._swept: int = 0

    async def sweep(self) -> None:
        """Let go of tubes that nobody here uses, and of all segments that are finished."""
        await self._retirement.go_on()
        since, self._swept = self._swept, self._agenda.step()
        tubes = self._registry.known_tubes()
        pause = SWEEP_SECONDS * SWEEP_AT_ONCE / max(SWEEP_AT_ONCE, len(tubes))
        resting: list[SharedTube] = []
        for start in range(0, len(tubes), SWEEP_AT_ONCE):
            if start:
                await asyncio.sleep(pause)
            resting += await self._sweep(tubes[start : start + SWEEP_AT_ONCE], since)
            if len(resting) >= FORGOTTEN_AT_ONCE:
                await self._let_go(resting)
                resting = []
        await self._let_go(resting)

    async def _sweep(self, tubes: list[SharedTube], since: int) -> list[SharedTube]:
        """Close what is not needed any more; return the tubes that can be let go of."""
        kept = {tube for tube in tubes if _recurs(tube, since)}
        # Nobody here learns otherwise that others have emptied their segments. A put has just told of the one that it went into.
        unseen = [
            tube
            for tube in tubes
            if not tube.waited_for() and len(tube.committers) + len(tube.notes) > (1 if tube in kept else 0)
        ]
        try:
            await self._view.look_at_known(unseen)
        except StoreError as error:
            logger.info("segments that nobody waits for are not looked at: %s", error)
        leases: list[tuple[int, int]] = []
        for tube in tubes:
            leases += await self._put_down(tube, since)
        await side_by_side(leases, self._retirement.give_up, LET_GO_AT_ONCE)
        closing: list[Committer] = []
        resting: list[SharedTube] = []
        for tube in tubes:
            if tube in kept or _in_use(tube):
                continue
            if tube.open is not None and tube.open.idle_and_empty():
                committer = tube.open
                tube.open = None
                committer.close()
                closing.append(committer)
            elif _rests(tube):
                resting.append(tube)
        for committer in closing:
            # So many operations at once are enough.
            await committer.turn()
        return resting

    async def _put_down(self, tube: SharedTube, since: int) -> list[tuple[int, int]]:
        """Keep no more than notes of segments that have not been used since a step; return their leases."""
        leases: list[tuple[int, int]] = []
        for count, committer in enumerate(list(tube.committers.values()), 1):
            if committer.rests(since) and not committer.idle_and_empty():
                lease = tube.put_down(committer)
                if lease:
                    leases.append((committer.number, lease))
            if count % SEGMENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return leases

    async def _let_go(self, tubes: list[SharedTube]) -> None:
        """Let go of tubes that take no puts here."""
        for tube in tubes:
            self._forgetting.forget(tube)

        async def let_go(tube: SharedTube) -> None:
            try:
                await self._registry.forgotten(tube.name)
                await self._hand_over_counters(tube)
            except StoreError as error:
                # It stays; the others go on.
                logger.info("tube %s is not let go of yet: %s", tube.name, error)
                return
            counted = tube.total_jobs or tube.deletes or tube.pauses
            if self._registry.known_tube(tube.name) is tube and not _in_use(tube) and _rests(tube) and not counted:
                self._registry.let_go(tube)

        await side_by_side(tubes, let_go, LET_GO_AT_ONCE)

    async def _hand_over_counters(self, tube: SharedTube) -> None:
        """Add what was counted here to a tube's record."""
        counted = (tube.total_jobs, tube.deletes, tube.pauses)
        if not any(counted):
            return
        # They are taken off at once: the tube may be forgotten meanwhile.
        _count(tube, -1, counted)
        try:
            await self._store.add_counters(tube.name, dict(zip(COUNTER_NAMES, counted, strict=True)))
        except Unknown as error:
            # To add them once more may be once too often.
            logger.info("counters of tube %s may be lost: %s", tube.name, error)
        except StoreError:
            _count(tube, 1, counted)
            raise


def _count(tube: SharedTube, sign: int, counted: tuple[int, int, int]) -> None:
    tube.total_jobs += sign * counted[0]
    tube.deletes += sign * counted[1]
    tube.pauses += sign * counted[2]


def _recurs(tube: SharedTube, since: int) -> bool:
    """Tell whether a tube took puts here more than once, and since a step: its segment stays open for the next one.

    To end a segment and to make another one takes six operations more than a put that finds one.
    """
    return tube.open is not None and tube.open.used >= since and tube.total_jobs > 1


def _rests(tube: SharedTube) -> bool:
    """Tell whether a tube takes no puts here, and nothing in it is on its way or held."""
    return tube.open is None and not any(committer.busy() for committer in tube.committers.values())


def _in_use(tube: SharedTube) -> bool:
    used = tube.using or tube.watching or tube.waited_for() or tube.arriving or tube.opening
    return bool(used or tube.name == DEFAULT)

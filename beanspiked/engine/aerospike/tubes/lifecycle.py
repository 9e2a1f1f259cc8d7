"""How tubes end: one that nobody uses here is let go of, and one without jobs anywhere begins anew."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.usage import COUNTER_NAMES
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import StoreError, Unknown
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.notes import note_empty
from beanspiked.engine.aerospike.tubes.registry import DEFAULT, Registry
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.aerospike.tubes.view import Scout

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Directory

__all__ = ["Lifecycle"]

logger = logging.getLogger(__name__)

# How many tubes a sweep looks at together, and how many of them it lets go of side by side.
SWEEP_AT_ONCE: Final = 64
LANES: Final = 8
# A sweep of many tubes is spread over so many seconds: all at once, the ends of their segments would hold up clients.
SWEEP_SECONDS: Final = 30.0
# How many segments are seen to before others have a turn.
SEGMENTS_AT_ONCE: Final = 256


class Lifecycle:
    """Lets go of tubes, and of the segments that they do not need any more.

    Args:
        store: The store.
        membership: The sessions.
        tasks: What runs coroutines.
        agenda: What is in flight.
        lister: What tells which segments a tube has.
        registry: The tubes that are known here.
        retirement: What lets segments die.
        view: What looks at segments.
    """

    def __init__(
        self,
        store: "SegmentStore",
        membership: Membership,
        tasks: Tasks,
        agenda: Agenda,
        lister: Lister,
        registry: Registry,
        retirement: Retirement,
        view: Scout,
    ) -> None:
        self._store = store
        self._membership = membership
        self._tasks = tasks
        self._agenda = agenda
        self._lister = lister
        self._registry = registry
        self._retirement = retirement
        self._view = view
        # The step at which the last sweep began.
        self._swept: int = 0

    def forget(self, tube: SharedTube) -> None:
        """A tube that nobody uses, and that has no job, begins anew: without its counters and its pause."""
        if tube.using or tube.watching or tube.name == DEFAULT or self._tasks.closing:
            return
        if not (tube.total_jobs or tube.deletes or tube.pauses or tube.pause) or tube.arriving:
            return
        for committer in tube.committers.values():
            if committer.busy() or not committer.idle_and_empty():
                return
        if not all(map(note_empty, tube.notes.values())):
            return
        counted = (tube.total_jobs, tube.deletes, tube.pauses)
        tube.forgetting = self._tasks.spawn(self._forget(tube, tube.forgetting, counted, tube.paused_until))

    async def _forget(
        self, tube: SharedTube, former: "asyncio.Task[None] | None", counted: tuple[int, int, int], paused_until: float
    ) -> None:
        """Forget what was counted until now, unless others have jobs or users of the tube."""
        if former is not None:
            await former
        try:
            record = (await self._store.directories([tube.name]))[0]
            numbers = await self._lister.everywhere(tube.name, record)
            for start in range(0, len(numbers), SEGMENTS_AT_ONCE):
                sizes = await self._store.sizes(numbers[start : start + SEGMENTS_AT_ONCE])
                if any(size is not None and size.ready + size.delayed + size.buried + size.held for size in sizes):
                    return
            await self._membership.look()
            await self._membership.usages()
            if self._membership.used_elsewhere(tube.name):
                return
            if record is not None and (record.pause_ms or any(record.counters.values())):
                await self._store.forget_tube(tube.name)
        except StoreError as error:
            logger.info("tube %s is remembered: %s", tube.name, error)
            return
        tube.total_jobs -= counted[0]
        tube.deletes -= counted[1]
        tube.pauses -= counted[2]
        if tube.pause and tube.paused_until == paused_until:
            tube.pause = 0.0
            tube.paused_until = 0.0

    async def sweep(self) -> None:
        """Let go of tubes that nobody here uses, and of all segments that are finished."""
        await self._retirement.go_on()
        since, self._swept = self._swept, self._agenda.step()
        tubes = self._registry.known_tubes()
        pause = SWEEP_SECONDS * SWEEP_AT_ONCE / max(SWEEP_AT_ONCE, len(tubes))
        for start in range(0, len(tubes), SWEEP_AT_ONCE):
            if start:
                await asyncio.sleep(pause)
            await self._sweep(tubes[start : start + SWEEP_AT_ONCE], since)

    async def let_begin_anew(self, name: str, record: "Directory") -> None:
        """Let a tube without segments begin anew, without counters and pause, unless somebody uses it or its pause lasts."""
        paused = record.paused_until_ms > self._membership.clock.server_ms()
        if not (paused or self._registry.known_tube(name) is not None or self._membership.used_elsewhere(name)):
            await self._store.forget_tube(name)

    async def _sweep(self, tubes: list[SharedTube], since: int) -> None:
        # Nobody here learns otherwise that others have emptied their segments.
        unseen = [tube for tube in tubes if (tube.committers or tube.notes) and not tube.waited_for()]
        try:
            await self._view.look_at_known(unseen)
        except StoreError as error:
            logger.info("segments that nobody waits for are not looked at: %s", error)
        leases: list[tuple[int, int]] = []
        for tube in tubes:
            leases += await self._put_down(tube, since)
        await asyncio.gather(*[self._retirement.give_up(leases[lane::LANES]) for lane in range(LANES)])
        closing: list[Committer] = []
        resting: list[SharedTube] = []
        for tube in tubes:
            if _in_use(tube):
                continue
            if tube.open is not None and tube.open.idle_and_empty():
                committer = tube.open
                tube.open = None
                committer.close()
                closing.append(committer)
            elif _rests(tube):
                resting.append(tube)
        lanes = [self._let_go(resting[lane::LANES]) for lane in range(min(LANES, len(resting)))]
        await asyncio.gather(*lanes)
        for committer in closing:
            # So many operations at once are enough.
            await committer.turn()

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
        """Let go of tubes that take no puts here, one after the other."""
        for tube in tubes:
            try:
                self.forget(tube)
                await self._registry.forgotten(tube.name)
                await self._hand_over_counters(tube)
            except StoreError as error:
                # It stays; the others go on.
                logger.info("tube %s is not let go of yet: %s", tube.name, error)
                continue
            counted = tube.total_jobs or tube.deletes or tube.pauses
            if self._registry.known_tube(tube.name) is tube and not _in_use(tube) and _rests(tube) and not counted:
                self._registry.let_go(tube)

    async def _hand_over_counters(self, tube: SharedTube) -> None:
        """Add what was counted here to a tube's record."""
        counted = (tube.total_jobs, tube.deletes, tube.pauses)
        if not any(counted):
            return
        try:
            await self._store.add_counters(tube.name, dict(zip(COUNTER_NAMES, counted, strict=True)))
        except Unknown as error:
            # To add them once more may be once too often.
            logger.info("counters of tube %s may be lost: %s", tube.name, error)
        tube.total_jobs -= counted[0]
        tube.deletes -= counted[1]
        tube.pauses -= counted[2]


def _rests(tube: SharedTube) -> bool:
    """Tell whether a tube takes no puts here, and nothing in it is on its way or held."""
    return tube.open is None and not any(committer.busy() for committer in tube.committers.values())


def _in_use(tube: SharedTube) -> bool:
    used = tube.using or tube.watching or tube.waited_for() or tube.arriving or tube.opening
    return bool(used or tube.name == DEFAULT)

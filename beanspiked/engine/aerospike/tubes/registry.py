"""The tubes that this front-end knows: how they are used here, which of them exist, and when one is forgotten."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.cluster.usage import COUNTER_NAMES
from beanspiked.engine.aerospike.store.seam import StoreError, Unknown
from beanspiked.engine.aerospike.tubes.notes import note_empty
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.contract import Tube
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.segment.committer import Committer
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.seam import Directory

__all__ = ["Registry"]

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
# How many tubes a sweep looks at together, and how many of them it lets go of side by side.
SWEEP_AT_ONCE: Final = 256
LANES: Final = 8


class Registry:
    """The tubes that are known here, by name.

    Args:
        engine: Whose it is.
        store: The store.
        timers: Where tubes wait for what happens in them, and what numbers them.
    """

    def __init__(self, engine: "SharedEngine", store: "SegmentStore", timers: Timers) -> None:
        self._engine = engine
        self._store = store
        self._timers = timers
        self._tubes: dict[str, SharedTube] = {}
        # The engine's step at which the last sweep began, and which part of all tubes the next one looks at.
        self._swept: int = 0
        self.tube(DEFAULT)

    def tube(self, name: str) -> SharedTube:
        """Find or make a tube."""
        tube = self._tubes.get(name)
        if tube is None:
            tube = SharedTube(self._timers.new_id(), name, self._engine)
            self._tubes[name] = tube
        return tube

    def known_tubes(self) -> list[SharedTube]:
        """List all tubes that are known here, for whatever reason."""
        return list(self._tubes.values())

    def known_tube(self, name: str) -> SharedTube | None:
        """Find a tube that is known here, for whatever reason."""
        return self._tubes.get(name)

    # --- which exist

    def find_tube(self, name: str) -> SharedTube | None:
        """Find a tube that is used here, or that was found with the last look."""
        tube = self._tubes.get(name)
        return tube if tube is not None and self._in_existence(tube) else None

    def tubes(self) -> list[Tube]:
        """List the tubes that exist as of the last look: those used here in their order, then the others by age."""
        mine: list[Tube] = []
        others: list[SharedTube] = []
        for tube in self._tubes.values():
            if tube.using or tube.watching or tube.name == DEFAULT:
                mine.append(tube)
            elif self._in_existence(tube):
                others.append(tube)
        others.sort(key=_age)
        return mine + cast("list[Tube]", others)

    def used_names(self) -> list[str]:
        """List the names of the tubes that are used here."""
        return [
            tube.name
            for tube in self._tubes.values()
            if tube.using or tube.watching or tube.arriving or tube.name == DEFAULT
        ]

    def _in_existence(self, tube: SharedTube) -> bool:
        """Tell whether a tube is used here, or was found with the last look."""
        return bool(tube.using or tube.watching or tube.exists or tube.arriving or tube.name == DEFAULT)

    def used_elsewhere(self, name: str) -> bool:
        """Tell whether a live session of others uses or watches a tube."""
        membership = self._engine.membership
        live = set(membership.others)
        uses = (record.usage().get(name) for record in membership.records if record.number in live)
        return any(use is not None and (use[0] or use[1]) for use in uses)

    def used(self, name: str) -> bool:
        """Tell whether anybody uses or watches a tube, here or elsewhere."""
        tube = self._tubes.get(name)
        return name == DEFAULT or (tube is not None and bool(tube.using or tube.watching)) or self.used_elsewhere(name)

    # --- what is told of them

    def count(self) -> int:
        """Count all tubes that are known here."""
        return len(self._tubes)

    def usage(self) -> dict[str, list[int]]:
        """Return what the others should know of how this front-end uses its tubes."""
        return _usage(self.known_tubes())

    def usage_slices(self, size: int) -> "Callable[[int], dict[str, list[int]] | None]":
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

    # --- their end

    def forget(self, tube: SharedTube) -> None:
        """A tube that nobody uses, and that has no job, begins anew: without its counters and its pause."""
        if tube.using or tube.watching or tube.name == DEFAULT or self._engine.closing:
            return
        if not (tube.total_jobs or tube.deletes or tube.pauses or tube.pause) or tube.arriving:
            return
        for committer in tube.committers.values():
            if committer.busy() or not committer.idle_and_empty():
                return
        if not all(map(note_empty, tube.notes.values())):
            return
        counted = (tube.total_jobs, tube.deletes, tube.pauses)
        tube.forgetting = self._engine.spawn(self._forget(tube, tube.forgetting, counted, tube.paused_until))

    async def _forget(
        self, tube: SharedTube, former: "asyncio.Task[None] | None", counted: tuple[int, int, int], paused_until: float
    ) -> None:
        """Forget what was counted until now, unless others have jobs or users of the tube."""
        if former is not None:
            await former
        try:
            record = (await self._store.directories([tube.name]))[0]
            numbers = await self._engine.lister.everywhere(tube.name, record)
            for start in range(0, len(numbers), SWEEP_AT_ONCE):
                sizes = await self._store.sizes(numbers[start : start + SWEEP_AT_ONCE])
                if any(size is not None and size.ready + size.delayed + size.buried + size.held for size in sizes):
                    return
            await self._engine.membership.look()
            if self.used_elsewhere(tube.name):
                return
            if record is not None and (record.pause_ms or any(record.counters.values())):
                await self._store.forget_tube(tube.name)
        except StoreError as error:
            logger.info("tube %s is not forgotten yet: %s", tube.name, error)
            return
        tube.total_jobs -= counted[0]
        tube.deletes -= counted[1]
        tube.pauses -= counted[2]
        if tube.pause and tube.paused_until == paused_until:
            tube.pause = 0.0
            tube.paused_until = 0.0

    async def forgotten(self, name: str) -> None:
        """Wait until a tube has been forgotten that is being forgotten."""
        tube = self._tubes.get(name)
        if tube is not None and tube.forgetting is not None:
            await asyncio.wait([tube.forgetting])

    async def sweep(self) -> None:
        """Let go of tubes that nobody here uses, and of all segments that are finished."""
        await self._engine.retirement.go_on()
        since, self._swept = self._swept, self._engine.step()
        tubes = self.known_tubes()
        for start in range(0, len(tubes), SWEEP_AT_ONCE):
            await self._sweep(tubes[start : start + SWEEP_AT_ONCE], since)

    async def let_begin_anew(self, name: str, record: "Directory") -> None:
        """Let a tube without segments begin anew, without counters and pause, unless somebody uses it or its pause lasts."""
        paused = record.paused_until_ms > self._engine.membership.clock.server_ms()
        if not (paused or name in self._tubes or self.used_elsewhere(name)):
            await self._store.forget_tube(name)

    async def _sweep(self, tubes: list[SharedTube], since: int) -> None:
        # Nobody here learns otherwise that others have emptied their segments.
        unseen = [tube for tube in tubes if (tube.committers or tube.notes) and not tube.waiters]
        try:
            await self._engine.scout.look_at_known(unseen)
        except StoreError as error:
            logger.info("segments of tubes without waiters are not read: %s", error)
        leases: list[tuple[int, int]] = []
        for tube in tubes:
            leases += await self._put_down(tube, since)
        await asyncio.gather(*[self._engine.retirement.give_up(leases[lane::LANES]) for lane in range(LANES)])
        closing: list[Committer] = []
        resting: list[SharedTube] = []
        for tube in tubes:
            if self._in_use(tube):
                continue
            if tube.open is not None and tube.open.idle_and_empty():
                committer = tube.open
                tube.open = None
                committer.close()
                closing.append(committer)
            elif _rests(tube):
                resting.append(tube)
        self._engine.turn_over()
        lanes = [self._let_go(resting[lane::LANES]) for lane in range(min(LANES, len(resting)))]
        await asyncio.gather(*lanes)
        for committer in closing:
            # So many operations at once are enough.
            await committer.turn()
        # However many tubes there are that need nothing: others have a turn.
        await asyncio.sleep(0)

    async def _put_down(self, tube: SharedTube, since: int) -> list[tuple[int, int]]:
        """Keep no more than notes of segments that have not been used since a step; return their leases."""
        leases: list[tuple[int, int]] = []
        for count, committer in enumerate(list(tube.committers.values()), 1):
            if committer.rests(since) and not committer.idle_and_empty():
                lease = tube.put_down(committer)
                if lease:
                    leases.append((committer.number, lease))
            if count % SWEEP_AT_ONCE == 0:
                await asyncio.sleep(0)
        return leases

    async def _let_go(self, tubes: list[SharedTube]) -> None:
        """Let go of tubes that take no puts here, one after the other."""
        for tube in tubes:
            try:
                self.forget(tube)
                await self.forgotten(tube.name)
                await self._hand_over_counters(tube)
            except StoreError as error:
                # It stays; the others go on.
                logger.info("tube %s is not left yet: %s", tube.name, error)
                continue
            counted = tube.total_jobs or tube.deletes or tube.pauses
            if self._tubes.get(tube.name) is tube and not self._in_use(tube) and _rests(tube) and not counted:
                self._timers.cancel(tube)
                del self._tubes[tube.name]

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

    def _in_use(self, tube: SharedTube) -> bool:
        return bool(
            tube.using or tube.watching or tube.waiters or tube.arriving or tube.opening or tube.name == DEFAULT
        )


def _rests(tube: SharedTube) -> bool:
    """Tell whether a tube takes no puts here, and nothing in it is on its way or held."""
    return tube.open is None and not any(committer.busy() for committer in tube.committers.values())


def _usage(tubes: list[SharedTube]) -> dict[str, list[int]]:
    return {
        tube.name: [tube.using, tube.watching, len(tube.waiters), tube.total_jobs, tube.deletes, tube.pauses]
        for tube in tubes
        if tube.using or tube.watching or tube.total_jobs or tube.deletes or tube.pauses
    }


def _age(tube: SharedTube) -> int:
    return tube.first_number

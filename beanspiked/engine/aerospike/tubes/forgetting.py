"""How tubes begin anew: one that nobody uses, and that has no job anywhere, loses its counters and its pause."""

import asyncio
import logging
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import StoreError
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.notes import note_empty
from beanspiked.engine.aerospike.tubes.registry import DEFAULT, Registry
from beanspiked.engine.aerospike.tubes.tube import SharedTube

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.directory import Directory

__all__ = ["FORGOTTEN_AT_ONCE", "Forgetting"]

logger = logging.getLogger(__name__)

# How many tubes are forgotten together: what all other front-ends tell of their tubes is read once for all of them.
FORGOTTEN_AT_ONCE: Final = 512
# Two pauses that end within so many seconds are one, since the clocks of the server and of this process drift.
SAME_PAUSE: Final = 0.5
# How many segments are seen to before others have a turn.
SEGMENTS_AT_ONCE: Final = 256


class Ending:
    """A tube that is to be forgotten, and what was counted of it by then: what comes later stays.

    Attributes:
        tube: The tube.
        total_jobs, deletes, pauses, paused_until: What is to be forgotten.
        done: Done when it is forgotten, or remembered.
    """

    def __init__(self, tube: SharedTube, done: "asyncio.Future[None]") -> None:
        self.tube: SharedTube = tube
        self.total_jobs: int = tube.total_jobs
        self.deletes: int = tube.deletes
        self.pauses: int = tube.pauses
        self.paused_until: float = tube.paused_until
        self.done: asyncio.Future[None] = done

    def forget(self) -> None:
        """Begin anew here."""
        tube = self.tube
        tube.total_jobs -= self.total_jobs
        tube.deletes -= self.deletes
        tube.pauses -= self.pauses
        if tube.pause and tube.paused_until == self.paused_until:
            tube.pause = 0.0
            tube.paused_until = 0.0

    def less(self, former: "Ending") -> None:
        """Take off what has been forgotten since this was noted."""
        self.total_jobs -= former.total_jobs
        self.deletes -= former.deletes
        self.pauses -= former.pauses


class Forgetting:
    """Forgets tubes, together with all others that are over by then.

    Args:
        store: The store.
        membership: The sessions.
        tasks: What runs coroutines.
        lister: What tells which segments a tube has.
        registry: The tubes that are known here.
    """

    def __init__(
        self, store: "SegmentStore", membership: Membership, tasks: Tasks, lister: Lister, registry: Registry
    ) -> None:
        self._store = store
        self._membership = membership
        self._tasks = tasks
        self._lister = lister
        self._registry = registry
        self._waiting: dict[SharedTube, Ending] = {}
        self._working: bool = False

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
        noted = self._waiting.get(tube)
        done = asyncio.get_running_loop().create_future() if noted is None else noted.done
        self._waiting[tube] = Ending(tube, done)
        tube.forgetting = done
        if not self._working:
            self._working = True
            self._tasks.spawn(self._forget_all())

    async def let_begin_anew(self, name: str, record: "Directory") -> None:
        """Let a tube without segments begin anew, without counters and pause, unless somebody uses it or its pause lasts."""
        await self._membership.usages()
        paused = record.paused_until_ms > self._membership.clock.server_ms()
        if not (paused or self._registry.known_tube(name) is not None or self._membership.used_elsewhere(name)):
            await self._store.forget_tube(name)

    async def _forget_all(self) -> None:
        endings: list[Ending] = []
        try:
            while self._waiting:
                endings = list(islice(self._waiting.values(), FORGOTTEN_AT_ONCE))
                for ending in endings:
                    del self._waiting[ending.tube]
                await self._forget(endings)
                _tell(endings)
        finally:
            self._working = False
            # There are some only after a bug, or if this was cancelled.
            _tell([*endings, *self._waiting.values()])
            self._waiting.clear()

    async def _forget(self, endings: list[Ending]) -> None:
        """Forget what was counted until now, unless others have jobs or users of the tubes."""
        until = self._tasks.for_a_while()
        try:
            unused = await self._tasks.repeat(partial(self._unused, endings), until)
        except StoreError as error:
            logger.info("%d tubes are remembered: %s", len(endings), error)
            return
        for ending, record in unused.items():
            if record is not None and (record.pause_ms or any(record.counters.values())):
                try:
                    await self._tasks.repeat(partial(self._store.forget_tube, ending.tube.name), until)
                except StoreError as error:
                    logger.info("tube %s is remembered: %s", ending.tube.name, error)
                    continue
            ending.forget()
            again = self._waiting.get(ending.tube)
            if again is not None:
                again.less(ending)

    async def _unused(self, endings: list[Ending]) -> "dict[Ending, Directory | None]":
        """Return the tubes that have no users and no jobs anywhere, with their entries. Raises StoreError."""
        records = await self._store.directories([ending.tube.name for ending in endings])
        found = dict(zip(endings, records, strict=True))
        await self._leave_out_those_with_jobs(found)
        if found:
            await self._membership.look()
            await self._membership.usages()
        return {ending: record for ending, record in found.items() if not self._used(ending, record)}

    def _used(self, ending: Ending, record: "Directory | None") -> bool:
        """Tell whether others use a tube: a pause that is not known here is theirs, before they have told that they use it."""
        clock = self._membership.clock
        until_ms = 0 if record is None else record.paused_until_ms
        paused = until_ms > clock.server_ms() and abs(clock.local_time(until_ms) - ending.paused_until) > SAME_PAUSE
        return paused or self._membership.used_elsewhere(ending.tube.name)

    async def _leave_out_those_with_jobs(self, found: "dict[Ending, Directory | None]") -> None:
        listed: list[tuple[Ending, int]] = []
        for ending, record in list(found.items()):
            try:
                numbers = await self._lister.everywhere({ending.tube.name: record})
                listed += [(ending, number) for number in numbers[ending.tube.name]]
            except StoreError as error:
                # The others are forgotten.
                logger.info("tube %s is remembered: %s", ending.tube.name, error)
                del found[ending]
        for start in range(0, len(listed), SEGMENTS_AT_ONCE):
            part = [entry for entry in listed[start : start + SEGMENTS_AT_ONCE] if entry[0] in found]
            if not part:
                await asyncio.sleep(0)
                continue
            sizes = await self._store.sizes([number for _, number in part])
            for (ending, _), size in zip(part, sizes, strict=True):
                if size is not None and size.ready + size.delayed + size.buried + size.held:
                    found.pop(ending, None)


def _tell(endings: list[Ending]) -> None:
    for ending in endings:
        if not ending.done.done():
            ending.done.set_result(None)

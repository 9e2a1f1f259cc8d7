"""The tube engine on a shared store: any number of front-ends, the same tubes, and nothing in any of them that could not be lost.

Every command is one operation on one segment (`committer.py`); what a front-end knows of the others' doings are hints that cost an
operation when they are stale, never a job. Whatever has a state has a class and a module of its own, and comes together here;
`commands.py` has what the contract asks for.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beanspiked.engine.aerospike.cluster.links import NONCE_SIZE
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.network import Apart, Network
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.cluster.session import Session
from beanspiked.engine.aerospike.commands import Commands
from beanspiked.engine.aerospike.queries.asking import Asking
from beanspiked.engine.aerospike.queries.census import Census
from beanspiked.engine.aerospike.queries.changes import Changes
from beanspiked.engine.aerospike.queries.finder import Finder
from beanspiked.engine.aerospike.queries.kicks import Kicks
from beanspiked.engine.aerospike.segment.codec import FORMATS, Formats
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.store.formats import SetAside
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.seam import (
    Segment,
    StoreError,
)
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.around import Around
from beanspiked.engine.aerospike.tubes.due import Timetable
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.leftovers import Leftovers
from beanspiked.engine.aerospike.tubes.puts import Puts
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.contract import (
    ReadyListener,
)
from beanspiked.engine.errors import EngineError, JobGone, StoreFailed
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["SharedEngine"]

logger = logging.getLogger(__name__)

# How long the end waits for what is on its way to segments, in seconds: one of them may stay busy.
REST_WITHIN: Final = 2.0

Result = TypeVar("Result")


class SharedEngine(Commands):
    """Tubes whose jobs live in a store that other processes share.

    Args:
        timers: Where delays and pauses wait, and the clock.
        listener: Whom to tell when a job was taken for somebody who waits.
        store: The store.
        turn: What to call when something has happened outside of a turn of the event loop that the caller knows of.
        monotonic: A clock in seconds that goes on while the machine sleeps.
        chance: What makes the pauses between tries differ.
        network: What links to other front-ends are made with; without one they read each other's records.
        formats: The formats of jobs that this front-end knows; as new as those of records that the store does.

    Attributes:
        unread: Jobs of newer formats that were met.
        tasks: What runs beside everything else, and is tried again.
        news: What it hears from other front-ends, and tells them.
        around: What segments need of it.
        lister: What enters segments in directories, and takes them out.
        scout: What looks at what others did.
        timetable: What makes due jobs ready, and keeps pauses.
        retirement: What lets segments die.
        leftovers: What finishes what others have left behind.
        running: Segments with an operation in flight.
        suspended: Segments that do not answer, which no jobs are asked of for now.
        gathering: How many of them wait for what the sockets bring in this pass of the event loop.
    """

    def __init__(
        self,
        timers: Timers,
        listener: ReadyListener,
        store: "SegmentStore",
        turn: Callable[[], None],
        monotonic: Callable[[], float],
        chance: random.Random | None = None,
        network: Network | None = None,
        formats: Formats = FORMATS,
    ) -> None:
        super().__init__(timers.clock)
        self.formats: Formats = formats
        self.unread: SetAside = SetAside()
        self.listener: ReadyListener = listener
        self.store: SegmentStore = store
        self.tasks: Tasks = Tasks(timers.clock.now, chance)
        self.membership: Membership = Membership(self, store, monotonic)
        self.lister: Lister = Lister(store)
        self.around: Around = Around(self)
        self.registry: Registry = Registry(self, store, timers)
        self.puts: Puts = Puts(self, store, timers.clock)
        self.takes: Takes = Takes(self, timers.clock)
        self.holdings: Holdings = Holdings(self, timers.clock)
        self.scout: Scout = Scout(self, store, timers.clock)
        links = network or Apart()
        self.news: News = News(
            self.scout, store, links, self.spawn_lasting, monotonic, lambda: secrets.token_bytes(NONCE_SIZE)
        )
        self.timetable: Timetable = Timetable(self, store, timers)
        self.retirement: Retirement = Retirement(self, store)
        self.leftovers: Leftovers = Leftovers(self, store)
        self.asking = Asking(self.tasks, self.membership, self.turn_over)
        self.census = Census(store, self.tasks, self.lister, self.registry, self.membership, self.timetable, self.scout)
        self.finder = Finder(
            store,
            self.tasks,
            formats,
            self.unread,
            self.registry,
            self.membership,
            self.holdings,
            self.census,
            timers.clock,
        )
        self.kicks = Kicks(store, self.tasks, formats, self.census, self.finder, self.scout, self.news)
        self.changes = Changes(
            store,
            self.tasks,
            self.census,
            self.registry,
            self.membership,
            self.timetable,
            self.scout,
            self.retirement,
            self.news,
        )
        self._turn: Callable[[], None] = turn
        self.running: dict[Committer, None] = {}
        self.suspended: dict[Committer, None] = {}
        self.gathering: int = 0
        self._awake: dict[Committer, None] = {}
        self._step = 0

    def start(self) -> None:
        """Begin; needs a running event loop."""
        for work in (self.membership.run, self.membership.watch, self.news.read, self.news.mesh.pulse):
            self.tasks.keep(work)

    # --- plumbing

    def turn_over(self) -> None:
        """Something became known: let sessions go on, and send on what they ask for."""
        # The others hear of it before anybody learns here that it was done.
        self.news.flush()
        self._turn()

    def now(self) -> float:
        """Return this process's time, in seconds since the epoch."""
        return self._clock.now()

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        self._step += 1
        return self._step

    def busy(self) -> list[Committer]:
        """List the segments with an operation in flight, or one that is about to begin."""
        return [*self.running, *self._awake]

    def wake(self, committer: Committer) -> None:
        """Have a segment's operation begin at the end of this turn."""
        self._awake[committer] = None

    def flush(self) -> None:
        """Send on what was asked for in this turn of the event loop, unless more comes in the same pass: then it goes along with that."""
        if not self.gathering:
            self.send_on()

    def send_on(self) -> None:
        """Send on what was asked for."""
        self.takes.request_jobs()
        if self._awake:
            awake = self._awake
            self._awake = {}
            for committer in awake:
                committer.start()

    # --- tasks, see there

    @property
    def closing(self) -> bool:
        """Tell whether this front-end is about to end."""
        return self.tasks.closing

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine beside everything else."""
        return self.tasks.spawn(coroutine)

    def spawn_lasting(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that no command waits for, until this front-end ends."""
        self.tasks.spawn_lasting(coroutine)

    async def pause_between_tries(self, failing_since: float = 0.0) -> None:
        """Wait a little, never twice the same; longer the longer it has failed, given since when."""
        await self.tasks.pause_between_tries(failing_since)

    async def try_for_a_while(
        self, operation: Callable[[], Coroutine[Any, Any, Result]], *final: type[StoreError]
    ) -> Result:
        """Repeat an operation that may be repeated. Raises StoreFailed after a while, and what is not worth another try."""
        return await self.tasks.try_for_a_while(operation, *final)

    async def failure(self, work: Callable[[], Coroutine[Any, Any, None]]) -> EngineError | None:
        """Do something that a command waits for; return what the command is told if it fails, for whatever reason."""
        return await self.tasks.failure(work)

    async def reading_segment(self, number: int, session: Session) -> Segment | None:
        """Read a segment, however long it takes while a session lasts, and for a while after it; None where it is gone.

        Raises StoreError when it cannot be known what is there.
        """
        return await self.tasks.try_while_it_lasts(lambda: self.store.read(number), lambda: session.over)

    # --- the session

    def session_began(self) -> None:
        """There is a session: what waits for it goes on."""
        for tube in self.registry.known_tubes():
            tube.live = False
            for committer in list(tube.committers.values()):
                if committer.session.over:
                    committer.abandon(JobGone("the session is over"))
            if tube.arriving:
                self.puts.place(tube)
            if tube.waiters:
                self.scout.refresh(tube)
        # Without a session no news were read, whoever waited.
        self.news.wake()
        self.turn_over()

    def session_over(self) -> None:
        """The session is over: every held job is lost, and what was not sent goes with the next one."""
        self.news.end()
        self.puts.forget_numbers()
        for tube in self.registry.known_tubes():
            tube.live = False
            tube.open = None
            tube.granted.clear()
            tube.notes = {}
            for seek in tube.seeks:
                # What was noted has to be looked for anew.
                seek.looked = False
            for committer in list(tube.committers.values()):
                committer.abandon(JobGone("the session is over"))
            tube.committers = {}
            self.takes.advance_seeks(tube)
        self.turn_over()

    def tick(self) -> None:
        """Once a second: fail what waits for a store that does not answer, and look at tubes that are waited for."""
        now = self._clock.now()
        for committer in list(self.running):
            committer.expire(now)
        self.takes.expire(now)
        for committer in list(self.suspended):
            committer.resume(now)
        self.expire_waits(now)
        if self.membership.session.over:
            self.puts.expire()
        else:
            self.scout.recheck(now)
        self.news.tick()
        self.turn_over()

    def close(self) -> Later | None:
        """Give everything back and leave."""
        self.tasks.closing = True
        later = Later()
        self.spawn(self._close(later))
        return later

    async def _come_to_rest(self) -> None:
        """Wait until nothing is on its way to any segment."""
        for tube in self.registry.known_tubes():
            for committer in list(tube.committers.values()):
                while committer.running:
                    await committer.turn()

    async def _close(self, later: Later) -> None:
        try:
            await asyncio.wait_for(self._come_to_rest(), REST_WITHIN)
        except TimeoutError:
            logger.warning("segments stay busy; what is held in them becomes ready with the end of the session")
        try:
            await self.membership.end()
        except EngineError as error:
            logger.warning("what is held becomes ready when the others notice: %s", error)
        except Exception as bug:
            # Whoever waits for the end must not wait for ever.
            logger.error("internal error", exc_info=bug)
        await self.tasks.end()
        for tube in self.registry.known_tubes():
            self.puts.fail_all(tube, StoreFailed("closed before it was sent"))
        self.news.mesh.close()
        await self.store.leave()
        later.settle(None)

"""The tube engine on a shared store: any number of front-ends, the same tubes, and nothing in any of them that could not be lost.

Every command is one operation on one segment (`committer.py`); what a front-end knows of the others' doings are hints that cost an
operation when they are stale, never a job. Whatever has a state has a class and a module of its own, and comes together here;
`commands.py` has what the contract asks for.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from beanspiked.engine.aerospike.cluster.clock import ServerClock
from beanspiked.engine.aerospike.cluster.links import NONCE_SIZE
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.network import Apart, Network
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.commands import Commands
from beanspiked.engine.aerospike.queries.asking import Asking
from beanspiked.engine.aerospike.queries.bulk import BulkChanges
from beanspiked.engine.aerospike.queries.census import Census
from beanspiked.engine.aerospike.queries.changes import Changes
from beanspiked.engine.aerospike.queries.choosing import Chooser
from beanspiked.engine.aerospike.queries.finder import Finder
from beanspiked.engine.aerospike.queries.kicks import Kicks
from beanspiked.engine.aerospike.queries.listing import Lists
from beanspiked.engine.aerospike.queries.moving import Moving
from beanspiked.engine.aerospike.segment.codec import FORMATS, Formats
from beanspiked.engine.aerospike.store.formats import SetAside
from beanspiked.engine.aerospike.store.lister import Lister
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.around import Around
from beanspiked.engine.aerospike.tubes.due import Timetable
from beanspiked.engine.aerospike.tubes.forgetting import Forgetting
from beanspiked.engine.aerospike.tubes.hearing import Hearing
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.leftovers import Leftovers
from beanspiked.engine.aerospike.tubes.lifecycle import Lifecycle
from beanspiked.engine.aerospike.tubes.pair_ends import PairEnds
from beanspiked.engine.aerospike.tubes.puts import Puts
from beanspiked.engine.aerospike.tubes.ranking import Ranking
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.room import Room
from beanspiked.engine.aerospike.tubes.session_events import SessionEvents
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.contract import ReadyListener, StoreStats
from beanspiked.engine.errors import EngineError, StoreFailed
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
        agenda: What is in flight, and what begins next.
        room: Whether the store has room.
        retirement: What lets segments die.
        forgetting: What lets tubes begin anew.
        lifecycle: What lets go of tubes.
        leftovers: What finishes what others have left behind.
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
        self.lister: Lister = Lister(store)
        self.news: News = News(
            store, network or Apart(), self.tasks.spawn_lasting, monotonic, lambda: secrets.token_bytes(NONCE_SIZE)
        )
        self.agenda: Agenda = Agenda(store, self.news, self.tasks, turn)
        self.around: Around = Around(store, formats, timers.clock, self.tasks, self.agenda, self.news, self.unread)
        clock = ServerClock(timers.clock.now, monotonic)
        self.timetable: Timetable = Timetable(
            store, timers, clock, self.tasks, self.agenda, self.news, formats, self.unread
        )
        ranking = Ranking(timers.clock)
        self.registry: Registry = Registry(timers, self.around, self.agenda, self.timetable, ranking)
        self.retirement: Retirement = Retirement(store, self.lister, self.tasks)
        self.membership: Membership = Membership(
            store, timers.clock, clock, monotonic, self.tasks, self.news, self.registry, self.retirement
        )
        self.room: Room = Room(store, self.tasks)
        self.scout: Scout = Scout(
            store,
            timers.clock,
            self.membership,
            self.tasks,
            self.agenda,
            self.news,
            self.lister,
            self.registry,
            self.retirement,
            self.timetable,
        )
        self.forgetting: Forgetting = Forgetting(store, self.membership, self.tasks, self.lister, self.registry)
        self.lifecycle: Lifecycle = Lifecycle(
            store, self.agenda, self.registry, self.forgetting, self.retirement, self.scout
        )
        self.holdings: Holdings = Holdings(
            store,
            timers.clock,
            self.membership,
            self.tasks,
            self.agenda,
            formats,
            self.room,
            self.retirement,
            self.forgetting,
        )
        self.takes: Takes = Takes(
            timers.clock,
            self.membership,
            self.agenda,
            self.news,
            self.registry,
            ranking,
            self.scout,
            self.holdings,
            listener,
        )
        self.puts: Puts = Puts(
            store,
            timers.clock,
            self.membership,
            self.tasks,
            self.agenda,
            formats,
            self.around,
            self.lister,
            self.registry,
            self.room,
        )
        pair_ends = PairEnds(store, self.tasks, self.membership, formats, self.retirement, self.scout, chance)
        self.leftovers: Leftovers = Leftovers(
            store, self.membership, self.lister, self.retirement, self.forgetting, pair_ends
        )
        self.around.connect(
            self.membership, self.room, self.retirement, self.scout, self.holdings, self.takes, self.puts
        )
        self.agenda.requester = self.takes
        self.news.listener = Hearing(self.membership, self.agenda, self.registry, self.scout, self.takes)
        self.membership.listener = SessionEvents(
            timers.clock,
            self.membership,
            self.agenda,
            self.news,
            self.registry,
            self.room,
            self.scout,
            self.lifecycle,
            self.holdings,
            self.takes,
            self.puts,
            self.leftovers,
            pair_ends,
        )
        self.asking = Asking(self.tasks, self.membership, self.agenda.turn_over)
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
        chooser = Chooser(store, self.tasks, self.census, self.finder, timers.clock)
        self.lists = Lists(self.census, chooser)
        moving = Moving(store, self.tasks, formats, self.puts, pair_ends, self.retirement, self.scout)
        self.bulk = BulkChanges(store, self.tasks, chooser, self.kicks, moving, self.retirement, self.scout)

    def start(self) -> None:
        """Begin; needs a running event loop."""
        for work in (self.membership.run, self.membership.watch, self.news.read, self.news.mesh.pulse):
            self.tasks.keep(work)

    # --- plumbing

    def now(self) -> float:
        """Return this process's time, in seconds since the epoch."""
        return self._clock.now()

    def measure(self) -> None:
        """Count from now on what becomes of the store's calls."""
        self.store.measure()

    def store_stats(self) -> StoreStats:
        """Return what this front-end has to do with the store."""
        stats = StoreStats()
        self.store.tell(stats)
        stats.session_age = self.membership.session_age()
        stats.heartbeat_age = self.membership.heartbeat_age()
        stats.front_ends = len(self.membership.others)
        stats.links, stats.news_lag = self.news.mesh.silence()
        self.registry.tell(stats)
        return stats

    def troubles(self) -> list[str]:
        """Say why changes fail now."""
        if self.membership.session.over:
            return ["there is no session with the store"]
        return [] if self.membership.reachable else ["the store does not answer"]

    def close(self) -> Later | None:
        """Give everything back and leave."""
        self.tasks.closing = True
        later = Later()
        self.tasks.spawn(self._close(later))
        return later

    async def _come_to_rest(self) -> None:
        """Wait until nothing is on its way to any segment."""
        for tube in self.registry.known_tubes():
            for committer in list(tube.committers.values()):
                while committer.under_way():
                    await committer.turn()

    async def _close(self, later: Later) -> None:
        try:
            await asyncio.wait_for(self._come_to_rest(), REST_WITHIN)
        except TimeoutError:
            logger.warning("some segments stay busy; their held jobs are ready when this session ends")
        try:
            await self.membership.end()
        except EngineError as error:
            logger.warning("held jobs are ready when other front-ends find this session dead: %s", error)
        except Exception as bug:
            # Whoever waits for the end must not wait for ever.
            logger.error("internal error", exc_info=bug)
        await self.tasks.end()
        for tube in self.registry.known_tubes():
            self.puts.fail_all(tube, StoreFailed("closed before it was sent"))
        self.news.mesh.close()
        await self.store.leave()
        later.settle(None)

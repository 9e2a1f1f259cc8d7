"""A front-end among others: its session, the others' sessions, and what those that died leave behind.

Death is a decision and a write (segment-protocol H5); see burial.py. The dead session's owner has stopped by itself: before each operation,
and before it hands out a job, it checks that its last good heartbeat was sent within STOP_AFTER.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.agreement import Agreement
from beanspiked.engine.aerospike.cluster.announcement import Announcement, Other
from beanspiked.engine.aerospike.cluster.burial import DEAD_AFTER, Burial
from beanspiked.engine.aerospike.cluster.chores import Chores
from beanspiked.engine.aerospike.cluster.clock import ServerClock
from beanspiked.engine.aerospike.cluster.listener import LocalTubes, SegmentEnder
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.cluster.session import KnownSession, Session, Sessions
from beanspiked.engine.aerospike.cluster.telling import Telling
from beanspiked.engine.aerospike.cluster.usage import unpack_usage
from beanspiked.engine.aerospike.store.seam import Busy, Refused, StoreError, TooBig, Unknown
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.errors import StoreFailed
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["STOP_AFTER", "Membership"]

logger = logging.getLogger(__name__)

# All in seconds.
HEARTBEAT_EVERY: Final = 1.0
JOIN_EVERY: Final = 0.1
STOP_AFTER: Final = 6.0
WATCH_EVERY: Final = 1.0
# Used while links tell at once who comes and goes.
WATCH_RARELY: Final = 3.0
# A front-end serves when all others that were heard within ABSENT_MS (milliseconds) hear its news, or after MET_WITHIN. Until
# then it reads their sessions every MEET_EVERY, and checks every MEET_LOOK_EVERY whether they have dialled.
ABSENT_MS: Final = 2500
MET_WITHIN: Final = 5.0
MEET_EVERY: Final = 0.3
MEET_LOOK_EVERY: Final = 0.003
# At a stop nothing else happens, so many segments are treated at once, but not for long: the other front-ends do the rest.
ENDS_AT_ONCE: Final = 16
END_WITHIN: Final = 3.0
AUDIT_EVERY: Final = 60.0


class Membership(Sessions):
    """Keeps this front-end's session alive, and buries those of others.

    Args:
        store: The store.
        now: This process's time.
        clock: The server's time.
        monotonic: A clock in seconds that goes on while the machine sleeps (CLOCK_BOOTTIME).
        tasks: Runs coroutines.
        news: This front-end's news.
        tubes: Its tubes.
        ender: What ends segments.

    Attributes:
        reachable: Whether the store has answered lately.
        agreement: Which format is written here.
        clock: The server's time.
        telling: What tells the others how this front-end uses its tubes.
        burial: What buries the dead.
    """

    def __init__(
        self,
        store: "SegmentStore",
        now: Clock,
        clock: ServerClock,
        monotonic: Callable[[], float],
        tasks: Tasks,
        news: News,
        tubes: LocalTubes,
        ender: SegmentEnder,
    ) -> None:
        super().__init__(monotonic)
        self._store = store
        self._now = now
        self._tasks = tasks
        self._news = news
        self._tubes = tubes
        self.reachable: bool = False
        self.agreement: Agreement = Agreement(store.newest)
        self._last_good: float = 0.0
        self.clock: ServerClock = clock
        self._published = b""
        # Whether the next heartbeat goes without a payload.
        self._bare = False
        self._formers: set[int] = set()
        self._served = False
        self._chores = Chores(tasks.spawn_lasting)
        self.telling: Telling = Telling(tubes, self._chores, monotonic)
        self.burial: Burial = Burial(store, self, tubes, ender, self._chores, monotonic)
        self._deciding = asyncio.Lock()
        self._ended = False
        # What this front-end has announced of how it hears news.
        self._announced: Announcement | None = None
        self._joined: asyncio.Event = asyncio.Event()

    # --- life

    def alive(self) -> bool:
        """Tell whether the session may act, and end it if its time is up."""
        if self.session.over:
            return False
        if self._monotonic() - self._last_good > STOP_AFTER:
            logger.error("session %d: no heartbeat for %g s; held jobs are given up", self.session.number, STOP_AFTER)
            self._over()
            return False
        return True

    def _over(self) -> None:
        self.session.over = True
        self._joined.clear()
        self.listener.session_over()

    def heartbeat_age(self) -> float:
        """Return the time since a heartbeat succeeded, in seconds."""
        return self._monotonic() - self._last_good

    async def joined(self, seconds: float) -> bool:
        """Wait until this front-end has a session whose news the others hear, at a start somewhat longer; tell whether it has."""
        for more in (False, True):
            if not (self._joined.is_set() or (more and (self.session.over or self._served))):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._joined.wait(), ABSENT_MS / 1000 if more else seconds)
        return self._joined.is_set()

    async def have_session(self, seconds: float) -> None:
        """Wait for a session. Raises StoreFailed when there is none in time."""
        if not await self.joined(seconds):
            raise StoreFailed("the store cannot be reached")

    async def run(self) -> None:
        """Join, and send a heartbeat every second, for as long as this process serves."""
        warned, started = False, self._monotonic()
        while not self._ended:
            refused = False
            try:
                if self.session.over:
                    if self.session.number and not self.entering:
                        self._formers.add(self.session.number)
                    await self._join()
                else:
                    await self.verify()
                for former in self._formers:
                    self._chores.begin(f"resign {former}", partial(self._resign, former))
                self._formers.clear()
                if warned:
                    logger.warning("the store answers again")
                warned = False
            except StoreError as error:
                if not isinstance(error, (Busy, Unknown)):  # Those may succeed with the next try.
                    refused, self.entering = True, 0
                self.doubt()
                self.reachable = self._monotonic() - self._last_good <= 2 * HEARTBEAT_EVERY and not self.session.over
                silent = self._monotonic() - max(self._last_good, started) > 2 * HEARTBEAT_EVERY
                if not warned and silent:
                    warned = True
                    logger.warning("the store does not answer; trying again: %s", error)
                self.alive()
            self.listener.tick()
            await asyncio.sleep(JOIN_EVERY if self.session.over and not refused else HEARTBEAT_EVERY)

    async def _join(self) -> None:
        await self._news.mesh.listen(await self._store.secret())
        number = self.entering
        if not number:
            # It is tried until it is refused: each number that is given up takes a record for more than a minute.
            number = self.entering = await self._store.reserve_numbers("session", 1)
            await self._store.join(number, self.agreement.agreed(await self._store.sessions()))
        self._published = b""
        self.telling.forget()
        sent, before = self._monotonic(), self._now.now()
        now_ms = await self._store.heartbeat(number, b"{}")
        if self.agreement.others_ahead(number, await self._store.sessions(), DEAD_AFTER * 1000):
            return
        self.entering = 0
        self.agreement.begin()
        self._news.form = self.agreement.writes
        self.session = Session(number, now_ms - round((before + self._now.now()) * 500), sent)
        self.clock.begin(self.session)
        self._last_good = sent
        self.healthy_since = sent
        self.reachable = True
        logger.info("session %d", number)
        self._announced = None
        self._news.begin(number)
        await self._meet()
        if not self.session.over:
            self._joined.set()
            self._served = True
            self.listener.session_began()

    async def _meet(self) -> None:
        """Wait until the others hear this front-end's news; not for ever, since one of them may be frozen.

        Heartbeats go on meanwhile, however slow the store is.
        """
        until = self._monotonic() + MET_WITHIN
        while self._monotonic() < until and not self.session.over:
            try:
                if self._monotonic() - self._last_good >= HEARTBEAT_EVERY:
                    await self.verify()
                await self._announce()
                await self.look()
            except StoreError as error:
                logger.info("the other sessions are not known yet: %s", error)
            for _ in range(round(MEET_EVERY / MEET_LOOK_EVERY)):
                if self._met():
                    return
                await asyncio.sleep(MEET_LOOK_EVERY)

    def _met(self) -> bool:
        """Tell whether all others that live hear this front-end's news, over links or from its record."""
        if all(record.number != self.session.number for record in self.records):
            # The records come from a copy that is older than this session.
            return False
        live = [record for record in self.records if not record.dead and record.number != self.session.number]
        mesh = self._news.mesh
        return all(
            mesh.hears(record.number) or self.listens_here(record) or record.silent_ms > ABSENT_MS for record in live
        )

    async def _announce(self) -> None:
        """Announce how this front-end hears the others' news and tells its own, unless that was announced before."""
        news = self._news
        said = news.announcement()
        if said != self._announced:
            await self._store.announce(self.session.number, said.address, said.listens, said.tells)
            self._announced = said

    async def verify(self) -> None:
        """Send a heartbeat now. Ends the session if it was declared dead; raises only StoreError."""
        session = self.session
        if session.over:
            return
        payload = None if self._bare else self.telling.payload()
        if payload == self._published:
            payload = None
        sent, before = self._monotonic(), self._now.now()
        now_ms, too_big = 0, False
        tells = self.agreement.tells
        self.agreement.told = min(self.agreement.told, tells)
        try:
            now_ms = await self._store.heartbeat(session.number, payload, tells)
        except TooBig as error:
            assert payload is not None
            self.telling.at_most = len(payload) // 2
            self._bare = too_big = True
            logger.warning("this front-end uses too many tubes to list them for the others: %s", error)
        except Refused:
            if self.session is session and not session.over:
                logger.error("session %d was declared dead; held jobs are given up", session.number)
                if self._published:
                    # The front-end that declared it dead has kept its counters.
                    self._tubes.uncount(unpack_usage(self._published))
                self._over()
            return
        except StoreError:
            # Whatever the cause: the next heartbeat does not fail for its payload.
            self._bare = payload is not None
            raise
        if too_big:
            await self.verify()
            return
        self._bare = False
        if self.session is not session:
            return
        self.agreement.told = tells
        if payload is not None:
            self._published = payload
        self._last_good = max(self._last_good, sent)
        self.reachable = True
        self._chores.begin("announce", self._announce)
        self.clock.learn(session, now_ms - round((before + self._now.now()) * 500))

    async def decide(self) -> None:
        """Find out whether the session is over, however long the store takes to answer."""
        while self.alive():
            with contextlib.suppress(StoreError):
                # One at a time, so that the heartbeat of each second waits for one of them at most.
                async with self._deciding:
                    await self.verify()
                return
            await self._tasks.pause_between_tries()

    async def _resign(self, number: int) -> None:
        """Give up a former session of this front-end, and take its leases."""
        while not self._ended:
            try:
                await self._store.resign(number)
            except StoreError as error:
                logger.info("session %d is not given up yet: %s", number, error)
            else:
                self.burial.reclaim_when_due(number)
                return
            await asyncio.sleep(HEARTBEAT_EVERY)

    # --- the others

    async def watch(self) -> None:
        """Watch the other sessions for as long as this process serves."""
        audited = looked = self._monotonic()
        while not self._ended:
            await asyncio.sleep(WATCH_EVERY)
            rarely = bool(self.others) and self._news.all_linked() and not self.session.over
            if rarely and self._monotonic() - looked < WATCH_RARELY - WATCH_EVERY / 2:
                continue
            looked = self._monotonic()
            try:
                await self.look()
                if self.others and not rarely:  # Front-ends with different keys cannot link.
                    self._chores.begin("key", self._check_key)
                await self.burial.bury()
            except StoreError as error:
                self.doubt()
                logger.info("other sessions cannot be looked after yet: %s", error)
            if self._monotonic() - audited >= AUDIT_EVERY:
                audited = self._monotonic()
                self._chores.begin("audit", self.burial.audit)
                self._chores.begin("sweep", self.listener.sweep)
                self._chores.begin("leftovers", self.listener.look_through)

    async def _check_key(self) -> None:
        """End the session if the cluster has lost its key and has got another one: tubes are elsewhere under that one."""
        if await self._store.secret() != self._news.mesh.key and not self.session.over:
            logger.error("the cluster has lost data, and has another key now; held jobs are given up")
            self._over()

    async def look(self) -> None:
        """Read the others' sessions."""
        said = self._announced
        session, told = self.session, self.agreement.told
        found = await self._store.sessions()
        before = {record.number: record for record in self.records}
        known = {(record.number, record.dead) for record in self.records}
        now = self._monotonic()
        self.records = [
            (before.get(record.number) or KnownSession(record.number)).read(record, now) for record in found
        ]
        self.burial.know({record.number for record in self.records})
        others = [record for record in self.records if record.number != self.session.number]
        self.others = [record.number for record in others if not record.dead]
        if session is self.session and not session.over:
            self.agreement.agree(session.number, self.records, told)
            self._news.form = self.agreement.writes
        if not known.issuperset([(record.number, record.dead) for record in others]):
            # News of new sessions were not heard until now, and the last news of ended ones may be lost.
            self.listener.others_changed()
        self._news.know(
            [
                Other(record.number, record.address, self.listens_here(record), record.tells)
                for record in others
                if not record.dead
            ],
            said,
            any(record.number == self.session.number and record.silent_ms <= ABSENT_MS for record in self.records),
        )
        if not self.session.over:
            self._chores.begin("announce", self._announce)

    def look_soon(self) -> None:
        """Read the others' sessions now: one has come or gone."""
        self._chores.begin("look", self.look)

    async def end(self) -> None:
        """End the session; everything was given back before."""
        self._ended = True
        self._chores.end()
        session = self.session
        if self.entering:
            await self._tasks.try_for_a_while(lambda: self._store.resign(self.entering))
        if session.over:
            return
        usage = self._tubes.usage()
        session.over = True
        self._joined.clear()
        # Until this is certain, another front-end may declare the session dead, and then it keeps the counters.
        await self._tasks.try_for_a_while(lambda: self._store.resign(session.number))
        try:
            turns = asyncio.Semaphore(ENDS_AT_ONCE)
            await asyncio.wait_for(self.burial.reclaim(session.number, turns, ENDS_AT_ONCE), END_WITHIN)
        except (StoreError, TimeoutError) as error:
            logger.info("other front-ends take the remaining leases back: %s", error)
        try:
            await asyncio.wait_for(self.burial.keep_counters(usage, ENDS_AT_ONCE), END_WITHIN)
        except TimeoutError:
            logger.warning("the counters of some tubes are lost, since the stop left no time to store them")

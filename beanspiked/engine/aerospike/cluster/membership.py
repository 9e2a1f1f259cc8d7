"""A front-end among others: its session, the others' sessions, and what those that died leave behind.

Death is a decision, and a write (segment-protocol H5): a session that has been silent for DEAD_AFTER by the server's clock is killed by
somebody whose own session was healthy for as long, and only then its leases are taken. The owner stops on its own, STOP_AFTER after its
last good heartbeat was sent, which it checks before every operation and before it hands out a job.

So is which format is written: the newest that all living sessions announce to read. A session begins with the first one; it goes up to a
newer one when a heartbeat has told so and a look after that has found nobody who does not read it; it goes down as soon as a look finds
somebody. Who joins announces what it reads, then looks, and serves only when nobody who lives writes what it does not read. Of two who do
so at the same time, one sees the other.
"""

import asyncio
import contextlib
import json
import logging
import zlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beanspiked.engine.aerospike.cluster.news import Announcement, Other
from beanspiked.engine.aerospike.segment.surroundings import LeaseSource
from beanspiked.engine.aerospike.store.keys import SERIAL_BITS, lease_key, lease_session
from beanspiked.engine.aerospike.store.seam import (
    FIRST,
    NEVER_WROTE,
    OPEN,
    Damaged,
    Refused,
    SessionRecord,
    StoreError,
    TooBig,
)
from beanspiked.engine.errors import StoreFailed

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.store.seam import Segment, SegmentStore

__all__ = ["COUNTER_NAMES", "DEAD_AFTER", "STOP_AFTER", "Membership", "Session"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# All in seconds.
HEARTBEAT_EVERY: Final = 1.0
JOIN_EVERY: Final = 0.1
STOP_AFTER: Final = 6.0
DEAD_AFTER: Final = 10.0
WATCH_EVERY: Final = 1.0
# When links tell at once who comes and goes.
WATCH_RARELY: Final = 3.0
# A front-end serves when those that were seen in the last while, in ms, hear its news, or after so long; they are looked at this often, and
# whether they have dialled is looked at so often.
ABSENT_MS: Final = 2500
MET_WITHIN: Final = 5.0
MEET_EVERY: Final = 0.3
MEET_LOOK_EVERY: Final = 0.003
# Queries may miss records while data moves between nodes: a dead session is forgotten after two empty passes so far apart.
PASSES_APART: Final = 60.0
# After a pass that could not look at everything.
PASS_AGAIN: Final = 5.0
RECLAIMS_AT_ONCE: Final = 2
# At the end nothing else is waited for, and not for long: whoever sees that the session is over does what is left.
ENDS_AT_ONCE: Final = 16
END_WITHIN: Final = 3.0
AUDIT_EVERY: Final = 60.0
# A time of the server's that is off by more than this, in ms, is believed when it has been so for some seconds: clocks jump, and back.
JUMP_MS: Final = 1000
BELIEVED_AFTER: Final = 3.0
# The time as known waits for a clock that was set back by no more than this, in ms, so that puts keep their order.
WAITED_FOR_MS: Final = 10_000
# How long a session that is to be killed must have been seen silent for longer than this, in seconds and ms.
QUIET_FOR: Final = 3.0
QUIET_MS: Final = 3000
LAST_SERIAL: Final = (1 << SERIAL_BITS) - 1

# What a session publishes is packed if it is larger than this, in bytes, and tells of its first tubes only where it is larger than that.
PACK_ABOVE: Final = 16 << 10
PAYLOAD_MAX: Final = 512 << 10
UNPACKED_MAX: Final = 64 << 20
# Of each tube: using, watching, waiting, and COUNTER_NAMES.
USE_COUNTS: Final = 6

COUNTER_NAMES: Final = ("total_jobs", "deletes", "pauses")


class Session(LeaseSource):
    """One session number and the leases under it.

    Attributes:
        number: The number; 0 before there is one.
        over: Whether it was declared dead, stopped on its own or has ended.
        offset_ms: How far the server's clock is ahead of this process's.
    """

    def __init__(self, number: int, offset_ms: int) -> None:
        self.number: int = number
        self.over: bool = False
        self.offset_ms: int = offset_ms
        self._serial = 0

    def next_lease(self) -> int:
        """Name a lease that was never used."""
        self._serial += 1
        assert self._serial <= LAST_SERIAL
        return lease_key(self.number, self._serial)


class KnownSession:
    """A session as last read.

    Attributes:
        number, dead, silent_ms, reads, newer, address, listens, tells: See SessionRecord.
        quiet_since: When it was first seen silent for longer than QUIET_MS, by this process's clock; 0 if it was not, or has spoken since.
    """

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.dead: bool = False
        self.silent_ms: int = 0
        self.address: str = ""
        self.listens: Sequence[int] | None = None
        self.tells: bool = True
        self.reads: int = FIRST
        self.newer: bool = False
        self.quiet_since: float = 0.0
        self._payload = b""
        self._usage: dict[str, list[int]] | None = None
        # What is wrong with what it publishes is logged once.
        self._told_odd = False

    def read(self, record: SessionRecord, now: float) -> "KnownSession":
        """Take note of its record. What it tells of its tubes is parsed when somebody asks, and once."""
        self.dead = record.dead
        self.silent_ms = record.silent_ms
        self.address = record.address
        self.listens = record.listens
        self.tells = record.tells
        self.reads = record.reads
        self.newer = record.newer
        if record.silent_ms <= QUIET_MS:
            self.quiet_since = 0.0
        elif not self.quiet_since:
            self.quiet_since = now
        if record.payload != self._payload:
            self._payload = record.payload
            self._usage = None
        return self

    def usage(self) -> dict[str, list[int]]:
        """Return what it published: tube to using, watching, waiting, total jobs, deletes, pauses."""
        if self._usage is None:
            self._usage = {}
            try:
                if self._payload:
                    self._usage = unpack_usage(self._payload)
            except ValueError as error:
                if not self._told_odd:
                    logger.warning("what session %d tells of its tubes cannot be read: %s", self.number, error)
                self._told_odd = True
        return self._usage


class Membership:
    """Keeps this front-end's session alive, and buries those of others.

    Args:
        engine: Whose it is.
        store: The store.
        monotonic: A clock in seconds that goes on while the machine sleeps (CLOCK_BOOTTIME).

    Attributes:
        session: The session in force; `over` before the first and between two.
        others: The sessions of other front-ends that live, as last read.
        records: All of them, as last read.
        writes: The format that is written here.
    """

    def __init__(self, engine: "SharedEngine", store: "SegmentStore", monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._store = store
        self._monotonic = monotonic
        self.session: Session = Session(0, 0)
        self.session.over = True
        self.others: list[int] = []
        self.records: list[KnownSession] = []
        self.reachable: bool = False
        self.writes: int = FIRST
        # The format that the next heartbeat tells to be written here, and the newest that the others may know to be.
        self._tells: int = FIRST
        self._told: int = FIRST
        # A session that has joined and may not serve yet, or 0; what it waits for is logged once.
        self._entering: int = 0
        self._said_why: bool = False
        self._last_good: float = 0.0
        self._healthy_since: float = 0.0
        self._last_ms: int = 0
        self._last_ticket: int = 0
        # A time of the server's that is not believed yet, and since when it has been told.
        self._jump_ms: int = 0
        self._jumped_at: float = 0.0
        self._published = b""
        self._payload_max: int = PAYLOAD_MAX
        # Of how many tubes the payload tells; None: of all.
        self._tubes_max: int | None = None
        # Whether the next heartbeat goes without a payload.
        self._bare = False
        # When dead sessions are looked for leases next, and which of them were once with nothing left out.
        self._next_passes: dict[int, float] = {}
        self._passed: set[int] = set()
        self._suspects: set[int] = set()
        self._formers: set[int] = set()
        # What is being done beside the heartbeat, by name.
        self._chores: set[str] = set()
        # However many sessions are dead: a store that is slow to answer has threads left for everything else.
        self._reclaims = asyncio.Semaphore(RECLAIMS_AT_ONCE)
        self._deciding = asyncio.Lock()
        self._ended = False
        # What was said of how this front-end hears news.
        self._announced: Announcement | None = None
        self._joined: asyncio.Event = asyncio.Event()

    # --- time and life

    def server_ms(self) -> int:
        """Return the server's time in ms as far as known. It goes back only after a clock that was far ahead."""
        self._last_ms = max(self._last_ms, round(self._engine.now() * 1000) + self.session.offset_ms)
        return self._last_ms

    def local_time(self, server_ms: int) -> float:
        """Return this process's time in seconds for a time of the server's clock in ms."""
        return (server_ms - self.session.offset_ms) / 1000

    def ticket(self) -> int:
        """Return the server's time in microseconds as far as known, one more for each: the place of a put. See server_ms."""
        now = int(self._engine.now() * 1_000_000) + self.session.offset_ms * 1000
        self._last_ticket = max(self._last_ticket + 1, now)
        return self._last_ticket

    def _learn_time(self, session: Session, offset_ms: int) -> None:
        """Take note of the server's time. A jump is believed once it has lasted for some seconds."""
        if abs(offset_ms - session.offset_ms) <= JUMP_MS:
            session.offset_ms = offset_ms
            self._jumped_at = 0.0
            return
        now = self._monotonic()
        if not self._jumped_at or abs(offset_ms - self._jump_ms) > JUMP_MS:
            self._jumped_at = now
        self._jump_ms = offset_ms
        if now - self._jumped_at >= BELIEVED_AFTER:
            logger.warning("the server's clock has jumped by %.1f s", (offset_ms - session.offset_ms) / 1000)
            self._jumped_at = 0.0
            session.offset_ms = offset_ms
            self._catch_up()

    def _catch_up(self) -> None:
        """Follow the server's clock back if it was far ahead: to wait for it would keep delayed jobs for as long."""
        now = self._engine.now()
        if self._last_ms - (now * 1000 + self.session.offset_ms) > WAITED_FOR_MS:
            self._last_ms = 0
            self._last_ticket = 0

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
        self._engine.session_over()

    async def joined(self, seconds: float) -> bool:
        """Wait for a session; tell whether there is one."""
        if self.session.over:
            try:
                await asyncio.wait_for(self._joined.wait(), seconds)
            except TimeoutError:
                return False
        return not self.session.over

    async def have_session(self, seconds: float) -> None:
        """Wait for a session. Raises StoreFailed when there is none in time."""
        if not await self.joined(seconds):
            raise StoreFailed("the store cannot be reached")

    async def run(self) -> None:
        """Join, and send a heartbeat every second, for as long as this process serves."""
        warned = False
        started = self._monotonic()
        while not self._ended:
            try:
                if self.session.over:
                    if self.session.number and not self._entering:
                        self._formers.add(self.session.number)
                    await self._join()
                else:
                    await self.verify()
                for former in self._formers:
                    self._begin(f"resign {former}", partial(self._resign, former))
                self._formers.clear()
                if warned:
                    logger.warning("the store answers again")
                    warned = False
            except StoreError as error:
                self._healthy_since = self._monotonic()
                self.reachable = self._monotonic() - self._last_good <= 2 * HEARTBEAT_EVERY and not self.session.over
                silent = self._monotonic() - max(self._last_good, started) > 2 * HEARTBEAT_EVERY
                if not warned and silent:
                    warned = True
                    logger.warning("the store does not answer, trying on: %s", error)
                self.alive()
            self._engine.tick()
            await asyncio.sleep(JOIN_EVERY if self.session.over else HEARTBEAT_EVERY)

    async def _join(self) -> None:
        mesh = self._engine.news.mesh
        if not mesh.key:
            await mesh.listen(await self._store.secret())
        number, self._entering = self._entering, 0
        if not number:
            number = await self._store.reserve_numbers("session", 1)
            await self._store.join(number, self._agreed(await self._store.sessions()))
        self._published = b""
        self._tubes_max = None
        sent = self._monotonic()
        before = self._engine.now()
        now_ms = await self._store.heartbeat(number, b"{}")
        if await self._others_ahead(number):
            self._entering = number
            return
        self.writes = self._tells = self._told = FIRST
        self._engine.news.form = FIRST
        self.session = Session(number, now_ms - round((before + self._engine.now()) * 500))
        self._jumped_at = 0.0
        self._catch_up()
        self._last_good = sent
        self._healthy_since = sent
        self.reachable = True
        logger.info("session %d", number)
        self._announced = None
        self._engine.news.begin(number)
        await self._meet()
        if self.session.over:
            return
        self._joined.set()
        self._engine.session_began()

    async def _meet(self) -> None:
        """Have the others hear of what this front-end does before it does anything; only for a while, since one of them may be frozen."""
        until = self._monotonic() + MET_WITHIN
        while self._monotonic() < until and not self.session.over:
            try:
                await self._announce()
                await self.look()
            except StoreError as error:
                logger.info("the others are not known yet: %s", error)
            for _ in range(round(MEET_EVERY / MEET_LOOK_EVERY)):
                if self._met():
                    return
                await asyncio.sleep(MEET_LOOK_EVERY)

    def _met(self) -> bool:
        """Tell whether all others that are there hear this front-end's news: over links, or from its record."""
        if all(record.number != self.session.number for record in self.records):
            # They were read from a copy that is older than this session.
            return False
        live = [record for record in self.records if not record.dead and record.number != self.session.number]
        mesh = self._engine.news.mesh
        return all(
            mesh.hears(record.number) or self._listens_to_this(record) or record.silent_ms > ABSENT_MS
            for record in live
        )

    def _listens_to_this(self, record: KnownSession) -> bool:
        return record.listens is None or self.session.number in record.listens

    async def _announce(self) -> None:
        """Say how this front-end hears the others' news, and how it tells its own, unless that was said before."""
        news = self._engine.news
        said = news.announcement()
        if said != self._announced:
            await self._store.announce(self.session.number, said.address, said.listens, said.tells)
            self._announced = said

    def _agreed(self, records: Iterable[SessionRecord] | Iterable[KnownSession]) -> int:
        """Return the newest format that this front-end and all these sessions read, if they live."""
        return min([self._store.newest, *[record.reads for record in records if not record.dead]])

    async def _others_ahead(self, number: int) -> bool:
        """Tell whether others that live write what is not read here; they stop it as soon as they see this session."""
        newest = self._store.newest
        for record in await self._store.sessions():
            silent = record.silent_ms > DEAD_AFTER * 1000
            if record.writes > newest and not (record.dead or silent or record.number == number):
                if not self._said_why:
                    logger.warning(
                        "session %d waits until session %d writes no more in format %d: this version reads those up to %d",
                        number,
                        record.number,
                        record.writes,
                        newest,
                    )
                self._said_why = True
                return True
        self._said_why = False
        return False

    def _agree(self, told: int) -> None:
        """Go by what the others were found to read; `told` is what they could know to be written here before that."""
        # An own session that is not listed: the others are not, either.
        seen = any(record.number == self.session.number for record in self.records)
        self._tells = self._agreed(self.records) if seen else FIRST
        writes = min(self._tells, told)
        if writes != self.writes:
            logger.info("format %d is written from now on", writes)
            self.writes = writes
            self._engine.news.form = writes

    async def verify(self) -> None:
        """Send a heartbeat now. Ends the session if it was declared dead; raises nothing else than StoreError."""
        session = self.session
        if session.over:
            return
        payload = None if self._bare else self._payload()
        if payload == self._published:
            payload = None
        sent = self._monotonic()
        before = self._engine.now()
        now_ms = 0
        too_big = False
        tells = self._tells
        self._told = min(self._told, tells)
        try:
            now_ms = await self._store.heartbeat(session.number, payload, tells)
        except TooBig as error:
            assert payload is not None
            self._payload_max = len(payload) // 2
            self._bare = too_big = True
            logger.warning("what this front-end would tell of its tubes is too large for the store: %s", error)
        except Refused:
            if self.session is session and not session.over:
                logger.error("session %d was declared dead; held jobs are given up", session.number)
                if self._published:
                    # Who killed it has kept its counters.
                    self._engine.registry.uncount(unpack_usage(self._published))
                self._over()
            return
        except StoreError:
            # Whatever it was: the next one does not fail for its payload.
            self._bare = payload is not None
            raise
        if too_big:
            await self.verify()
            return
        self._bare = False
        if self.session is not session:
            return
        self._told = tells
        if payload is not None:
            self._published = payload
        self._last_good = max(self._last_good, sent)
        self.reachable = True
        self._begin("announce", self._announce)
        self._learn_time(session, now_ms - round((before + self._engine.now()) * 500))

    async def decide(self) -> None:
        """Find out whether the session is over, however long the store takes to answer."""
        while self.alive():
            with contextlib.suppress(StoreError):
                # One after the other: the heartbeat of each second has to wait for one of them at most.
                async with self._deciding:
                    await self.verify()
                return
            await self._engine.pause_between_tries()

    def _payload(self) -> bytes:
        """Make what the others should know of this front-end's tubes: of all, or of as many as there is room for."""
        usage = self._engine.registry.usage(self._tubes_max)
        payload = pack_usage(usage)
        while usage and len(payload) > self._payload_max:
            if self._tubes_max is None:
                logger.warning("so many tubes are used here that the others are told of the first ones only")
            self._tubes_max = len(usage) * self._payload_max * 9 // (10 * len(payload))
            usage = self._engine.registry.usage(self._tubes_max)
            payload = pack_usage(usage)
        return payload

    async def _resign(self, number: int) -> None:
        """Give up an own session that is over, and take its leases."""
        while not self._ended:
            try:
                await self._store.resign(number)
            except StoreError as error:
                logger.info("session %d is not given up yet: %s", number, error)
            else:
                self._reclaim_when_due(number)
                return
            await asyncio.sleep(HEARTBEAT_EVERY)

    def _begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something that may take long, and must not keep a heartbeat waiting, unless it is being done."""
        if name not in self._chores and not self._ended:
            self._chores.add(name)
            self._engine.spawn_lasting(self._do(name, work))

    async def _do(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except StoreError as error:
            # It is begun again.
            logger.info("%s: %s", name, error)
        finally:
            self._chores.discard(name)

    # --- the others

    async def watch(self) -> None:
        """Look after the other sessions, for as long as this process serves."""
        audited = looked = self._monotonic()
        while not self._ended:
            await asyncio.sleep(WATCH_EVERY)
            rarely = bool(self.others) and self._engine.news.all_linked() and not self.session.over
            if rarely and self._monotonic() - looked < WATCH_RARELY - WATCH_EVERY / 2:
                continue
            looked = self._monotonic()
            try:
                await self.look()
                await self._bury()
            except StoreError as error:
                self._healthy_since = self._monotonic()
                logger.info("looking after other sessions: %s", error)
            if self._monotonic() - audited >= AUDIT_EVERY:
                audited = self._monotonic()
                self._begin("audit", self._audit)
                self._begin("sweep", self._engine.registry.sweep)
                self._begin("leftovers", self._engine.leftovers.look_through)

    async def look(self) -> None:
        """Read the others' sessions."""
        said = self._announced
        session, told = self.session, self._told
        found = await self._store.sessions()
        before = {record.number: record for record in self.records}
        known = {(record.number, record.dead) for record in self.records}
        now = self._monotonic()
        self.records = [
            (before.get(record.number) or KnownSession(record.number)).read(record, now) for record in found
        ]
        listed = {record.number for record in self.records}
        # Others may have forgotten them.
        self._next_passes = {number: at for number, at in self._next_passes.items() if number in listed}
        self._passed &= listed
        others = [record for record in self.records if record.number != self.session.number]
        self.others = [record.number for record in others if not record.dead]
        if session is self.session and not session.over:
            self._agree(told)
        if not known.issuperset([(record.number, record.dead) for record in others]):
            # Until now the news of new ones were not heard, nor are the last ones of those that have ended.
            self._engine.scout.stop_following()
            self._engine.scout.look_everywhere()
        self._engine.news.know(
            [
                Other(record.number, record.address, self._listens_to_this(record), record.tells)
                for record in others
                if not record.dead
            ],
            said,
        )
        if not self.session.over:
            self._begin("announce", self._announce)

    def look_soon(self) -> None:
        """Read the others' sessions now: somebody has come, or gone."""
        self._begin("look", self.look)

    async def _bury(self) -> None:
        for record in self.records:
            if record.number in (self.session.number, self._entering) or record.newer:
                # Whoever knows the format of its record declares it dead.
                continue
            try:
                if not record.dead and not await self._kill(record):
                    continue
            except StoreError as error:
                # It must not keep the others from their end.
                logger.info("looking after session %d: %s", record.number, error)
                continue
            self._reclaim_when_due(record.number)

    async def _kill(self, record: KnownSession) -> bool:
        """Declare a session dead if it has been silent for long; tell whether it is dead by this."""
        healthy = not self.session.over and self._monotonic() - self._healthy_since >= DEAD_AFTER
        if record.silent_ms <= DEAD_AFTER * 1000 or not healthy:
            return False
        # After a jump of a node's clock all seem silent until their next heartbeat. And who is listed may be about to join.
        if self._monotonic() - record.quiet_since < (DEAD_AFTER if record.silent_ms == NEVER_WROTE else QUIET_FOR):
            return False
        try:
            if not await self._store.kill(record.number, round(DEAD_AFTER * 1000)):
                return False
        except StoreError:
            self._healthy_since = self._monotonic()
            raise
        # What it uses counts no more, from now on.
        self.others = [number for number in self.others if number != record.number]
        if record.silent_ms == NEVER_WROTE:
            logger.info("session %d has not joined and is declared dead", record.number)
            return True
        logger.warning("session %d is silent for %d s and declared dead", record.number, record.silent_ms // 1000)
        self._begin(f"counters {record.number}", partial(self._keep_counters, usage_of(record)))
        return True

    def _reclaim_when_due(self, number: int) -> None:
        if self._monotonic() >= self._next_passes.get(number, 0.0):
            self._begin(f"reclaim {number}", partial(self._reclaim_again, number))

    async def _reclaim_again(self, number: int) -> None:
        """Take a dead session's leases back, and forget it when a second pass has found none."""
        self._next_passes[number] = self._monotonic() + PASS_AGAIN
        found, whole = await self.reclaim(number, self._reclaims)
        now = self._monotonic()
        if not whole:
            return
        # One that knows formats which are not known here may have left something that cannot be seen from here.
        newer = any(record.number == number and record.reads > self._store.newest for record in self.records)
        if number in self._passed and not found and not newer:
            await self._store.forget_session(number)
        else:
            self._next_passes[number] = now + PASSES_APART
            self._passed.add(number)

    async def _keep_counters(self, usage: dict[str, list[int]], at_once: int = 1) -> None:
        """Add what a dead session has counted to its tubes; whoever killed it does, so it happens once."""

        async def keep(name: str) -> None:
            counters = dict(zip(COUNTER_NAMES, usage[name][3:6], strict=True))
            if any(counters.values()):
                try:
                    # A tube without segments is over, and begins anew. Nobody would ever forget what was added.
                    record = (await self._store.directories([name]))[0]
                    if (record is not None and record.segments) or self._engine.registry.used(name):
                        await self._store.add_counters(name, counters)
                except StoreError as error:
                    logger.info("counters of tube %s are lost: %s", name, error)

        await _side_by_side(usage, keep, at_once)

    async def reclaim(self, number: int, turns: asyncio.Semaphore, at_once: int = 1) -> tuple[int, bool]:
        """Make the jobs that a dead session held ready, and close its segments.

        Args:
            number: The session.
            turns: What each call waits for.
            at_once: How many segments are seen to side by side.

        Returns:
            How many leases it had or may have, and whether all of its segments could be looked at: one that cannot keeps no other from
            its end.
        """
        found: list[int] = []
        failed: list[int] = []
        # Perhaps with leases that somebody who repairs them will find: the session is not forgotten, and they are looked at rarely.
        unreadable: list[int] = []
        over: list[Segment] = []

        async def take_back(segment_number: int) -> None:
            try:
                async with turns:
                    found.append(await self._reclaim_segment(number, segment_number, over))
            except Damaged as error:
                unreadable.append(segment_number)
                logger.info("session %d: segment %d is left alone: %s", number, segment_number, error)
            except StoreError as error:
                failed.append(segment_number)
                logger.info("session %d: segment %d is not taken back yet: %s", number, segment_number, error)
            except Exception as bug:
                unreadable.append(segment_number)
                logger.error("internal error; segment %d is left alone", segment_number, exc_info=bug)

        async def end(segment: "Segment") -> None:
            try:
                async with turns:
                    await self._end_empty(number, segment)
            except StoreError as error:
                failed.append(segment.number)
                logger.info("session %d: segment %d is not ended yet: %s", number, segment.number, error)

        async with turns:
            leased = await self._store.leased_by(number)
        await _side_by_side(leased, take_back, at_once)
        # Jobs first.
        await _side_by_side(over, end, at_once)
        leases = sum(found)
        if leases:
            logger.info("session %d: %d leases taken back", number, leases)
        return leases + len(unreadable), not failed

    async def _reclaim_segment(self, number: int, segment_number: int, over: "list[Segment]") -> int:
        """Take back what a dead session has in one segment; return how many leases it had. An empty one goes to those that are over."""
        segment = await self._store.read(segment_number)
        if segment is None:
            return 0
        leases = [lease for lease in segment.leases if lease_session(lease) == number]
        if segment.owner == number and segment.state == OPEN:
            # While there is a lease it is found again, should this fail.
            await self._store.close(segment_number)
        if segment.empty():
            over.append(segment)
            return len(leases)
        for lease in leases:
            await self._store.reclaim(segment_number, lease)
        self._engine.scout.segment_changed(segment.tube, segment.number)
        return len(leases)

    async def _end_empty(self, session: int, segment: "Segment") -> None:
        """Let a segment die in which a session has nothing, or at least take its leases out.

        In this order: perhaps nobody ever looks at its tube, and while there is a lease it is found again, should somebody die here.
        """
        if await self._engine.retirement.end_now(segment.tube, segment.number):
            return
        for lease in segment.leases:
            # Something may have come into it meanwhile.
            if lease_session(lease) == session and await self._store.reclaim(segment.number, lease):
                self._engine.scout.segment_changed(segment.tube, segment.number)

    async def _audit(self) -> None:
        """Take back leases of this session that nobody here knows: of attaches and creates whose answer was lost."""
        session = self.session
        if session.over:
            return
        known = self._engine.registry.known_leases()
        unknown: set[int] = set()
        for segment_number in await self._store.leased_by(session.number):
            try:
                unknown |= await self._audit_segment(session, segment_number, known)
            except StoreError as error:
                logger.info("segment %d is not looked through for leases: %s", segment_number, error)
        self._suspects = unknown

    async def _audit_segment(self, session: Session, number: int, known: set[int]) -> set[int]:
        """Take back the leases in one segment that were suspect before; return those that are from now on."""
        unknown: set[int] = set()
        segment = await self._store.read(number)
        if segment is None:
            return unknown
        for lease in segment.leases:
            if lease_session(lease) != session.number or lease in known:
                continue
            if lease not in self._suspects:
                # It may be on its way to being known: the next audit decides.
                unknown.add(lease)
            elif lease not in self._engine.registry.known_leases():
                forsaken = segment.owner == session.number and not self._engine.registry.knows_segment(number)
                if forsaken:
                    # While there is a lease it is found again, should this fail.
                    await self._store.close(number)
                # See _end_empty.
                if forsaken and await self._engine.retirement.end_now(segment.tube, number):
                    break
                if await self._store.reclaim(number, lease):
                    logger.warning("segment %d: jobs under a lease that nobody here knows are made ready", number)
                if forsaken:
                    await self._engine.retirement.end(segment.tube, number)
                self._engine.scout.segment_changed(segment.tube, segment.number)
        return unknown

    async def end(self) -> None:
        """Leave: everything was given back."""
        self._ended = True
        session = self.session
        if self._entering:
            await self._engine.try_for_a_while(lambda: self._store.resign(self._entering))
        if session.over:
            return
        usage = self._engine.registry.usage()
        session.over = True
        self._joined.clear()
        # Until that is certain somebody may have to declare the session dead, and then keeps its counters.
        await self._engine.try_for_a_while(lambda: self._store.resign(session.number))
        try:
            turns = asyncio.Semaphore(ENDS_AT_ONCE)
            await asyncio.wait_for(self.reclaim(session.number, turns, ENDS_AT_ONCE), END_WITHIN)
        except (StoreError, TimeoutError) as error:
            logger.info("others take the rest of the leases back: %s", error)
        try:
            await asyncio.wait_for(self._keep_counters(usage, ENDS_AT_ONCE), END_WITHIN)
        except TimeoutError:
            logger.warning("counters of some tubes are lost")


async def _side_by_side(items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, None]], at_once: int) -> None:
    """Do something with each of many, some at once."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await work(item)

    await asyncio.gather(*[some() for _ in range(at_once)])


def pack_usage(usage: dict[str, list[int]]) -> bytes:
    """Pack what is published of tubes; while that is little, as it was before it was ever compressed."""
    payload = json.dumps(usage, separators=(",", ":")).encode()
    return payload if len(payload) <= PACK_ABOVE else zlib.compress(payload, 1)


def unpack_usage(payload: bytes) -> dict[str, list[int]]:
    """Read what was published. Raises ValueError if that is of another version, or damaged."""
    try:
        usage = json.loads(payload if payload.startswith(b"{") else _decompress(payload))
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(usage, dict):
        raise ValueError("not tubes by their names")  # noqa: TRY004 - whatever is wrong with it
    for name, use in usage.items():
        if not isinstance(use, list) or len(use) < USE_COUNTS or not all(type(count) is int for count in use):
            raise ValueError(f"not how a tube is used: {name!r:.100}")
    return usage


def _decompress(payload: bytes) -> bytes:
    """Unpack what was packed, unless it is longer than anybody would publish."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(payload, UNPACKED_MAX)
    if not unpacker.eof:
        raise ValueError("too long, or cut off")
    return unpacked


def usage_of(record: KnownSession) -> dict[str, list[int]]:
    """Return what a session published; see KnownSession."""
    return record.usage()

"""Puts, and the making of segments for them.

A tube has one open segment here at a time. Puts wait in the tube's `arriving` until a segment takes them.
"""

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.segment.codec import INLINE_MAX, Formats, Packed, pack_plain
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, Put
from beanspiked.engine.aerospike.segment.surroundings import Surroundings
from beanspiked.engine.aerospike.segment.view import EMPTY
from beanspiked.engine.aerospike.store.lister import Lister, Numbers
from beanspiked.engine.aerospike.store.seam import FIRST, Full, Refused, StoreError, TooBig
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.room import Room
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.compression import squeeze
from beanspiked.engine.contract import GIVEN_UP, PLAIN, Details
from beanspiked.engine.errors import EngineError, StoreFailed, StoreFull
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Puts"]

logger = logging.getLogger(__name__)

# After this many records in a row that are in use, a new segment fails; before that, the ring is doubled twice.
CLAIMS_MAX: Final = 32
# How long puts into a tube with a full directory are refused without asking the store, in seconds.
FULL_FOR: Final = 1.0


class Puts:
    """Puts jobs into segments.

    Args:
        store: The store.
        clock: This process's time.
        membership: The sessions.
        tasks: Runs coroutines.
        agenda: Ends turns.
        formats: The formats of jobs that this front-end knows.
        around: What segments need of the front-end.
        lister: Enters segments in directories.
        registry: The tubes that are known here.
        room: Whether the store has room.
    """

    def __init__(
        self,
        store: "SegmentStore",
        clock: Clock,
        membership: Membership,
        tasks: Tasks,
        agenda: Agenda,
        formats: Formats,
        around: Surroundings,
        lister: Lister,
        registry: Registry,
        room: Room,
    ) -> None:
        self._store = store
        self._clock = clock
        self._membership = membership
        self._tasks = tasks
        self._agenda = agenda
        self._formats = formats
        self._around = around
        self._lister = lister
        self._registry = registry
        self._room = room
        self._numbers: Numbers = Numbers(store, "segment")

    def put(
        self,
        tube: SharedTube,
        put_us: int,
        pri: int,
        delay: float,
        ttr: float,
        body: bytes,
        details: Details | None = None,
    ) -> Put:
        """Add a job, at the place that new_id() gave it."""
        now = self._clock.now()
        delay_ms = round(delay * 1000) if delay else 0
        due_ms = self._membership.clock.server_ms() + delay_ms if delay else 0
        # 0 would mean for ever.
        ttr_ms = max(1, round(ttr * 1000)) if ttr else 0
        if details is None and len(body) <= INLINE_MAX and self._membership.agreement.writes == FIRST:
            packed = pack_plain(pri, delay_ms, ttr_ms, put_us, body)
            put = Put(tube, pri, put_us, due_ms, packed, FIRST, now + ANSWER_WITHIN)
        else:
            put = self._large_put(tube, pri, delay_ms, ttr_ms, put_us, due_ms, body, details)
        self._room.used(len(body))
        if not self._room.left or tube.full_until > now:
            put.settle(StoreFull("the store is nearly full" if tube.full_until <= now else "the directory is full"))
            return put
        tube.arriving.append(put)
        self.place(tube)
        return put

    def _large_put(
        self,
        tube: SharedTube,
        pri: int,
        delay_ms: int,
        ttr_ms: int,
        put_us: int,
        due_ms: int,
        body: bytes,
        details: Details | None,
    ) -> Put:
        stored, raw_size, skipped = body, PLAIN, False
        if details is None:
            stored, raw_size, skipped = squeeze(body)
        else:
            raw_size = max(details.raw_size, PLAIN)
            skipped = details.raw_size == GIVEN_UP
        packed = Packed(pri, delay_ms, ttr_ms, put_us, stored, raw_size=raw_size, skipped=skipped)
        packed.form = self._membership.agreement.writes
        if details is not None:
            packed.born_ms = round(details.born * 1000)
            packed.metadata = details.metadata
            packed.reason = details.reason
            packed.retries = details.retries
            packed.failed = details.failed
        outside = len(stored) > INLINE_MAX
        if outside:
            packed.body = b""
            packed.stored_size = len(stored)
        until = self._clock.now() + ANSWER_WITHIN
        put = Put(tube, pri, put_us, due_ms, self._formats.pack(packed), packed.form, until)
        if outside:
            put.outside = stored
            put.job = packed
        return put

    def put_elsewhere(self, tube: SharedTube, puts: list[Put]) -> None:
        """Put jobs that were certainly not put into another segment, before all later ones."""
        if puts:
            tube.arriving.extendleft(reversed(puts))
            self.place(tube)

    def place(self, tube: SharedTube) -> None:
        """Send waiting puts to the tube's open segment; have another segment made for those that it does not take."""
        arriving = tube.arriving
        committer = tube.open
        while arriving and committer is not None:
            if arriving[0].form != self._membership.agreement.writes:
                self._pack_again(arriving[0])
            if not committer.accepts(arriving[0]):
                tube.open = None
                committer.close()
                committer = None
                break
            put = arriving.popleft()
            if put.outside is None:
                committer.put(put)
            else:
                self._agenda.spawn(self._put_outside(committer, put))
        if arriving and not tube.opening:
            tube.opening = True
            self._agenda.spawn(self._open(tube))

    def _pack_again(self, put: Put) -> None:
        """Pack a put in the format that is written now: the sessions agreed on another one while it waited."""
        formats = self._formats
        job = put.job or formats.unpack(put.packed)
        job.form = self._membership.agreement.writes
        put.packed = formats.pack(job)
        put.form = job.form

    async def _put_outside(self, committer: Committer, put: Put) -> None:
        """Write a large body, then put its job."""
        tube = cast(SharedTube, put.tube)
        try:
            await self._tasks.try_for_a_while(lambda: committer.bodies.write_for(put), Full)
        except asyncio.CancelledError:
            put.settle(StoreFailed("closed before it was sent"))
            raise
        except EngineError as error:
            if isinstance(error, Full):
                self._room.found_full(error)
            # The store refuses a body that is larger than the namespace's records may be.
            no_place = isinstance(error, (Refused, StoreFull))
            put.settle(StoreFull(str(error)) if no_place else StoreFailed(str(error)))
            return
        if committer.accepts(put):
            committer.put(put)
        else:
            self.put_elsewhere(tube, [put])

    async def _open(self, tube: SharedTube) -> None:
        """Make a segment for a tube's waiting puts: create it, list it, then put (segment-protocol H6)."""
        try:
            while tube.arriving and tube.open is None:
                if not await self._membership.joined(ANSWER_WITHIN):
                    self._fail_arriving(tube, StoreFailed("the store cannot be reached"), everything=False)
                    continue
                committer: Committer | None = None
                try:
                    committer = await self.create(tube)
                except Full as full:
                    self._room.found_full(full)
                    self._fail_arriving(tube, StoreFull(str(full)), everything=True)
                    continue
                except TooBig as too_big:
                    self._found_full_directory(tube, too_big)
                    continue
                except StoreError as error:
                    self._fail_arriving(tube, StoreFailed(str(error)), everything=False)
                else:
                    if committer is None:
                        # The session is over.
                        self._fail_arriving(tube, StoreFailed("no place for a segment was found"), everything=False)
                if committer is None:
                    await self._tasks.pause_between_tries()
                    continue
                tube.open = committer
        finally:
            tube.opening = False
        if tube.arriving:
            self.place(tube)

    def fail_all(self, tube: SharedTube, reason: EngineError) -> None:
        """Fail a tube's puts that were not sent yet."""
        self._fail_arriving(tube, reason, everything=True)

    def _fail_arriving(self, tube: SharedTube, reason: EngineError, *, everything: bool) -> None:
        now = self._clock.now()
        late = [put for put in tube.arriving if everything or put.until <= now]
        for put in late:
            tube.arriving.remove(put)
            put.settle(reason)
        if late:
            # Replies leave before the next try, which may take long.
            self._agenda.turn_over()

    async def create(self, tube: SharedTube, until: float = inf) -> Committer | None:
        """Make one segment; None when the session is over. If the outcome is unknown, the number is given up and the audit clears the rest.

        `until` tells until when it is tried to list it. Raises Full, TooBig where the directory has no room, or another StoreError.
        """
        session = self._membership.session
        form = self._membership.agreement.writes
        number, lease = await self._claim(tube, form)
        failing_since = 0.0
        while True:
            failure: StoreError | None = None
            try:
                tube.page = await self._lister.enlist(tube.name, number, tube.page)
            except StoreError as error:
                failure = error
            if failure is None:
                break
            if isinstance(failure, (Full, TooBig)) or self._clock.now() >= until:
                await self._unmake(number)
                raise failure
            if session.over:
                return None
            self._fail_arriving(tube, StoreFailed("the store does not answer"), everything=False)
            failing_since = failing_since or self._clock.now()
            await self._tasks.pause_between_tries(failing_since)
        if session.over or not self._membership.alive():
            return None
        if tube.full_until:
            logger.warning("the directory of tube %s has room again; puts are accepted", tube.name)
            tube.full_until = 0.0
        committer = Committer(self._around, tube, number, lease, owned=True)
        committer.form = form
        tube.committers[number] = committer
        committer.update_head(EMPTY, self._agenda.step())
        return committer

    async def _claim(self, tube: SharedTube, form: int) -> tuple[int, int]:
        """Make the record of a new segment in a format; return its number and the lease on it."""
        session = self._membership.session
        for _ in range(CLAIMS_MAX):
            number = await self._numbers.take()
            lease = session.next_lease()
            try:
                await self._store.create(number, tube.name, lease, form, tube.page)
            except Refused:
                self._numbers.refused()
            else:
                self._numbers.used()
                return number, lease
        raise Full(f"{CLAIMS_MAX} records of segments in a row are in use")

    async def _unmake(self, number: int) -> None:
        """Let an unlisted segment die; if that fails, the audit finds it."""
        try:
            await self._store.close(number)
            await self._store.retire(number)
        except StoreError as error:
            logger.info("segment %d, which is not listed, is not dead yet: %s", number, error)

    def _found_full_directory(self, tube: SharedTube, error: TooBig) -> None:
        """Refuse a tube's puts for a while: its directory has no room for a further segment."""
        if not tube.full_until:
            logger.warning(
                "the directory of tube %s, or its shard, is full; puts into it are refused: %s", tube.name, error
            )
        tube.full_until = self._clock.now() + FULL_FOR
        self._fail_arriving(tube, StoreFull("the directory is full"), everything=True)

    def forget_numbers(self) -> None:
        """Give up the numbers that a session had reserved: it is over."""
        self._numbers.forget()

    def expire(self) -> None:
        """Fail the puts that have waited for too long for a session."""
        # A client that learns that its put has failed may go on to a new tube.
        for tube in self._registry.known_tubes():
            if tube.arriving:
                self._fail_arriving(tube, StoreFailed("the store cannot be reached"), everything=False)

"""Which jobs there are: by their id, by their metadata, or the next one of a tube."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.segment.bodies import fetch_bodies
from beanspiked.engine.aerospike.segment.codec import Formats, Packed
from beanspiked.engine.aerospike.segment.jobs import SharedJob, job_id
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot, key_ms
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Damaged, Segment, Sizes
from beanspiked.engine.aerospike.store.tasks import side_by_side
from beanspiked.engine.contract import BURIED as IS_BURIED
from beanspiked.engine.contract import DELAYED as IS_DELAYED
from beanspiked.engine.contract import PLACE, RESERVED, WHOLE, Answer
from beanspiked.engine.contract import READY as IS_READY
from beanspiked.engine.errors import DamagedEntry, NewerEntry, StoreFailed, StoreFull
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.cluster.membership import Membership
    from beanspiked.engine.aerospike.queries.census import Census
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.formats import SetAside
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.aerospike.tubes.held import Holdings
    from beanspiked.engine.aerospike.tubes.registry import Registry

__all__ = ["QUEUES", "Finder", "place_of"]

logger = logging.getLogger(__name__)

SLOT_MASK: Final = (1 << SLOT_BITS) - 1
STATES: Final = {READY: IS_READY, DELAYED: IS_DELAYED, BURIED: IS_BURIED}
QUEUES: Final = {IS_READY: READY, IS_DELAYED: DELAYED, IS_BURIED: BURIED}
# How often a look is repeated that others' changes spoil.
LOOKS_MAX: Final = 20


class Finder:
    """Looks for jobs in the segments.

    Args:
        store: The store.
        tasks: What tries again.
        formats: The formats of jobs that are known here.
        unread: Whom to tell of jobs of newer formats.
        registry: What makes tubes of names.
        membership: What knows the session and the server's time.
        holdings: The jobs held here.
        census: What counts segments.
        clock: This process's time.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: "Tasks",
        formats: Formats,
        unread: "SetAside",
        registry: "Registry",
        membership: "Membership",
        holdings: "Holdings",
        census: "Census",
        clock: Clock,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._formats = formats
        self._unread = unread
        self._registry = registry
        self._membership = membership
        self._holdings = holdings
        self._census = census
        self._clock = clock

    async def read(self, number: int) -> Segment | None:
        """Read a segment; None where it is gone. Raises StoreFailed."""
        return await self._tasks.try_for_a_while(lambda: self._store.read(number))

    def unpack(self, number: int, key: bytes, packed: bytes) -> Packed | None:
        """Take a packed job apart; None of what cannot be read."""
        try:
            return self._formats.unpack(packed)
        except NewerEntry as newer:
            self._unread.tell(f"job {job_id(number, job_slot(key))}", newer)
        except DamagedEntry as damage:
            logger.error("segment %d: a damaged job: %s", number, damage)
        return None

    async def by_id(self, answer: Answer, job_id: int, need: int) -> None:
        """Find one job, in whatever state. Raises StoreFailed if what is needed of it is lost or damaged."""
        found = await self._by_id(job_id, need)
        # Whoever has reserved it here meanwhile knows more of it.
        answer.job = self._holdings.tells(job_id, need) or found

    async def _by_id(self, job_id: int, need: int) -> SharedJob | None:
        number, slot = job_id >> SLOT_BITS, job_id & SLOT_MASK
        if not 0 < number < 1 << 62 or slot == 0:
            return None
        while True:
            segment = await self.read(number)
            place = None if segment is None else place_of(segment, slot)
            if segment is None or place is None:
                return None
            queue, key, packed = place
            if not self._formats.knows(packed):
                # Not even to be deleted: what else there is of it, nobody knows here.
                raise StoreFailed("the job is of a newer format")
            if queue != DELAYED or key_ms(key) > self._membership.clock.server_ms():
                break
            try:
                await self._census.promote(segment.tube, number)
            except StoreFull as error:
                logger.info("due jobs of segment %d stay delayed: %s", number, error)
                break
        found = self.seen(segment, queue, key, packed)
        if found is None:
            if need != PLACE:
                raise StoreFailed("the job cannot be read")
            # Enough to delete it by.
            found = SharedJob(number, key, self._registry.tube(segment.tube), Packed(0, 0, 0, 0, b""), 0)
            found.state = STATES.get(queue, RESERVED)
        elif need == WHOLE and not await self._has_body(found):
            raise StoreFailed("the job's body is lost or damaged")
        return found

    async def _has_body(self, job: SharedJob) -> bool:
        """Fetch a job's body if it lies outside; tell whether it is there."""
        return bool((await self._tasks.try_for_a_while(lambda: fetch_bodies(self._store, [job])))[0])

    def seen(self, segment: Segment, queue: str, key: bytes, packed: bytes) -> SharedJob | None:
        """Make a job of what was seen; None of what cannot be read."""
        unpacked = self.unpack(segment.number, key, packed)
        if unpacked is None:
            return None
        tube = self._registry.tube(segment.tube)
        found = SharedJob(segment.number, key, tube, unpacked, self._membership.session.offset_ms)
        if queue == "":
            found.state = RESERVED
            # Its holder knows more; this much is certain.
            found.reserves += 1
            found.key = self._clock.now() + found.ttr
        else:
            found.state = STATES[queue]
            if queue == DELAYED:
                # Due times are whole milliseconds of another clock: what is left must not seem more than it was asked for.
                found.key = self._membership.clock.local_time(key_ms(key)) - 0.002
        return found

    async def next_job(self, answer: Answer, name: str, state: int) -> None:
        """Find the job of a tube that would leave a state next. Raises StoreFailed."""
        queue = QUEUES[state]
        # Segments in which no job can be read.
        barren: set[int] = set()
        for _ in range(LOOKS_MAX):
            number = await self._first_segment(name, state, barren)
            if number is None:
                return
            try:
                segment = await self.read(number)
            except Damaged:
                barren.add(number)
                continue
            # Or somebody was faster.
            entries = {} if segment is None else segment.queue(queue)
            for key, packed in entries.items():
                assert segment is not None
                found = self.seen(segment, queue, key, packed)
                if found is not None and await self._has_body(found):
                    answer.job = found
                    return
            if entries:
                barren.add(number)

    async def _first_segment(self, name: str, state: int, barren: set[int]) -> int | None:
        """Find the segment of a tube with the first job of a state."""
        best: list[tuple[bytes, int]] = []

        def see(number: int, size: Sizes) -> None:
            key = size.ready_key if state == IS_READY else size.due_key if state == IS_DELAYED else size.buried_key
            if key is not None and number not in barren and (not best or (key[:-2], number) < best[0]):
                best[:] = [(key[:-2], number)]

        await self._census.each(name, await self._census.segments(name), see)
        return best[0][1] if best else None

    async def with_metadata(self, answer: Answer, name: str, metadata: str) -> None:
        """List the ids of a tube's jobs, buried ones left out, that were put with this metadata. Raises StoreFailed."""

        async def look_through(number: int) -> None:
            try:
                segment = await self.read(number)
            except Damaged as error:
                logger.info("segment %d is not looked through: %s", number, error)
                return
            if segment is None:
                return
            for entries in (segment.queue(READY), segment.queue(DELAYED), *segment.leases.values()):
                for key, packed in entries.items():
                    unpacked = self.unpack(number, key, packed)
                    if unpacked is not None and unpacked.metadata == metadata:
                        answer.ids.append(job_id(number, job_slot(key)))
            # Of many segments each takes a millisecond to be understood.
            await asyncio.sleep(0)

        await side_by_side(await self._census.segments(name), look_through)


def place_of(segment: Segment, slot: int) -> tuple[str, bytes, bytes] | None:
    """Find a job in a segment: its queue ("" for a lease), key and packed form."""
    for name in (READY, DELAYED, BURIED):
        for key, packed in segment.queue(name).items():
            if job_slot(key) == slot:
                return name, key, packed
    for held in segment.leases.values():
        for key, packed in held.items():
            if job_slot(key) == slot:
                return "", key, packed
    return None

"""What happens in a tube by itself: delayed jobs become due, and a pause ends."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.clock import ServerClock
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.codec import Formats
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import BATCH_MAX, job_id
from beanspiked.engine.aerospike.store.formats import SetAside
from beanspiked.engine.aerospike.store.keys import due_key, job_slot, key_ms, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Damaged, Fenced, Refused, StoreError, TooBig
from beanspiked.engine.aerospike.store.tasks import LANES, Tasks, side_by_side
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.announcing import announce
from beanspiked.engine.aerospike.tubes.notes import note_due_ms, note_number
from beanspiked.engine.aerospike.tubes.tube import PROMOTE_MS, Schedule, SharedTube
from beanspiked.engine.errors import DamagedEntry, NewerEntry
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Timetable"]

logger = logging.getLogger(__name__)

# So many notes are looked through at once.
SLICE: Final = 2000


class Timetable(Schedule):
    """Makes due jobs ready where somebody waits for them, and keeps pauses.

    Args:
        store: The store.
        timers: Where tubes wait.
        clock: The server's time.
        tasks: What runs coroutines.
        agenda: What requests jobs at the end of the turn.
        news: This front-end's news.
        formats: The formats of jobs that this front-end knows.
        unread: Jobs of newer formats that were met.
    """

    def __init__(
        self,
        store: "SegmentStore",
        timers: Timers,
        clock: ServerClock,
        tasks: Tasks,
        agenda: Agenda,
        news: News,
        formats: Formats,
        unread: SetAside,
    ) -> None:
        self._store = store
        self._timers = timers
        self._clock = clock
        self._tasks = tasks
        self._agenda = agenda
        self._news = news
        self._formats = formats
        self._unread = unread

    def tube_time(self, tube: SharedTube, now: float) -> None:
        """Make a tube's due jobs ready if somebody waits for them, end its pause, and wait for the next of both."""
        if tube.pause and tube.paused_until <= now:
            tube.pause = 0.0
            tube.paused_until = 0.0
            self._agenda.request_soon(tube)
        if tube.pause:
            self._timers.schedule(tube, tube.paused_until)
        self.wait_for_due(tube)

    def step(self) -> int:
        """Number one more moment, for `apply_pause`."""
        return self._agenda.step()

    def apply_pause(self, tube: SharedTube, pause_ms: int, until_ms: int, seen: int) -> None:
        """Take note of a pause that was seen at a step of the engine, or made then, unless a later one is known."""
        if seen < tube.pause_seen:
            return
        tube.pause_seen = seen
        until = self._clock.local_time(until_ms) if until_ms else 0.0
        if pause_ms and until > self._timers.clock.now():
            tube.pause = pause_ms / 1000
            tube.paused_until = until
            self._timers.schedule(tube, until)
        elif tube.pause:
            tube.pause = 0.0
            tube.paused_until = 0.0
            self._agenda.request_soon(tube)

    def wait_for_due(self, tube: SharedTube) -> None:
        """Promote due jobs now, or when the first is due, if somebody waits for them."""
        if tube.next_due and tube.waited_for() and tube.promotion is None:
            if tube.next_due <= self._clock.server_ms():
                self._begin(tube, asyncio.Semaphore(LANES))
            else:
                self._timers.schedule(tube, self._clock.local_time(tube.next_due))

    async def promote_due(self, tubes: list[SharedTube]) -> list[SharedTube]:
        """Wait until the due jobs of tubes are ready, but not longer than the jobs of other tubes may wait for them.

        Returns those tubes of which due jobs stay delayed for now, since their segments do not answer.
        """
        room = asyncio.Semaphore(LANES)
        promotions = [self._begin(tube, room) for tube in tubes]
        await asyncio.wait(promotions, timeout=PROMOTE_MS / 1000)
        return [tube for tube, task in zip(tubes, promotions, strict=True) if task.done() and not task.result()]

    def _begin(self, tube: SharedTube, room: asyncio.Semaphore) -> "asyncio.Task[bool]":
        """Make due jobs of a tube ready, if that is not done already; each segment waits for room."""
        if tube.promotion is None:
            tube.promotion = self._agenda.spawn(self._promote(tube, room))
        return tube.promotion

    async def _promote(self, tube: SharedTube, room: asyncio.Semaphore) -> bool:
        """Make due jobs of a tube ready; tell whether all are."""
        tube.held_until = tube.held_until or self._clock.server_ms() + PROMOTE_MS
        whole = True
        try:
            while whole and 0 < tube.next_due <= self._clock.server_ms():
                tube.next_due = 0
                whole = await self._promote_segments(tube, room)
            if not whole:
                failing = (self._clock.server_ms() - tube.held_until + PROMOTE_MS) / 1000
                await self._tasks.pause_between_tries(self._timers.clock.now() - failing)
            if whole or not tube.waited_for():
                tube.held_until = 0
        finally:
            tube.promotion = None
        self.wait_for_due(tube)
        return whole

    async def _promote_segments(self, tube: SharedTube, room: asyncio.Semaphore) -> bool:
        """Make the jobs ready that are due in a tube's segments; tell whether all of these answered."""
        await self._use_due(tube)
        failures: list[Exception] = []

        async def promote(committer: Committer) -> None:
            due = None if committer.head is None else committer.head.due_key
            while due is not None and not committer.gone:
                due_ms = key_ms(due)
                if due_ms > self._clock.server_ms():
                    tube.expect(due)
                    break
                try:
                    async with room:
                        due = await self._promote_one(committer)
                except (Damaged, TooBig) as error:
                    # The next look tries again.
                    logger.info("segment %d: its due jobs stay delayed: %s", committer.number, error)
                    break
                except Exception as error:
                    # Those of other segments are made ready nevertheless, and these later.
                    if not isinstance(error, StoreError):
                        logger.error("internal error in segment %d", committer.number, exc_info=error)
                    failures.append(error)
                    tube.expect_at(due_ms)
                    break

        await side_by_side(list(tube.committers.values()), promote)
        if failures:
            logger.info("tube %s: not all of its due jobs are ready yet: %s", tube.name, failures[0])
        return not failures

    async def _use_due(self, tube: SharedTube) -> None:
        """Take those segments into use that are not, and have due jobs; note when the next one is due."""
        now_ms = self._clock.server_ms()
        for count, note in enumerate(list(tube.notes.values()), 1):
            due_ms = note_due_ms(note)
            if due_ms and due_ms <= now_ms:
                number = note_number(note)
                if number in tube.notes:
                    tube.committer_of(number)
            elif due_ms:
                tube.expect_at(due_ms)
            if count % SLICE == 0:
                await asyncio.sleep(0)

    async def _promote_one(self, committer: Committer) -> bytes | None:
        """Make due jobs of one segment ready, and learn what it holds then; return the key of the next one, see promote_segment."""
        due = await self.promote_segment(committer.number)
        if committer.running or committer.gone:
            await committer.turn()
        mark = self._agenda.step()
        head = (await self._store.heads([committer.number]))[0]
        if head is None:
            return None
        if not committer.running and not committer.gone and committer.mark < mark:
            committer.update_head(head, mark)
            announce(self._news, committer)
        return due

    async def promote_segment(self, number: int) -> bytes | None:
        """Make due jobs of one segment ready, and bury those that are damaged.

        Whoever else moves one at the same time, this moves nothing; after a failure it may be tried again.

        Returns the key of the next delayed job, those left out whose format is not known here: they stay where they are.
        """
        segment = await self._store.read(number)
        if segment is None:
            return None
        now_ms = self._clock.server_ms()
        limit = due_key(now_ms + 1, 0)
        due = [(key, packed) for key, packed in segment.delayed.items() if key < limit]
        formats = self._formats
        moved: set[bytes] = set()
        ready: dict[bytes, bytes] = {}
        damaged: dict[bytes, bytes] = {}
        for key, packed in due:
            if len(ready) + len(damaged) == BATCH_MAX:
                break
            try:
                job = formats.unpack(packed)
            except NewerEntry as newer:
                self._unread.tell(f"job {job_id(number, job_slot(key))}", newer)
            except DamagedEntry as damage:
                logger.error("segment %d: a damaged job is buried: %s", number, damage)
                damaged[due_key(now_ms, job_slot(key))] = packed
            else:
                ready[ready_key(job.pri, job.put_us, job_slot(key))] = packed
        for target, entries in ((READY, ready), (BURIED, damaged)):
            if entries:
                slots = {job_slot(key) for key in entries}
                keys = [key for key, _ in due if job_slot(key) in slots]
                with contextlib.suppress(Refused, Fenced):
                    await self._store.shift(number, DELAYED, keys, target, entries)
                    moved.update(keys)
        left = (key for key, packed in segment.delayed.items() if key not in moved and formats.knows(packed))
        return next(left, None)

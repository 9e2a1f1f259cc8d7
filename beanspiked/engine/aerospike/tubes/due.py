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
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Damaged, Fenced, Refused, StoreError
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.announcing import announce
from beanspiked.engine.aerospike.tubes.notes import note_due_ms, note_number
from beanspiked.engine.aerospike.tubes.tube import Schedule, SharedTube
from beanspiked.engine.errors import DamagedEntry, EngineError, NewerEntry
from beanspiked.engine.timers import Timers

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["LANES", "Timetable"]

logger = logging.getLogger(__name__)

# So many notes are looked through at once.
SLICE: Final = 2000
# Of so many segments due jobs are made ready side by side: who wants one of them waits until all are.
LANES: Final = 16


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
        if tube.next_due and tube.waited_for() and not tube.promoting:
            if tube.next_due <= self._clock.server_ms():
                tube.promoting = True
                self._agenda.spawn(self._promote(tube))
            else:
                self._timers.schedule(tube, self._clock.local_time(tube.next_due))

    async def _promote(self, tube: SharedTube) -> None:
        try:
            failed = False
            try:
                await self._tasks.try_for_a_while(lambda: self._promote_tube(tube))
            except EngineError as error:
                failed = True
                logger.info("tube %s: its due jobs are not ready yet: %s", tube.name, error)
            if failed:
                await self._tasks.pause_between_tries()
        finally:
            tube.promoting = False
        self.wait_for_due(tube)

    async def _promote_tube(self, tube: SharedTube) -> None:
        for failure in (await self.promote_due([tube])).values():
            raise failure

    async def promote_due(self, tubes: list[SharedTube]) -> dict[SharedTube, StoreError]:
        """Make all due jobs of tubes ready; return the tubes of which some stay delayed for now, each with a reason."""
        segments: list[tuple[SharedTube, Committer]] = []
        for tube in tubes:
            tube.next_due = 0
            await self._use_due(tube)
            segments += [(tube, committer) for committer in tube.committers.values()]
        failures: dict[SharedTube, StoreError] = {}
        lanes = [self._promote_lane(segments[lane::LANES], failures) for lane in range(min(LANES, len(segments)))]
        await asyncio.gather(*lanes)
        return failures

    async def _promote_lane(
        self, segments: list[tuple[SharedTube, Committer]], failures: dict[SharedTube, StoreError]
    ) -> None:
        """Make the due jobs of some segments ready, one after the other."""
        for tube, committer in segments:
            due = None if committer.head is None else committer.head.due_key
            while due is not None and not committer.gone:
                due_ms = key_ms(due)
                if due_ms > self._clock.server_ms():
                    tube.expect(due)
                    break
                try:
                    due = await self._promote_one(committer)
                except Damaged as damage:
                    logger.info("segment %d: its due jobs stay delayed: %s", committer.number, damage)
                    break
                except StoreError as error:
                    # Those of other segments are made ready nevertheless, and these later.
                    failures[tube] = error
                    tube.expect_at(due_ms)
                    break

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

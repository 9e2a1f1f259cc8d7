"""The jobs that this front-end holds, and every way out of its hands.

A change of a held job goes through its segment's committer; until it is done the job is nobody else's to move (segment-protocol H9).
"""

import asyncio
from typing import TYPE_CHECKING, cast

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.segment.bodies import fetch_bodies
from beanspiked.engine.aerospike.segment.codec import INLINE_MAX, Formats, Packed
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, HeldChange, SharedJob
from beanspiked.engine.aerospike.store.keys import due_key, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY, Full, Newer, Refused
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.forgetting import Forgetting
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.room import Room
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.contract import GIVEN_UP, PLAIN, RESERVED, WHOLE
from beanspiked.engine.errors import EngineError, JobGone, StoreFailed, StoreFull
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Holdings"]


class Holdings:
    """The jobs held here.

    Args:
        store: The store.
        clock: This process's time.
        membership: The sessions.
        tasks: What runs coroutines.
        agenda: What ends a turn.
        formats: The formats of jobs that this front-end knows.
        room: Whether the store has room.
        retirement: What removes bodies.
        forgetting: What lets tubes begin anew.

    Attributes:
        jobs: The jobs, by id.
    """

    def __init__(
        self,
        store: "SegmentStore",
        clock: Clock,
        membership: Membership,
        tasks: Tasks,
        agenda: Agenda,
        formats: Formats,
        room: Room,
        retirement: Retirement,
        forgetting: Forgetting,
    ) -> None:
        self._store = store
        self._clock = clock
        self._membership = membership
        self._tasks = tasks
        self._agenda = agenda
        self._formats = formats
        self._room = room
        self._retirement = retirement
        self._forgetting = forgetting
        self.jobs: dict[int, SharedJob] = {}
        # Commands that wait for the change of a job that is in flight, and until when.
        self._waits: dict[Later, tuple[SharedJob, float]] = {}

    def tells(self, job_id: int, need: int) -> SharedJob | None:
        """Return a held job of which is known here what is needed: its body may still be on its way."""
        job = self.jobs.get(job_id)
        return None if job is None or (need == WHOLE and job.lacks_body()) else job

    def in_flight(self, job_id: int) -> Later | None:
        """Return the end of the change of a held job that is in flight; it fails if the job's segment does not answer."""
        job = self.jobs.get(job_id)
        if job is None or job.moving is None:
            return None
        wait = Later()
        self._waits[wait] = (job, self._clock.now() + ANSWER_WITHIN)
        job.moving.then(lambda _: self._end_wait(wait, None))
        return wait

    def _end_wait(self, wait: Later, error: EngineError | None) -> None:
        if self._waits.pop(wait, None) is not None:
            wait.settle(error)

    def expire(self, now: float) -> None:
        """Fail the commands that have waited for too long for a segment that does not answer."""
        for wait, (job, until) in list(self._waits.items()):
            if until <= now and job.committer is not None and job.committer.fails():
                self._end_wait(wait, StoreFailed("the job is on its way, and the store does not answer"))

    def _leave(
        self,
        job: SharedJob,
        queue: str | None,
        new_key: bytes,
        packed: bytes,
        *,
        insists: bool = False,
        stays: bool = False,
    ) -> HeldChange:
        change = HeldChange(job, queue, new_key, packed, self._clock.now() + ANSWER_WITHIN)
        change.insists = insists
        change.stays = stays
        if job.committer is None or not self._membership.alive():
            change.settle(JobGone("the job was lost"))
            return change
        job.committer.change_held(change)
        return change

    def delete(self, job: SharedJob) -> HeldChange:
        """Remove a held job."""
        return self._leave(job, None, b"", b"")

    def release(self, job: SharedJob, pri: int, delay: float) -> HeldChange:
        """Put a held job back."""
        packed = job.packed()
        packed.pri = pri
        packed.delay_ms = round(delay * 1000)
        packed.releases += 1
        if delay:
            due_ms = self._membership.clock.server_ms() + packed.delay_ms
            return self._leave(job, DELAYED, due_key(due_ms, job.slot()), self._formats.pack(packed))
        return self._leave(job, READY, ready_key(pri, job.put_us, job.slot()), self._formats.pack(packed))

    def bury(self, job: SharedJob, pri: int, reason: str) -> HeldChange:
        """Set a held job aside."""
        packed = job.packed()
        packed.pri = pri
        packed.buries += 1
        if reason:
            packed.reason = reason
        place = due_key(self._membership.clock.server_ms(), job.slot())
        return self._leave(job, BURIED, place, self._formats.pack(packed))

    def update(self, job: SharedJob, stored: bytes, raw_size: int) -> Later:
        """Replace the body of a held job, as it is stored."""
        later = Later()
        if job.committer is None or not self._membership.alive():
            later.settle(JobGone("the job was lost"))
            return later
        packed = job.packed()
        packed.raw_size = max(raw_size, PLAIN)
        packed.skipped = raw_size == GIVEN_UP
        packed.stored_size = len(stored)
        packed.body_number = 0
        packed.body = stored
        job.moving = later
        if len(stored) > INLINE_MAX:
            packed.body = b""
            self._agenda.spawn(self._update_outside(job, packed, stored, later))
        else:
            self._update(job, packed, stored, later)
        return later

    async def _update_outside(self, job: SharedJob, packed: Packed, stored: bytes, later: Later) -> None:
        """Write a new large body, then the entry that refers to it."""
        committer = job.committer
        error: EngineError | None = JobGone("the job was lost")
        if committer is not None:

            async def write() -> None:
                packed.body_number = await self._tasks.try_for_a_while(
                    lambda: committer.bodies.write(stored, job.form), Full
                )

            try:
                error = await self._tasks.failure(write)
            except asyncio.CancelledError:
                job.moving = None
                later.settle(StoreFailed("closed before it was sent"))
                raise
            if isinstance(error, Full):
                self._room.found_full(error)
            if isinstance(error, (Refused, StoreFull)):
                error = StoreFull(str(error))
        if job.committer is not committer:
            error = JobGone("the job was lost")
        if error is None:
            self._update(job, packed, stored, later)
        else:
            job.moving = None
            later.settle(error)

    def _update(self, job: SharedJob, packed: Packed, stored: bytes, later: Later) -> None:
        former = job.body_number

        def updated(outcome: Later) -> None:
            if outcome.error is None:
                job.stored, job.raw_size, job.skipped = packed.body, packed.raw_size, packed.skipped
                job.body_number, job.stored_size = packed.body_number, packed.stored_size
                job.unfold(stored)
                if former:
                    self._retirement.drop_body(job, former)
            later.settle(outcome.error)

        self._leave(job, None, b"", self._formats.pack(packed), stays=True).then(updated)

    def give_back(self, job: SharedJob, timed_out: bool) -> None:
        """Make a held job ready as it was."""
        if job.committer is None:
            return
        if job.moving is not None:
            # Its holder is gone, or out of time, while a change of the job is on its way: that one first.
            job.moving.then(lambda _: self._give_back_after(job, timed_out))
            return
        if timed_out:
            job.timeouts += 1
        # Its place is its old one, so that its order does not change.
        self._leave(job, READY, job.place, self._formats.pack(job.packed()), insists=True)

    def _give_back_after(self, job: SharedJob, timed_out: bool) -> None:
        if job.committer is not None and job.holder is None:
            self.give_back(job, timed_out)

    def let_go_unread(self, committer: Committer, place: bytes, packed: bytes, damaged: bool) -> None:
        """Let go of what cannot be read, as it is: what is damaged is buried, what is of a newer format goes back to its place."""
        job = SharedJob(committer.number, place, committer.tube, Packed(0, 0, 0, 0, b""), 0)
        job.committer = committer
        job.state = RESERVED
        committer.held[place] = job
        new_key = due_key(self._membership.clock.server_ms(), job.slot()) if damaged else place
        self._leave(job, BURIED if damaged else READY, new_key, packed, insists=True)

    def bury_lost(self, job: SharedJob, reason: str) -> None:
        """Set aside a held job whose body is lost."""
        packed = job.packed()
        packed.reason = reason
        packed.buries += 1
        place = due_key(self._membership.clock.server_ms(), job.slot())
        self._leave(job, BURIED, place, self._formats.pack(packed), insists=True)

    def left(self, job: SharedJob, deleted: bool) -> None:
        """A job has left the lease."""
        if self.jobs.get(job.id) is job:
            del self.jobs[job.id]
        job.committer = None
        if deleted:
            job.tube.deletes += 1
            if job.body_number:
                self._retirement.drop_body(job, job.body_number)
            if not job.tube.using and not job.tube.watching:
                self._forgetting.forget(cast(SharedTube, job.tube))

    def lose(self, job: SharedJob) -> None:
        """A held job is not this front-end's any more."""
        self.jobs.pop(job.id, None)
        job.committer = None
        job.moving = None
        job.leaving = False
        if job.holder is not None:
            job.holder.lost(job)

    async def fetch_bodies(self, jobs: list[SharedJob]) -> tuple[list[SharedJob], EngineError | None]:
        """Return the jobs whose bodies were read, and why others were not; jobs whose bodies are lost are buried."""
        whole: list[SharedJob] = []

        async def fetch(wanted: list[SharedJob]) -> EngineError | None:
            async def work() -> None:
                found: tuple[list[SharedJob], list[tuple[SharedJob, str]]]
                found = await self._tasks.try_for_a_while(lambda: fetch_bodies(self._store, wanted, sure=True))
                whole.extend(found[0])
                for job, reason in found[1]:
                    if job.committer is not None:
                        self.bury_lost(job, reason)

            error = await self._tasks.failure(work)
            if isinstance(error, Newer) and len(wanted) == 1 and wanted[0].committer is not None:
                wanted[0].committer.unknown.add(wanted[0].place)
            return error

        error = await fetch(jobs)
        if error is not None and len(jobs) > 1:
            # Perhaps only one of the bodies is on a node that does not answer.
            await asyncio.gather(*[fetch([job]) for job in jobs])
        return whole, error

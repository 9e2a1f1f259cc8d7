"""Reserving one certain job, and taking jobs one by one where a take would bring along what is not known here."""

import logging

from beanspiked.engine.aerospike.segment.handover import Handover
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, SharedJob, Steal
from beanspiked.engine.aerospike.segment.leasing import Leasing
from beanspiked.engine.aerospike.segment.view import View
from beanspiked.engine.aerospike.store.keys import ready_key
from beanspiked.engine.aerospike.store.seam import (
    HEAD_KEYS,
    READY,
    Fenced,
    Head,
    Refused,
    Segment,
    Settlement,
    StoreError,
    Unknown,
)
from beanspiked.engine.contract import RESERVED
from beanspiked.engine.errors import DamagedEntry, JobGone, NewerEntry, OutcomeUnknown, StoreFailed

__all__ = ["Reserving"]

logger = logging.getLogger(__name__)


class Reserving:
    """Moves single jobs of a segment into the lease.

    Args:
        view: The segment.
        leasing: The lease on it.
        handover: What tells of jobs that are held.
    """

    def __init__(self, view: View, leasing: Leasing, handover: Handover) -> None:
        self._view: View = view
        self._leasing: Leasing = leasing
        self._handover: Handover = handover

    async def take_singly(self) -> None:
        """Take jobs one by one: a take would bring along those of a format that is not known here."""
        view = self._view
        asks = view.inbox.take_asks()
        wanted = sum([count for _, count in asks])
        mark = view.around.step()
        segment: Segment | None = None
        failure: StoreError | None = None
        try:
            segment = await view.around.store.read(view.number)
        except StoreError as error:
            failure = error
        jobs: list[SharedJob] = []
        unknown: set[bytes] = set() if segment is None else view.unknown & segment.ready.keys()
        for key, packed in {} if segment is None else segment.ready.items():
            job: SharedJob | None = None
            if key in unknown or len(jobs) == wanted or view.gone:
                continue
            try:
                job = self._handover.job(key, packed)
            except NewerEntry:
                unknown.add(key)
            except DamagedEntry as damage:
                logger.error("segment %d: a damaged job is left alone: %s", view.number, damage)
                unknown.add(key)
            if job is not None:
                steal = Steal(job, READY, view.around.now() + ANSWER_WITHIN)
                await self.steal(steal)
                if steal.error is None:
                    jobs.append(job)
        view.unknown = unknown
        if failure is not None:
            logger.info("segment %d: %s", view.number, failure)
            view.has_failed(view.around.now())
            await view.around.pause_between_tries(view.failing_since)
        elif segment is not None and not jobs and not view.gone:
            view.has_succeeded()
            view.update_head(head_of(segment), mark)
        self._handover.hand_over(jobs, asks)
        view.around.advance_seeks(view.tube)

    async def steal(self, steal: Steal) -> None:
        """Move one job from a queue into the lease."""
        view = self._view
        job = steal.job
        key = ready_key(job.pri, job.put_us, job.slot())
        packed = view.around.formats.pack(job.packed())
        while True:
            if key in view.held:
                # A take of this front-end was faster.
                steal.settle(JobGone("somebody else has taken or deleted the job"))
                return
            mark = view.around.step()
            try:
                head = await view.around.store.shift(view.number, steal.queue, [job.place], view.lease, {key: packed})
            except Refused:
                steal.settle(JobGone("somebody else has taken or deleted the job"))
                return
            except StoreError as error:
                failure = error
            else:
                view.has_succeeded()
                view.update_head(head, mark)
                break
            if isinstance(failure, Fenced):
                steal.settle(JobGone("the lease is gone"))
                await self._lose()
                return
            if isinstance(failure, Unknown):
                settlement = await self._settled()
                if settlement is None:
                    steal.settle(OutcomeUnknown("whether it was reserved is not known"))
                    return
                if key in settlement.held:
                    view.around.look_at(view)
                    break
                continue
            view.has_failed(view.around.now())
            if view.around.now() >= steal.until:
                steal.settle(StoreFailed(str(failure)))
                return
            await view.around.pause_between_tries(view.failing_since)
        if view.gone or not view.around.alive():
            # Whoever declares the session dead gives it to others.
            steal.settle(JobGone("the session is over"))
            return
        body = job.body
        held = self._handover.hold(key, packed)
        if held is None:
            steal.settle(JobGone("the job cannot be read"))
            return
        # The session knows the job by the object that it looked at.
        job.committer = view
        job.place = key
        job.state = RESERVED
        job.reserves = held.reserves
        job.body = body
        view.held[key] = job
        view.around.hold(job)
        steal.settle(None)

    async def _settled(self) -> Settlement | None:
        """Move the lease on; None if nobody can tell what is under it, or if it is gone, which is seen to."""
        try:
            return await self._leasing.renew()
        except Fenced:
            pass
        await self._lose()
        return None

    async def _lose(self) -> None:
        await self._leasing.found_gone()
        self._view.abandon(JobGone("the lease is gone"))


def head_of(segment: Segment) -> Head:
    """Return what a segment that was read would give next."""
    ready = list(segment.ready)
    due = next(iter(segment.delayed), None)
    last = ready[-1] if ready else None
    counts = (len(ready), len(segment.delayed), len(segment.buried), segment.held)
    return Head(ready[:HEAD_KEYS], last, due, *counts, segment.state)

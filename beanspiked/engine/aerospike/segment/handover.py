"""Telling everybody of an operation that was done, and handing over the jobs that it took."""

import logging
from collections.abc import Sequence

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.jobs import Put, SharedJob, Steal, job_id
from beanspiked.engine.aerospike.segment.view import View
from beanspiked.engine.aerospike.store.keys import job_slot
from beanspiked.engine.aerospike.store.seam import DELAYED, READY, Head
from beanspiked.engine.contract import RESERVED, Waiter
from beanspiked.engine.errors import DamagedEntry, JobGone, NewerEntry

__all__ = ["Handover"]

logger = logging.getLogger(__name__)


class Handover:
    """What becomes known of a segment's jobs, on its way to those who wait.

    Args:
        view: The segment.
    """

    def __init__(self, view: View) -> None:
        self._view: View = view

    def acknowledge(self, puts: list[Put]) -> None:
        """Tell whoever put that it was done, and the ids."""
        view = self._view
        view.tube.total_jobs += len(puts)
        for put in puts:
            put.value = job_id(view.number, put.slot)
            put.settle(None)

    def done(self, batch: Batch, taken: "Sequence[tuple[bytes, bytes]]", head: Head) -> None:
        """Tell everybody of a batch that was done."""
        view = self._view
        if view.gone:
            # The session was given up meanwhile. What was done was done; what was taken, whoever reclaims it gives back.
            self.acknowledge(batch.puts)
            for change in batch.held_changes:
                change.settle(None)
            view.around.unclaim(view.tube, batch.asks)
            view.around.advance_seeks(view.tube)
            if batch.steal is not None:
                batch.steal.fail(JobGone("the session is over"))
            return
        view.has_succeeded()
        if view.slots:
            view.weigh(batch, head)
        view.update_head(head, batch.mark)
        made_ready = any(not put.due_ms for put in batch.puts)
        delayed = any(put.due_ms for put in batch.puts)
        for change in batch.held_changes:
            job = change.job
            job.leaving = False
            job.moving = None
            if not change.stays:
                del view.held[job.place]
                view.around.left(job, change.queue is None)
                made_ready = made_ready or change.queue == READY
                delayed = delayed or change.queue == DELAYED
            change.settle(None)
        if batch.puts:
            self.acknowledge(batch.puts)
        if batch.steal is None:
            self._receive(taken, batch.asks)
        else:
            self._reserve(batch.steal, taken)
        view.around.advance_seeks(view.tube)
        if delayed or (head.ready and made_ready):
            # Whoever knows the format of jobs that were given back unread waits for them elsewhere.
            view.around.announce(view, delayed)
            if view.unknown:
                view.around.changed(view)
        if head.due_key is not None:
            view.tube.expect(head.due_key)

    def _receive(self, taken: "Sequence[tuple[bytes, bytes]]", asks: list[tuple[Waiter, int]]) -> None:
        """Hand over what was taken, all together once the bodies are there."""
        jobs: list[SharedJob] = []
        for key, packed in taken:
            job = self.hold(key, packed)
            if job is not None:
                jobs.append(job)
        self.hand_over(jobs, asks)

    def _reserve(self, steal: Steal, taken: "Sequence[tuple[bytes, bytes]]") -> None:
        """Give the one job that was reserved to whoever looked at it, as the object that it was looked at."""
        view = self._view
        if not view.around.alive():
            # Whoever declares the session dead gives it to others.
            steal.fail(JobGone("the session is over"))
            return
        held = self.hold(steal.key, dict(taken)[steal.key])
        if held is None:
            steal.fail(JobGone("the job cannot be read"))
            return
        job = steal.job
        job.reserves = held.reserves
        job.committer = view
        job.place = steal.key
        job.state = RESERVED
        view.held[steal.key] = job
        view.around.hold(job)
        steal.settle(None)

    def hand_over(self, jobs: list[SharedJob], asks: list[tuple[Waiter, int]]) -> None:
        """Hand jobs to those who asked, at once or when their bodies are there."""
        view = self._view
        if any(job.body_number for job in jobs):
            view.around.fetch_and_deliver(view, jobs, asks)
            return
        view.around.unclaim(view.tube, asks)
        if jobs:
            view.around.deliver(view.tube, jobs)

    def hold(self, key: bytes, packed: bytes) -> SharedJob | None:
        """Enter a job in the lease; one that cannot be read is let go of and told of."""
        view = self._view
        try:
            job = self.job(key, packed)
        except NewerEntry as newer:
            view.around.unreadable(f"job {job_id(view.number, job_slot(key))}", newer)
            view.unknown.add(key)
            view.around.let_go_unread(view, key, packed, damaged=False)
            return None
        except DamagedEntry as damage:
            logger.error("segment %d: a damaged job is buried: %s", view.number, damage)
            view.around.let_go_unread(view, key, packed, damaged=True)
            return None
        job.committer = view
        job.state = RESERVED
        job.reserves += 1
        view.held[key] = job
        view.around.hold(job)
        return job

    def job(self, key: bytes, packed: bytes) -> SharedJob:
        """Make a job of what is packed, with its body unless that lies outside. Raises DamagedEntry."""
        view = self._view
        job = SharedJob(view.number, key, view.tube, view.around.formats.unpack(packed), view.session.offset_ms)
        if job.raw_size >= 0 and not job.body_number:
            job.unfold(None)
        return job

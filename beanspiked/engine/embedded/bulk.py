"""Changes of many jobs, slice by slice; each slice is one change in the journal."""

from collections.abc import Callable
from typing import Final, cast

from beanspiked.engine.contract import BURIED, DELAYED, Bulk, Filter, Job, Tube
from beanspiked.engine.embedded.changes import Changes
from beanspiked.engine.embedded.scan import Scan
from beanspiked.engine.embedded.slices import Slices
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import EmbeddedTube
from beanspiked.engine.embedded.write import DROP, KICK, MOVE, Write
from beanspiked.engine.filters import ANY_STATE, UNHELD
from beanspiked.engine.later import Later
from beanspiked.engine.queue import Queue
from beanspiked.engine.timers import SLICE, Timers

__all__ = ["BulkChanges"]

# How many jobs of a long change share a write to the journal: others' changes wait for no more than that.
WRITE_SLICE: Final = 500


class BulkChanges:
    """Deletes, moves and kicks any number of jobs.

    Args:
        timers: What calls for the next slice, and the clock.
        table: All jobs.
        changes: What changes are made with where there is no journal.
        forget: Drops a tube if nothing refers to it.
        delete: Deletes a job in memory.
        send: Withdraws jobs and sends their change to the journal; None where there is none.
    """

    def __init__(
        self,
        timers: Timers,
        table: JobTable,
        changes: Changes,
        forget: Callable[[Tube], None],
        delete: Callable[[Job], None],
        send: Callable[[Write], Later] | None,
    ) -> None:
        self._timers = timers
        self._table = table
        self._changes = changes
        self._forget = forget
        self._delete = delete
        self._send = send
        self._most: int = SLICE if send is None else WRITE_SLICE

    def clear(self, tube: EmbeddedTube, wanted: Filter, last_id: int) -> Bulk:
        """See TubeEngine.clear."""
        return self._change(tube, wanted.within(UNHELD), last_id, self._drop)

    def delete_tube(self, tube: EmbeddedTube, last_id: int) -> Bulk:
        """See TubeEngine.delete_tube."""
        return self._change(tube, Filter(ANY_STATE), last_id, self._drop)

    def _drop(self, jobs: list[Job]) -> Later | None:
        if self._send is not None:
            return self._send(_write(DROP, jobs))
        for job in jobs:
            self._delete(job)
        return None

    def move(self, tube: EmbeddedTube, target: EmbeddedTube, wanted: Filter, last_id: int) -> Bulk:
        """See TubeEngine.move."""
        if target is tube:
            raise ValueError(f"jobs of {tube.name} cannot move to the tube that they are in")

        def move(jobs: list[Job]) -> Later | None:
            if self._send is not None:
                write = _write(MOVE, jobs)
                write.tube = target
                write.name = target.name
                return self._send(write)
            for job in jobs:
                self._changes.move(job, target)
            self._forget(tube)
            return None

        def end(_: Later) -> None:
            target.arriving -= 1
            self._forget(target)

        # Between two slices somebody may have taken all that has arrived: the tube must still be there.
        target.arriving += 1
        bulk = self._change(tube, wanted.within(UNHELD), last_id, move)
        bulk.then(end)
        return bulk

    def kick_jobs(self, tube: EmbeddedTube, wanted: Filter, last_id: int) -> Bulk:
        """See TubeEngine.kick_jobs."""

        def kick(jobs: list[Job]) -> Later | None:
            if self._send is not None:
                return self._send(_write(KICK, jobs))
            for job in jobs:
                self._changes.kick(job)
            return None

        return self._change(tube, wanted.within((DELAYED, BURIED)), last_id, kick)

    def _change(
        self, tube: EmbeddedTube, wanted: Filter, last_id: int, change: Callable[[list[Job]], Later | None]
    ) -> Bulk:
        """Change all jobs that match, some at a time; `change` returns what the next ones have to wait for, if anything."""
        bulk = Bulk()
        scan = Scan(tube, self._table, wanted, last_id, self._timers.clock)

        def step(work: Slices) -> Later | None:
            jobs: list[Job] = [] if bulk.stopped else scan.take(self._most)
            if bulk.stopped or scan.ended:
                work.end()
            later = change(jobs) if jobs else None
            if later is None:
                bulk.value += len(jobs)
            return later

        Slices(self._timers, step, bulk).begin()
        return bulk

    def kick(self, queue: Queue, bound: int) -> tuple[int, Later | None]:
        """Make the first jobs of a queue ready; see TubeEngine.kick."""
        left = min(bound, len(queue))
        if left <= SLICE:
            return left, self._kick_first(queue, left) if left else None

        def step(work: Slices) -> Later | None:
            nonlocal left
            # Others may have taken some meanwhile.
            count = min(left, len(queue), self._most)
            left -= count
            if not left or not count:
                work.end()
            if self._send is None:
                work.outcome.value += count
            return self._kick_first(queue, count) if count else None

        return -1, Slices(self._timers, step).begin()

    def _kick_first(self, queue: Queue, count: int) -> Later | None:
        """Kick the first jobs of a queue, which has so many."""
        if self._send is None:
            for _ in range(count):
                self._changes.kick(cast(Job, queue.first()))
            return None
        jobs = queue.following(float("-inf"), 0, None, count, 4 * count)
        assert jobs is not None
        return self._send(_write(KICK, [cast(Job, job) for job in jobs]))


def _write(op: int, jobs: list[Job]) -> Write:
    write = Write(op)
    write.jobs = jobs
    write.value = len(jobs)
    return write

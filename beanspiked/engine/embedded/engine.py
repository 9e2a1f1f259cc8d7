"""The embedded engine: all jobs are in memory, and with a journal each change is on disk before it is acknowledged.

Without a journal a change is made at once. With one it takes two steps. First the job is *withdrawn*, so that nobody else can take it and
no timer can revive it, and its `Write` goes to the journal. When that is on disk the change is applied; if it fails, the job returns to
its place.
"""

import logging
from collections.abc import Iterable
from typing import cast

from beanspiked.engine.contract import (
    PLAIN,
    READY,
    RESERVED,
    Answer,
    Bulk,
    Counts,
    Details,
    Filter,
    Job,
    JournalStats,
    Listing,
    ReadyListener,
    Tube,
    TubeEngine,
)
from beanspiked.engine.embedded.bulk import BulkChanges
from beanspiked.engine.embedded.changes import Changes
from beanspiked.engine.embedded.keeper import Keeper
from beanspiked.engine.embedded.lists import Lists
from beanspiked.engine.embedded.loading import Loading
from beanspiked.engine.embedded.looks import add_up, find, oldest_ready
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.tubes import EmbeddedTube, Tubes
from beanspiked.engine.embedded.write import BURY, DELETE, KICK, MOVE, PAUSE, PUT, RELEASE, UPDATE, Row, Write
from beanspiked.engine.errors import DamagedEntry, StoreFull
from beanspiked.engine.later import Later, Listener
from beanspiked.engine.memory import FOR_JOBS
from beanspiked.engine.timers import Timers

__all__ = ["EmbeddedEngine"]

logger = logging.getLogger(__name__)


class Outcomes(Listener):
    """Passes the outcomes of changes to their engine. One for all costs less than a function for each change."""

    def __init__(self, engine: "EmbeddedEngine") -> None:
        self._engine = engine

    def settled(self, later: Later) -> None:
        """Take the outcome of a change."""
        self._engine.settled(cast(Write, later))


class EmbeddedEngine(TubeEngine):
    """Exact beanstalkd semantics in one process.

    Args:
        timers: The timer queue, for delays and pauses, and the clock.
        listener: Told when a job becomes ready.
        journal: Keeps the changes on disk; None without one.
    """

    def __init__(self, timers: Timers, listener: ReadyListener, journal: Keeper | None = None) -> None:
        self.listener: ReadyListener = listener
        self.durable: bool = journal is not None
        self._timers = timers
        self._clock = timers.clock
        self._memory = FOR_JOBS
        self._journal = journal
        self._jobs = JobTable()
        self._tubes = Tubes(timers, listener)
        self._changes = Changes(self._tubes, self._jobs)
        self._lists = Lists(timers, self._jobs)
        self._bulk = BulkChanges(
            timers, self._jobs, self._changes, self.forget, self._delete, None if journal is None else self._move
        )
        self.counts: Counts = self._tubes.counts
        self._arriving: dict[int, Write] = {}
        self._outcomes: Outcomes = Outcomes(self)
        self._last_id = 0
        self._burials = 0
        # Jobs whose compressed bodies came from the disk: damage shows when they are reserved.
        self._unproven: set[int] = set()

    def load(self, chunks: Iterable[list[Row]], pauses: list[tuple[str, float, float]], last_id: int) -> None:
        """Take in what a journal holds.

        Args:
            chunks: Its jobs in the order of their ids. Those that cannot be understood stay in the file and are not served.
            pauses: (tube, seconds, until).
            last_id: The last id that was used.
        """
        assert self._journal is not None
        clock = self._clock
        loading = Loading(self._journal, self._tubes, self._jobs, clock.now(), clock.ahead(), last_id)
        for rows in chunks:
            loading.take(rows)
        self._unproven = loading.compressed
        self._burials = int(loading.burials)
        self._last_id = loading.last_id
        loading.pause(pauses)

    # --- tubes

    def tube(self, name: str) -> Tube:
        """Find or make a tube."""
        return self._tubes.make(name)

    def find_tube(self, name: str) -> Tube | None:
        """Find a tube."""
        return self._tubes.find(name)

    def forget(self, tube: Tube) -> None:
        """Drop a tube if nothing refers to it any more; `default` stays."""
        if self._tubes.forget(cast(EmbeddedTube, tube)) and tube.pause and self._journal is not None:
            self._journal.add(Write(PAUSE, name=tube.name))

    def tubes(self) -> list[Tube]:
        """List all tubes in beanstalkd's order."""
        return self._tubes.made

    # --- jobs

    def new_id(self) -> int:
        """Return the id of the next job."""
        self._last_id += 1
        return self._last_id

    def put(
        self,
        tube: Tube,
        job_id: int,
        pri: int,
        delay: float,
        ttr: float,
        body: bytes,
        details: Details | None = None,
    ) -> Later | None:
        """Add a job."""
        if not self._memory.stays_free(len(body)):
            self.forget(tube)
            refused = Later()
            refused.settle(StoreFull("no memory is left"))
            return refused
        now = self._clock.now()
        born = now if details is None or details.born == 0.0 else details.born
        job = Job(job_id, tube, pri, delay, ttr, born, body, details)
        if self._journal is None:
            self._changes.put(job, now + delay)
            return None
        write = Write(PUT, job)
        write.value = job_id
        write.due = now + delay
        cast(EmbeddedTube, tube).arriving += 1
        self._arriving[job_id] = write
        return self._send(write)

    def take(self, tubes: list[Tube]) -> Job | None:
        """Reserve the most urgent ready job over these tubes but the paused ones; bury damaged ones that come first."""
        best = self._tubes.best(tubes)
        while best is not None and self._unproven and best.id in self._unproven and not self._proven(best):
            best = self._tubes.best(tubes)
        if best is not None:
            self._tubes.reserve(best)
        return best

    def _proven(self, job: Job) -> bool:
        """Tell whether a ready job's body can be read; if not, bury the job in memory only: a restart finds the damage again."""
        try:
            job.raw_body()
        except DamagedEntry as error:
            logger.error("job %d of tube %s is buried, because its body is damaged: %s", job.id, job.tube.name, error)
            self._burials += 1
            self._changes.bury(job, job.pri, self._burials, f"damaged: {error}")
            return False
        self._unproven.discard(job.id)
        return True

    def take_job(self, job: Job) -> Later | None:
        """Reserve a job that is ready, delayed or buried."""
        self._tubes.reserve(job)
        return None

    def find_job(self, job_id: int) -> Job | None:
        """Find a job in any state."""
        return self._jobs.get(job_id)

    def in_flight(self, job_id: int) -> Later | None:
        """Return the change of this job that is on its way to the journal."""
        job = self._jobs.get(job_id)
        return self._arriving.get(job_id) if job is None else job.moving

    def peek_next(self, tube: Tube, state: int) -> Job | None:
        """Find the job that leaves a state next."""
        return cast("Job | None", cast(EmbeddedTube, tube).queue(state).first())

    def oldest_ready(self, tube: Tube) -> Job | None:
        """Find the ready job that was put first."""
        return oldest_ready(self._timers, self._jobs, self._last_id, cast(EmbeddedTube, tube))

    def delete(self, job: Job) -> Later | None:
        """Delete a job that the caller or nobody holds."""
        if self._journal is None:
            self._delete(job)
            return None
        return self._move(Write(DELETE, job))

    def _delete(self, job: Job) -> None:
        self._changes.delete(job)
        self._unproven.discard(job.id)
        self.forget(job.tube)

    def release(self, job: Job, pri: int, delay: float) -> Later | None:
        """Release a held job."""
        due = self._clock.now() + delay
        if self._journal is None:
            self._changes.release(job, pri, delay, due)
            return None
        write = Write(RELEASE, job)
        write.pri = pri
        write.delay = delay
        write.due = due
        return self._move(write)

    def bury(self, job: Job, pri: int, reason: str = "") -> Later | None:
        """Bury a held job."""
        self._burials += 1
        if self._journal is None:
            self._changes.bury(job, pri, self._burials, reason)
            return None
        write = Write(BURY, job)
        write.pri = pri
        write.burial = self._burials
        write.reason = reason
        return self._move(write)

    def give_back(self, job: Job, timed_out: bool) -> None:
        """Make a held job ready as it was."""
        if job.moving is not None:
            # Its holder is gone, or its time to run is over, while a change of the job is on its way: the change comes first.
            job.moving.then(lambda _: self._give_back_after(job, timed_out))
            return
        if timed_out:
            job.timeouts += 1
        job.ahead_of_store = True
        self._tubes.make_ready(job)

    def _give_back_after(self, job: Job, timed_out: bool) -> None:
        if self._jobs.get(job.id) is job and job.state == RESERVED and job.holder is None:
            self.give_back(job, timed_out)

    def kick(self, tube: Tube, bound: int) -> tuple[int, Later | None]:
        """Make up to `bound` buried jobs ready, or delayed ones if none is buried."""
        home = cast(EmbeddedTube, tube)
        return self._bulk.kick(home.buried if len(home.buried) else home.delayed, bound)

    def kick_job(self, job: Job) -> Later | None:
        """Make a buried or delayed job ready."""
        if self._journal is None:
            self._changes.kick(job)
            return None
        return self._move(Write(KICK, job))

    def pause(self, tube: Tube, seconds: float) -> Later | None:
        """Pause a tube."""
        until = self._clock.now() + seconds
        home = cast(EmbeddedTube, tube)
        home.pauses += 1
        if self._journal is None:
            self._tubes.pause(home, seconds, until)
            return None
        write = Write(PAUSE, name=tube.name)
        write.tube = home
        write.delay = seconds
        write.until = until
        home.arriving += 1
        return self._send(write)

    def update(self, job: Job, body: bytes, raw_size: int = PLAIN) -> Later | None:
        """Replace the body of a held job."""
        if self._journal is None:
            self._changes.update(job, body, raw_size)
            return None
        write = Write(UPDATE, job)
        write.body = body
        write.raw_size = raw_size
        return self._move(write)

    def find(self, tube: Tube, metadata: str) -> Answer:
        """Look for the jobs that were put with this metadata."""
        return find(self._timers, self._jobs, self._last_id, tube, metadata)

    def add_up(self, tube: Tube) -> Answer:
        """Add up the sizes of a tube's bodies."""
        return add_up(self._timers, self._jobs, self._last_id, tube)

    def list_jobs(self, tube: Tube, state: int, wanted: Filter, after: str = "", limit: int = 100) -> Listing:
        """List the first jobs of a state to which a filter applies."""
        return self._lists.page(cast(EmbeddedTube, tube), state, wanted, after, limit, self._last_id)

    def count_jobs(self, tube: Tube, wanted: Filter) -> Later:
        """Count the jobs of a tube to which a filter applies."""
        return self._lists.count(cast(EmbeddedTube, tube), wanted, self._last_id)

    def clear(self, tube: Tube, wanted: Filter) -> Bulk:
        """Delete the jobs of a tube to which a filter applies."""
        return self._bulk.clear(cast(EmbeddedTube, tube), wanted, self._last_id)

    def move(self, tube: Tube, target: Tube, wanted: Filter) -> Bulk:
        """Move the jobs of a tube to which a filter applies to another one."""
        return self._bulk.move(cast(EmbeddedTube, tube), cast(EmbeddedTube, target), wanted, self._last_id)

    def kick_jobs(self, tube: Tube, wanted: Filter) -> Bulk:
        """Make the buried and delayed jobs of a tube ready to which a filter applies."""
        return self._bulk.kick_jobs(cast(EmbeddedTube, tube), wanted, self._last_id)

    def delete_tube(self, tube: Tube) -> Later | None:
        """Delete all jobs of a tube, reserved ones included."""
        return self._bulk.delete_tube(cast(EmbeddedTube, tube), self._last_id)

    # --- the journal

    def _move(self, write: Write) -> Later:
        """Withdraw jobs and pass their change to the journal."""
        for job in write.jobs:
            self._tubes.withdraw(job)
            job.moving = write
        return self._send(write)

    def _send(self, write: Write) -> Later:
        assert self._journal is not None
        write.tell(self._outcomes)
        self._journal.add(write)
        return write

    def settled(self, write: Write) -> None:
        """Apply a change that is on disk, or return the jobs of a failed one to their places."""
        op = write.op
        if op == PUT:
            job = write.jobs[0]
            tube = cast(EmbeddedTube, job.tube)
            tube.arriving -= 1
            del self._arriving[job.id]
            if write.error is None:
                self._changes.put(job, write.due)
            else:
                self.forget(tube)
            return
        if op == PAUSE:
            paused = cast(EmbeddedTube, write.tube)
            paused.arriving -= 1
            if write.error is None:
                self._tubes.pause(paused, write.delay, write.until)
            self.forget(paused)
            return
        for moved in write.jobs:
            moved.moving = None
            if write.error is not None:
                self._tubes.restore(moved)
            elif op == KICK:
                self._changes.kick(moved)
            elif op == RELEASE:
                self._changes.release(moved, write.pri, write.delay, write.due)
            elif op == BURY:
                self._changes.bury(moved, write.pri, write.burial, write.reason)
            elif op == MOVE:
                source = moved.tube
                self._changes.move(moved, cast(Tube, write.tube))
                self.forget(source)
            elif op == UPDATE:
                self._changes.update(moved, write.body, write.raw_size)
            else:
                self._delete(moved)

    def gathers(self) -> bool:
        """Tell whether the next `flush` takes so long that more commands should come before it."""
        return self._journal is not None and self._journal.gathers()

    def flush(self) -> None:
        """Let the journal start to write the changes of this turn."""
        if self._journal is not None:
            self._journal.flush()

    def journal_stats(self) -> JournalStats:
        """Return what the journal has done."""
        return JournalStats() if self._journal is None else self._journal.stats

    def close(self) -> Later | None:
        """Finish the changes on their way, write down the counters of jobs that were given back, and close the journal."""
        if self._journal is None:
            return None
        given_back: dict[tuple[int, int], list[int]] = {}
        for job in self._jobs.all():
            if job.ahead_of_store and job.state == READY:
                given_back.setdefault((job.reserves, job.timeouts), []).append(job.id)
        return self._journal.close(given_back)

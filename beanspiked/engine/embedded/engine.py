"""The embedded engine: every job in memory, every change of a durable engine in its journal before it is told of.

Without a journal a change is made at once. With one it is made in two steps: the job is *withdrawn*, so that nobody else can
take it and no timer can revive it, and its `Write` goes to the journal; when that is on disk the change is applied, and if it fails the
job is put back where it was.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.contract import (
    BURIED,
    DELAYED,
    GIVEN_UP,
    PLAIN,
    READY,
    RESERVED,
    Counts,
    Details,
    Job,
    ReadyListener,
    Tube,
    TubeEngine,
    TubeSizes,
)
from beanspiked.engine.embedded.slices import Slices, sweep
from beanspiked.engine.embedded.table import JobTable
from beanspiked.engine.embedded.write import (
    BURY,
    DELETE,
    DROP,
    KICK,
    PAUSE,
    PUT,
    RELEASE,
    UPDATE,
    Row,
    Write,
    fault_of,
    is_tube_name,
    job_of,
)
from beanspiked.engine.errors import DamagedEntry
from beanspiked.engine.later import Later
from beanspiked.engine.queue import Queue
from beanspiked.engine.timers import NEVER, SLICE, Timers

if TYPE_CHECKING:
    # SQLite is only loaded where it is used: the first client may be waiting.
    from beanspiked.engine.embedded.journal import Journal

__all__ = ["EmbeddedEngine"]

logger = logging.getLogger(__name__)

# How many jobs of a long change share a write to the journal: others' changes wait for no more than that.
WRITE_SLICE: Final = 500
DEFAULT: Final = "default"


class EmbeddedTube(Tube):
    """A tube and its jobs in their order.

    Attributes:
        engine: Whose it is.
        index: Its place in the list of tubes.
        arriving: Puts and pauses that are on their way to the journal.
        ready, delayed, buried: Its jobs by (priority, id), by due time, by the order of burial.
    """

    __slots__ = ("arriving", "buried", "delayed", "engine", "index", "ready")

    def __init__(self, id: int, name: str, engine: "EmbeddedEngine") -> None:  # noqa: A002 - as its base
        super().__init__(id, name)
        self.engine: EmbeddedEngine = engine
        self.index: int = 0
        self.arriving: int = 0
        self.ready: Queue = Queue()
        self.delayed: Queue = Queue()
        self.buried: Queue = Queue()

    def queue(self, state: int) -> Queue:
        """Return the queue of the jobs in this state, which is not RESERVED."""
        return self.ready if state == READY else self.delayed if state == DELAYED else self.buried

    def on_time(self, now: float) -> None:
        """Make due jobs ready and end a pause."""
        self.engine.tube_time(self, now)


class EmbeddedEngine(TubeEngine):
    """Exact beanstalkd semantics in one process.

    Args:
        timers: Where delays and pauses wait, and the clock.
        listener: Whom to tell when a job becomes ready.
        journal: Where changes are kept, or None.
    """

    def __init__(self, timers: Timers, listener: ReadyListener, journal: "Journal | None" = None) -> None:
        self.counts: Counts = Counts()
        self.listener: ReadyListener = listener
        self.durable: bool = journal is not None
        self._timers = timers
        self._clock = timers.clock
        self._journal = journal
        self._jobs = JobTable()
        self._arriving: dict[int, Write] = {}
        self._tubes: dict[str, EmbeddedTube] = {}
        self._tube_list: list[Tube] = []
        self._last_id = 0
        self._burials = 0
        self._found: list[int] = []
        self._sizes = TubeSizes()
        # Jobs whose compressed bodies came from the disk: whether those are whole shows when their turn comes.
        self._unproven: set[int] = set()
        self.tube(DEFAULT)

    def load(self, chunks: Iterable[list[Row]], pauses: list[tuple[str, float, float]], last_id: int) -> None:
        """Take in what a journal holds.

        Args:
            chunks: Its jobs in the order of their ids. Those that cannot be understood stay in the file and are not served.
            pauses: (tube, seconds, until).
            last_id: The last id that was used.
        """
        journal = self._journal
        assert journal is not None
        ahead = self._clock.ahead()
        burials = 0.0
        for rows in chunks:
            for row in rows:
                fault = fault_of(row)
                name = row[1]
                tube = None if fault else self._tubes.get(cast(str, name))
                if tube is None:
                    if not fault and not is_tube_name(name):
                        fault = "its tube has no valid name"
                    if fault:
                        journal.set_aside(row[0], fault)
                        continue
                    tube = self._make(cast(str, name))
                job = job_of(row, tube, cast(float, row[6]) - ahead)
                state = cast(int, row[2])
                place = cast(float, row[7])
                if job.details is not None and job.details.raw_size >= 0:
                    self._unproven.add(job.id)
                self._jobs.add(job)
                if state == DELAYED:
                    place -= ahead
                elif state == BURIED and place > burials:
                    burials = place
                self._enter(tube, job, state, place)
            # Also the id of one that is set aside: it is still taken.
            last_id = max(last_id, cast(int, rows[-1][0]))
        self._burials = int(burials)
        self._last_id = last_id
        now = self._clock.now()
        for name, seconds, wall_until in pauses:
            until = wall_until - ahead
            found = self._tubes.get(name)
            if found is not None and until > now:
                self._pause(found, seconds, until)
            else:
                # It ended with its tube; another tube of that name must not get it.
                journal.add(Write(PAUSE, name=name))

    # --- tubes

    def tube(self, name: str) -> Tube:
        """Find or make a tube."""
        return self._make(name)

    def find_tube(self, name: str) -> Tube | None:
        """Find a tube."""
        return self._tubes.get(name)

    def forget(self, tube: Tube) -> None:
        """Drop a tube if nothing refers to it any more; `default` stays."""
        known = cast(EmbeddedTube, tube)
        if known.using or known.watching or known.arriving or known.counts.jobs() or known.name == DEFAULT:
            return
        if self._tubes.get(known.name) is not known:
            return
        self._timers.cancel(known)
        del self._tubes[known.name]
        last = cast(EmbeddedTube, self._tube_list.pop())
        if last is not known:
            self._tube_list[known.index] = last
            last.index = known.index
        if known.pause and self._journal is not None:
            self._journal.add(Write(PAUSE, name=known.name))

    def tubes(self) -> list[Tube]:
        """List all tubes in beanstalkd's order."""
        return self._tube_list

    def _make(self, name: str) -> EmbeddedTube:
        tube = self._tubes.get(name)
        if tube is None:
            tube = EmbeddedTube(self._timers.new_id(), name, self)
            tube.index = len(self._tube_list)
            self._tubes[name] = tube
            self._tube_list.append(tube)
        return tube

    def tube_time(self, tube: EmbeddedTube, now: float) -> None:
        """Make a tube's due jobs ready, end its pause, and wait for the next of both."""
        room = SLICE
        while room:
            first = tube.delayed.first()
            if first is None or first.key > now:
                break
            self._shift(tube, cast(Job, first), READY, 0.0)
            self._tell(tube)
            room -= 1
        if tube.pause and tube.paused_until <= now:
            tube.pause = 0.0
            tube.paused_until = 0.0
        if tube.waiters:
            self._tell(tube)
        self._wait_for_next(tube)

    def _wait_for_next(self, tube: EmbeddedTube) -> None:
        first = tube.delayed.first()
        at = NEVER if first is None else first.key
        if tube.pause and tube.paused_until < at:
            at = tube.paused_until
        if at < NEVER:
            # What is due already has its turn behind everything else that is.
            self._timers.schedule(tube, max(at, self._clock.now()))

    # --- a job's place

    def _enter(self, tube: EmbeddedTube, job: Job, state: int, place: float) -> None:
        """Put a job, which stands nowhere, into a state; `place` is when it is due or the number of its burial."""
        job.state = state
        tube.counts.add(state, job.pri, 1)
        self.counts.add(state, job.pri, 1)
        if state == READY:
            tube.ready.push(job, float(job.pri))
        elif state == DELAYED:
            tube.delayed.push(job, place)
            self._timers.schedule(tube, place)
        elif state == BURIED:
            tube.buried.push(job, place)

    def _leave(self, tube: EmbeddedTube, job: Job) -> None:
        """Take a job out of its state, wherever it stands."""
        state = job.state
        if state != RESERVED and job.queued():
            tube.queue(state).remove(job)
        tube.counts.add(state, job.pri, -1)
        self.counts.add(state, job.pri, -1)

    def _shift(self, tube: EmbeddedTube, job: Job, state: int, place: float) -> None:
        self._leave(tube, job)
        self._enter(tube, job, state, place)

    def _tell(self, tube: EmbeddedTube) -> None:
        """Wake who waits, for each job that becomes ready and before the next one does (prot.c: enqueue_job)."""
        if tube.waiters:
            self.listener.tube_ready(tube, SLICE)
            if tube.waiters and len(tube.ready) and not tube.pause:
                # More wait than a slice serves: when a pause ended, say.
                self._timers.schedule(tube, self._clock.now())

    # --- jobs

    def new_id(self) -> int:
        """Number the next job."""
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
        now = self._clock.now()
        born = now if details is None or details.born == 0.0 else details.born
        job = Job(job_id, tube, pri, delay, ttr, born, body, details)
        home = cast(EmbeddedTube, tube)
        if self._journal is None:
            self._put(home, job, now + delay)
            return None
        write = Write(PUT, job)
        write.value = job_id
        write.place = now + delay
        home.arriving += 1
        self._arriving[job_id] = write
        return self._send(write)

    def _put(self, tube: EmbeddedTube, job: Job, due: float) -> None:
        self._jobs.add(job)
        tube.total_jobs += 1
        self._enter(tube, job, DELAYED if job.delay else READY, due)
        self._tell(tube)

    def take(self, tubes: list[Tube]) -> Job | None:
        """Reserve the most urgent ready job over these tubes but the paused ones; bury those on the way that are damaged."""
        best = self._best(tubes)
        while best is not None and self._unproven and not self._proven(best):
            best = self._best(tubes)
        if best is not None:
            self._reserve(best)
        return best

    def _best(self, tubes: list[Tube]) -> Job | None:
        best: Job | None = None
        for tube in tubes:
            home = cast(EmbeddedTube, tube)
            first = home.ready.first()
            if first is None or home.pause:
                continue
            if best is None or first.key < best.key or (first.key == best.key and first.id < best.id):
                best = cast(Job, first)
        return best

    def _proven(self, job: Job) -> bool:
        """Tell whether a ready job's body can be read; bury it if not, here only: after a restart it is found out again."""
        if job.id not in self._unproven:
            return True
        try:
            job.raw_body()
        except DamagedEntry as error:
            logger.error("job %d of %s is damaged, and buried: %s", job.id, job.tube.name, error)
            self._burials += 1
            self._bury(job, job.pri, float(self._burials), f"damaged: {error}")
            return False
        self._unproven.discard(job.id)
        return True

    def take_job(self, job: Job) -> Later | None:
        """Reserve a job that is ready, delayed or buried."""
        self._reserve(job)
        return None

    def _reserve(self, job: Job) -> None:
        self._shift(cast(EmbeddedTube, job.tube), job, RESERVED, 0.0)
        job.reserves += 1

    def find_job(self, job_id: int) -> Job | None:
        """Find a job in any state."""
        return self._jobs.get(job_id)

    def in_flight(self, job_id: int) -> Later | None:
        """Return the change of this job that is on its way to the journal."""
        job = self._jobs.get(job_id)
        return self._arriving.get(job_id) if job is None else job.moving

    def peek_next(self, tube: Tube, state: int) -> Job | None:
        """Find the job that would leave a state next."""
        return cast("Job | None", cast(EmbeddedTube, tube).queue(state).first())

    def delete(self, job: Job) -> Later | None:
        """Remove a job that the caller holds or that nobody does."""
        if self._journal is None:
            self._delete(job)
            return None
        return self._move(Write(DELETE, job))

    def _delete(self, job: Job) -> None:
        tube = cast(EmbeddedTube, job.tube)
        if job.holder is not None:
            job.holder.lost(job)
        self._leave(tube, job)
        self._unproven.discard(job.id)
        self._jobs.remove(job)
        tube.deletes += 1
        self.forget(tube)

    def release(self, job: Job, pri: int, delay: float) -> Later | None:
        """Put a held job back."""
        place = self._clock.now() + delay
        if self._journal is None:
            self._release(job, pri, delay, place)
            return None
        write = Write(RELEASE, job)
        write.pri = pri
        write.delay = delay
        write.place = place
        return self._move(write)

    def _release(self, job: Job, pri: int, delay: float, due: float) -> None:
        tube = cast(EmbeddedTube, job.tube)
        self._leave(tube, job)
        job.pri = pri
        job.delay = delay
        job.releases += 1
        job.ahead_of_store = False
        self._enter(tube, job, DELAYED if delay else READY, due)
        self._tell(tube)

    def bury(self, job: Job, pri: int, reason: str = "") -> Later | None:
        """Set a held job aside."""
        self._burials += 1
        if self._journal is None:
            self._bury(job, pri, self._burials, reason)
            return None
        write = Write(BURY, job)
        write.pri = pri
        write.place = float(self._burials)
        write.name = reason
        return self._move(write)

    def _bury(self, job: Job, pri: int, place: float, reason: str) -> None:
        tube = cast(EmbeddedTube, job.tube)
        self._leave(tube, job)
        job.pri = pri
        job.buries += 1
        if reason:
            details = job.details
            if details is None:
                details = Details()
                job.details = details
            details.reason = reason
        self._enter(tube, job, BURIED, place)

    def give_back(self, job: Job, timed_out: bool) -> None:
        """Make a held job ready as it was."""
        tube = cast(EmbeddedTube, job.tube)
        if job.moving is not None:
            # Its holder is gone, or out of time, while a change of the job is on its way: that one first.
            job.moving.then(lambda _: self._give_back_after(job, timed_out))
            return
        if timed_out:
            job.timeouts += 1
        job.ahead_of_store = True
        self._shift(tube, job, READY, 0.0)
        self._tell(tube)

    def _give_back_after(self, job: Job, timed_out: bool) -> None:
        if self._jobs.get(job.id) is job and job.state == RESERVED and job.holder is None:
            self.give_back(job, timed_out)

    def kick(self, tube: Tube, bound: int) -> tuple[int, Later | None]:
        """Make up to `bound` buried jobs ready, or delayed ones if none is buried."""
        home = cast(EmbeddedTube, tube)
        queue = home.buried if len(home.buried) else home.delayed
        left = min(bound, len(queue))
        if left <= SLICE:
            return left, self._kick_first(home, queue, left) if left else None

        def step(work: Slices) -> Later | None:
            nonlocal left
            # Others may have taken some meanwhile.
            count = min(left, len(queue), SLICE if self._journal is None else WRITE_SLICE)
            left -= count
            if not left or not count:
                work.end()
            if self._journal is None:
                work.outcome.value += count
            return self._kick_first(home, queue, count) if count else None

        return -1, Slices(self._timers, step).begin()

    def _kick_first(self, tube: EmbeddedTube, queue: Queue, count: int) -> Later | None:
        """Kick the first jobs of a queue, which has so many."""
        if self._journal is None:
            for _ in range(count):
                self._kick(tube, cast(Job, queue.first()))
            return None
        write = Write(KICK, None)
        for _ in range(count):
            job = cast(Job, queue.first())
            queue.remove(job)
            job.moving = write
            write.jobs.append(job)
        write.value = count
        return self._send(write)

    def kick_job(self, job: Job) -> Later | None:
        """Make a buried or delayed job ready."""
        tube = cast(EmbeddedTube, job.tube)
        if self._journal is None:
            self._kick(tube, job)
            return None
        tube.queue(job.state).remove(job)
        write = Write(KICK, None)
        write.jobs = [job]
        job.moving = write
        return self._send(write)

    def _kick(self, tube: EmbeddedTube, job: Job) -> None:
        job.kicks += 1
        job.ahead_of_store = False
        if job.details is not None:
            job.details.reason = ""
        self._shift(tube, job, READY, 0.0)
        self._tell(tube)

    def pause(self, tube: Tube, seconds: float) -> Later | None:
        """Keep a tube's jobs from being taken for a time."""
        until = self._clock.now() + seconds
        home = cast(EmbeddedTube, tube)
        home.pauses += 1
        if self._journal is None:
            self._pause(home, seconds, until)
            return None
        write = Write(PAUSE, name=tube.name)
        write.tube = home
        write.delay = seconds
        write.place = until
        home.arriving += 1
        return self._send(write)

    def _pause(self, tube: EmbeddedTube, seconds: float, until: float) -> None:
        tube.pause = seconds
        tube.paused_until = until if seconds else 0.0
        if seconds:
            self._timers.schedule(tube, until)
        else:
            self._tell(tube)

    def update(self, job: Job, body: bytes, raw_size: int = PLAIN) -> Later | None:
        """Replace the body of a held job."""
        if self._journal is None:
            self._update(job, body, raw_size)
            return None
        write = Write(UPDATE, job)
        write.body = body
        write.raw_size = raw_size
        return self._move(write)

    def _update(self, job: Job, body: bytes, raw_size: int) -> None:
        job.body = body
        if job.details is not None:
            job.details.raw_size = raw_size
        elif raw_size != PLAIN:
            job.details = Details(raw_size=raw_size)

    def look_found(self, tube: Tube, metadata: str) -> Later | None:
        """Look for the jobs that were put with this metadata."""
        found: list[int] = []

        def visit(jobs: list[Job]) -> Later | None:
            for job in jobs:
                details = job.details
                if job.tube is tube and job.state != BURIED and details is not None and details.metadata == metadata:
                    found.append(job.id)
            return None

        def keep(_: Later) -> None:
            self._found = found

        self._found = found
        return self._sweep(visit, keep)

    def find(self, tube: Tube, metadata: str) -> list[int]:  # noqa: ARG002 - those of the look
        """List the ids that the last look found, once."""
        found, self._found = self._found, []
        return found

    def look_sizes(self, tube: Tube) -> Later | None:
        """Add up the sizes of a tube's bodies."""
        sizes = TubeSizes()

        def visit(jobs: list[Job]) -> Later | None:
            for job in jobs:
                if job.tube is tube:
                    raw_size = PLAIN if job.details is None else job.details.raw_size
                    stored = len(job.body)
                    sizes.stored += stored
                    sizes.raw += raw_size if raw_size >= 0 else stored
                    if raw_size == GIVEN_UP:
                        sizes.skipped += stored
            return None

        def keep(_: Later) -> None:
            self._sizes = sizes

        self._sizes = sizes
        return self._sweep(visit, keep)

    def sizes(self, tube: Tube) -> TubeSizes:  # noqa: ARG002 - that of the look
        """Return what the last look has added up."""
        return self._sizes

    def _sweep(self, visit: Callable[[list[Job]], Later | None], keep: Callable[[Later], None]) -> Later | None:
        """Visit all jobs; `keep` what was seen before anybody else is told, who may have looked at something else meanwhile."""
        later = sweep(self._timers, self._jobs, self._last_id, visit)
        if later is not None:
            later.then(keep)
        return later

    def delete_tube(self, tube: Tube) -> Later | None:
        """Delete all jobs of a tube, reserved ones included."""

        def visit(jobs: list[Job]) -> Later | None:
            chosen = [job for job in jobs if job.tube is tube and job.moving is None]
            if self._journal is None:
                for job in chosen:
                    self._delete(job)
                return None
            if not chosen:
                return None
            write = Write(DROP, None)
            write.jobs = chosen
            for job in chosen:
                self._withdraw(job)
                job.moving = write
            return self._send(write)

        return sweep(self._timers, self._jobs, self._last_id, visit)

    # --- the journal

    def _withdraw(self, job: Job) -> None:
        """Take a job from its queue while it stays counted in its state, so that nobody else gets it."""
        if job.state != RESERVED:
            cast(EmbeddedTube, job.tube).queue(job.state).remove(job)

    def _restore(self, job: Job) -> None:
        """Put a withdrawn job back in its place. A held one is its holder's to take back."""
        if job.state != RESERVED:
            tube = cast(EmbeddedTube, job.tube)
            tube.queue(job.state).push(job, job.key)
            self._wait_for_next(tube)
            if job.state == READY:
                self._tell(tube)

    def _move(self, write: Write) -> Later:
        job = write.job
        assert job is not None
        self._withdraw(job)
        job.moving = write
        return self._send(write)

    def _send(self, write: Write) -> Later:
        assert self._journal is not None
        write.then(self._settled)
        self._journal.add(write)
        return write

    def _settled(self, later: Later) -> None:
        """Apply a change that is on disk, or put back what one that failed had withdrawn."""
        write = cast(Write, later)
        job = write.job
        op = write.op
        if op == PUT:
            assert job is not None
            tube = cast(EmbeddedTube, job.tube)
            tube.arriving -= 1
            del self._arriving[job.id]
            if write.error is None:
                self._put(tube, job, write.place)
            else:
                self.forget(tube)
            return
        if op == PAUSE:
            paused = cast(EmbeddedTube, write.tube)
            paused.arriving -= 1
            if write.error is None:
                self._pause(paused, write.delay, write.place)
            self.forget(paused)
            return
        for moved in write.jobs if job is None else [job]:
            moved.moving = None
            if write.error is not None:
                self._restore(moved)
            elif op == KICK:
                self._kick(cast(EmbeddedTube, moved.tube), moved)
            elif op == RELEASE:
                self._release(moved, write.pri, write.delay, write.place)
            elif op == BURY:
                self._bury(moved, write.pri, write.place, write.name)
            elif op == UPDATE:
                self._update(moved, write.body, write.raw_size)
            else:
                self._delete(moved)
        if op == KICK and write.error is None:
            self._tell(cast(EmbeddedTube, write.jobs[0].tube))

    def flush(self) -> None:
        """Let the journal begin with what was added in this turn."""
        if self._journal is not None:
            self._journal.flush()

    def journal_stats(self) -> tuple[int, int]:
        """Return the number of journal files and of records written by this process."""
        return (0, 0) if self._journal is None else (1, self._journal.records_written)

    def close(self) -> Later | None:
        """Finish what is on its way to the journal, write down what it was not told of jobs that were given back, and close it."""
        if self._journal is None:
            return None
        given_back: dict[tuple[int, int], list[int]] = {}
        for job in self._jobs.all():
            if job.ahead_of_store and job.state == READY and job.moving is None:
                given_back.setdefault((job.reserves, job.timeouts), []).append(job.id)
        return self._journal.close(given_back)

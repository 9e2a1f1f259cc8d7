"""The tubes of the embedded engine, and each job's place in its tube."""

from heapq import heappush
from typing import Final, cast

from beanspiked.engine.contract import BURIED, DELAYED, READY, RESERVED, Counts, Job, ReadyListener, Tube
from beanspiked.engine.queue import Queue
from beanspiked.engine.timers import NEVER, SLICE, Timers

__all__ = ["MIXED", "EmbeddedTube", "Tubes"]

DEFAULT: Final = "default"
# The priority of ready jobs that have several.
MIXED: Final = -1


class EmbeddedTube(Tube):
    """A tube and its jobs in order.

    Attributes:
        all: All tubes.
        index: Its place in the list of tubes.
        arriving: How many puts and pauses are on their way to the journal.
        ready, delayed, buried: Its jobs by (priority, id), by due time, by the order of burial.
        ready_pri: The priority that all ready jobs have, the first of which is the oldest then; or MIXED.
        ready_ids: A heap of the ids of ready jobs and of some that were ready, once somebody has asked for the oldest of MIXED ones.
        gathered: Whether all are in it.
    """

    __slots__ = ("all", "arriving", "buried", "delayed", "gathered", "index", "ready", "ready_ids", "ready_pri")

    def __init__(self, id: int, name: str, all: "Tubes") -> None:  # noqa: A002 - as its base, and all of them
        super().__init__(id, name)
        self.all: Tubes = all
        self.index: int = 0
        self.arriving: int = 0
        self.ready: Queue = Queue()
        self.delayed: Queue = Queue()
        self.buried: Queue = Queue()
        self.ready_pri: int = MIXED
        self.ready_ids: list[int] | None = None
        self.gathered: bool = False

    def push_ready(self, job: Job) -> None:
        """Let a job wait with the ready ones."""
        if job.pri != self.ready_pri:
            self.ready_pri = MIXED if len(self.ready) else job.pri
        if self.ready_ids is not None:
            heappush(self.ready_ids, job.id)
        self.ready.push(job, float(job.pri))

    def queue(self, state: int) -> Queue:
        """Return the queue of the jobs in this state, which is not RESERVED."""
        return self.ready if state == READY else self.delayed if state == DELAYED else self.buried

    def on_time(self, now: float) -> None:
        """Make due jobs ready and end a pause."""
        self.all.on_time(self, now)


class Tubes:
    """All tubes; moves jobs between their queues.

    Args:
        timers: The timer queue, for delays and pauses, and the clock.
        listener: Told when a job becomes ready.

    Attributes:
        counts: Jobs by state over all tubes.
        made: The tubes in the order of creation, but the last one takes a removed one's place.
    """

    def __init__(self, timers: Timers, listener: ReadyListener) -> None:
        self.counts: Counts = Counts()
        self.made: list[Tube] = []
        self._timers = timers
        self._clock = timers.clock
        self._listener = listener
        self._by_name: dict[str, EmbeddedTube] = {}
        self.make(DEFAULT)

    def find(self, name: str) -> EmbeddedTube | None:
        """Find a tube."""
        return self._by_name.get(name)

    def make(self, name: str) -> EmbeddedTube:
        """Find or make a tube."""
        tube = self._by_name.get(name)
        if tube is None:
            tube = EmbeddedTube(self._timers.new_id(), name, self)
            tube.index = len(self.made)
            self._by_name[name] = tube
            self.made.append(tube)
        return tube

    def forget(self, tube: EmbeddedTube) -> bool:
        """Drop a tube other than `default` if nothing refers to it any more; tell whether it was dropped."""
        if tube.using or tube.watching or tube.arriving or tube.counts.jobs() or tube.name == DEFAULT:
            return False
        if self._by_name.get(tube.name) is not tube:
            return False
        self._timers.cancel(tube)
        del self._by_name[tube.name]
        last = cast(EmbeddedTube, self.made.pop())
        if last is not tube:
            self.made[tube.index] = last
            last.index = tube.index
        return True

    # --- jobs

    def best(self, tubes: list[Tube]) -> Job | None:
        """Find the most urgent ready job over these tubes but the paused ones."""
        best: Job | None = None
        for tube in tubes:
            home = cast(EmbeddedTube, tube)
            first = home.ready.first()
            if first is None or home.pause:
                continue
            if best is None or first.key < best.key or (first.key == best.key and first.id < best.id):
                best = cast(Job, first)
        return best

    def enter(self, job: Job, state: int, key: float) -> None:
        """Put a job that is in no state into one; `key` is its due time or the number of its burial."""
        tube = cast(EmbeddedTube, job.tube)
        job.state = state
        tube.counts.add(state, job.pri, 1)
        self.counts.add(state, job.pri, 1)
        if state == READY:
            tube.push_ready(job)
        elif state == DELAYED:
            tube.delayed.push(job, key)
            self._timers.schedule(tube, key)
        elif state == BURIED:
            tube.buried.push(job, key)

    def leave(self, job: Job) -> None:
        """Take a job out of its state."""
        tube = cast(EmbeddedTube, job.tube)
        state = job.state
        if state != RESERVED and job.queued():
            tube.queue(state).remove(job)
        tube.counts.add(state, job.pri, -1)
        self.counts.add(state, job.pri, -1)

    def reserve(self, job: Job) -> None:
        """Reserve a job, so that only its holder can reach it."""
        self.leave(job)
        self.enter(job, RESERVED, 0.0)
        job.reserves += 1

    def make_ready(self, job: Job) -> None:
        """Make a job ready and serve a waiter."""
        self.leave(job)
        self.enter(job, READY, 0.0)
        self.serve(cast(EmbeddedTube, job.tube))

    def withdraw(self, job: Job) -> None:
        """Take a job out of its queue, so that nobody else gets it, while its state still counts it."""
        if job.state != RESERVED:
            cast(EmbeddedTube, job.tube).queue(job.state).remove(job)

    def restore(self, job: Job) -> None:
        """Return a withdrawn job to its place; a held job's holder takes it back itself."""
        if job.state != RESERVED:
            tube = cast(EmbeddedTube, job.tube)
            if job.state == READY:
                tube.push_ready(job)
            else:
                tube.queue(job.state).push(job, job.key)
            self._schedule(tube)
            if job.state == READY:
                self.serve(tube)

    def serve(self, tube: EmbeddedTube) -> None:
        """Serve a waiter when a job becomes ready, before the next one does (prot.c: enqueue_job)."""
        if tube.waited_for():
            self._listener.tube_ready(tube, SLICE)
            if len(tube.ready) and not tube.pause and tube.longest() is not None:
                # More waiters than a slice serves, for example at the end of a pause.
                self._timers.schedule(tube, self._clock.now())

    # --- time

    def pause(self, tube: EmbeddedTube, seconds: float, until: float) -> None:
        """Pause a tube until a time; 0 seconds end the pause."""
        tube.pause = seconds
        tube.paused_until = until if seconds else 0.0
        if seconds:
            self._timers.schedule(tube, until)
        else:
            self.serve(tube)

    def on_time(self, tube: EmbeddedTube, now: float) -> None:
        """Make a tube's due jobs ready, end its pause if that is over, and schedule the next call."""
        room = SLICE
        while room:
            first = tube.delayed.first()
            if first is None or first.key > now:
                break
            self.make_ready(cast(Job, first))
            room -= 1
        if tube.pause and tube.paused_until <= now:
            tube.pause = 0.0
            tube.paused_until = 0.0
        self.serve(tube)
        self._schedule(tube)

    def _schedule(self, tube: EmbeddedTube) -> None:
        first = tube.delayed.first()
        at = NEVER if first is None else first.key
        if tube.pause and tube.paused_until < at:
            at = tube.paused_until
        if at < NEVER:
            # Jobs that are due already come after everything else that is due.
            self._timers.schedule(tube, max(at, self._clock.now()))

"""What one front-end knows of one segment, and what is asked of it; tubes rank their segments by it."""

import asyncio
from typing import Final

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.bodies import Bodies
from beanspiked.engine.aerospike.segment.codec import HEAD_SIZE
from beanspiked.engine.aerospike.segment.forecast import Forecast
from beanspiked.engine.aerospike.segment.inbox import Inbox
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, HeldChange, Put, SharedJob, Steal
from beanspiked.engine.aerospike.segment.surroundings import Home, LeaseSource, Surroundings
from beanspiked.engine.aerospike.store.keys import LAST_SLOT, OTHERS_LATER_US, moved
from beanspiked.engine.aerospike.store.seam import FIRST, HEAD_KEYS, OPEN, Head, Segment
from beanspiked.engine.contract import Waiter
from beanspiked.engine.errors import EngineError, StoreFailed

__all__ = ["BYTES_MAX", "EMPTY", "JOBS_MAX", "View", "head_of"]

EMPTY: Final = Head((), None, None, 0, 0, 0, 0, OPEN)
# A segment takes puts while it holds fewer jobs and bytes than these: each operation copies the whole record.
JOBS_MAX: Final = 1024
BYTES_MAX: Final = 131072
# A segment that does not answer is asked for no jobs for so long, in seconds.
ASIDE_FOR: Final = 3.0


class View:
    """One segment, as seen from here.

    Args:
        around: What it needs of the front-end.
        tube: The tube it belongs to.
        number: Its number.
        lease: The lease on it, 0 before one is needed.
        owned: Whether this front-end made it, and alone puts into it.

    Attributes:
        session: The session that its leases are of.
        head: What it was last seen to hold, or None.
        mark: The engine's step at which the operation began that told so.
        heard: The engine's step at which others last told of a delayed job.
        used: The engine's step at which anything was last asked of it.
        forecast: Which ready jobs it has for whoever asks next.
        held: The jobs in the lease, by key.
        closed: Whether it accepts no more puts, or soon will not.
        gone: Whether it is over with it: dead, lost, or of a session that is over.
        bodies: Its bodies that lie outside.
        suspended: Whether no jobs are requested of it for now, since it does not answer.
        refreshing, refresh_again: Whether it is being looked at, and whether it is to be looked at once more.
        form: The format of its record, which is that of the puts it takes; only of one that was made here.
        unknown: The keys of ready jobs whose format, or that of their bodies, is not known here, as far as they were met.
        inbox: What waits for the next operation.
        slots: The highest slot that was given to a put.
        failing_since: Since when nothing has succeeded that was tried, in seconds since the epoch; 0 when all is well.
    """

    def __init__(self, around: Surroundings, tube: Home, number: int, lease: int, owned: bool) -> None:
        self.around: Surroundings = around
        self.tube: Home = tube
        self.number: int = number
        self.lease: int = lease
        self.owned: bool = owned
        self.session: LeaseSource = around.session()
        self.head: Head | None = None
        self.mark: int = 0
        self.heard: int = 0
        self.used: int = around.step()
        self.forecast: Forecast = Forecast()
        self.held: dict[bytes, SharedJob] = {}
        self.closed: bool = not owned
        self.gone: bool = False
        self.running: bool = False
        self.suspended: bool = False
        self.refreshing: bool = False
        self.refresh_again: bool = False
        self.rank: bytes | None = None
        self.form: int = FIRST
        self.unknown: set[bytes] = set()
        self.inbox: Inbox = Inbox()
        self.bodies: Bodies = Bodies(self, around.store)
        self.failing_since: float = 0.0
        self._suspended_until: float = 0.0
        self.slots: int = 0
        self._size: int = 0
        self._jobs: int = 0
        self._turns: list[asyncio.Future[None]] = []

    # --- what is known

    def update_head(self, head: Head, mark: int) -> None:
        """Take note of what it holds."""
        self.head = head
        self.mark = mark
        if head.state != OPEN:
            self.closed = True
        self.forecast.update(self._without_unknown(head), self.inbox.puts, self.inbox.wanted)
        self.tube.rank(self)

    def see(self, head: Head, mark: int) -> None:
        """Take note of what a look that began at a step has found; news of delayed jobs that have come since stand."""
        heard = None if self.head is None or self.heard < mark else self.head.due_key
        if heard is not None and (head.due_key is None or heard < head.due_key):
            head = head._replace(due_key=heard, delayed=max(head.delayed, 1))
        self.update_head(head, mark)
        if head.due_key is not None:
            self.tube.expect(head.due_key)

    def hear(self, key: bytes, count: int) -> None:
        """Somebody else has so many ready jobs here, the first with this key: a hint that an operation of this front-end puts right."""
        if self.gone:
            return
        if self.running:
            # What is on its way may have begun before.
            self.around.look_at(self)
            return
        head = (self.head or EMPTY)._replace(first_keys=(key,), last_key=key if count == 1 else None, ready=count)
        self.update_head(head, self.around.step())

    def hear_of_delayed(self, key: bytes) -> None:
        """Somebody else has put a delayed job here that is due at this key's time."""
        if self.gone:
            return
        if self.running:
            # What is on its way may have begun before.
            self.around.look_at(self)
        self.heard = self.around.step()
        head = self.head or EMPTY
        if head.due_key is None or key < head.due_key:
            self.head = head._replace(due_key=key, delayed=max(head.delayed, 1))

    def _without_unknown(self, head: Head) -> Head:
        """Leave out of what it holds the ready jobs that are only for front-ends which know their format."""
        if not self.unknown:
            return head
        if head.ready <= len(head.first_keys):
            self.unknown.intersection_update(head.first_keys)
        known = [key for key in head.first_keys if key not in self.unknown]
        return head._replace(first_keys=known, ready=max(len(known), head.ready - len(self.unknown)) if known else 0)

    def best(self) -> bytes | None:
        """Return the key by which the most urgent job that is expected here is taken in its turn."""
        best = self.forecast.best()
        return best if best is None or self.owned else moved(best, OTHERS_LATER_US)

    def askable(self, bound: bytes | None) -> int:
        """Count the expected jobs whose turn surely comes before a bound."""
        return self.forecast.askable(bound if bound is None or self.owned else moved(bound, -OTHERS_LATER_US))

    def accepts(self, put: Put) -> bool:
        """Tell whether a put may go here."""
        if self.closed or self.gone or put.form != self.form:
            return False
        head = self.head
        live = 0 if head is None else head.ready + head.delayed + head.buried + head.held
        waiting = len(self.inbox.puts)
        return (
            self.slots + waiting < LAST_SLOT and live + waiting < JOBS_MAX and self._size + len(put.packed) <= BYTES_MAX
        )

    def knows_since(self, mark: int) -> bool:
        """Tell whether nothing is to be learnt from what was read at a step: it knows better, or is over."""
        return self.gone or self.mark >= mark

    def busy(self) -> bool:
        """Tell whether anything here is on its way or held."""
        return self.running or bool(self.held) or self.inbox.waited_for()

    def rests(self, since: int) -> bool:
        """Tell whether nothing has been asked of it since a step, nor is held, nothing is to be put, and nobody looks at it."""
        known = self.head is not None and self.closed and not self.gone and not self.suspended
        idle = not (self.running or self.refreshing or self.held or self.inbox.pending())
        return known and idle and self.used < since

    def idle_and_empty(self) -> bool:
        """Tell whether nothing is on its way and, as far as is known, no job is in it."""
        head = self.head
        return not self.busy() and head is not None and head.ready + head.delayed + head.buried + head.held == 0

    def weigh(self, batch: Batch, head: Head) -> None:
        """Reckon how many bytes of jobs there are: what others have deleted was of the usual size, as far as one can know."""
        waiting = sum([len(put.packed) for put in self.inbox.puts])
        gone = [change.job for change in batch.held_changes if change.queue is None and not change.stays]
        here = self._size - waiting - sum([HEAD_SIZE + len(job.stored) for job in gone])
        jobs = self._jobs + len(batch.puts) - len(gone)
        self._jobs = head.ready + head.delayed + head.buried + head.held
        if 0 <= self._jobs < jobs:
            here = here * self._jobs // jobs
        self._size = max(0, here) + waiting

    # --- what is asked of it

    def put(self, put: Put) -> None:
        """Add a job."""
        self.inbox.puts.append(put)
        self._size += len(put.packed)
        if put.due_ms == 0:
            self.forecast.add(put)
            self.tube.rank(self)
        self.around.wake(self)

    def ask(self, waiter: Waiter, count: int) -> None:
        """Take jobs for a waiter."""
        self.inbox.ask(waiter, count)
        self.forecast.ask(count)

    def change_held(self, change: HeldChange) -> None:
        """Let a held job go where it goes."""
        change.job.leaving = True
        change.job.moving = change
        self.inbox.held_changes.append(change)
        self.around.wake(self)

    def steal(self, steal: Steal) -> None:
        """Reserve a job from one of its queues."""
        self.inbox.steals.append(steal)
        self.around.wake(self)

    def close(self) -> None:
        """Accept no more puts, here at once and in the store with the next operation."""
        self.closed = True
        self.inbox.close = True
        self.around.wake(self)

    def under_way(self) -> bool:
        """Tell whether an operation is in flight, or is about to begin."""
        return self.running or (self.inbox.pending() and not self.gone)

    async def turn(self) -> None:
        """Wait until the operation in flight, or the one that is about to begin, has ended or has failed for too long."""
        if self.under_way():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turns.append(future)
            await future

    def release_turns(self) -> None:
        """Let those go on who wait for the operation in flight."""
        turns = self._turns
        self._turns = []
        for future in turns:
            if not future.done():
                future.set_result(None)

    # --- when it does not answer, or is over

    def has_failed(self, now: float) -> None:
        """Take note that what was tried failed."""
        if not self.failing_since:
            self.failing_since = now

    def has_succeeded(self) -> None:
        """Take note that what was tried succeeded."""
        self.failing_since = 0.0
        if self.suspended:
            self._ask_again()

    def fails(self) -> bool:
        """Tell whether nothing has succeeded that was tried last."""
        return self.failing_since > 0

    def expire(self, now: float) -> None:
        """Once a second while an operation is in flight: if it fails, fail what has waited behind it for too long."""
        if not self.failing_since:
            return
        self.fail_late(now, StoreFailed("the store does not answer"))
        if now - self.failing_since >= ANSWER_WITHIN:
            self.set_aside(now)

    def fail_late(self, now: float, reason: EngineError) -> None:
        """Fail what has waited for too long."""
        puts, held_changes, steals = self.inbox.take_late(now)
        for put in puts:
            self.forecast.expected -= put.due_ms == 0
            put.fail(reason)
        for change in held_changes:
            change.fail(reason)
        for steal in steals:
            steal.fail(reason)

    def set_aside(self, now: float) -> None:
        """Ask for no jobs here for now: who waits may get those of other segments."""
        self.suspended = True
        # Whether more urgent jobs, or any, are in it is not known.
        self.tube.doubt()
        self._suspended_until = now + ASIDE_FOR
        self.around.suspended(self, True)
        self.around.unclaim(self.tube, self.inbox.take_asks())
        if self.head is not None:
            self.update_head(self.head, self.mark)
        self.release_turns()
        self.around.request_soon(self.tube)
        self.around.advance_seeks(self.tube)

    def resume(self, now: float) -> None:
        """Ask for jobs again, after a time or once an operation has succeeded."""
        if self.gone or (now >= self._suspended_until and not self.running):
            self._ask_again()

    def _ask_again(self) -> None:
        self.suspended = False
        self.around.suspended(self, False)
        if not self.gone:
            self.tube.rank(self)
            # Who waited only for this one learns that there is nothing.
            self.around.advance_seeks(self.tube)

    def abandon(self, reason: EngineError) -> None:
        """Let go of everything here: the session is over, or something is wrong. What is in flight is seen to when it returns."""
        self.gone = True
        self.around.suspended(self, False)
        self.forecast.expected = 0
        puts = self.inbox.take_puts()
        held_changes = self.inbox.take_held_changes()
        asks = self.inbox.take_asks()
        steals = self.inbox.take_steals()
        self.tube.drop(self)
        held = self.held
        self.held = {}
        for job in held.values():
            self.around.lost(job)
        self.around.unclaim(self.tube, asks)
        for change in held_changes:
            change.fail(reason)
        for steal in steals:
            steal.fail(reason)
        self.around.put_elsewhere(self.tube, puts)
        self.around.advance_seeks(self.tube, anew=True)

    def put_elsewhere(self, puts: list[Put]) -> None:
        """Let puts that were surely not done, and all that wait, go to another segment, and take no more."""
        puts += self.inbox.take_puts()
        self.tube.put_no_more(self)
        self.closed = True
        self.inbox.close = True
        if self.head is not None:
            self.update_head(self.head, self.mark)
        self.around.put_elsewhere(self.tube, puts)


def head_of(segment: Segment) -> Head:
    """Return what a segment that was read would give next."""
    ready = list(segment.ready)
    due = next(iter(segment.delayed), None)
    last = ready[-1] if ready else None
    counts = (len(ready), len(segment.delayed), len(segment.buried), segment.held)
    return Head(ready[:HEAD_KEYS], last, due, *counts, segment.state)

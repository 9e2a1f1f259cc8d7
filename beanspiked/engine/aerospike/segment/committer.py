"""One front-end's side of one segment: what it knows of it, its lease on it, and the one operation that is in flight.

What arrives while an operation is in flight goes out together when it returns, so an idle segment costs one round trip a command and a
busy one batches by itself. Whatever an operation's fate, nothing is told before it is known: an operation of unknown outcome is settled
by moving the lease on, after which what has not happened never will (segment-protocol: a settle is a write, never a read).
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.bodies import Bodies
from beanspiked.engine.aerospike.segment.codec import HEAD_SIZE
from beanspiked.engine.aerospike.segment.forecast import Outlook
from beanspiked.engine.aerospike.segment.inbox import Inbox
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, Leave, Put, SharedJob, Steal, job_id
from beanspiked.engine.aerospike.store.keys import LAST_SLOT, job_slot, ready_key
from beanspiked.engine.aerospike.store.seam import (
    DEAD,
    DELAYED,
    FIRST,
    HEAD_KEYS,
    OPEN,
    READY,
    Busy,
    Fenced,
    Full,
    Head,
    Refused,
    Segment,
    Settlement,
    StoreError,
    Unknown,
)
from beanspiked.engine.contract import RESERVED, Waiter
from beanspiked.engine.errors import (
    DamagedEntry,
    EngineError,
    JobGone,
    NewerEntry,
    OutcomeUnknown,
    StoreFailed,
    StoreFull,
)

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.cluster.session import Session
    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.tubes.tube import SharedTube

__all__ = ["EMPTY", "Committer"]

logger = logging.getLogger(__name__)

EMPTY: Final = Head((), None, None, 0, 0, 0, 0, OPEN)
# A segment takes puts while it holds fewer jobs and bytes than these: each operation copies the whole record.
JOBS_MAX: Final = 1024
BYTES_MAX: Final = 131072
# Fewer commands than this in one operation are those of clients that nobody else waits with.
ALONE: Final = 4
# How often the sockets are looked at in vain before the next operation begins.
LOOKS_MAX: Final = 4
# Puts whose segment has not taken them for so long go to another one, in seconds.
PUTS_WAIT: Final = 0.5
# A segment that does not answer is asked for no jobs for so long, in seconds.
ASIDE_FOR: Final = 3.0


class Committer:
    """One segment, as seen from here.

    Args:
        engine: Whose it is.
        tube: The tube it belongs to.
        number: Its number.
        lease: The lease on it, 0 before one is needed.
        owned: Whether this front-end made it, and alone puts into it.

    Attributes:
        session: The session that its leases are of.
        head: What it was last seen to hold, or None.
        mark: The engine's step at which the operation began that told so.
        used: The engine's step at which anything was last asked of it.
        outlook: Which ready jobs it has for whoever asks next.
        held: The jobs in the lease, by key.
        closed: Whether it accepts no more puts, or soon will not.
        gone: Whether it is over with it: dead, lost, or of a session that is over.
        bodies: Its bodies that lie outside.
        aside: Whether no jobs are asked of it for now, since it does not answer.
        refreshing, refresh_again: Whether it is being looked at, and whether it is to be looked at once more.
        form: The format of its record, which is that of the puts it takes; only of one that was made here.
        unknown: The keys of ready jobs whose format, or that of their bodies, is not known here, as far as they were met.
    """

    def __init__(self, engine: "SharedEngine", tube: "SharedTube", number: int, lease: int, owned: bool) -> None:
        self.engine: SharedEngine = engine
        self.tube: SharedTube = tube
        self.number: int = number
        self.lease: int = lease
        self.owned: bool = owned
        self.session: Session = engine.membership.session
        self.head: Head | None = None
        self.mark: int = 0
        self.used: int = engine.step()
        self.outlook: Outlook = Outlook()
        self.held: dict[bytes, SharedJob] = {}
        self.closed: bool = not owned
        self.gone: bool = False
        self.running: bool = False
        self.aside: bool = False
        self.refreshing: bool = False
        self.refresh_again: bool = False
        self.rank: bytes | None = None
        self.form: int = FIRST
        self.unknown: set[bytes] = set()
        self._inbox: Inbox = Inbox()
        self._stealing: Steal | None = None
        self.bodies: Bodies = Bodies(self, engine.store)
        # Since when nothing has succeeded that was tried, in seconds since the epoch; 0 when all is well.
        self._failing_since: float = 0.0
        self._aside_until: float = 0.0
        self._slots: int = 0
        self._bytes: int = 0
        self._jobs: int = 0
        self._turns: list[asyncio.Future[None]] = []

    # --- what is known

    def know(self, head: Head, mark: int) -> None:
        """Take note of what it holds."""
        self.head = head
        self.mark = mark
        if head.state != OPEN:
            self.closed = True
        self.outlook.know(self._without_unknown(head), self._inbox.puts, self._inbox.wanted)
        self.tube.rank(self)

    def hear(self, key: bytes, count: int) -> None:
        """Somebody else has so many ready jobs here, the first with this key: a hint that an operation of this front-end puts right."""
        if self.gone:
            return
        if self.running:
            # What is on its way may have begun before.
            self.engine.scout.refresh_segment(self)
            return
        head = (self.head or EMPTY)._replace(first_keys=(key,), last_key=key if count == 1 else None, ready=count)
        self.know(head, self.engine.step())

    def hear_of_delayed(self, key: bytes) -> None:
        """Somebody else has put a delayed job here that is due at this key's time."""
        head = self.head or EMPTY
        if not self.gone and (head.due_key is None or key < head.due_key):
            self.head = head._replace(due_key=key, delayed=max(head.delayed, 1))

    def _without_unknown(self, head: Head) -> Head:
        """Leave out of what it holds the ready jobs that are only for front-ends which know their format."""
        if not self.unknown:
            return head
        if head.ready <= len(head.first_keys):
            self.unknown.intersection_update(head.first_keys)
        known = [key for key in head.first_keys if key not in self.unknown]
        return head._replace(first_keys=known, ready=max(len(known), head.ready - len(self.unknown)) if known else 0)

    def accepts(self, put: Put) -> bool:
        """Tell whether a put may go here."""
        if self.closed or self.gone or put.form != self.form:
            return False
        head = self.head
        live = 0 if head is None else head.ready + head.delayed + head.buried + head.held
        waiting = len(self._inbox.puts)
        return (
            self._slots + waiting < LAST_SLOT
            and live + waiting < JOBS_MAX
            and self._bytes + len(put.packed) <= BYTES_MAX
        )

    def knows_since(self, mark: int) -> bool:
        """Tell whether nothing is to be learnt from what was read at a step: it knows better, or is over."""
        return self.gone or self.mark >= mark

    def busy(self) -> bool:
        """Tell whether anything here is on its way or held."""
        return self.running or bool(self.held) or self._inbox.waited_for()

    def rests(self, since: int) -> bool:
        """Tell whether nothing has been asked of it since a step, nor is held, and nothing is to be put."""
        known = self.head is not None and self.closed and not self.gone and not self.aside
        return known and self.used < since and not self.running and not self.held and not self._inbox.pending()

    def idle_and_empty(self) -> bool:
        """Tell whether nothing is on its way and, as far as is known, no job is in it."""
        head = self.head
        return not self.busy() and head is not None and head.ready + head.delayed + head.buried + head.held == 0

    # --- what is asked of it

    def put(self, put: Put) -> None:
        """Add a job."""
        self._inbox.puts.append(put)
        self._bytes += len(put.packed)
        if put.due_ms == 0:
            self.outlook.add(put)
            self.tube.rank(self)
        self.engine.wake(self)

    def ask(self, waiter: Waiter, count: int) -> None:
        """Take jobs for a waiter."""
        self._inbox.ask(waiter, count)
        self.outlook.ask(count)

    def leave(self, leave: Leave) -> None:
        """Let a held job go where it goes."""
        leave.job.leaving = True
        leave.job.moving = leave
        self._inbox.leaves.append(leave)
        self.engine.wake(self)

    def steal(self, steal: Steal) -> None:
        """Reserve a job from one of its queues."""
        self._inbox.steals.append(steal)
        self.engine.wake(self)

    def close(self) -> None:
        """Accept no more puts, here at once and in the store with the next operation."""
        self.closed = True
        self._inbox.close = True
        self.engine.wake(self)

    def start(self) -> None:
        """Begin with what has come in, unless an operation is in flight."""
        if not self.running and not self.gone and self._inbox.pending():
            self.running = True
            self.used = self.engine.step()
            self.engine.running[self] = None
            self.engine.spawn(self._run())

    async def turn(self) -> None:
        """Wait until the operation in flight has ended, or has failed for too long."""
        if self.running:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turns.append(future)
            await future

    # --- the operation in flight

    async def _run(self) -> None:
        batch: Batch | None = None
        try:
            while self._inbox.pending() and not self.gone:
                if not self.lease and not await self._attach():
                    break
                told = 0
                if self._inbox.steals:
                    self._stealing = self._inbox.steals.pop(0)
                    await self._steal(self._stealing)
                    self._stealing = None
                elif self.unknown and self._inbox.only_asks():
                    await self._take_singly()
                else:
                    batch = self._next_batch()
                    told = len(batch.puts) + len(batch.leaves) + batch.change.take
                    await self._commit(batch)
                    batch = None
                in_play = told + self._inbox.count()
                self._end_turn()
                await self._gather_on(told, in_play)
        except Exception as error:
            # A bug here must not leave commands without a reply for ever.
            logger.error("internal error; segment %d is given up", self.number, exc_info=error)
            if batch is not None:
                self._give_up(batch, OutcomeUnknown("internal error"), doubtful=True)
            if self._stealing is not None and not self._stealing.done:
                self._stealing.settle(OutcomeUnknown("internal error"))
            self.abandon(StoreFailed("internal error"))
        finally:
            self.running = False
            self.engine.running.pop(self, None)
            self._end_turn()

    def _release_turns(self) -> None:
        turns = self._turns
        self._turns = []
        for future in turns:
            if not future.done():
                future.set_result(None)

    def _end_turn(self) -> None:
        self._release_turns()
        self.engine.turn_over()
        if not self.running and self.closed:
            self.engine.retirement.consider(self)

    async def _gather_on(self, told: int, in_play: int) -> None:
        """Let those who have just got a reply ask for more, so that it goes along with the next operation and with those who wait already.

        Micro-optimization: an operation costs a hundred times as much as a look at the sockets. Nobody waits for a clock here, and a
        client that is alone does not wait at all.
        """
        if told < ALONE:
            return
        looks = 0
        waiting = self._inbox.count()
        self.engine.gathering += 1
        try:
            while waiting < in_play and looks < LOOKS_MAX:
                await asyncio.sleep(0)
                self.engine.send_on()
                now = self._inbox.count()
                looks = 0 if now > waiting else looks + 1
                waiting = now
        finally:
            self.engine.gathering -= 1

    def _next_batch(self) -> Batch:
        """Make one change of what has come in."""
        batch = self._inbox.next_batch(self._slots, few=self._few(), takes=not self.unknown)
        batch.until = self.engine.now() + ANSWER_WITHIN
        self._slots += len(batch.puts)
        return batch

    def _few(self) -> bool:
        """Tell whether few jobs are expected in its queues, with those that are coming."""
        head = self.head
        coming = len(self._inbox.puts) + len(self._inbox.leaves)
        return head is not None and max(head.ready, head.delayed) + coming < HEAD_KEYS

    async def _attach(self) -> bool:
        """Get a lease, once."""
        while True:
            if self.session.over:
                self.abandon(JobGone("the session is over"))
                return False
            lease = self.session.next_lease()
            try:
                await self.engine.store.attach(self.number, lease)
            except Fenced:
                self.abandon(JobGone("the segment is gone"))
                return False
            except StoreError as error:
                failure = error
            else:
                self.lease = lease
                self._has_succeeded()
                return True
            # In doubt, too, the next attempt has a lease of its own; the audit finds one that was left behind.
            if not await self._patience(failure):
                return False

    async def _patience(self, error: StoreError) -> bool:
        """Fail what has waited for too long, then wait a little; tell whether there is still something to do."""
        now = self.engine.now()
        self._has_failed(now)
        reason = StoreFull(str(error)) if isinstance(error, Full) else StoreFailed(str(error))
        self._expire(now, reason)
        if self.session.over or self.gone:
            self.abandon(JobGone("the session is over"))
            return False
        await self.engine.pause_between_tries(self._failing_since)
        return self._inbox.pending() and not self.gone

    def expire(self, now: float) -> None:
        """Once a second while an operation is in flight: if it fails, fail what has waited behind it for too long."""
        if not self._failing_since:
            return
        self._expire(now, StoreFailed("the store does not answer"))
        if now - self._failing_since >= ANSWER_WITHIN:
            self.set_aside(now)

    def fails(self) -> bool:
        """Tell whether nothing has succeeded that was tried last."""
        return self._failing_since > 0

    def _expire(self, now: float, reason: EngineError) -> None:
        puts, leaves, steals = self._inbox.take_late(now)
        for put in puts:
            self.outlook.expected -= put.due_ms == 0
            put.settle(reason)
        for leave in leaves:
            self._undo(leave, reason)
        for steal in steals:
            steal.settle(reason)
        if puts or leaves or steals:
            self.engine.turn_over()

    # --- a segment that does not answer

    def _has_failed(self, now: float) -> None:
        if not self._failing_since:
            self._failing_since = now

    def _has_succeeded(self) -> None:
        self._failing_since = 0.0
        if self.aside:
            self._ask_again()

    def set_aside(self, now: float) -> None:
        """Ask for no jobs here for now: who waits may get those of other segments."""
        self.aside = True
        # Whether more urgent jobs, or any, are in it is not known.
        self.tube.live = False
        self._aside_until = now + ASIDE_FOR
        self.engine.aside[self] = None
        self.engine.takes.unclaim(self.tube, self._inbox.take_asks())
        if self.head is not None:
            self.know(self.head, self.mark)
        self._release_turns()
        self.engine.takes.restless(self.tube)
        self.engine.takes.sought(self.tube)

    def try_anew(self, now: float) -> None:
        """Ask for jobs again, after a time or once an operation has succeeded."""
        if self.gone or (now >= self._aside_until and not self.running):
            self._ask_again()

    def _ask_again(self) -> None:
        self.aside = False
        self.engine.aside.pop(self, None)
        if not self.gone:
            self.tube.rank(self)
            # Who waited only for this one learns that there is nothing.
            self.engine.takes.sought(self.tube)

    def _put_elsewhere(self, batch: Batch | None) -> None:
        """Let all puts that were certainly not done yet go to another segment."""
        puts: list[Put] = []
        if batch is not None and batch.puts:
            puts = batch.drop_puts()
            self._slots -= len(puts)
        puts += self._inbox.take_puts()
        if self.tube.open is self:
            self.tube.open = None
        self.closed = True
        self._inbox.close = True
        if self.head is not None:
            self.know(self.head, self.mark)
        self.engine.puts.put_elsewhere(self.tube, puts)

    def _undo(self, leave: Leave, reason: EngineError) -> None:
        """A job stays where it was."""
        leave.job.leaving = False
        leave.job.moving = None
        leave.settle(reason)

    async def _commit(self, batch: Batch) -> None:
        """Carry one batch through, whatever happens on the way."""
        while True:
            if not self.engine.membership.alive():
                self._give_up(batch, JobGone("the session is over"))
                return
            batch.mark = self.engine.step()
            try:
                outcome = await self.engine.store.apply(self.number, self.lease, batch.change)
            except StoreError as error:
                failure = error
            else:
                self._done(batch, outcome.taken, outcome.head)
                return
            if not await self._goes_on(batch, failure):
                return

    async def _goes_on(self, batch: Batch, failure: StoreError) -> bool:
        """Do what is to be done after an operation that failed; tell whether to try it again."""
        if isinstance(failure, Busy):
            return await self._try_again(batch, failure)
        if isinstance(failure, Full):
            self.engine.puts.found_full(failure)
            return await self._without_puts(batch, failure)
        if isinstance(failure, Refused):
            return await self._too_big(batch, failure)
        if isinstance(failure, Fenced):
            await self._fenced(batch)
            return False
        if isinstance(failure, Unknown):
            return not await self._settle(batch, failure)
        raise failure

    async def _try_again(self, batch: Batch, error: StoreError) -> bool:
        """After an operation that was not applied: wait a little; tell whether to repeat it, without those who have waited for too long."""
        now = self.engine.now()
        self._has_failed(now)
        reason = StoreFull(str(error)) if isinstance(error, Full) else StoreFailed(str(error))
        self._fail_some(*batch.drop_late(now), reason)
        if batch.puts and now - self._failing_since >= PUTS_WAIT:
            self._put_elsewhere(batch)
        if batch.empty():
            return False
        await self.engine.pause_between_tries(self._failing_since)
        if self.gone:
            self._give_up(batch, JobGone("the session is over"))
            return False
        if batch.waited_for():
            return True
        in_vain = batch.only_asks() and not self.engine.takes.still_wanted(self.tube, batch.asks)
        if in_vain or batch.until <= self.engine.now():
            self._drop(batch, reason)
            return False
        return True

    async def _without_puts(self, batch: Batch, error: Full) -> bool:
        """The store has no room: puts are told so, the rest is tried alone."""
        if not batch.puts:
            return await self._try_again(batch, error)
        self._fail_some(batch.drop_puts(), [], StoreFull(str(error)))
        return True

    async def _too_big(self, batch: Batch, error: Refused) -> bool:
        """The record would be larger than the store allows: puts go elsewhere, other jobs stay as they are."""
        logger.warning("segment %d cannot be changed: %s", self.number, error)
        if batch.puts:
            self._fail_some(*batch.drop_late(self.engine.now()), StoreFull(str(error)))
            self._put_elsewhere(batch)
        else:
            self._fail_some([], batch.drop_leaves(), StoreFull(str(error)))
        return not batch.empty() and await self._try_again(batch, error)

    def _fail_some(self, puts: list[Put], leaves: list[Leave], reason: EngineError) -> None:
        """Fail what is not in its batch any more."""
        if not puts and not leaves:
            return
        self._slots -= len(puts)
        for put in puts:
            put.settle(reason)
        for leave in leaves:
            self._undo(leave, reason)
        if self.head is not None:
            self.know(self.head, self.mark)
        self.engine.turn_over()

    def _drop(self, batch: Batch, reason: EngineError) -> None:
        """A batch that nobody waits for any more is taken apart; what insists goes along with what has come in meanwhile."""
        asks = list(batch.asks)
        self.engine.takes.unclaim(self.tube, batch.asks)
        self._inbox.close = self._inbox.close or batch.change.close
        self._inbox.leaves = batch.leaves + self._inbox.leaves
        if self.head is not None:
            self.know(self.head, self.mark)
        self.engine.takes.failed(asks, reason)
        self.engine.takes.sought(self.tube)

    async def _settle(self, batch: Batch, error: StoreError) -> bool:
        """Learn what became of an operation; tell whether that was the end of it."""
        logger.info("segment %d: an operation of unknown outcome is settled: %s", self.number, error)
        fenced = False
        settlement: Settlement | None = None
        try:
            settlement = await self._renew()
        except Fenced:
            fenced = True
        if fenced:
            await self._fenced_in_doubt(batch)
            return True
        if settlement is None:
            # Nobody can tell; who asked learns that it is not known.
            self._give_up(batch, OutcomeUnknown("whether it was done is not known"), doubtful=True)
            return True
        taken = [(key, packed) for key, packed in settlement.held.items() if key not in self.held]
        if not batch.applied(settlement, bool(taken)):
            return False
        # That it is closed is not seen here; to close it twice does no harm.
        self._inbox.close = self._inbox.close or batch.change.close
        self._done(batch, taken, self.head or EMPTY)
        # What it holds now is not known.
        self.engine.scout.refresh_segment(self)
        return True

    async def _renew(self) -> Settlement | None:
        """Move the lease on, however long it takes, and learn what is under it; None if the session ends before. Raises Fenced."""
        renewed = self.session.next_lease()
        self._has_failed(self.engine.now())
        while True:
            try:
                settlement = await self.engine.store.settle(self.number, self.lease, renewed)
            except Fenced:
                raise
            except StoreError:
                if self.session.over:
                    return None
                if self.engine.now() - self._failing_since >= PUTS_WAIT and not self.closed:
                    self._put_elsewhere(None)
            else:
                self.lease = renewed
                self._has_succeeded()
                return settlement
            await self.engine.pause_between_tries(self._failing_since)

    async def _fenced_in_doubt(self, batch: Batch) -> None:
        """The lease is gone, so what was in doubt is decided: puts can be read off the segment (segment-protocol H4, H7)."""
        segment = await self._what_is_left()
        if segment is None:
            # Nobody can tell: they may have been done, and run, and the segment have ended since. To put them once more may be twice.
            for put in batch.puts:
                put.settle(OutcomeUnknown("whether it was put is not known"))
            batch.puts = []
        elif batch.puts and segment.last_slot >= batch.change.last_slot:
            self._told(batch.puts)
            batch.puts = []
        for leave in list(batch.leaves):
            if leave.queue is None and not leave.stays and not (segment and segment.has_slot(leave.job.slot())):
                # Deleted, perhaps by this, perhaps by whoever got the job since.
                batch.leaves.remove(leave)
                self._undo(leave, OutcomeUnknown("whether the job was deleted by this is not known"))
        await self._fenced(batch)

    async def _what_is_left(self) -> Segment | None:
        """Read the segment; None where it is gone or cannot be read, and so nothing is known of it."""
        try:
            return await self.engine.reading_segment(self.number, self.session)
        except StoreError as error:
            logger.info("segment %d: what is left of it is not known: %s", self.number, error)
            return None

    async def _fenced(self, batch: Batch) -> None:
        """The lease is gone: the session was declared dead, or the segment is, and nothing of the batch was done."""
        await self.engine.membership.decide()
        if not self.session.over:
            segment = await self._what_is_left()
            if segment is not None and segment.state != DEAD:
                logger.warning(
                    "segment %d: the lease of a session that lives is gone, perhaps with its tube; its jobs are lost here",
                    self.number,
                )
        self._give_up(batch, JobGone("the lease is gone"))
        self.abandon(JobGone("the lease is gone"))

    def _give_up(self, batch: Batch, reason: EngineError, doubtful: bool = False) -> None:
        """A batch will not be done here; puts that surely were not may be done elsewhere.

        In doubt nobody knows how far it has come: whoever was not told of it is told that.
        """
        if doubtful:
            batch.puts = [put for put in batch.puts if not put.done]
            batch.leaves = [leave for leave in batch.leaves if not leave.done]
        self.engine.takes.unclaim(self.tube, batch.asks)
        if doubtful:
            for put in batch.puts:
                put.settle(reason)
        else:
            self.engine.puts.put_elsewhere(self.tube, batch.puts)
        for leave in batch.leaves:
            self._undo(leave, reason)
        self.engine.takes.sought(self.tube)

    def abandon(self, reason: EngineError) -> None:
        """Let go of everything here: the session is over, or something is wrong. What is in flight is seen to when it returns."""
        self.gone = True
        self.engine.aside.pop(self, None)
        self.outlook.expected = 0
        puts = self._inbox.take_puts()
        leaves = self._inbox.take_leaves()
        asks = self._inbox.take_asks()
        steals = self._inbox.take_steals()
        for seek in self.tube.seeks:
            # What was seen of it has to be looked for anew.
            seek.looked = False
        self.tube.drop(self)
        held = self.held
        self.held = {}
        for job in held.values():
            self.engine.holdings.lose(job)
        self.engine.takes.unclaim(self.tube, asks)
        for leave in leaves:
            self._undo(leave, reason)
        for steal in steals:
            steal.settle(reason)
        self.engine.puts.put_elsewhere(self.tube, puts)
        self.engine.takes.sought(self.tube)

    # --- outcomes

    def _told(self, puts: list[Put]) -> None:
        self.tube.total_jobs += len(puts)
        for put in puts:
            put.value = job_id(self.number, put.slot)
            put.settle(None)

    def _done(self, batch: Batch, taken: "Sequence[tuple[bytes, bytes]]", head: Head) -> None:
        """Tell everybody of a batch that was done."""
        if self.gone:
            # The session was given up meanwhile. What was done was done; what was taken, whoever reclaims it gives back.
            self._told(batch.puts)
            for leave in batch.leaves:
                leave.job.moving = None
                leave.settle(None)
            self.engine.takes.unclaim(self.tube, batch.asks)
            self.engine.takes.sought(self.tube)
            return
        self._has_succeeded()
        if self._slots:
            self._weigh(batch, head)
        self.know(head, batch.mark)
        made_ready = any(not put.due_ms for put in batch.puts)
        delayed = any(put.due_ms for put in batch.puts)
        for leave in batch.leaves:
            job = leave.job
            job.leaving = False
            job.moving = None
            if not leave.stays:
                del self.held[job.place]
                self.engine.holdings.left(job, leave.queue is None)
                made_ready = made_ready or leave.queue == READY
                delayed = delayed or leave.queue == DELAYED
            leave.settle(None)
        if batch.puts:
            self._told(batch.puts)
        self._receive(taken, batch.asks)
        self.engine.takes.sought(self.tube)
        if delayed or (head.ready and made_ready):
            # Whoever knows the format of jobs that were given back unread waits for them elsewhere.
            self.engine.scout.announce(self, delayed)
            if self.unknown:
                self.engine.news.tell(self.tube.name, self.number, CHANGED)
        if head.due_key is not None:
            self.tube.expect(head.due_key)

    def _weigh(self, batch: Batch, head: Head) -> None:
        """Reckon how many bytes of jobs there are: what others have deleted was of the usual size, as far as one can know."""
        waiting = sum([len(put.packed) for put in self._inbox.puts])
        gone = [leave.job for leave in batch.leaves if leave.queue is None and not leave.stays]
        here = self._bytes - waiting - sum([HEAD_SIZE + len(job.stored) for job in gone])
        jobs = self._jobs + len(batch.puts) - len(gone)
        self._jobs = head.ready + head.delayed + head.buried + head.held
        if 0 <= self._jobs < jobs:
            here = here * self._jobs // jobs
        self._bytes = max(0, here) + waiting

    def _receive(self, taken: "Sequence[tuple[bytes, bytes]]", asks: list[tuple[Waiter, int]]) -> None:
        """Hand over what was taken, all together once the bodies are there."""
        jobs: list[SharedJob] = []
        for key, packed in taken:
            job = self._hold(key, packed)
            if job is not None:
                jobs.append(job)
        self._hand_over(jobs, asks)

    def _hand_over(self, jobs: list[SharedJob], asks: list[tuple[Waiter, int]]) -> None:
        if any(job.body_number for job in jobs):
            self.engine.spawn(self.engine.takes.fetch_and_deliver(self, jobs, asks))
            return
        self.engine.takes.unclaim(self.tube, asks)
        if jobs:
            self.tube.granted.extend(jobs)
            self.engine.takes.deliver(self.tube)

    def _hold(self, key: bytes, packed: bytes) -> SharedJob | None:
        """Enter a job in the lease; one that cannot be read is let go of and told of."""
        try:
            job = self._job(key, packed)
        except NewerEntry as newer:
            self.engine.unread.tell(f"job {job_id(self.number, job_slot(key))}", newer)
            self.unknown.add(key)
            self.engine.holdings.let_go_unread(self, key, packed, damaged=False)
            return None
        except DamagedEntry as damage:
            logger.error("segment %d: a damaged job is buried: %s", self.number, damage)
            self.engine.holdings.let_go_unread(self, key, packed, damaged=True)
            return None
        job.committer = self
        job.state = RESERVED
        job.reserves += 1
        self.held[key] = job
        self.engine.holdings.jobs[job.id] = job
        return job

    def _job(self, key: bytes, packed: bytes) -> SharedJob:
        """Make a job of what is packed, with its body unless that lies outside. Raises DamagedEntry."""
        job = SharedJob(self.number, key, self.tube, self.engine.formats.unpack(packed), self.session.offset_ms)
        if job.raw_size >= 0 and not job.body_number:
            job.unfold(None)
        return job

    async def _take_singly(self) -> None:
        """Take jobs one by one: a take would bring along those of a format that is not known here."""
        asks = self._inbox.take_asks()
        wanted = sum([count for _, count in asks])
        mark = self.engine.step()
        segment: Segment | None = None
        failure: StoreError | None = None
        try:
            segment = await self.engine.store.read(self.number)
        except StoreError as error:
            failure = error
        jobs: list[SharedJob] = []
        unknown: set[bytes] = set() if segment is None else self.unknown & segment.ready.keys()
        for key, packed in {} if segment is None else segment.ready.items():
            job: SharedJob | None = None
            if key in unknown or len(jobs) == wanted or self.gone:
                continue
            try:
                job = self._job(key, packed)
            except NewerEntry:
                unknown.add(key)
            except DamagedEntry as damage:
                logger.error("segment %d: a damaged job stays where it is: %s", self.number, damage)
                unknown.add(key)
            if job is not None:
                steal = Steal(job, READY, self.engine.now() + ANSWER_WITHIN)
                await self._steal(steal)
                if steal.error is None:
                    jobs.append(job)
        self.unknown = unknown
        if failure is not None:
            logger.info("segment %d: %s", self.number, failure)
            self._has_failed(self.engine.now())
            await self.engine.pause_between_tries(self._failing_since)
        elif segment is not None and not jobs and not self.gone:
            self._has_succeeded()
            self.know(head_of(segment), mark)
        self._hand_over(jobs, asks)
        self.engine.takes.sought(self.tube)

    async def _steal(self, steal: Steal) -> None:
        """Move one job from a queue into the lease."""
        job = steal.job
        key = ready_key(job.pri, job.put_us, job.slot())
        packed = self.engine.formats.pack(job.packed())
        while True:
            if key in self.held:
                # A take of this front-end was faster.
                steal.settle(JobGone("somebody else was faster"))
                return
            mark = self.engine.step()
            try:
                head = await self.engine.store.shift(self.number, steal.queue, [job.place], self.lease, {key: packed})
            except Refused:
                steal.settle(JobGone("somebody else was faster"))
                return
            except StoreError as error:
                failure = error
            else:
                self._has_succeeded()
                self.know(head, mark)
                break
            if isinstance(failure, Fenced):
                steal.settle(JobGone("the lease is gone"))
                await self._fenced(Batch([], [], []))
                return
            if isinstance(failure, Unknown):
                settlement = await self._settled()
                if settlement is None:
                    steal.settle(OutcomeUnknown("whether it was reserved is not known"))
                    return
                if key in settlement.held:
                    self.engine.scout.refresh_segment(self)
                    break
                continue
            self._has_failed(self.engine.now())
            if self.engine.now() >= steal.until:
                steal.settle(StoreFailed(str(failure)))
                return
            await self.engine.pause_between_tries(self._failing_since)
        if self.gone or not self.engine.membership.alive():
            # Whoever declares the session dead gives it to others.
            steal.settle(JobGone("the session is over"))
            return
        body = job.body
        held = self._hold(key, packed)
        if held is None:
            steal.settle(JobGone("the job cannot be read"))
            return
        # The session knows the job by the object that it looked at.
        job.committer = self
        job.place = key
        job.state = RESERVED
        job.reserves = held.reserves
        job.body = body
        self.held[key] = job
        self.engine.holdings.jobs[job.id] = job
        steal.settle(None)

    async def _settled(self) -> Settlement | None:
        """Move the lease on; None if nobody can tell what is under it, or if it is gone, which is seen to."""
        try:
            return await self._renew()
        except Fenced:
            pass
        await self._fenced(Batch([], [], []))
        return None


def head_of(segment: Segment) -> Head:
    """Return what a segment that was read would give next."""
    ready = list(segment.ready)
    due = next(iter(segment.delayed), None)
    last = ready[-1] if ready else None
    counts = (len(ready), len(segment.delayed), len(segment.buried), segment.held)
    return Head(ready[:HEAD_KEYS], last, due, *counts, segment.state)

"""One front-end's side of one segment, with the one operation that is in flight.

What arrives while an operation is in flight goes out together when it returns, so an idle segment costs one round trip a command and a
busy one batches by itself. Whatever an operation's fate, nothing is told before it is known: an operation of unknown outcome is settled
by moving the lease on, after which what has not happened never will (segment-protocol: a settle is a write, never a read).
"""

import asyncio
import logging
from typing import Final

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.handover import Handover
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, HeldChange, Put, Steal
from beanspiked.engine.aerospike.segment.leasing import Leasing
from beanspiked.engine.aerospike.segment.reserving import Reserving
from beanspiked.engine.aerospike.segment.surroundings import Home, Surroundings
from beanspiked.engine.aerospike.segment.view import EMPTY, PUTS_WAIT, View
from beanspiked.engine.aerospike.store.seam import (
    HEAD_KEYS,
    Busy,
    Fenced,
    Full,
    Refused,
    Settlement,
    StoreError,
    Unknown,
)
from beanspiked.engine.errors import EngineError, JobGone, OutcomeUnknown, StoreFailed, StoreFull

__all__ = ["Committer"]

logger = logging.getLogger(__name__)

# Fewer commands than this in one operation are those of clients that nobody else waits with.
ALONE: Final = 4
# How often the sockets are looked at in vain before the next operation begins.
LOOKS_MAX: Final = 4


class Committer(View):
    """Carries what is asked of a segment to the store, one operation at a time; see View for what it takes."""

    def __init__(self, around: Surroundings, tube: Home, number: int, lease: int, owned: bool) -> None:
        super().__init__(around, tube, number, lease, owned)
        self._leasing: Leasing = Leasing(self)
        self._handover: Handover = Handover(self)
        self._reserving: Reserving = Reserving(self, self._leasing, self._handover)
        self._stealing: Steal | None = None

    def start(self) -> None:
        """Begin with what has come in, unless an operation is in flight."""
        if not self.running and not self.gone and self.inbox.pending():
            self.running = True
            self.used = self.around.step()
            self.around.in_flight(self, True)
            self.around.spawn(self._run())

    async def _run(self) -> None:
        batch: Batch | None = None
        try:
            while self.inbox.pending() and not self.gone:
                if not self.lease and not await self._leasing.attach():
                    break
                told = 0
                if self.inbox.steals:
                    self._stealing = self.inbox.steals.pop(0)
                    await self._reserving.steal(self._stealing)
                    self._stealing = None
                elif self.unknown and self.inbox.only_asks():
                    await self._reserving.take_singly()
                else:
                    batch = self._next_batch()
                    told = len(batch.puts) + len(batch.held_changes) + batch.change.take
                    await self._commit(batch)
                    batch = None
                in_play = told + self.inbox.count()
                self._end_turn()
                await self._gather_on(told, in_play)
        except Exception as error:
            # A bug here must not leave commands without a reply for ever.
            logger.error("internal error: the operation on segment %d is given up", self.number, exc_info=error)
            if batch is not None:
                self._give_up(batch, OutcomeUnknown("internal error"), doubtful=True)
            if self._stealing is not None and not self._stealing.done:
                self._stealing.settle(OutcomeUnknown("internal error"))
            self.abandon(StoreFailed("internal error"))
        finally:
            self.running = False
            self.around.in_flight(self, False)
            self._end_turn()

    def _end_turn(self) -> None:
        self.release_turns()
        self.around.turn_over()
        if not self.running and self.closed:
            self.around.may_end(self)

    async def _gather_on(self, told: int, in_play: int) -> None:
        """Let those who have just got a reply ask for more, so that it goes along with the next operation and with those who wait already.

        Micro-optimization: an operation costs a hundred times as much as a look at the sockets. Nobody waits for a clock here, and a
        client that is alone does not wait at all.
        """
        if told < ALONE:
            return
        looks = 0
        waiting = self.inbox.count()
        self.around.gather(1)
        try:
            while waiting < in_play and looks < LOOKS_MAX:
                await asyncio.sleep(0)
                self.around.send_on()
                now = self.inbox.count()
                looks = 0 if now > waiting else looks + 1
                waiting = now
        finally:
            self.around.gather(-1)

    def _next_batch(self) -> Batch:
        """Make one change of what has come in."""
        batch = self.inbox.next_batch(self.slots, few=self._few(), takes=not self.unknown)
        batch.until = self.around.now() + ANSWER_WITHIN
        self.slots += len(batch.puts)
        return batch

    def _few(self) -> bool:
        """Tell whether few jobs are expected in its queues, with those that are coming."""
        head = self.head
        coming = len(self.inbox.puts) + len(self.inbox.held_changes)
        return head is not None and max(head.ready, head.delayed) + coming < HEAD_KEYS

    async def _commit(self, batch: Batch) -> None:
        """Carry one batch through, whatever happens on the way."""
        while True:
            if not self.around.alive():
                self._give_up(batch, JobGone("the session is over"))
                return
            batch.mark = self.around.step()
            try:
                outcome = await self.around.store.apply(self.number, self.lease, batch.change)
            except StoreError as error:
                failure = error
            else:
                self._handover.done(batch, outcome.taken, outcome.head)
                return
            if not await self._goes_on(batch, failure):
                return

    async def _goes_on(self, batch: Batch, failure: StoreError) -> bool:
        """Do what is to be done after an operation that failed; tell whether to try it again."""
        if isinstance(failure, Busy):
            return await self._try_again(batch, failure)
        if isinstance(failure, Full):
            self.around.found_full(failure)
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
        now = self.around.now()
        self.has_failed(now)
        reason = StoreFull(str(error)) if isinstance(error, Full) else StoreFailed(str(error))
        self._fail_some(*batch.drop_late(now), reason)
        if batch.puts and now - self.failing_since >= PUTS_WAIT:
            self.put_elsewhere(batch)
        if batch.empty():
            return False
        await self.around.pause_between_tries(self.failing_since)
        if self.gone:
            self._give_up(batch, JobGone("the session is over"))
            return False
        if batch.waited_for():
            return True
        in_vain = batch.only_asks() and not self.around.still_wanted(self.tube, batch.asks)
        if in_vain or batch.until <= self.around.now():
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
            self._fail_some(*batch.drop_late(self.around.now()), StoreFull(str(error)))
            self.put_elsewhere(batch)
        else:
            self._fail_some([], batch.drop_held_changes(), StoreFull(str(error)))
        return not batch.empty() and await self._try_again(batch, error)

    def _fail_some(self, puts: list[Put], held_changes: list[HeldChange], reason: EngineError) -> None:
        """Fail what is not in its batch any more."""
        if not puts and not held_changes:
            return
        self.slots -= len(puts)
        for put in puts:
            put.settle(reason)
        for change in held_changes:
            self.undo(change, reason)
        if self.head is not None:
            self.update_head(self.head, self.mark)
        self.around.turn_over()

    def _drop(self, batch: Batch, reason: EngineError) -> None:
        """A batch that nobody waits for any more is taken apart; what insists goes along with what has come in meanwhile."""
        asks = list(batch.asks)
        self.around.unclaim(self.tube, batch.asks)
        self.inbox.close = self.inbox.close or batch.change.close
        self.inbox.held_changes = batch.held_changes + self.inbox.held_changes
        if self.head is not None:
            self.update_head(self.head, self.mark)
        self.around.failed(asks, reason)
        self.around.advance_seeks(self.tube)

    async def _settle(self, batch: Batch, error: StoreError) -> bool:
        """Learn what became of an operation; tell whether that was the end of it."""
        logger.info("segment %d: an operation is in doubt and is settled: %s", self.number, error)
        fenced = False
        settlement: Settlement | None = None
        try:
            settlement = await self._leasing.renew()
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
        self.inbox.close = self.inbox.close or batch.change.close
        self._handover.done(batch, taken, self.head or EMPTY)
        # What it holds now is not known.
        self.around.look_at(self)
        return True

    async def _fenced_in_doubt(self, batch: Batch) -> None:
        """The lease is gone, so what was in doubt is decided: puts can be read off the segment (segment-protocol H4, H7)."""
        segment = await self._leasing.what_is_left()
        if segment is None:
            # Nobody can tell: they may have been done, and run, and the segment have ended since. To put them once more may be twice.
            for put in batch.puts:
                put.settle(OutcomeUnknown("whether it was put is not known"))
            batch.puts = []
        elif batch.puts and segment.last_slot >= batch.change.last_slot:
            self._handover.acknowledge(batch.puts)
            batch.puts = []
        for change in list(batch.held_changes):
            if change.queue is None and not change.stays and not (segment and segment.has_slot(change.job.slot())):
                # Deleted, perhaps by this, perhaps by whoever got the job since.
                batch.held_changes.remove(change)
                self.undo(change, OutcomeUnknown("whether the job was deleted by this is not known"))
        await self._fenced(batch)

    async def _fenced(self, batch: Batch) -> None:
        """The lease is gone: the session was declared dead, or the segment is, and nothing of the batch was done."""
        await self._leasing.found_gone()
        self._give_up(batch, JobGone("the lease is gone"))
        self.abandon(JobGone("the lease is gone"))

    def _give_up(self, batch: Batch, reason: EngineError, doubtful: bool = False) -> None:
        """A batch will not be done here; puts that surely were not may be done elsewhere.

        In doubt nobody knows how far it has come: whoever was not told of it is told that.
        """
        if doubtful:
            batch.puts = [put for put in batch.puts if not put.done]
            batch.held_changes = [change for change in batch.held_changes if not change.done]
        self.around.unclaim(self.tube, batch.asks)
        if doubtful:
            for put in batch.puts:
                put.settle(reason)
        else:
            self.around.put_elsewhere(self.tube, batch.puts)
        for change in batch.held_changes:
            self.undo(change, reason)
        self.around.advance_seeks(self.tube)

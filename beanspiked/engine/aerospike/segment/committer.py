"""One front-end's side of one segment: carries what is asked of it to the store, one operation at a time.

What arrives while an operation is in flight goes out together when it returns, so an idle segment costs one round trip a command and a
busy one batches by itself. An operation that succeeds, as nearly all do, takes no coroutine: the agenda sends those of all segments
together, and hands out their outcomes. What is done after each outcome, and what commands are told, is decided in commit.py.
"""

import logging
from collections.abc import Coroutine
from typing import Final

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.commit import LOOKING, Commit
from beanspiked.engine.aerospike.segment.handover import Handover
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, SharedJob, Steal
from beanspiked.engine.aerospike.segment.step import DONE, END, READ, SEND, SETTLE, WAIT, Step
from beanspiked.engine.aerospike.segment.surroundings import Home, Surroundings
from beanspiked.engine.aerospike.segment.tries import Tries
from beanspiked.engine.aerospike.segment.view import EMPTY, View, head_of
from beanspiked.engine.aerospike.store.seam import (
    DEAD,
    HEAD_KEYS,
    READY,
    Damaged,
    Fenced,
    Full,
    Outcome,
    Refused,
    Segment,
    StoreError,
    TooBig,
)
from beanspiked.engine.errors import DamagedEntry, NewerEntry

__all__ = ["Committer"]

logger = logging.getLogger(__name__)

# Fewer commands than this in one operation are those of clients that nobody else waits with.
ALONE: Final = 4
# How often the sockets are looked at in vain before the next operation begins.
LOOKS_MAX: Final = 4
NOTHING: Final = Outcome((), EMPTY)


class Committer(View):
    """Carries what is asked of a segment to the store; see View for what it takes."""

    def __init__(self, around: Surroundings, tube: Home, number: int, lease: int, owned: bool) -> None:
        super().__init__(around, tube, number, lease, owned)
        self._handover: Handover = Handover(self)
        self._commit: Commit = Commit()
        # The lease that the present one is being moved on to, or 0; if it was to be made, after which tries.
        self._renewed: int = 0
        self._tries: Tries = Tries(around)
        # The whole segment, when it was just read.
        self._segment: Segment | None = None
        # How many commands are worth waiting for before the next operation begins, or 0; how many have come; the looks in vain since.
        self._wanted: int = 0
        self._gathered: int = 0
        self._looks: int = 0

    # --- one operation for what has come in

    def begin(self) -> Batch | None:
        """Begin with what has come in, unless an operation is in flight; return the change to be sent, if that is all there is to do."""
        if self.gone and not self.running:
            # Nothing begins here any more, so its waiters go on.
            self.release_turns()
        if self.running or self.gone or not self.inbox.pending():
            return None
        self.running = True
        self.used = self.around.step()
        self.around.in_flight(self, True)
        takes_singly = bool(self.unknown) and self.inbox.only_asks()
        if not self.around.alive() or (self.lease and (self.inbox.steals or takes_singly)):
            self.around.spawn(self._run())
            return None
        try:
            batch = self._next_batch()
            self._commit.begin(batch)
            self._address(batch)
        except Exception as error:  # noqa: BLE001 - `_crashed` logs it
            self._crashed(error)
            self._come_to_rest(0)
            return None
        return batch

    def end(self, batch: Batch) -> None:
        """The outcome of a change that `begin` returned is known."""
        outcome = batch.outcome
        if not isinstance(outcome, Outcome):
            self.around.spawn(self._run_on(batch, outcome))
            return
        told = len(batch.puts) + len(batch.held_changes) + batch.change.take
        try:
            self._done(batch, self._commit.applied(), outcome)
        except Exception as error:  # noqa: BLE001 - `_crashed` logs it
            self._crashed(error)
        self._come_to_rest(told)

    def _come_to_rest(self, told: int) -> None:
        """End an operation that told so many commands what became of them."""
        self._commit.forget()
        self.running = False
        self.around.in_flight(self, False)
        self.release_turns()
        if self.closed:
            self.around.may_end(self)
        waiting = self.inbox.count()
        if told >= ALONE:
            self._gathered = waiting
            self._wanted = told + waiting
            self._looks = 0
        if told >= ALONE or (self.inbox.pending() and not self.gone):
            self.around.wake(self)

    def gathers(self) -> bool:
        """Tell whether to wait for another look at the sockets, so that those who have just got a reply can ask for more.

        Micro-optimization: what they ask for goes along with the next operation and with those who wait already. An operation costs a
        hundred times as much as a look. Nobody waits for a clock here, and a client that is alone does not wait at all.
        """
        if not self._wanted:
            return False
        waiting = self.inbox.count()
        self._looks = 0 if waiting > self._gathered else self._looks + 1
        self._gathered = waiting
        if waiting < self._wanted and self._looks < LOOKS_MAX:
            return True
        self._wanted = 0
        return False

    # --- what takes several operations

    async def _run(self) -> None:
        try:
            if self.lease and self.inbox.steals:
                await self._carry(Batch([], [], [], steal=self.inbox.steals.pop(0)))
            elif self.lease and self.unknown and self.inbox.only_asks():
                await self._take_singly()
            else:
                await self._carry(self._next_batch())
        except Exception as error:  # noqa: BLE001 - `_crashed` logs it
            self._crashed(error)
        self._come_to_rest(0)

    async def _run_on(self, batch: Batch, failure: Exception | None) -> None:
        """Go on with a change that failed."""
        try:
            if not isinstance(failure, StoreError):
                raise failure or AssertionError("a change without an outcome")
            await self._go_through(self._tell(self._failed(failure)), batch)
        except Exception as error:  # noqa: BLE001 - `_crashed` logs it
            self._crashed(error)
        self._come_to_rest(0)

    def _crashed(self, error: Exception) -> None:
        logger.error("internal error; segment %d is given up", self.number, exc_info=error)
        self._tell(self._commit.crashed())

    def _next_batch(self) -> Batch:
        """Make one change of what has come in."""
        takes, attach = not self.unknown, not self.lease
        batch = self.inbox.next_batch(self.slots, few=self._few(), takes=takes, attach=attach)
        batch.until = self.around.now() + ANSWER_WITHIN
        self.slots += len(batch.puts)
        return batch

    def _few(self) -> bool:
        """Tell whether few jobs are expected in its queues, with those that are coming."""
        head = self.head
        coming = len(self.inbox.puts) + len(self.inbox.held_changes)
        return head is not None and max(head.ready, head.delayed) + coming < HEAD_KEYS

    # --- one batch

    async def _carry(self, batch: Batch, state: str = "") -> None:
        """Carry one batch through, whatever happens on the way."""
        await self._go_through(self._commit.begin(batch, state), batch)

    async def _go_through(self, action: str, batch: Batch) -> None:
        """Do what is to be done with a batch until it is over."""
        commit = self._commit
        while action != END:
            if action != SEND:
                action = self._tell(await self._go_on(action, batch))
                continue
            if not self.around.alive():
                action = self._tell(commit.over())
                continue
            self._address(batch)
            try:
                outcome = await self._operation(batch)
            except StoreError as error:
                failure = error
            else:
                action = self._tell(self._done(batch, commit.applied(), outcome))
                continue
            action = self._tell(self._failed(failure))

    def _address(self, batch: Batch) -> None:
        """Write on a batch where it goes. Each try to attach has a lease of its own."""
        batch.number = self.number
        batch.lease = self.session.next_lease() if batch.change.attach else self.lease
        batch.mark = self.around.step()

    def _done(self, batch: Batch, step: Step, outcome: Outcome) -> Step:
        """What was sent was applied."""
        if batch.change.attach:
            self.lease = batch.lease
        if step.done:
            self._handover.done(batch, outcome.taken, outcome.head)
        return step

    def _operation(self, batch: Batch) -> Coroutine[object, object, Outcome]:
        """Return the operation that a batch is sent with."""
        if self._commit.state == LOOKING:
            return self._look()
        if batch.steal is not None:
            return self._shift(batch.steal)
        return self.around.store.apply(self.number, batch.lease, batch.change)

    async def _look(self) -> Outcome:
        """Read the segment."""
        self._segment = await self.around.store.read(self.number)
        return NOTHING

    async def _shift(self, steal: Steal) -> Outcome:
        """Move one job from a queue into the lease."""
        if steal.key in self.held:
            raise Refused("a take of this front-end was faster")
        job = steal.job
        packed = self.around.formats.pack(job.packed())
        entries = {steal.key: packed}
        head = await self.around.store.shift(self.number, steal.queue, [job.place], self.lease, entries)
        return Outcome([(steal.key, packed)], head)

    def _failed(self, failure: StoreError) -> Step:
        """Ask what is to be done after a failure."""
        if isinstance(failure, Full):
            self.around.found_full(failure)
        now = self.around.now()
        step = self._commit.failed(failure, now, now - self.failing_since if self.failing_since else 0.0)
        if step.action == SETTLE:
            logger.info("segment %d: an operation of unknown outcome is settled: %s", self.number, failure)
        elif isinstance(failure, TooBig):
            logger.warning("segment %d cannot be changed: %s", self.number, failure)
        elif isinstance(failure, Damaged):
            logger.error("segment %d cannot be read: %s", self.number, failure)
        return step

    async def _go_on(self, action: str, batch: Batch) -> Step:
        """Do what is to be done before the batch can be sent again, or given up."""
        if action == WAIT:
            await self.around.pause_between_tries(self.failing_since)
            if self.gone or not self.around.alive():
                return self._commit.over()
            return self._commit.rested(self.around.now(), self.around.still_wanted(self.tube, batch.asks))
        if action == READ:
            return self._commit.seen(await self._what_is_left())
        return await self._settle(batch)

    async def _settle(self, batch: Batch) -> Step:
        """Move the lease on, to learn what became of an operation."""
        try:
            if batch.change.attach:
                settlement = await self._tries.settle(self.session, self.number, batch.lease)
                self._renewed = self._tries.renewed
            else:
                self._renewed = self._renewed or self.session.next_lease()
                settlement = await self.around.store.settle(self.number, batch.lease, self._renewed)
        except StoreError as error:
            failure = error
        else:
            self.lease = self._renewed
            self._renewed = 0
            self._tries.forget()
            taken = [(key, packed) for key, packed in settlement.held.items() if key not in self.held]
            step = self._commit.settled(settlement, bool(taken))
            if step.done:
                # That it is closed is not seen here; to close it twice does no harm.
                self.inbox.close = self.inbox.close or batch.change.close
                self._handover.done(batch, taken, self.head or EMPTY)
                # What it holds now is not known, here or elsewhere.
                self.around.look_at(self)
                self.around.changed(self)
            return step
        if self.session.over and not isinstance(failure, Fenced):
            return self._commit.over()
        return self._failed(failure)

    async def _what_is_left(self) -> Segment | None:
        """Read the segment whose lease is gone, and find out whether the session is over. None if nothing is known of it."""
        segment: Segment | None = None
        try:
            segment = await self.around.reading_segment(self.number, self.session)
        except StoreError as error:
            logger.info("segment %d: what is left of it is not known: %s", self.number, error)
        await self.around.decide()
        if not self.session.over and segment is not None and segment.state != DEAD:
            logger.warning(
                "segment %d: the lease of a session that lives is gone, perhaps with its tube; its jobs are lost here",
                self.number,
            )
        return segment

    def _tell(self, step: Step) -> str:
        """Tell everybody what became of their commands, and let sessions go on; return what is to be done next."""
        if step is not DONE:
            self._tell_failures(step)
        self.around.turn_over()
        return step.action

    def _tell_failures(self, step: Step) -> None:
        now = self.around.now()
        if step.reason is not None:
            self.has_failed(now)
            self.fail_late(now, step.reason)
        for command, reason in step.failed:
            command.fail(reason)
        self._handover.acknowledge(step.put)
        self.inbox.held_changes = step.later + self.inbox.held_changes
        self.inbox.close = self.inbox.close or step.close
        asks = step.asks[:]
        self.around.unclaim(self.tube, step.asks)
        if step.leave and not self.gone:
            self.put_elsewhere(step.elsewhere)
        else:
            self.around.put_elsewhere(self.tube, step.elsewhere)
            if (step.failed or asks) and self.head is not None and not self.gone:
                # What was expected of them does not come. While a batch is only repeated, the jobs that it asks for are not free.
                self.update_head(self.head, self.mark)
        if step.asks_error is not None:
            self.around.failed(asks, step.asks_error)
        if asks:
            self.around.advance_seeks(self.tube)
        if step.abandon is not None:
            self.abandon(step.abandon)

    # --- jobs of formats that are not known here

    async def _take_singly(self) -> None:
        """Take jobs one by one: a take would bring along those of a format that is not known here."""
        asks = self.inbox.take_asks()
        wanted = sum([count for _, count in asks])
        look = Batch([], [], [])
        await self._carry(look, LOOKING)
        segment = self._take_segment()
        jobs: list[SharedJob] = []
        if segment is not None:
            unknown = self.unknown & segment.ready.keys()
            for key, packed in segment.ready.items():
                if key in unknown or len(jobs) == wanted or self.gone:
                    continue
                job = self._readable(key, packed)
                if job is None:
                    unknown.add(key)
                    continue
                steal = Steal(job, READY, self.around.now() + ANSWER_WITHIN)
                await self._carry(Batch([], [], [], steal=steal))
                if steal.error is None:
                    jobs.append(job)
            self.unknown = unknown
            if not jobs and not self.gone:
                self.has_succeeded()
                self.update_head(head_of(segment), look.mark)
        self._handover.hand_over(jobs, asks)
        self.around.advance_seeks(self.tube)
        self._tell(Step(END))

    def _take_segment(self) -> Segment | None:
        """Return the segment that was read last, once."""
        segment, self._segment = self._segment, None
        return segment

    def _readable(self, key: bytes, packed: bytes) -> SharedJob | None:
        """Return a job of one of the queues, or None if it cannot be read here."""
        try:
            return self._handover.job(key, packed)
        except NewerEntry:
            return None
        except DamagedEntry as damage:
            logger.error("segment %d: a damaged job stays where it is: %s", self.number, damage)
            return None

"""Every outcome of a batch in every state, without a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.segment import commit as commits
from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.codec import Packed
from beanspiked.engine.aerospike.segment.commit import PUTS_WAIT, Commit
from beanspiked.engine.aerospike.segment.jobs import Command, HeldChange, Put, SharedJob, Steal
from beanspiked.engine.aerospike.segment.step import END, READ, SEND, SETTLE, WAIT, Step
from beanspiked.engine.aerospike.store.keys import ready_key
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    CLOSED,
    READY,
    Busy,
    Damaged,
    Fenced,
    Full,
    Segment,
    Settlement,
    StoreError,
    TooBig,
    Unknown,
)
from beanspiked.engine.contract import Tube, Waiter
from beanspiked.engine.errors import EngineError, JobGone, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DEEP: Final = 5
NUMBER: Final = 7
# The slots of earlier puts, and that of the held job.
SLOTS: Final = 10

HELD: Final = 3
# When a command has waited for too long.
UNTIL: Final = 2.0

# A caller's knowledge of a batch: it was not applied, it is in doubt, or it was applied.
NO, MAYBE, YES = "no", "maybe", "yes"

ERRORS: Final[dict[str, type[StoreError]]] = {
    "busy": Busy,
    "full": Full,
    "too big": TooBig,
    "fenced": Fenced,
    "unknown": Unknown,
    "damaged": Damaged,
}
# The knowledge that each outcome gives of an operation that was sent. A settle that failed leaves everything in doubt.
TOLD: Final = {"busy": NO, "full": NO, "too big": NO, "fenced": NO, "unknown": MAYBE, "damaged": MAYBE}


def a_put(until: float = UNTIL) -> Put:
    return Put(Tube(1, "t"), 0, 1, 0, b"packed", 1, until)


def a_job() -> SharedJob:
    return SharedJob(NUMBER, ready_key(0, 1, HELD), Tube(1, "t"), Packed(0, 0, 0, 1, b"x"), 0)


def a_change(queue: str | None, *, stays: bool = False, insists: bool = False) -> HeldChange:
    job = a_job()
    change = HeldChange(job, queue, job.place, b"packed", UNTIL)
    change.stays = stays
    change.insists = insists
    job.leaving = True
    job.moving = change
    return change


def asks() -> list[tuple[Waiter, int]]:
    return [(Waiter(1), 2), (Waiter(2), 1)]


BATCHES: Final[dict[str, Callable[[], Batch]]] = {
    "puts": lambda: Batch([a_put(), a_put(UNTIL / 2)], [], [], slots=SLOTS),
    "delete": lambda: Batch([], [a_change(None)], [], slots=SLOTS),
    "release": lambda: Batch([], [a_change(READY)], [], slots=SLOTS),
    "expiry": lambda: Batch([], [a_change(READY, insists=True)], [], slots=SLOTS),
    "update": lambda: Batch([], [a_change(None, stays=True)], [], slots=SLOTS),
    "close": lambda: Batch([], [], [], close=True, slots=SLOTS),
    "asks": lambda: Batch([], [], asks(), take=3, slots=SLOTS),
    "all": lambda: Batch([a_put()], [a_change(None), a_change(BURIED, insists=True)], asks(), 3, True, SLOTS),
    "steal": lambda: Batch([], [], [], slots=SLOTS, steal=Steal(a_job(), READY, UNTIL)),
    "attach": lambda: Batch([], [], [], attach=True),
    "attach and take": lambda: Batch([], [], asks(), take=3, attach=True),
    "look": lambda: Batch([], [], []),
}

STATES: Final = {"look": commits.LOOKING}


def a_segment(last_slot: int, *slots: int) -> Segment:
    ready = {ready_key(0, 1, slot): b"packed" for slot in slots}
    return Segment(NUMBER, "t", 1, CLOSED, last_slot, 0, 0, ready, {}, {}, {})


class Walk:
    """A batch on its way, with the knowledge from its outcomes. Checks each step against that."""

    def __init__(self, kind: str) -> None:
        self.batch = BATCHES[kind]()
        self.puts = self.batch.puts[:]
        self.commands: list[Command] = [*self.puts, *self.batch.held_changes]
        if self.batch.steal is not None:
            self.commands.append(self.batch.steal)
        self.asks = self.batch.asks[:]
        self.closes = self.batch.change.close
        self.known = NO
        self.now = 0.0
        self.failing_since: float | None = None
        self.fates: dict[Command, EngineError | str] = {}
        self.asks_told = False
        self.close_kept = False
        self.segment: Segment | None = None
        self.abandoned: EngineError | None = None
        self.seen: set[tuple[str, str]] = set()
        self.commit = Commit()
        self.action = self.commit.begin(self.batch, STATES.get(kind, ""))

    def outcomes(self) -> Iterator[str]:
        """Return the outcomes that may come next."""
        if self.action == SEND:
            yield from ("applied", *ERRORS, "over")
        elif self.action == WAIT:
            yield from ("rested", "rested, not wanted", "rested late", "over")
        elif self.action == SETTLE:
            yield from (*self._settles(), *ERRORS, "over")
        elif self.action == READ:
            yield from ("not known", "put", "not put", "put and deleted", "not put and deleted")
        if self.action != END:
            yield "crashed"

    def _settles(self) -> list[str]:
        """Return the possible findings of a settle. It sees neither a new value nor a close, which may be done again, nor an empty take."""
        if not self.commands:
            return ["not applied" if self.closes else "applied"]
        first = self.commands[0]
        return ["not applied"] if isinstance(first, HeldChange) and first.stays else ["applied", "not applied"]

    def go(self, outcome: str) -> Step:
        """Apply an outcome."""
        state = self.commit.state
        step = self._happen(outcome)
        self.seen.add((state, rule_of(state, outcome)))
        self._check(step, outcome)
        self.action = step.action
        return step

    def _happen(self, outcome: str) -> Step:
        commit, settling = self.commit, self.action == SETTLE
        if outcome in ERRORS:
            if not settling:
                self.known = TOLD[outcome]
            failing_for = 0.0 if self.failing_since is None else self.now - self.failing_since
            step = commit.failed(ERRORS[outcome]("no"), self.now, failing_for)
            if step.reason is not None and self.failing_since is None:
                self.failing_since = self.now
            return step
        if outcome == "over":
            return commit.over()
        if outcome == "crashed":
            self.known = MAYBE
            return commit.crashed()
        if outcome.startswith("rested"):
            self.now += 3.0 if outcome.endswith("late") else PUTS_WAIT
            return commit.rested(self.now, not outcome.endswith("not wanted"))
        if self.action == READ:
            last = SLOTS + (len(self.batch.puts) if outcome.startswith("put") else 0)
            self.segment = (
                None if outcome == "not known" else a_segment(last, *(() if "deleted" in outcome else (HELD,)))
            )
            return commit.seen(self.segment)
        self.known = YES if outcome == "applied" else NO
        if not settling:
            return commit.applied()
        return commit.settled(self._settlement(outcome == "applied"), bool(self.batch.asks) and outcome == "applied")

    def _settlement(self, applied: bool) -> Settlement:
        """Return a settle's finding."""
        held = {} if applied else {change.job.place: b"packed" for change in self.batch.held_changes}
        if applied and self.batch.steal is not None:
            held = {self.batch.steal.key: b"packed"}
        return Settlement(SLOTS + (len(self.batch.puts) if applied else 0), held)

    def _fate(self, command: Command, fate: EngineError | str) -> None:
        assert command not in self.fates, "told twice"
        self.fates[command] = fate

    def _check(self, step: Step, outcome: str) -> None:
        put = self.segment is not None and self.segment.last_slot > SLOTS
        for command, error in step.failed:
            self._fate(command, error)
            if isinstance(error, OutcomeUnknown):
                assert self.known == MAYBE, "told as not known though it is"
                continue
            deletes = isinstance(command, HeldChange) and command.queue is None and not command.stays
            there = self.segment is not None and self.segment.has_slot(HELD)
            # If the lease is gone, the holder does not hold the job any more, whatever the outcome of the change, unless it was deleted.
            assert self.known == NO or (
                isinstance(error, JobGone) and isinstance(command, HeldChange) and (not deletes or there)
            )
        for command in step.put:
            assert put, "acknowledged before it is known"
            self._fate(command, "put")
        for command in step.elsewhere:
            assert self.known == NO or (self.segment is not None and not put), "put twice"
            self._fate(command, "elsewhere")
        for change in step.later:
            assert self.known == NO
            self._fate(change, "later")
        if step.asks:
            assert not self.asks_told, "told twice"
            assert step.asks == self.asks
            self.asks_told = True
        if step.done:
            assert self.known == YES, "acknowledged before it is known"
            for command in [
                *self.batch.puts,
                *self.batch.held_changes,
                *([self.batch.steal] if self.batch.steal else []),
            ]:
                self._fate(command, "done")
            assert not self.batch.asks or not self.asks_told
            self.asks_told = self.asks_told or bool(self.batch.asks)
        self.close_kept = self.close_kept or step.close or step.done
        assert step.leave or not step.elsewhere or step.abandon
        self.abandoned = self.abandoned or step.abandon
        if step.action == END:
            assert self.commit.state == commits.ENDED
            assert set(self.fates) == set(self.commands), "left without a reply"
            assert self.asks_told or not self.asks
            assert self.close_kept or not self.closes or self.abandoned
        else:
            assert step.abandon is None
            assert step.action != SEND or self.known == NO, "sent again though it may have been applied"
        assert outcome != "fenced" or step.action in (READ, END) or self.commit.state == commits.WAITING


def rule_of(state: str, outcome: str) -> str:
    """Return the table's column of an outcome."""
    if state in (commits.LOST, commits.LOST_IN_DOUBT) and outcome != "crashed":
        return commits.SEEN
    return {"too big": commits.REFUSED, "damaged": commits.UNREADABLE}.get(
        outcome, outcome.split(",", maxsplit=1)[0].removesuffix(" late")
    )

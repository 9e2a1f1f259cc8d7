"""What becomes of a batch, outcome by outcome: decisions only, without a store, a clock or a coroutine.

The driver (committer.py) does what a step says and comes back with the outcome, which gives the next step. TABLE, at the end of this
module, has a rule for every outcome that a state can have. The rules rest on these:

- Nothing is told before it is known. An operation of unknown outcome is settled: its lease is moved on, after which what has not
  happened never will (segment-protocol H3: a settle is a write, never a read).
- Only what was surely not put is put elsewhere.
- Once the lease is gone in doubt, the segment itself tells of puts and deletes (H4, H7). What it cannot tell is told as not known.
"""

from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.segment.batch import Batch
from beanspiked.engine.aerospike.segment.step import DONE, END, READ, SEND, SETTLE, WAIT, Step
from beanspiked.engine.aerospike.store import seam
from beanspiked.engine.aerospike.store.seam import Segment, Settlement, StoreError
from beanspiked.engine.errors import EngineError, JobGone, OutcomeUnknown, StoreFailed, StoreFull

__all__ = ["LOOKING", "PUTS_WAIT", "Commit"]

# Puts that a segment has not taken for so long go to another one, in seconds.
PUTS_WAIT: Final = 0.5

# States. What was sent: a change that makes its lease first, a read before jobs are taken one by one, a batch with puts, one without,
# one reservation.
ATTACHING: Final = "attaching"
LOOKING: Final = "looking"
PUTTING: Final = "putting"
CHANGING: Final = "changing"
STEALING: Final = "stealing"
# The batch was not applied, and is sent again after a pause.
WAITING: Final = "waiting"
# Nobody knows whether the batch was applied: the lease is being moved on, or a pause comes before the next try of that.
SETTLING: Final = "settling"
UNSETTLED: Final = "unsettled"
# The lease is gone, and the segment is being read: the batch was not applied, or nobody knows.
LOST: Final = "lost"
LOST_IN_DOUBT: Final = "lost in doubt"
ENDED: Final = "ended"

# Outcomes. A settle that succeeds tells the first or the second.
APPLIED: Final = "applied"
NOT_APPLIED: Final = "not applied"
BUSY: Final = "busy"
FULL: Final = "full"
REFUSED: Final = "refused"
FENCED: Final = "fenced"
UNKNOWN: Final = "unknown"
UNREADABLE: Final = "unreadable"
# The pause has ended; the segment was read, or could not be.
RESTED: Final = "rested"
SEEN: Final = "seen"
# The session is over, or the segment was given up; the driver met a bug.
OVER: Final = "over"
CRASHED: Final = "crashed"


class Commit:
    """The course of one batch after the other, of one segment.

    Attributes:
        state: Where the batch stands.
        now: When the last outcome was learnt, in seconds since the epoch.
        failing_for: For how long nothing had succeeded then, in seconds.
        error: What the last operation failed with.
        segment: What is left of the segment, or None if that is not known.
        wanted: Whether anybody still waits for the jobs that the batch asks for.
    """

    def __init__(self) -> None:
        self.state: str = ENDED
        self.now: float = 0.0
        self.failing_for: float = 0.0
        self.error: StoreError | None = None
        self.segment: Segment | None = None
        self.wanted: bool = True
        self._batch: Batch | None = None

    def begin(self, batch: Batch, state: str = "") -> str:
        """Begin with a batch, or with LOOKING, for which it is empty; return what is to be done."""
        self._batch = batch
        self.state = state or sent(batch)
        return SEND

    def applied(self) -> Step:
        """What was sent was applied."""
        return self._follow(APPLIED)

    def failed(self, error: StoreError, now: float, failing_for: float) -> Step:
        """What was sent, or the settle, failed. `failing_for`: for how long nothing has succeeded, in seconds."""
        self.error = error
        self.now = now
        self.failing_for = failing_for
        return self._follow(outcome_of(error))

    def settled(self, settlement: Settlement, took: bool) -> Step:
        """The lease was moved on. `took`: whether it holds jobs that were not known to be in it."""
        batch = self._batch
        assert batch is not None
        return self._follow(APPLIED if batch.applied(settlement, took) else NOT_APPLIED)

    def rested(self, now: float, wanted: bool) -> Step:
        """The pause has ended. `wanted`: whether anybody still waits for the jobs that the batch asks for."""
        self.now = now
        self.wanted = wanted
        return self._follow(RESTED)

    def seen(self, segment: Segment | None) -> Step:
        """The segment was read; None if what is left of it is not known."""
        self.segment = segment
        return self._follow(SEEN)

    def over(self) -> Step:
        """The session is over, or the segment was given up meanwhile."""
        return self._follow(OVER)

    def crashed(self) -> Step:
        """The driver met a bug, and nobody knows how far it came."""
        return self._follow(CRASHED)

    def forget(self) -> None:
        """Let go of the last batch, which is over."""
        self._batch = None

    def why(self) -> EngineError:
        """Return what commands are told that fail for the last error."""
        kind = StoreFull if isinstance(self.error, (seam.Full, seam.TooBig)) else StoreFailed
        return kind(str(self.error))

    def _follow(self, outcome: str) -> Step:
        return TABLE[self.state][outcome](self, self._batch or Batch([], [], []))


def sent(batch: Batch) -> str:
    """Return the state of a batch that is sent."""
    if batch.change.attach:
        return ATTACHING
    if batch.puts:
        return PUTTING
    return CHANGING if batch.steal is None else STEALING


def outcome_of(error: StoreError) -> str:
    """Return which outcome an error is. One that says nothing more may have been applied."""
    for kind, outcome in KINDS:
        if isinstance(error, kind):
            return outcome
    return UNKNOWN


KINDS: Final[list[tuple[type[StoreError], str]]] = [
    (seam.Busy, BUSY),
    (seam.Fenced, FENCED),
    (seam.Full, FULL),
    (seam.Refused, REFUSED),
    (seam.TooBig, REFUSED),
    (seam.Damaged, UNREADABLE),
]


# --- the rules


def acknowledge(commit: Commit, _batch: Batch) -> Step:
    """It was applied, all of it."""
    commit.state = ENDED
    return DONE


def finish(commit: Commit, _batch: Batch) -> Step:
    """The segment was read."""
    commit.state = ENDED
    return Step(END)


def pause(commit: Commit, _batch: Batch) -> Step:
    """It may be repeated, whatever became of it, if anybody still wants it after a pause."""
    commit.state = WAITING
    return Step(WAIT, commit.why())


def retry(commit: Commit, batch: Batch) -> Step:
    """Fail what has waited for too long, have puts go elsewhere after a while, and send the rest again after a pause."""
    step = Step(WAIT, commit.why())
    fail_late(commit, batch, step, commit.why())
    if batch.puts and commit.failing_for >= PUTS_WAIT:
        step.leave = True
        step.move(batch)
    return wait_or_end(commit, batch, step)


def fail_puts(commit: Commit, batch: Batch) -> Step:
    """The store has no room: puts fail, and the rest is sent again at once."""
    step = Step(SEND)
    puts = batch.drop_puts()
    step.fail(puts, commit.why())
    if batch.empty():
        return end(commit, step)
    commit.state = sent(batch)
    return step


def move_puts(commit: Commit, batch: Batch) -> Step:
    """The record would be too large: late commands fail, puts go elsewhere, and the rest is sent again after a pause."""
    step = Step(WAIT)
    fail_late(commit, batch, step, StoreFull(str(commit.error)))
    step.leave = True
    step.move(batch)
    return wait_or_end(commit, batch, step)


def fail_changes(commit: Commit, batch: Batch) -> Step:
    """The record would be too large without any put: jobs stay as they are, unless nobody is left who would try it again."""
    step = Step(WAIT)
    step.fail(batch.drop_held_changes(), StoreFull(str(commit.error)))
    return wait_or_end(commit, batch, step)


def miss(commit: Commit, batch: Batch) -> Step:
    """The job is not there any more, or the record has no room to hold it."""
    step = Step(END)
    gone = isinstance(commit.error, seam.Refused)
    step.fail(batch.take_commands(), JobGone("somebody else was faster") if gone else commit.why())
    return end(commit, step)


def send_if_wanted(commit: Commit, batch: Batch) -> Step:
    """Send it again if a command waits for it; jobs are asked for only as long as somebody waits for them, and for a time."""
    in_vain = batch.only_asks() and not commit.wanted
    if not batch.empty() and (batch.waited_for() or not (in_vain or batch.until <= commit.now)):
        commit.state = sent(batch)
        return Step(SEND)
    step = Step(END)
    step.later, batch.held_changes = batch.held_changes, []
    step.close = batch.change.close
    step.asks, batch.asks = batch.asks, []
    step.asks_error = commit.why()
    return end(commit, step)


def settle(commit: Commit, _batch: Batch) -> Step:
    """Find out what became of it."""
    commit.state = SETTLING
    return Step(SETTLE, commit.why())


def settle_later(commit: Commit, _batch: Batch) -> Step:
    """The lease is not moved on yet, however long it takes. Puts that wait behind the batch go elsewhere after a while."""
    commit.state = UNSETTLED
    step = Step(WAIT, commit.why())
    step.leave = commit.failing_for >= PUTS_WAIT
    return step


def settle_again(commit: Commit, _batch: Batch) -> Step:
    """Try to move the lease on once more."""
    commit.state = SETTLING
    return Step(SETTLE)


def send_again(commit: Commit, batch: Batch) -> Step:
    """It was not applied, and never will be: send it once more at once, and after that as if the segment were busy."""
    if batch.settled_in_vain:
        return retry(commit, batch)
    batch.settled_in_vain = True
    commit.state = sent(batch)
    return Step(SEND)


def see(commit: Commit, _batch: Batch) -> Step:
    """The lease is gone: the session was declared dead, or the segment is."""
    commit.state = LOST
    return Step(READ)


def see_in_doubt(commit: Commit, _batch: Batch) -> Step:
    """The lease is gone, so that what was in doubt is decided by now: the segment may tell how."""
    commit.state = LOST_IN_DOUBT
    return Step(READ)


def lose(commit: Commit, batch: Batch) -> Step:
    """Nothing of it was done, and nothing more can be done under this lease."""
    return abandon(commit, batch, Step(END), JobGone("the lease is gone"))


def lose_in_doubt(commit: Commit, batch: Batch) -> Step:
    """Puts were applied if the segment has seen their slots. A job that is not there went on, perhaps after this batch was applied."""
    segment = commit.segment
    step = Step(END)
    if segment is None:
        # They may have been put, and run, and the segment have ended since: to put them once more may be twice.
        step.fail(batch.take_puts(), OutcomeUnknown("whether it was put is not known"))
    elif batch.puts and segment.last_slot >= batch.change.last_slot:
        step.put = batch.take_puts()
    for change in batch.held_changes[:]:
        if not (change.stays or change.insists or (segment and segment.has_slot(change.job.slot()))):
            batch.held_changes.remove(change)
            step.fail([change], OutcomeUnknown("whether this was done to the job is not known"))
    if batch.steal is not None:
        step.fail(batch.take_commands(), OutcomeUnknown("whether it was reserved is not known"))
    return abandon(commit, batch, step, JobGone("the lease is gone"))


def no_segment(commit: Commit, batch: Batch) -> Step:
    """There is nothing to get a lease on."""
    return abandon(commit, batch, Step(END), JobGone("the segment is gone"))


def give_up(commit: Commit, batch: Batch) -> Step:
    """It was not applied, and the session may not send it any more."""
    return abandon(commit, batch, Step(END), JobGone("the session is over"))


def give_up_in_doubt(commit: Commit, batch: Batch) -> Step:
    """The session is over, and nobody can tell what became of it."""
    return in_doubt(commit, batch, JobGone("the session is over"))


def unreadable(commit: Commit, batch: Batch) -> Step:
    """The record cannot be read, however often: whether it was changed is not known either."""
    return in_doubt(commit, batch, commit.why())


def crash(commit: Commit, batch: Batch) -> Step:
    """A bug must not leave commands without a reply for ever."""
    return in_doubt(commit, batch, StoreFailed("internal error"), "internal error")


# --- what they share


def end(commit: Commit, step: Step) -> Step:
    """It is over with this batch."""
    commit.state = ENDED
    step.action = END
    return step


def wait_or_end(commit: Commit, batch: Batch, step: Step) -> Step:
    """Pause before the batch is sent again; end if nothing is left of it."""
    if batch.empty():
        return end(commit, step)
    commit.state = WAITING
    step.reason = commit.why()
    return step


def abandon(commit: Commit, batch: Batch, step: Step, reason: EngineError) -> Step:
    """Give up the segment: puts that are left go elsewhere, all else that is left fails."""
    step.abandon = reason
    step.drop(batch, reason)
    return end(commit, step)


def fail_late(commit: Commit, batch: Batch, step: Step, reason: EngineError) -> None:
    """Fail the commands of a batch that was not applied which have waited for too long."""
    step.fail(batch.drop_late(commit.now), reason)


def in_doubt(
    commit: Commit, batch: Batch, reason: EngineError, doubt: str = "whether it was done is not known"
) -> Step:
    """Give up the segment, and tell everybody who has not been told anything that the outcome is not known."""
    told = OutcomeUnknown(doubt)
    step = Step(END)
    step.abandon = reason
    step.asks, batch.asks = batch.asks, []
    step.fail([put for put in batch.take_puts() if not put.done], told)
    step.fail([command for command in batch.take_commands() if not command.done], told)
    return end(commit, step)


# What is to be done, for each state and each outcome that it can have. An outcome that is missing in a row cannot be.
# fmt: off
TABLE: Final[dict[str, dict[str, Callable[[Commit, Batch], Step]]]] = {
    ATTACHING:     {APPLIED: acknowledge, BUSY: pause, FULL: pause, REFUSED: pause, FENCED: no_segment,
                    UNKNOWN: settle, UNREADABLE: unreadable, OVER: give_up, CRASHED: crash},
    LOOKING:       {APPLIED: finish, BUSY: pause, FULL: pause, REFUSED: pause, FENCED: pause,
                    UNKNOWN: pause, UNREADABLE: pause, OVER: give_up, CRASHED: crash},
    PUTTING:       {APPLIED: acknowledge, BUSY: retry, FULL: fail_puts, REFUSED: move_puts, FENCED: see,
                    UNKNOWN: settle, UNREADABLE: unreadable, OVER: give_up, CRASHED: crash},
    CHANGING:      {APPLIED: acknowledge, BUSY: retry, FULL: retry, REFUSED: fail_changes, FENCED: see,
                    UNKNOWN: settle, UNREADABLE: unreadable, OVER: give_up, CRASHED: crash},
    STEALING:      {APPLIED: acknowledge, BUSY: retry, FULL: retry, REFUSED: miss, FENCED: see,
                    UNKNOWN: settle, UNREADABLE: unreadable, OVER: give_up, CRASHED: crash},
    WAITING:       {RESTED: send_if_wanted, OVER: give_up, CRASHED: crash},
    SETTLING:      {APPLIED: acknowledge, NOT_APPLIED: send_again,
                    BUSY: settle_later, FULL: settle_later, REFUSED: settle_later, FENCED: see_in_doubt,
                    UNKNOWN: settle_later, UNREADABLE: unreadable, OVER: give_up_in_doubt, CRASHED: crash},
    UNSETTLED:     {RESTED: settle_again, OVER: settle_again, CRASHED: crash},
    LOST:          {SEEN: lose, CRASHED: crash},
    LOST_IN_DOUBT: {SEEN: lose_in_doubt, CRASHED: crash},
    ENDED:         {CRASHED: crash},
}
# fmt: on

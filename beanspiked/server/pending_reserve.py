"""The reserve in progress of one connection."""

from typing import Final

from beanspiked.engine.contract import Job, Waiter
from beanspiked.engine.later import Later
from beanspiked.engine.timers import NEVER
from beanspiked.protocol import commands as verbs
from beanspiked.protocol import replies
from beanspiked.server.gate import OPEN, RESERVING, Gate
from beanspiked.server.holds import Holds
from beanspiked.server.reply_queue import WRITE_CHUNK, ReplyQueue
from beanspiked.server.tube_choice import TubeChoice

__all__ = ["PendingReserve"]

# How long a connection on many tubes stays in all of them between its reserves, in seconds.
LINGER_FOR: Final = 2.0
# Each job of a tube looks at all who linger there. So many more of them than tubes would cost as much as to enter and leave the tubes.
LINGERERS_A_TUBE: Final = 8
# For so many seconds after a reserve came, news of jobs that were put before it may be on their way.
NEWS_WITHIN: Final = 1.0


class PendingReserve(Waiter):
    """Waits for a job in the watched tubes. `wants` also counts the reserves that came directly after this one.

    Args:
        gate: The connection's gate, shut while the reserve waits.
        tubes: The watched tubes.
        holds: Takes the jobs.
        out: Takes the replies.

    Attributes:
        since: When the last of the reserves that came after this one was read; 0 if that is not measured.
        left: How many of these are begun one by one, since the client did not read the replies of those before.
    """

    def __init__(self, gate: Gate, tubes: TubeChoice, holds: Holds, out: ReplyQueue) -> None:
        super().__init__(gate.broker.timers.new_id())
        self._gate = gate
        self._broker = gate.broker
        self._tubes = tubes
        self._holds = holds
        self._out = out
        self._asked_at: float = 0.0
        self._until: float = NEVER
        self._seek: Later | None = None
        self._hung_up: bool = False
        self._lingers_until: float = 0.0
        self.since: float = 0.0
        self.left: int = 0
        # What this reserve is measured as, and from when; 0 if it is not.
        self._verb: int = verbs.RESERVE
        self._began: float = 0.0

    def time(self, verb: int, began: float) -> None:
        """Measure this reserve until its reply, unless the store says that no job is ready."""
        if self._seek is not None:
            self._verb = verb
            self._began = began

    def seeking(self) -> bool:
        """Tell whether a shared store is asked for a job."""
        return self._seek is not None

    def begin(self, timeout: float) -> None:
        """Reserve a job, or wait this many seconds for one."""
        engine = self._broker.engine
        job = engine.take(self._tubes.watched)
        if job is not None:
            self.grant(job)
            return
        now = self._broker.now()
        self._asked_at = now
        self._until = now + timeout
        reply = b"" if engine.shared else self._verdict(now)
        if reply:
            self._out.add(reply)
            return
        self._gate.why = RESERVING
        self._broker.waiting += 1
        self._enter()
        if engine.shared:
            if self._look(patient=timeout > 0 and not self._hung_up):
                return
            reply = self._verdict(now)
            if reply:
                self._leave()
                self._out.add(reply)
                return
        self._schedule()

    def _look(self, *, patient: bool) -> bool:
        """Ask a shared store for a job; tell whether the answer is to come. A patient look may leave it to the wait."""
        engine = self._broker.engine
        seek = engine.seek(self, self._tubes.watched, patient) if engine.shared else None
        if seek is not None:
            self._seek = seek
            self._gate.when(seek, self._answered)
        return seek is not None

    def _verdict(self, now: float) -> bytes:
        """Return the reply of a reserve that need not wait; empty for one that has to."""
        if self._holds.soon_at() <= now:
            return replies.DEADLINE_SOON
        return replies.TIMED_OUT if self._until <= now or self._hung_up else b""

    def grant(self, job: Job) -> None:
        """Hold a job and send it."""
        self._holds.add(job)
        body = job.raw_body()
        self._out.add_job(replies.reserved(job.id, len(body)), body)

    def serve(self, job: Job) -> None:
        """End the wait with a job."""
        self._leave()
        self.grant(job)
        self._replied()

    def hang_up(self) -> None:
        """Learn that the client sends no more: end this wait, and let later reserves not wait.

        A reserve that has just begun is answered like one with a timeout of zero: a shared store may have a job for it.
        """
        if self._hung_up:
            return
        self._hung_up = True
        if self._gate.why != RESERVING:
            return
        new = self._seek is not None or self._broker.now() < self._asked_at + NEWS_WITHIN
        if not (new and self._look(patient=False)):
            self._end(replies.TIMED_OUT)

    def stop(self) -> None:
        """End the wait without a reply."""
        self.wants = 1
        self.left = 0
        if self._gate.why == RESERVING:
            self._leave()
        self.part()
        self._broker.timers.cancel(self)

    def on_time(self, now: float) -> None:
        """End a wait that has timed out or has a near deadline, unless it is not yet known whether a job is there."""
        if self.idle:
            if self._lingers_until <= now:
                self.part()
            else:
                self._broker.timers.schedule(self, self._lingers_until)
        if self._gate.why != RESERVING or self._seek is not None:
            return
        reply = self._verdict(now)
        if not reply:
            self._schedule()
        elif reply == replies.TIMED_OUT and self._broker.engine.expects(self, self._tubes.watched):
            # A job that came in time is on its way.
            self._look(patient=False)
        else:
            self._end(reply)

    def _schedule(self) -> None:
        """Wait for a job from now on, as do the reserves that came after this one; that time is not measured."""
        self._began = self.since = 0.0
        at = min(self._holds.soon_at(), self._until)
        if at < NEVER:
            self._broker.timers.schedule(self, at)

    def on_failure(self, error: Exception) -> bool:
        """End the connection after a bug."""
        self._gate.fail(error)
        return False

    def _answered(self, seek: Later) -> None:
        """Learn that a shared store has no job, or did not answer."""
        if self._seek is not seek:
            return
        self._seek = None
        if seek.error is not None:
            self._broker.failures.count(seek.error)
            self._end(replies.INTERNAL_ERROR)
        else:
            self.on_time(self._broker.now())

    def _end(self, reply: bytes) -> None:
        self._leave()
        self._out.add(reply)
        self._replied()

    def _enter(self) -> None:
        self.turn = self._broker.timers.new_id()
        if self.lingers:
            self.idle = False
            return
        watched = self._tubes.watched
        self.lingers = len(watched) >= max(self._broker.linger_from, self._broker.waiting // LINGERERS_A_TUBE)
        for tube in watched:
            if self.lingers:
                tube.linger(self)
            else:
                tube.enter(self)

    def _leave(self) -> None:
        self._gate.why = OPEN
        self._seek = None
        self._broker.waiting -= 1
        if self.lingers:
            self.idle = True
            self._lingers_until = self._broker.now() + LINGER_FOR
            self._broker.timers.schedule(self, self._lingers_until)
        else:
            for tube in self._tubes.watched:
                tube.leave(self)

    def part(self) -> None:
        """Stay in the tubes no longer: the next reserve enters those that are watched then."""
        if self.lingers:
            for tube in self._tubes.watched:
                tube.part(self)
            self.lingers = self.idle = False

    def _replied(self) -> None:
        """Start the next of the reserves that came with this one, or let other commands go on."""
        if self._began:
            self._out.time(self._verb, self._began)
            self._began = 0.0
        self.go_on()
        self._gate.wake()

    def go_on(self) -> None:
        """Start the next of the reserves that came with this one, unless the client does not read their replies."""
        out = self._out
        while (self.wants > 1 or self.left) and self._gate.why == OPEN:
            if out.size > WRITE_CHUNK:
                out.flush()
            if out.full():
                # From now on a job is taken only when there is room for it.
                self.left += self.wants - 1
                self.wants = 1
                self._gate.at_rest = False
                return
            if self.left:
                self.left -= 1
            else:
                self.wants -= 1
            self._broker.commands[verbs.RESERVE] += 1
            measured = self.since > 0.0 and self._broker.noting and self._broker.sampled()
            self.begin(NEVER)
            if measured and self._gate.why == OPEN:
                out.time(verbs.RESERVE, self.since)
            elif measured:
                self.time(verbs.RESERVE, self.since)

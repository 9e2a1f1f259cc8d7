"""The flow of one connection: commands in their order, replies in theirs, and what makes either wait.

A command waits while a reserve blocks, while the client does not read, and while a change is on its way to the store that
decides about its reply; a reply waits for those before it.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from mypy_extensions import mypyc_attr

from beanspiked.engine.contract import Job, Tube, Waiter
from beanspiked.engine.errors import JobGone, OutcomeUnknown, StoreFull
from beanspiked.engine.later import Later
from beanspiked.engine.queue import Queue
from beanspiked.engine.timers import NEVER, SLICE
from beanspiked.protocol import commands as verbs
from beanspiked.protocol import replies
from beanspiked.protocol.commands import VERB_COUNT, Command
from beanspiked.protocol.parser import Parser
from beanspiked.server.broker import UNWATCHED, Broker

__all__ = ["SAFETY_MARGIN", "Flow", "Sink", "WatchList"]

logger = logging.getLogger(__name__)

# prot.c: SAFETY_MARGIN, how long before a deadline a reserve ends with DEADLINE_SOON, in seconds.
SAFETY_MARGIN: Final = 1.0
# What is read ahead of a session that cannot go on, in bytes.
READ_AHEAD: Final = 65536
# Replies are handed to the sink before the end of a turn when they are this many bytes.
WRITE_CHUNK: Final = 262144
# Bodies of this many bytes are handed on as they are, the rest of a turn's replies as one piece.
LARGE_PIECE: Final = 65536
# How many changes of one connection may be on their way to the store at once.
UNSETTLED_MAX: Final = 1000
# How many reserves of one connection may be served together.
RESERVES_AT_ONCE: Final = 1000
# What a command counts for that does more than the usual, in commands.
COST_OF_ALL: Final = 8
# So many watched tubes make a reserve count for one command more.
TUBES_A_COMMAND: Final = 64
DEFAULT: Final = "default"

# Commands that do not look at what the connection's own earlier writes change; the others wait until those are committed.
BLIND: Final = [
    verb
    in (
        verbs.PUT,
        verbs.BODY,
        verbs.PUT_TOO_BIG,
        verbs.DELETE,
        verbs.RELEASE,
        verbs.BURY,
        verbs.TOUCH,
        verbs.USE,
        verbs.WATCH,
        verbs.IGNORE,
        verbs.LIST_TUBE_USED,
        verbs.QUIT,
        verbs.REFUSED,
    )
    for verb in range(VERB_COUNT)
]
# Commands whose id may name a job that is on its way between two states.
BY_ID: Final = [
    verb
    in (
        verbs.DELETE,
        verbs.RELEASE,
        verbs.BURY,
        verbs.TOUCH,
        verbs.PEEK,
        verbs.STATS_JOB,
        verbs.KICK_JOB,
        verbs.RESERVE_JOB,
    )
    for verb in range(VERB_COUNT)
]
# Commands that look at what a shared engine has to learn first.
LOOKS: Final = [
    verb
    in (
        verbs.DELETE,
        verbs.PEEK,
        verbs.STATS_JOB,
        verbs.KICK_JOB,
        verbs.RESERVE_JOB,
        verbs.STATS_TUBE,
        verbs.PAUSE_TUBE,
        verbs.STATS,
        verbs.LIST_TUBES,
        verbs.PEEK_READY,
        verbs.PEEK_DELAYED,
        verbs.PEEK_BURIED,
    )
    for verb in range(VERB_COUNT)
]


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink:
    """Where a session's replies go: the connection's other side."""

    def write(self, data: bytes) -> None:
        """Send bytes, all together."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection when all was sent."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Read no more for now, but keep watching for a hang-up."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Read on."""
        raise NotImplementedError

    def trace_command(self, verb: int) -> None:
        """Log a command (`-VV`)."""


class WatchList:
    """The tubes that a connection watches. To add or remove one costs the same, however many there are.

    Attributes:
        tubes: They, in the order in which `list-tubes-watched` names them.
    """

    def __init__(self, first: Tube) -> None:
        self.tubes: list[Tube] = [first]
        self._places: dict[Tube, int] = {first: 0}

    def add(self, tube: Tube) -> bool:
        """Add a tube; tell whether it is new."""
        if tube in self._places:
            return False
        self._places[tube] = len(self.tubes)
        self.tubes.append(tube)
        return True

    def __contains__(self, tube: Tube) -> bool:
        return tube in self._places

    def take_out(self) -> Tube:
        """Remove the last tube; what refers to it here goes as well, so that not all of them go at once in the end."""
        tube = self.tubes.pop()
        del self._places[tube]
        return tube

    def remove(self, tube: Tube) -> None:
        """Remove a tube, which must be there; the last one takes its place (ms.c)."""
        place = self._places.pop(tube)
        last = self.tubes.pop()
        if last is not tube:
            self.tubes[place] = last
            self._places[last] = place


class Nowhere(Sink):
    """The sink of a session that is closed."""

    def write(self, data: bytes) -> None:
        """Drop what comes too late."""

    def close(self) -> None:
        """Do nothing again."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


NOWHERE: Final = Nowhere()


class Slot:
    """The place of one reply among those of its connection; empty until the reply is known."""

    def __init__(self, reply: bytes) -> None:
        self.reply: bytes = reply


class Flow(Waiter):
    """When a connection's commands are executed and when its replies leave; its tubes, held jobs and reserve in progress.

    Args:
        broker: What it shares with the others.
        sink: Where its replies go.

    Attributes:
        used: The tube that puts go to.
        watched: The tubes that reserves take from.
        held: The jobs reserved by this connection, by deadline.
        waiting: Whether a reserve is blocked.
        choked: Whether the client does not read its replies.
        closed: Whether the connection is gone.
        stopping: Whether its server is about to end.
    """

    def __init__(self, broker: Broker, sink: Sink) -> None:
        super().__init__(broker.timers.new_id())
        self.broker: Broker = broker
        self.engine = broker.engine
        self.sink: Sink = sink
        self.parser: Parser = Parser(broker.max_job_size, broker.lenient_eol)
        default = broker.engine.tube(DEFAULT)
        default.using += 1
        default.watching += 1
        self.used: Tube = default
        self.watched: WatchList = WatchList(default)
        self.held: Queue = Queue()
        self.waiting: bool = False
        self.choked: bool = False
        self.closed: bool = False
        self.stopping: bool = False
        self._wait_until: float = NEVER
        self._reserve_seq: int = 0
        self._producer: bool = False
        self._worker: bool = False
        self._eof: bool = False
        self._hung_up: bool = False
        self._quit: bool = False
        self._leaving: bool = False
        self._cost: int = 0
        self._stalled: Command | None = None
        self._looking: bool = False
        self._seek: Later | None = None
        self._next: Command | None = None
        self._unsettled: int = 0
        self._upload: Command | None = None
        self._upload_id: int = 0
        self._out: list[bytes] = []
        self._out_bytes: int = 0
        self._dirty: bool = False
        self._queued: bool = False
        self._reading_paused: bool = False
        self._slots: deque[Slot] = deque()
        self._slot_bytes: int = 0
        broker.connections += 1
        broker.total_connections += 1

    # --- what the connection calls

    def receive(self, data: bytes) -> None:
        """Take bytes from the client and act on them as far as possible."""
        if self.closed or self._quit:
            return
        self.parser.feed(data)
        if not self._queued:
            self.run()

    def receive_eof(self) -> None:
        """The client sends no more: a blocked reserve ends; when all is answered the connection closes."""
        self._eof = True
        self.end_waiting()
        self.run()

    def end_waiting(self) -> None:
        """The client has closed its side, which may be known before the bytes in between were read: wait no more."""
        self._hung_up = True
        if self.waiting:
            self._stop_waiting(replies.TIMED_OUT)

    def run(self) -> None:
        """Execute the commands that are there, until one blocks or this connection has had its share of the turn."""
        self._queued = False
        if self.closed:
            return
        parser = self.parser
        broker = self.broker
        # The clock is looked at only now and then: that takes as long as a part of a command.
        unwatched = UNWATCHED
        until = 0.0
        blocked = self._blocked()
        while not blocked:
            command = self._next
            if command is None:
                command = parser.next()
                if command is None:
                    break
            else:
                self._next = None
            self._execute(command)
            if self._out_bytes > WRITE_CHUNK:
                self.flush()
            blocked = self._blocked()
            unwatched -= 1
            if self._cost:
                unwatched -= self._cost
                self._cost = 0
            if unwatched <= 0:
                unwatched = UNWATCHED
                now = broker.now()
                if until == 0.0:
                    until = now + broker.share
                elif now >= until and not blocked:
                    self._queued = True
                    broker.next_turn.append(self)
                    blocked = True
        if blocked:
            if self._seek is not None and self._next is None:
                self._read_reserves()
            if parser.buffered > READ_AHEAD and not self._reading_paused and not self.closed:
                self._reading_paused = True
                self.sink.pause_reading()
        elif self._reading_paused and not self.closed:
            self._reading_paused = False
            self.sink.resume_reading()
        done = self._quit or (self._eof and not blocked) or (self.stopping and self._idle())
        if done and not self._slots and not self.closed:
            self._finish()

    def _read_reserves(self) -> None:
        """Count the reserves that come directly after the one in progress: one take may serve them all."""
        while self.wants < RESERVES_AT_ONCE:
            command = self.parser.next()
            if command is None:
                return
            if command.verb != verbs.RESERVE:
                self._next = command
                return
            self.wants += 1

    def _reserve_on(self) -> None:
        """Begin the next of the reserves that were read ahead."""
        while self.wants > 1 and not self.waiting and not self.closed:
            self.wants -= 1
            self.broker.commands[verbs.RESERVE] += 1
            self._reserve(NEVER)

    def _reserve(self, timeout: float) -> None:
        """Begin a reserve."""
        raise NotImplementedError

    def _blocked(self) -> bool:
        """Tell whether the next command has to wait."""
        return (
            self.waiting
            or self.choked
            or self.closed
            or self._quit
            or self._stalled is not None
            or self._unsettled >= UNSETTLED_MAX
            or self._slot_bytes > WRITE_CHUNK
        )

    def _idle(self) -> bool:
        """Tell whether a server that stops need not wait for this connection: it is between jobs."""
        return not len(self.held) and self._unsettled == 0 and self._stalled is None

    def stop(self) -> None:
        """The server stops: end a blocked reserve without a reply, and the connection as soon as it holds no job."""
        self.stopping = True
        if self.waiting:
            self._leave_waiters()
            self._finish()
        elif self._idle():
            self._finish()

    def end(self) -> None:
        """Execute nothing more and give back what is held; close when the changes on their way are told of."""
        if self.closed:
            return
        if self.waiting:
            self._leave_waiters()
        self._quit = True
        self._forget_input()
        self._leave()
        self.run()

    def _forget_input(self) -> None:
        """Drop what was read and not executed."""
        self._stalled = None
        self._next = None
        self.wants = 1
        self.parser.clear()

    def _finish(self) -> None:
        """Send what is known, give everything back and close."""
        self.flush()
        sink = self.sink
        self.close()
        sink.close()

    def backlog(self) -> bool:
        """Tell whether commands that were read are about to be executed: no more need be read now."""
        return self._queued and self.parser.buffered > 0

    def flush(self) -> None:
        """Send the replies that are known, in one write but for large bodies, which are not copied."""
        self._dirty = False
        if self._out:
            out = self._out
            size = self._out_bytes
            self._out = []
            self._out_bytes = 0
            if self.closed:
                return
            if size > LARGE_PIECE:
                self._send_pieces(out)
            else:
                self.sink.write(out[0] if len(out) == 1 else b"".join(out))

    def _send_pieces(self, out: list[bytes]) -> None:
        small: list[bytes] = []
        for piece in out:
            if len(piece) < LARGE_PIECE:
                small.append(piece)
                continue
            if small:
                self.sink.write(b"".join(small))
                small = []
            self.sink.write(piece)
        if small:
            self.sink.write(b"".join(small))

    def choke(self) -> None:
        """The client does not read: execute nothing more for now."""
        self.choked = True

    def unchoke(self) -> None:
        """The client has read its replies."""
        self.choked = False
        self._go_on()

    def close(self) -> None:
        """Give back what this connection held and referred to, in slices; its later writes still go to the store."""
        if self.closed:
            return
        self.closed = True
        broker = self.broker
        if self.waiting:
            self._leave_waiters()
        broker.timers.cancel(self)
        broker.connections -= 1
        broker.producers -= self._producer
        broker.workers -= self._worker
        # The two refer to each other; full garbage collections, which would find that out, are not run under load.
        self.sink = NOWHERE
        self._forget_input()
        self._out = []
        self._upload = None
        # conn.c: connclose, by way of ms.c's ms_clear: the first tube goes first, then the last. The list is a new one: a question to a
        # shared store, which is not over yet, has the old one.
        tubes = self.watched.tubes
        self.watched.tubes = [*tubes[1:], tubes[0]]
        self._leave()

    def _leave(self) -> None:
        """Begin to give back what is held and, when the connection is closed, the tubes."""
        if not self._leaving:
            self._leaving = True
            self.broker.leaving += 1
        self._leave_on()

    def _leave_on(self) -> None:
        """Give back a slice: jobs in the order in which they were reserved (prot.c: enqueue_reserved_jobs), then tubes.

        Of more jobs than a slice those with the nearest deadlines come first: that order is only seen by those who wait for them.
        """
        jobs: list[Job] = []
        while len(jobs) < SLICE:
            first = self.held.first()
            if first is None:
                break
            self.held.remove(first)
            jobs.append(cast("Job", first))
        jobs.sort(key=_reserve_seq)
        engine = self.engine
        for job in jobs:
            job.holder = None
            engine.give_back(job, timed_out=False)
        if self.closed and not len(self.held):
            tubes = self.watched.tubes
            room = SLICE
            while tubes and room:
                tube = self.watched.take_out()
                tube.watching -= 1
                engine.forget(tube)
                room -= 1
            if not tubes:
                self.used.using -= 1
                engine.forget(self.used)
                self._leaving = False
                self.broker.left()
                return
        elif not len(self.held):
            # Its tubes it needs until it is closed.
            self._leaving = False
            self.broker.left()
            return
        self.broker.timers.schedule(self, self.broker.now())

    # --- waiting

    def serve(self, job: Job) -> None:
        """End the blocked reserve with a job."""
        self._leave_waiters()
        self._grant(job)
        self._reserve_on()
        self._go_on()

    def lost(self, job: Job) -> None:
        """A held job was deleted with its tube, or this process lost it."""
        if job.queued():
            self.held.remove(job)
        job.holder = None
        if self.stopping:
            self._go_on()

    def on_time(self, now: float) -> None:
        """Give up jobs whose time is up, and end a reserve whose time is up or whose job's deadline is near."""
        if self._leaving:
            self._leave_on()
            return
        self._end_wait(now)
        first = self.held.first()
        if first is not None and first.key <= now and self._queued:
            # What its client sent in time comes first.
            self.run()
            first = self.held.first()
        room = SLICE
        while first is not None and first.key <= now and room:
            assert isinstance(first, Job)
            self.held.remove(first)
            first.holder = None
            self.broker.job_timeouts += 1
            self.engine.give_back(first, timed_out=True)
            room -= 1
            first = self.held.first()
        if first is not None and first.key <= now:
            self.broker.timers.schedule(self, now)
        else:
            self._schedule()
        if self.stopping:
            self._go_on()

    def on_failure(self, error: Exception) -> bool:
        """A bug ends one connection."""
        self.broker.fail(self, error)
        return self._leaving

    def _end_wait(self, now: float) -> None:
        """End a reserve whose time is up or whose job's deadline is near, unless it is not known yet whether a job is there."""
        if self.waiting and self._seek is None:
            first = self.held.first()
            if first is not None and first.key - SAFETY_MARGIN <= now:
                self._stop_waiting(replies.DEADLINE_SOON)
            elif self._wait_until <= now or self._hung_up:
                self._stop_waiting(replies.TIMED_OUT)

    def _wait_for_sought(self, until: float, patient: bool) -> None:
        """Wait for a job of a shared store, which has to be asked; the reply may be due when it has answered."""
        self._wait(until)
        seek = self.engine.seek(self, self.watched.tubes, patient)
        if seek is None:
            self._end_wait(self.broker.now())
        else:
            self._seek = seek
            seek.then(self._sought)

    def _sought(self, seek: Later) -> None:
        """The store has no job for the reserve in progress, or did not answer."""
        if self._seek is not seek:
            return
        self._seek = None
        try:
            if seek.error is not None:
                self._stop_waiting(replies.INTERNAL_ERROR)
            else:
                self._end_wait(self.broker.now())
                self._schedule()
        except Exception as error:  # noqa: BLE001 - a bug ends this connection
            self.broker.fail(self, error)

    def _schedule(self) -> None:
        """Ask to be called at the next deadline, or a margin before it while a reserve waits, or at that one's end."""
        first = self.held.first()
        at = NEVER if first is None else first.key
        if self.waiting and self._seek is None:
            at = min(at - SAFETY_MARGIN, self._wait_until)
        if at < NEVER:
            self.broker.timers.schedule(self, at)

    def _wait(self, until: float) -> None:
        self.waiting = True
        self._wait_until = until
        self.broker.waiting += 1
        for tube in self.watched.tubes:
            tube.enter(self)
        self._schedule()

    def _leave_waiters(self) -> None:
        self.waiting = False
        self._seek = None
        self.broker.waiting -= 1
        for tube in self.watched.tubes:
            tube.leave(self)

    def _stop_waiting(self, reply: bytes) -> None:
        self._leave_waiters()
        self._reply(reply)
        self._reserve_on()
        self._go_on()

    def _go_on(self) -> None:
        """Have `run` called before this turn ends, or in the next one."""
        if not self._queued and not self.closed:
            self._queued = True
            self.broker.runnable.append(self)

    # --- holding

    def _grant(self, job: Job) -> None:
        """Hold a job and send it."""
        self._keep(job)
        body = job.raw_body()
        self._reply_job(replies.reserved(job.id, len(body)), body)

    def _keep(self, job: Job) -> None:
        """Hold a job that was just reserved."""
        self._reserve_seq += 1
        job.reserve_seq = self._reserve_seq
        self._hold(job, self.broker.now() + job.ttr if job.ttr else NEVER)

    def _hold(self, job: Job, deadline: float) -> None:
        job.holder = self
        self.held.push(job, deadline)
        self._schedule()

    def _let_go(self, job: Job) -> None:
        job.holder = None
        self.held.remove(job)

    def _take_back(self, job: Job) -> None:
        """Hold a job again whose change failed; when the connection is gone it becomes ready."""
        if self.closed:
            self.engine.give_back(job, timed_out=False)
        else:
            self._hold(job, job.key)

    # --- replies

    def _reply(self, data: bytes) -> None:
        if self._slots:
            self._slots.append(Slot(data))
            self._slot_bytes += len(data)
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._dirty:
            self._dirty = True
            self.broker.dirty.append(self)

    def _reply_job(self, header: bytes, body: bytes) -> None:
        if self._slots:
            self._reply(b"".join((header, body, replies.CRLF)))
            return
        self._out.append(header)
        self._out.append(body)
        self._reply(replies.CRLF)
        self._out_bytes += len(header) + len(body)

    def _reply_later(
        self,
        later: Later | None,
        reply: bytes,
        failed: "Callable[[], None] | None" = None,
        made: "Callable[[Later], bytes] | None" = None,
    ) -> None:
        """Reply when a change is committed, with what `made` makes of the outcome if given; if it fails, undo with `failed` and say so."""
        if later is None:
            self._reply(reply)
            return
        slot = Slot(b"")
        self._slots.append(slot)
        self._unsettled += 1

        def settled(outcome: Later) -> None:
            try:
                if outcome.error is None:
                    slot.reply = reply if made is None else made(outcome)
                elif isinstance(outcome.error, JobGone):
                    slot.reply = replies.NOT_FOUND
                else:
                    full = isinstance(outcome.error, StoreFull) or reply.startswith(b"INSERTED")
                    slot.reply = replies.OUT_OF_MEMORY if full else replies.INTERNAL_ERROR
                    # After an unknown outcome a job went with the session.
                    if failed is not None and not isinstance(outcome.error, OutcomeUnknown):
                        failed()
                self._unsettled -= 1
                self._slot_bytes += len(slot.reply)
                self._drain_slots()
            except Exception as error:  # noqa: BLE001 - a bug ends this connection, and no reply of it stays out for ever
                self.broker.fail(self, error)

        later.then(settled)

    def _drain_slots(self) -> None:
        """Move the replies that are next in order to the output; go on when they are all there."""
        slots = self._slots
        while slots and slots[0].reply:
            data = slots.popleft().reply
            self._slot_bytes -= len(data)
            self._out.append(data)
            self._out_bytes += len(data)
        if self.closed:
            return
        if self._out and not self._dirty:
            self._dirty = True
            self.broker.dirty.append(self)
        if self._stalled is not None:
            if self._unsettled == 0 and not self._looking:
                self._retry()
        elif (
            self._reading_paused
            or self._next is not None
            or self.parser.buffered
            or (not slots and (self._eof or self._quit or self.stopping))
        ):
            self._go_on()

    def _retry(self) -> None:
        """Execute the command that waited for a change, now that it is known."""
        command = self._stalled
        if command is not None and not self.closed:
            self._stalled = None
            self.broker.commands[command.verb] -= 1
            self._execute(command)
            self._go_on()

    # --- commands

    def _execute(self, command: Command) -> None:
        verb = command.verb
        self.broker.commands[verb] += 1
        if self.broker.tracing:
            self.sink.trace_command(verb)
        if (self.engine.durable or self._unsettled) and verb != verbs.REFUSED and self._must_wait(command):
            return
        self._do(command)

    def _do(self, command: Command) -> None:
        """Do what a command asks for, and reply."""
        raise NotImplementedError

    def _must_wait(self, command: Command) -> bool:
        """Tell whether a command stalls until a change is committed that decides about its reply."""
        if self._unsettled and not BLIND[command.verb]:
            self._stalled = command
            return True
        if BY_ID[command.verb]:
            change = self.engine.in_flight(command.id)
            if change is not None:
                self._stalled = command
                change.then(lambda change: self._retry_after(command, change))
                return True
        if self.engine.shared and LOOKS[command.verb]:
            look = self._look(command)
            if look is not None:
                self._stalled = command
                self._looking = True
                look.then(lambda looked: self._looked(command, looked))
                return True
        return False

    def _look(self, command: Command) -> Later | None:
        """Have a shared engine learn what one of LOOKS is about to look at; None when it is known."""
        raise NotImplementedError

    def _looked(self, command: Command, look: Later) -> None:
        if self._stalled is not command:
            return
        self._stalled = None
        self._looking = False
        if self.closed:
            return
        try:
            if look.error is None:
                self._do(command)
            else:
                self._reply(replies.INTERNAL_ERROR)
            self._go_on()
        except Exception as error:  # noqa: BLE001 - a bug ends this connection
            self.broker.fail(self, error)

    def _retry_after(self, command: Command, change: Later) -> None:
        if self._stalled is not command:
            return
        try:
            if self.engine.shared and change.error is not None:
                self._stalled = None
                self._reply(replies.INTERNAL_ERROR)
                self._go_on()
            else:
                self._retry()
        except Exception as error:  # noqa: BLE001 - a bug ends this connection
            self.broker.fail(self, error)


def _reserve_seq(job: Job) -> int:
    return job.reserve_seq

"""A session: one connection's side of the protocol. It executes each command and chooses its reply."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.contract import BURIED, DELAYED, ENTRY, PLACE, READY, RESERVED, WHOLE, Answer, Job
from beanspiked.engine.errors import DamagedEntry
from beanspiked.engine.later import Later
from beanspiked.engine.timers import NEVER
from beanspiked.protocol import commands as verbs
from beanspiked.protocol import replies, yaml
from beanspiked.protocol.commands import Command
from beanspiked.server.gate import CLOSED, QUIT, Gate
from beanspiked.server.holds import Holds
from beanspiked.server.pending_replies import HeldReply, KickReply, PutReply
from beanspiked.server.pending_reserve import PendingReserve
from beanspiked.server.reply_queue import PendingReply, ReplyQueue, Sink, TimedReplyQueue
from beanspiked.server.tube_choice import TubeChoice

__all__ = ["Session"]

logger = logging.getLogger(__name__)

# The cost of a command that does more than usual, in commands.
COST_OF_ALL: Final = 8
# Each group of this many watched tubes adds one command to a reserve's cost.
TUBES_A_COMMAND: Final = 64
# The commands that need only a part of a job, and that part.
NEEDED: Final = {verbs.DELETE: PLACE, verbs.STATS_JOB: ENTRY, verbs.KICK_JOB: ENTRY}
# The state of the jobs that each peek at a tube shows.
PEEKED: Final = {verbs.PEEK_READY: READY, verbs.PEEK_DELAYED: DELAYED, verbs.PEEK_BURIED: BURIED}


class Session:
    """Executes the commands of one connection.

    Args:
        gate: The connection's gate.
        sink: Takes its replies.

    Attributes:
        out: Its replies.
        holds: The jobs that it holds.
        tubes: The tubes that it uses and watches.
        reserve: Its reserve in progress.
        cost: The additional cost of the last command, in commands.
    """

    def __init__(self, gate: Gate, sink: Sink) -> None:
        self.gate: Gate = gate
        self.broker = gate.broker
        self.engine = gate.broker.engine
        times = gate.broker.times
        self.out: ReplyQueue = ReplyQueue(gate, sink) if times is None else TimedReplyQueue(gate, sink, times.commands)
        self.holds: Holds = Holds(gate)
        self.tubes: TubeChoice = TubeChoice(gate.broker)
        self.reserve: PendingReserve = PendingReserve(gate, self.tubes, self.holds, self.out)
        self.cost: int = 0
        # The put whose body is still on its way.
        self.upload: Command | None = None
        self.produces: bool = False
        self.works: bool = False

    def do(self, command: Command, answer: Answer | None) -> None:
        """Execute a command and reply. If the command needed a look, use its answer."""
        verb = command.verb
        # Micro-optimization: the three commands of a job's usual life come before the table.
        if verb == verbs.PUT:
            _put(self, command)
        elif verb == verbs.RESERVE:
            _begin_reserve(self, NEVER)
        elif verb == verbs.DELETE:
            _delete(self, command, answer)
        else:
            HANDLERS[verb](self, command, answer)

    def look(self, command: Command) -> Answer | None:
        """Let a shared engine read the job or tube of a command; None if this process knows it. Flow looks for `stats-tube` itself."""
        verb = command.verb
        engine = self.engine
        if verb in (verbs.DELETE, verbs.PEEK, verbs.STATS_JOB, verbs.KICK_JOB, verbs.RESERVE_JOB):
            return engine.look_job(command.id, NEEDED.get(verb, WHOLE))
        if verb in PEEKED:
            return engine.look_next(self.tubes.used, PEEKED[verb])
        if verb == verbs.PAUSE_TUBE:
            return engine.look_tube(command.name)
        if verb == verbs.LIST_TUBES:
            return engine.look_names()
        return self.broker.with_siblings(engine.look_all()) if verb == verbs.STATS else None

    def close(self) -> None:
        """Give back the connection's jobs and leave its tubes, in slices. Its changes on their way still reach the store."""
        self.broker.producers -= self.produces
        self.broker.workers -= self.works
        self.upload = None
        self.out.close()
        self.holds.give_back()
        self.tubes.leave()

    def become_worker(self) -> None:
        """Count the connection among the workers."""
        if not self.works:
            self.works = True
            self.broker.workers += 1

    def held(self, job_id: int) -> Job | None:
        """Find a job that the connection holds."""
        job = self.engine.find_job(job_id)
        return job if job is not None and job.holder is self.holds else None


class ReserveReply(PendingReply):
    """The reply to a `reserve-job` that is on its way."""

    def __init__(self, session: Session, job: Job) -> None:
        super().__init__(session.out, b"")
        self._session = session
        self._job = job

    def made(self, outcome: Later) -> bytes:  # noqa: ARG002 - as its base
        """Return the job, which the connection holds now."""
        session, job = self._session, self._job
        if session.gate.why == CLOSED:
            session.engine.give_back(job, timed_out=False)
            return replies.NOT_FOUND
        session.become_worker()
        session.holds.add(job)
        body = job.raw_body()
        return b"".join((replies.reserved(job.id, len(body)), body, replies.CRLF))


def _reply(session: Session, later: Later | None, reply: bytes) -> None:
    """Reply to a change on which nothing else depends."""
    if later is None:
        session.out.add(reply)
    else:
        session.out.add_later(later, PendingReply(session.out, reply))


def _refused(session: Session, command: Command, answer: Answer | None) -> None:
    if command.counts >= 0:
        session.broker.commands[command.counts] += 1
    session.out.add(command.reply)


def _put_too_big(session: Session, command: Command, answer: Answer | None) -> None:
    session.broker.commands[verbs.PUT] += 1


def _put(session: Session, command: Command) -> None:
    if not session.produces:
        session.produces = True
        session.broker.producers += 1
    command.id = session.engine.new_id()
    if command.body is None:
        session.upload = command
    else:
        _store(session, command, command.body, command.reply)


def _body(session: Session, command: Command, answer: Answer | None) -> None:
    upload = session.upload
    assert upload is not None
    assert command.body is not None
    session.upload = None
    _store(session, upload, command.body, command.reply)


def _store(session: Session, command: Command, body: bytes, fault: bytes) -> None:
    if fault:
        session.out.add(fault)
        return
    broker = session.broker
    if broker.draining:
        session.out.add(replies.DRAINING)
        return
    # protocol.txt: a ttr of 0 is silently raised to 1.
    later = session.engine.put(session.tubes.used, command.id, command.pri, command.delay, command.ttr or 1, body)
    if later is None:
        broker.total_jobs += 1
        session.out.add(replies.inserted(command.id))
    else:
        session.out.add_later(later, PutReply(session.out, broker))


def _reserve_with_timeout(session: Session, command: Command, answer: Answer | None) -> None:
    _begin_reserve(session, float(command.id))


def _begin_reserve(session: Session, timeout: float) -> None:
    session.become_worker()
    session.cost = len(session.tubes.watched) // TUBES_A_COMMAND
    session.reserve.begin(timeout)


def _reserve_job(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.engine.find_job(command.id) if answer is None else answer.job
    if job is None or job.state == RESERVED or job.moving is not None:
        session.out.add(replies.NOT_FOUND)
        return
    if _readable(job) is None:
        session.out.add(replies.INTERNAL_ERROR)
        return
    later = session.engine.take_job(job)
    if later is None:
        session.become_worker()
        session.reserve.grant(job)
    else:
        session.out.add_later(later, ReserveReply(session, job))


def _delete(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.engine.find_job(command.id) if answer is None else answer.job
    if job is not None and job.holder is session.holds:
        session.holds.let_go(job)
        _reply_change(session, session.engine.delete(job), replies.DELETED, job)
    elif job is not None and job.state != RESERVED:
        _reply(session, session.engine.delete(job), replies.DELETED)
    else:
        session.out.add(replies.NOT_FOUND)


def _reply_change(session: Session, later: Later | None, reply: bytes, job: Job) -> None:
    """Reply to a change of a job that was held until now."""
    if later is None:
        session.out.add(reply)
    else:
        session.out.add_later(later, HeldReply(session.out, reply, session.holds, job))


def _release(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.held(command.id)
    if job is None:
        session.out.add(replies.NOT_FOUND)
    else:
        session.holds.let_go(job)
        _reply_change(session, session.engine.release(job, command.pri, command.delay), replies.RELEASED, job)


def _bury(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.held(command.id)
    if job is None:
        session.out.add(replies.NOT_FOUND)
    else:
        session.holds.let_go(job)
        _reply_change(session, session.engine.bury(job, command.pri), replies.BURIED, job)


def _touch(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.held(command.id)
    if job is not None:
        session.holds.touch(job)
    session.out.add(replies.NOT_FOUND if job is None else replies.TOUCHED)


def _kick(session: Session, command: Command, answer: Answer | None) -> None:
    session.cost = COST_OF_ALL
    count, later = session.engine.kick(session.tubes.used, command.id)
    if later is None:
        session.out.add(replies.kicked(count))
    else:
        session.out.add_later(later, KickReply(session.out, b""))


def _kick_job(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.engine.find_job(command.id) if answer is None else answer.job
    if job is None or job.state not in (BURIED, DELAYED):
        session.out.add(replies.NOT_FOUND)
    else:
        _reply(session, session.engine.kick_job(job), replies.KICKED)


def _peek(session: Session, command: Command, answer: Answer | None) -> None:
    _reply_found(session, session.engine.find_job(command.id) if answer is None else answer.job)


def _peek_next(session: Session, command: Command, answer: Answer | None) -> None:
    state = PEEKED[command.verb]
    _reply_found(session, session.engine.peek_next(session.tubes.used, state) if answer is None else answer.job)


def _reply_found(session: Session, job: Job | None) -> None:
    body = None if job is None else _readable(job)
    if job is None:
        session.out.add(replies.NOT_FOUND)
    elif body is None:
        session.out.add(replies.INTERNAL_ERROR)
    else:
        session.out.add_job(replies.found(job.id, len(body)), body)


def _readable(job: Job) -> bytes | None:
    """Return a job's body, or None if it is damaged. Then only this client gets an error."""
    try:
        return job.raw_body()
    except DamagedEntry as error:
        logger.warning("cannot read the body of job %d of tube %s: %s", job.id, job.tube.name, error)
        return None


def _use(session: Session, command: Command, answer: Answer | None) -> None:
    session.out.add(replies.using(command.name) if session.tubes.use(command.name) else replies.OUT_OF_MEMORY)


def _watch(session: Session, command: Command, answer: Answer | None) -> None:
    session.reserve.part()
    done = session.tubes.watch(command.name)
    session.out.add(replies.watching(len(session.tubes.watched)) if done else replies.OUT_OF_MEMORY)


def _ignore(session: Session, command: Command, answer: Answer | None) -> None:
    session.reserve.part()
    done = session.tubes.ignore(command.name)
    session.out.add(replies.watching(len(session.tubes.watched)) if done else replies.NOT_IGNORED)


def _list_tubes(session: Session, command: Command, answer: Answer | None) -> None:
    _reply_names(session, [tube.name for tube in session.engine.tubes()] if answer is None else answer.names)


def _list_tube_used(session: Session, command: Command, answer: Answer | None) -> None:
    session.out.add(replies.using(session.tubes.used.name))


def _list_tubes_watched(session: Session, command: Command, answer: Answer | None) -> None:
    _reply_names(session, [tube.name for tube in session.tubes.watched])


def _reply_names(session: Session, names: list[str]) -> None:
    session.cost = len(names) // TUBES_A_COMMAND
    session.out.add(replies.ok(yaml.sequence(names)))


def _pause_tube(session: Session, command: Command, answer: Answer | None) -> None:
    tube = session.engine.find_tube(command.name) if answer is None else answer.tube
    if tube is None:
        session.out.add(replies.NOT_FOUND)
    else:
        _reply(session, session.engine.pause(tube, command.delay), replies.PAUSED)


def _stats(session: Session, command: Command, answer: Answer | None) -> None:
    session.cost = COST_OF_ALL
    session.out.add(replies.ok(yaml.mapping(session.broker.snapshot(answer))))


def _stats_tube(session: Session, command: Command, answer: Answer | None) -> None:
    tube = session.engine.find_tube(command.name) if answer is None else answer.tube
    if tube is None:
        session.out.add(replies.NOT_FOUND)
    else:
        session.out.add(replies.ok(yaml.mapping(session.broker.tube_snapshot(tube, answer))))


def _stats_job(session: Session, command: Command, answer: Answer | None) -> None:
    job = session.engine.find_job(command.id) if answer is None else answer.job
    session.out.add(replies.NOT_FOUND if job is None else replies.ok(yaml.mapping(session.broker.job_snapshot(job))))


def _quit(session: Session, command: Command, answer: Answer | None) -> None:
    session.gate.why = QUIT


def _foreign(session: Session, command: Command, answer: Answer | None) -> None:
    session.out.add(replies.UNKNOWN_COMMAND)
    session.gate.why = QUIT


Handler = Callable[[Session, Command, Answer | None], None]

HANDLERS: Final[dict[int, Handler]] = {
    verbs.BODY: _body,
    verbs.PUT_TOO_BIG: _put_too_big,
    verbs.REFUSED: _refused,
    verbs.RESERVE_WITH_TIMEOUT: _reserve_with_timeout,
    verbs.RESERVE_JOB: _reserve_job,
    verbs.RELEASE: _release,
    verbs.BURY: _bury,
    verbs.TOUCH: _touch,
    verbs.KICK: _kick,
    verbs.KICK_JOB: _kick_job,
    verbs.PEEK: _peek,
    verbs.PEEK_READY: _peek_next,
    verbs.PEEK_DELAYED: _peek_next,
    verbs.PEEK_BURIED: _peek_next,
    verbs.USE: _use,
    verbs.WATCH: _watch,
    verbs.IGNORE: _ignore,
    verbs.LIST_TUBES: _list_tubes,
    verbs.LIST_TUBE_USED: _list_tube_used,
    verbs.LIST_TUBES_WATCHED: _list_tubes_watched,
    verbs.PAUSE_TUBE: _pause_tube,
    verbs.STATS: _stats,
    verbs.STATS_TUBE: _stats_tube,
    verbs.STATS_JOB: _stats_job,
    verbs.QUIT: _quit,
    verbs.FOREIGN: _foreign,
}

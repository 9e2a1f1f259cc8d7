"""A session: one connection's side of the protocol. It decides which reply each command gets; it knows no socket."""

import logging
from collections.abc import Callable
from typing import Final

from beanspiked.engine.contract import BURIED, DELAYED, ENTRY, PLACE, READY, RESERVED, STATE_NAMES, Job, Tube
from beanspiked.engine.errors import DamagedEntry
from beanspiked.engine.later import Later
from beanspiked.engine.timers import NEVER
from beanspiked.protocol import commands as verbs
from beanspiked.protocol import replies, yaml
from beanspiked.protocol.commands import Command
from beanspiked.server.flow import COST_OF_ALL, SAFETY_MARGIN, TUBES_A_COMMAND, Flow

__all__ = ["Session"]

logger = logging.getLogger(__name__)


class Session(Flow):
    """What each command does."""

    def _do(self, command: Command) -> None:
        verb = command.verb
        # Micro-optimization: the three commands of a job's usual life come before the table.
        if verb == verbs.PUT:
            self._put(command)
        elif verb == verbs.RESERVE:
            self._reserve(NEVER)
        elif verb == verbs.DELETE:
            self._delete(command)
        else:
            HANDLERS[verb](self, command)

    def _refused(self, command: Command) -> None:
        if command.counts >= 0:
            self.broker.commands[command.counts] += 1
        self._reply(command.reply)

    def _put_too_big(self, command: Command) -> None:
        self.broker.commands[verbs.PUT] += 1

    def _put(self, command: Command) -> None:
        if not self._producer:
            self._producer = True
            self.broker.producers += 1
        job_id = self.engine.new_id()
        if command.body is None:
            self._upload = command
            self._upload_id = job_id
        else:
            self._store(command, job_id, command.body, command.reply)

    def _body(self, command: Command) -> None:
        upload = self._upload
        assert upload is not None
        assert command.body is not None
        self._upload = None
        self._store(upload, self._upload_id, command.body, command.reply)

    def _store(self, command: Command, job_id: int, body: bytes, fault: bytes) -> None:
        if fault:
            self._reply(fault)
        elif self.broker.draining:
            self._reply(replies.DRAINING)
        else:
            # protocol.txt: a ttr of 0 is silently raised to 1.
            ttr = command.ttr or 1
            later = self.engine.put(self.used, job_id, command.pri, command.delay, ttr, body)
            if later is None:
                self.broker.total_jobs += 1
                self._reply(replies.inserted(job_id))
            else:
                later.then(self._count_put)
                self._reply_later(later, b"" if self.engine.shared else replies.inserted(job_id), made=_inserted)

    def _count_put(self, later: Later) -> None:
        if later.error is None:
            self.broker.total_jobs += 1

    def _reserve_with_timeout(self, command: Command) -> None:
        self._reserve(float(command.id))

    def _reserve(self, timeout: float) -> None:
        self._become_worker()
        tubes = self.watched.tubes
        self._cost = len(tubes) // TUBES_A_COMMAND
        job = self.engine.take(tubes)
        if job is not None:
            self._grant(job)
            return
        now = self.broker.now()
        if self.engine.shared:
            self._wait_for_sought(now + timeout, patient=timeout > 0 and not self._hung_up)
            return
        first = self.held.first()
        if first is not None and first.key - SAFETY_MARGIN <= now:
            self._reply(replies.DEADLINE_SOON)
        elif timeout == 0 or self._hung_up:
            self._reply(replies.TIMED_OUT)
        else:
            self._wait(now + timeout)

    def _reserve_job(self, command: Command) -> None:
        job = self.engine.find_job(command.id)
        if job is None or job.state == RESERVED or job.moving is not None:
            self._reply(replies.NOT_FOUND)
            return
        if self._readable(job) is None:
            self._reply(replies.INTERNAL_ERROR)
            return
        later = self.engine.take_job(job)
        if later is None:
            self._become_worker()
            self._grant(job)
        else:
            self._reply_later(later, b"", made=lambda _: self._taken(job))

    def _taken(self, job: Job) -> bytes:
        """Hold a job that came later; return the reply."""
        if self.closed:
            self.engine.give_back(job, timed_out=False)
            return replies.NOT_FOUND
        self._become_worker()
        self._keep(job)
        body = job.raw_body()
        return b"".join((replies.reserved(job.id, len(body)), body, replies.CRLF))

    def _become_worker(self) -> None:
        if not self._worker:
            self._worker = True
            self.broker.workers += 1

    def _find_held(self, job_id: int) -> Job | None:
        job = self.engine.find_job(job_id)
        return job if job is not None and job.holder is self else None

    def _delete(self, command: Command) -> None:
        job = self.engine.find_job(command.id)
        if job is None:
            self._reply(replies.NOT_FOUND)
        elif job.holder is self:
            self._let_go(job)
            self._reply_change(self.engine.delete(job), replies.DELETED, job)
        elif job.state != RESERVED:
            self._reply_later(self.engine.delete(job), replies.DELETED)
        else:
            self._reply(replies.NOT_FOUND)

    def _reply_change(self, later: Later | None, reply: bytes, job: Job) -> None:
        """Reply to a change of a job that was held until now."""
        if later is None:
            self._reply(reply)
        else:
            self._reply_later(later, reply, lambda: self._take_back(job))

    def _release(self, command: Command) -> None:
        job = self._find_held(command.id)
        if job is None:
            self._reply(replies.NOT_FOUND)
        else:
            self._let_go(job)
            self._reply_change(self.engine.release(job, command.pri, command.delay), replies.RELEASED, job)

    def _bury(self, command: Command) -> None:
        job = self._find_held(command.id)
        if job is None:
            self._reply(replies.NOT_FOUND)
        else:
            self._let_go(job)
            self._reply_change(self.engine.bury(job, command.pri), replies.BURIED, job)

    def _touch(self, command: Command) -> None:
        job = self._find_held(command.id)
        if job is None:
            self._reply(replies.NOT_FOUND)
        else:
            self.held.remove(job)
            self._hold(job, self.broker.now() + job.ttr if job.ttr else NEVER)
            self._reply(replies.TOUCHED)

    def _kick(self, command: Command) -> None:
        self._cost = COST_OF_ALL
        count, later = self.engine.kick(self.used, command.id)
        self._reply_later(later, replies.kicked(count), made=_kicked)

    def _kick_job(self, command: Command) -> None:
        job = self.engine.find_job(command.id)
        if job is None or job.state not in (BURIED, DELAYED):
            self._reply(replies.NOT_FOUND)
        else:
            self._reply_later(self.engine.kick_job(job), replies.KICKED)

    def _found(self, job: Job | None) -> None:
        if job is None:
            self._reply(replies.NOT_FOUND)
            return
        body = self._readable(job)
        if body is None:
            self._reply(replies.INTERNAL_ERROR)
        else:
            self._reply_job(replies.found(job.id, len(body)), body)

    def _readable(self, job: Job) -> bytes | None:
        """Return a job's body, or None for one that is damaged: that is said to who asks for it, and concerns nobody else."""
        try:
            return job.raw_body()
        except DamagedEntry as error:
            logger.warning("job %d of %s: %s", job.id, job.tube.name, error)
            return None

    def _peek(self, command: Command) -> None:
        self._found(self.engine.find_job(command.id))

    def _peek_ready(self, command: Command) -> None:
        self._found(self.engine.peek_next(self.used, READY))

    def _peek_delayed(self, command: Command) -> None:
        self._found(self.engine.peek_next(self.used, DELAYED))

    def _peek_buried(self, command: Command) -> None:
        self._found(self.engine.peek_next(self.used, BURIED))

    def _use(self, command: Command) -> None:
        tube = self.engine.tube(command.name)
        tube.using += 1
        before = self.used
        self.used = tube
        before.using -= 1
        self.engine.forget(before)
        self._reply(replies.using(tube.name))

    def _watch(self, command: Command) -> None:
        tube = self.engine.tube(command.name)
        if self.watched.add(tube):
            tube.watching += 1
        self._reply(replies.watching(len(self.watched.tubes)))

    def _ignore(self, command: Command) -> None:
        watched = self.watched
        tube = self.engine.find_tube(command.name)
        if tube is not None and tube in watched:
            if len(watched.tubes) == 1:
                self._reply(replies.NOT_IGNORED)
                return
            watched.remove(tube)
            tube.watching -= 1
            self.engine.forget(tube)
        self._reply(replies.watching(len(watched.tubes)))

    def _list_tubes(self, command: Command) -> None:
        self._list(self.engine.tubes())

    def _list_tube_used(self, command: Command) -> None:
        self._reply(replies.using(self.used.name))

    def _list_tubes_watched(self, command: Command) -> None:
        self._list(self.watched.tubes)

    def _list(self, tubes: list[Tube]) -> None:
        self._cost = len(tubes) // TUBES_A_COMMAND
        self._reply(replies.ok(yaml.sequence([tube.name for tube in tubes])))

    def _pause_tube(self, command: Command) -> None:
        tube = self.engine.find_tube(command.name)
        if tube is None:
            self._reply(replies.NOT_FOUND)
        else:
            self._reply_later(self.engine.pause(tube, command.delay), replies.PAUSED)

    def _stats(self, command: Command) -> None:
        self._cost = COST_OF_ALL
        self._reply(replies.ok(yaml.mapping(self.broker.snapshot())))

    def _stats_tube(self, command: Command) -> None:
        tube = self.engine.find_tube(command.name)
        if tube is None:
            self._reply(replies.NOT_FOUND)
        else:
            self._reply(replies.ok(yaml.mapping(self.broker.tube_snapshot(tube))))

    def _stats_job(self, command: Command) -> None:
        job = self.engine.find_job(command.id)
        if job is None:
            self._reply(replies.NOT_FOUND)
            return
        now = self.broker.now()
        timed = job.state in (RESERVED, DELAYED) and job.key < NEVER
        fields: list[tuple[str, object]] = [
            ("id", job.id),
            ("tube", yaml.quoted(job.tube.name)),
            ("state", STATE_NAMES[job.state]),
            ("pri", job.pri),
            ("age", max(0, int(now - job.born))),
            ("delay", int(job.delay)),
            ("ttr", int(job.ttr)),
            ("time-left", max(0, int(job.key - now)) if timed else 0),
            ("file", self.engine.journal_stats()[0]),
            ("reserves", job.reserves),
            ("timeouts", job.timeouts),
            ("releases", job.releases),
            ("buries", job.buries),
            ("kicks", job.kicks),
        ]
        self._reply(replies.ok(yaml.mapping(fields)))

    def _quit_command(self, command: Command) -> None:
        self._quit = True
        self.parser.clear()

    def _foreign(self, command: Command) -> None:
        self._reply(replies.UNKNOWN_COMMAND)
        self._quit_command(command)

    def _look(self, command: Command) -> Later | None:
        """Have a shared engine learn what one of LOOKS is about to look at; None when it is known."""
        verb = command.verb
        engine = self.engine
        if verb in (verbs.STATS_TUBE, verbs.PAUSE_TUBE):
            return engine.look_tube(command.name)
        if verb in (verbs.STATS, verbs.LIST_TUBES):
            return engine.look_all()
        if verb == verbs.PEEK_READY:
            return engine.look_next(self.used, READY)
        if verb == verbs.PEEK_DELAYED:
            return engine.look_next(self.used, DELAYED)
        if verb == verbs.PEEK_BURIED:
            return engine.look_next(self.used, BURIED)
        if verb == verbs.DELETE:
            return engine.look_job(command.id, PLACE)
        if verb in (verbs.STATS_JOB, verbs.KICK_JOB):
            return engine.look_job(command.id, ENTRY)
        return engine.look_job(command.id)


def _inserted(later: Later) -> bytes:
    return replies.inserted(later.value)


def _kicked(later: Later) -> bytes:
    return replies.kicked(later.value)


Handler = Callable[[Session, Command], None]

HANDLERS: Final[dict[int, Handler]] = {
    verbs.PUT: Session._put,
    verbs.BODY: Session._body,
    verbs.PUT_TOO_BIG: Session._put_too_big,
    verbs.REFUSED: Session._refused,
    verbs.RESERVE_WITH_TIMEOUT: Session._reserve_with_timeout,
    verbs.RESERVE_JOB: Session._reserve_job,
    verbs.DELETE: Session._delete,
    verbs.RELEASE: Session._release,
    verbs.BURY: Session._bury,
    verbs.TOUCH: Session._touch,
    verbs.KICK: Session._kick,
    verbs.KICK_JOB: Session._kick_job,
    verbs.PEEK: Session._peek,
    verbs.PEEK_READY: Session._peek_ready,
    verbs.PEEK_DELAYED: Session._peek_delayed,
    verbs.PEEK_BURIED: Session._peek_buried,
    verbs.USE: Session._use,
    verbs.WATCH: Session._watch,
    verbs.IGNORE: Session._ignore,
    verbs.LIST_TUBES: Session._list_tubes,
    verbs.LIST_TUBE_USED: Session._list_tube_used,
    verbs.LIST_TUBES_WATCHED: Session._list_tubes_watched,
    verbs.PAUSE_TUBE: Session._pause_tube,
    verbs.STATS: Session._stats,
    verbs.STATS_TUBE: Session._stats_tube,
    verbs.STATS_JOB: Session._stats_job,
    verbs.QUIT: Session._quit_command,
    verbs.FOREIGN: Session._foreign,
}

"""The broker stands between all connections of a process and the tube engine.

Everything runs in turns. A turn begins when the event loop calls (bytes, a timer, an outcome from the store) and ends with
`end_turn`: sessions that may go on do so, the engine sends its requests to the store, and each session's replies leave in one write.
"""

import logging
import os
import resource
from collections import deque
from collections.abc import Callable
from typing import Final

from beanspiked.engine.contract import (
    ALL,
    DELAYED,
    RESERVED,
    STATE_NAMES,
    Answer,
    Counts,
    Job,
    ReadyListener,
    Tube,
    TubeEngine,
    TubeUse,
)
from beanspiked.engine.later import Later
from beanspiked.engine.timers import NEVER, Timers
from beanspiked.protocol.commands import STATS_NAMES, VERB_COUNT
from beanspiked.protocol.yaml import quoted
from beanspiked.server.contract import Alarm, Siblings, TurnTaker
from beanspiked.server.failures import Failures
from beanspiked.server.instance import instance_id
from beanspiked.server.times import Times

__all__ = ["BEANSTALKD_VERSION", "TURN", "UNWATCHED", "Broker"]

logger = logging.getLogger(__name__)

# Clients parse the version and decide by it, so it is the version of the protocol.
BEANSTALKD_VERSION: Final = "1.13"
NO_OTHERS: Final = TubeUse()
COUNTED: Final = ("urgent", "ready", "reserved", "delayed", "buried")

# How long all sessions together may run before the sockets are read again, in seconds. Due timers have as much time.
TURN: Final = 0.002
# How many commands a session executes, and how many sessions run, before the clock is read.
UNWATCHED: Final = 8


class Broker(ReadyListener):
    """The sessions of one process, their waiters and their turns.

    Attributes:
        engine: Keeps the jobs.
        timers: Calls objects when their times come.
        commands: How often each verb was executed, as `stats` counts.
        draining: Whether puts are refused.
        dirty: Sessions whose replies leave at the end of this turn.
        runnable: Sessions that may go on with their input.
        next_turn: Sessions that have had their share of this turn.
        share: How long a session may run in a turn, in seconds. It may always execute UNWATCHED commands.
        leaving: Closed sessions that are still giving jobs back.
        when_left: Called when the last of these has given everything back.
        tracing: Whether commands and replies are logged.
        linger_from: A connection that watches so many tubes stays in all of them between its reserves.
        io: How sockets are heard, for `stats`.
        siblings: The other workers, if `stats` counts their commands.
        pid: The process id for `stats`.
        started_at: When the server was started, in seconds since the epoch.
        failures: Counts the commands that fail because of the store.
        times: Counts the times of jobs and commands; may be None.
        noting: Whether commands are logged or measured now. Each command checks only this.
    """

    engine: TubeEngine

    def __init__(self, timers: Timers, max_job_size: int, version: str = "", lenient_eol: bool = False) -> None:
        self.timers: Timers = timers
        self.max_job_size: int = max_job_size
        self.lenient_eol: bool = lenient_eol
        self.version: str = version
        self.commands: list[int] = [0] * VERB_COUNT
        self.draining: bool = False
        self.job_timeouts: int = 0
        self.total_jobs: int = 0
        self.connections: int = 0
        self.total_connections: int = 0
        self.producers: int = 0
        self.workers: int = 0
        self.waiting: int = 0
        self.binlog_max_size: int = 10485760
        self.instance_id: str = instance_id()
        self.dirty: list[TurnTaker] = []
        self.runnable: deque[TurnTaker] = deque()
        self.next_turn: list[TurnTaker] = []
        self.share: float = TURN
        self.leaving: int = 0
        self.when_left: Callable[[], None] | None = None
        self.tracing: bool = False
        self.noting: bool = False
        self.linger_from: int = 32
        self.io: str = "none"
        self.siblings: Siblings | None = None
        self.pid: int = os.getpid()
        self.started_at: float = timers.clock.now()
        self.failures: Failures = Failures(timers.clock)
        self.times: Times | None = None
        self.alarm: Alarm | None = None
        self._alarm_at: float = NEVER
        self._soon: bool = False

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self.timers.clock.now()

    def trace(self) -> None:
        """Log commands and replies from now on."""
        self.tracing = self.noting = True

    def measure(self) -> None:
        """Count the times of jobs from now on, and those of the commands of later connections."""
        self.times = Times()
        self.noting = True
        self.engine.measure()

    def sampled(self) -> bool:
        """Tell whether the next command is to be measured; only asked while `noting`."""
        times = self.times
        if times is None or not times.commands.wanted():
            return False
        self.noting = self.tracing or not times.commands.enough()
        return True

    def tick(self) -> None:
        """Measure some more commands."""
        if self.times is not None:
            self.times.commands.tick(sum(self.commands))
            self.noting = True

    def tube_ready(self, tube: Tube, most: int = ALL) -> None:
        """Give up to `most` of a tube's ready jobs to its waiters, the longest-waiting first."""
        while most:
            waiter = tube.longest()
            job = None if waiter is None else self.engine.take([tube])
            if waiter is None or job is None:
                return
            most -= 1
            try:
                waiter.serve(job)
            except Exception as error:
                logger.error("internal error: job %d was not given to its waiter", job.id, exc_info=error)
                tube.expel(waiter)
                waiter.on_failure(error)
                if job.holder is None and job.state == RESERVED:
                    self.engine.give_back(job, timed_out=False)

    def alone(self) -> bool:
        """Tell whether there is one connection."""
        return self.connections == 1

    def plan(self, calls: int) -> None:
        """Divide a turn among the sessions that have work, including `calls` sessions that are about to be called."""
        self.share = TURN / max(UNWATCHED, calls + len(self.runnable) + len(self.next_turn))

    def on_alarm(self) -> None:
        """Call everything that is due by now."""
        self._alarm_at = NEVER
        self._soon = False
        self.runnable.extend(self.next_turn)
        self.next_turn.clear()
        now = self.now()
        if self.timers.next_at() <= now:
            if self.alarm is not None:
                self.alarm.hear()
            self.timers.run(now + TURN)
        self.end_turn()

    def end_turn(self) -> None:
        """Let sessions go on that can; send the replies that are known, the requests to the store, and the replies that these give.

        Sessions with commands left over run in the next turn, so that sessions that were just heard need not wait for them.
        """
        if self.runnable and not self._soon:
            self._run()
        if self.dirty and self.engine.durable:
            self.reply_early()
        try:
            self.engine.flush()
        except Exception as error:
            logger.error("internal error: the engine did not send its requests", exc_info=error)
        if self.dirty:
            dirty, self.dirty = self.dirty, []
            self._reply(dirty)
        alarm = self.alarm
        if alarm is not None:
            hurry = bool(self.runnable or self.next_turn)
            next_at = self.timers.next_at()
            if next_at < self._alarm_at:
                if next_at <= self.now():
                    hurry = True
                else:
                    self._alarm_at = next_at
                    alarm.set(next_at)
            if hurry and not self._soon:
                self._soon = True
                alarm.soon()

    def reply_early(self) -> None:
        """Send the replies that depend on no change of this turn. The engine may wait for its store soon; these clients need not."""
        dirty, self.dirty = self.dirty, []
        settled: list[TurnTaker] = []
        for session in dirty:
            if session.is_settled():
                settled.append(session)
            else:
                self.dirty.append(session)
        self._reply(settled)

    def _reply(self, dirty: list[TurnTaker]) -> None:
        for session in dirty:
            try:
                session.flush()
            except Exception as error:  # noqa: BLE001 - a bug ends one connection, not the turn of all
                session.fail(error)

    def _run(self) -> None:
        """Run sessions in order, until the turn is over."""
        until = self.now() + TURN
        unwatched = UNWATCHED
        while self.runnable:
            session = self.runnable.popleft()
            try:
                session.run()
            except Exception as error:  # noqa: BLE001 - a bug ends one connection, not the turn of all
                session.fail(error)
            unwatched -= 1
            if unwatched == 0:
                unwatched = UNWATCHED
                if self.now() >= until:
                    return

    def left(self) -> None:
        """Learn that a session has given everything back."""
        self.leaving -= 1
        if self.leaving == 0 and self.when_left is not None:
            self.when_left()

    def counters(self) -> list[int]:
        """Return the counters that `stats` adds up over all workers: each verb's commands, then those at VERB_COUNT and above."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [
            *self.commands,
            self.job_timeouts,
            self.total_jobs,
            self.connections,
            self.producers,
            self.workers,
            self.waiting,
            self.total_connections,
            round(usage.ru_utime * 1000000),
            round(usage.ru_stime * 1000000),
        ]

    def with_siblings(self, answer: Answer | None) -> Answer | None:
        """Return the answer of a look at all jobs, once the other workers' counters have come as well."""
        siblings = self.siblings
        if siblings is None or answer is None:
            return answer
        whole = Answer()
        look = answer

        def asked(_: Later) -> None:
            whole.counts, whole.names, whole.tubes = look.counts, look.names, look.tubes
            whole.settle(look.error)

        siblings.ask().then(lambda _: look.then(asked))
        return whole

    def snapshot(self, answer: Answer | None) -> list[tuple[str, object]]:
        """Return every counter of `stats` in beanstalkd's order, ours at the end. A look's results are in its answer."""
        counts = self.engine.counts if answer is None else answer.counts
        total = self.counters()
        siblings = self.siblings
        if siblings is not None and siblings.counters:
            total = [mine + theirs for mine, theirs in zip(total, siblings.counters, strict=True)]
        journal = self.engine.journal_stats()
        uname = os.uname()
        fields = by_state(counts)
        fields += [(name, total[verb]) for name, verb in STATS_NAMES]
        fields += [
            ("job-timeouts", total[VERB_COUNT]),
            ("total-jobs", total[VERB_COUNT + 1]),
            ("max-job-size", self.max_job_size),
            ("current-tubes", len(self.engine.tubes() if answer is None else answer.tubes or answer.names)),
            ("current-connections", total[VERB_COUNT + 2]),
            ("current-producers", total[VERB_COUNT + 3]),
            ("current-workers", total[VERB_COUNT + 4]),
            ("current-waiting", total[VERB_COUNT + 5]),
            ("total-connections", total[VERB_COUNT + 6]),
            ("pid", self.pid),
            ("version", quoted(BEANSTALKD_VERSION)),
            ("rusage-utime", f"{total[VERB_COUNT + 7] / 1000000:.6f}"),
            ("rusage-stime", f"{total[VERB_COUNT + 8] / 1000000:.6f}"),
            ("uptime", int(self.now() - self.started_at)),
            ("binlog-oldest-index", journal.files),
            ("binlog-current-index", journal.files),
            ("binlog-records-migrated", 0),
            ("binlog-records-written", journal.records),
            ("binlog-max-size", self.binlog_max_size),
            ("draining", "true" if self.draining else "false"),
            ("id", self.instance_id),
            ("hostname", quoted(uname.nodename)),
            ("os", quoted(uname.version)),
            ("platform", quoted(uname.machine)),
            ("beanspiked-io", self.io),
            ("beanspiked-version", quoted(self.version)),
        ]
        if siblings is not None:
            fields += [("beanspiked-workers", siblings.workers), ("beanspiked-workers-counted", siblings.answered + 1)]
        return fields

    def job_snapshot(self, job: Job) -> list[tuple[str, object]]:
        """Return every field of `stats-job`."""
        now = self.now()
        timed = job.state in (RESERVED, DELAYED) and job.key < NEVER
        return [
            ("id", job.id),
            ("tube", quoted(job.tube.name)),
            ("state", STATE_NAMES[job.state]),
            ("pri", job.pri),
            ("age", max(0, int(now - job.born))),
            ("delay", int(job.delay)),
            ("ttr", int(job.ttr)),
            ("time-left", max(0, int(job.key - now)) if timed else 0),
            ("file", self.engine.journal_stats().files),
            ("reserves", job.reserves),
            ("timeouts", job.timeouts),
            ("releases", job.releases),
            ("buries", job.buries),
            ("kicks", job.kicks),
        ]

    def tube_snapshot(self, tube: Tube, answer: Answer | None) -> list[tuple[str, object]]:
        """Return every field of `stats-tube`. A look's results are in its answer."""
        counts = tube.counts if answer is None else answer.counts
        others = NO_OTHERS if answer is None else answer.others
        left = int(tube.paused_until - self.now()) if tube.pause else 0
        return [
            ("name", quoted(tube.name)),
            *by_state(counts),
            ("total-jobs", tube.total_jobs + others.total_jobs),
            ("current-using", tube.using + others.using),
            ("current-watching", tube.watching + others.watching),
            ("current-waiting", tube.waiting() + others.waiting),
            ("cmd-delete", tube.deletes + others.deletes),
            ("cmd-pause-tube", tube.pauses + others.pauses),
            ("pause", int(tube.pause)),
            ("pause-time-left", max(0, left)),
        ]


def by_state(counts: Counts) -> list[tuple[str, object]]:
    """Return the fields that `stats` and `stats-tube` have in common."""
    return [(f"current-jobs-{state}", getattr(counts, state)) for state in COUNTED]

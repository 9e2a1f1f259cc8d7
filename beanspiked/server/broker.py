"""The broker: what all connections of a process share, between them and the tube engine.

Everything runs in turns: a turn begins when the event loop calls in (bytes, a timer, an outcome from the store) and ends with
`end_turn`, where sessions that may go on do so, the engine sends on what it was asked for, and each session's replies leave in one write.
"""

import logging
import os
import resource
from collections import deque
from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

from beanspiked.engine.contract import ReadyListener, Tube, TubeEngine, TubeUse
from beanspiked.engine.timers import NEVER, Timers
from beanspiked.protocol.commands import STATS_NAMES, VERB_COUNT
from beanspiked.protocol.yaml import quoted

if TYPE_CHECKING:
    from beanspiked.server.flow import Flow

__all__ = ["BEANSTALKD_VERSION", "Alarm", "Broker"]

logger = logging.getLogger(__name__)

# Clients parse it and switch on it, so it names the protocol that is spoken.
BEANSTALKD_VERSION: Final = "1.13"


NO_OTHERS: Final = TubeUse()

# How many sessions that were woken may run in one turn.
RUNS_PER_TURN: Final = 1000


@mypyc_attr(allow_interpreted_subclasses=True)
class Alarm:
    """How the broker asks the event loop to be called."""

    def set(self, at: float) -> None:
        """Call `Broker.on_alarm` at this time, in seconds since the epoch; replaces an earlier one."""
        raise NotImplementedError

    def soon(self) -> None:
        """Call `Broker.on_alarm` in the next turn."""
        raise NotImplementedError


class Broker(ReadyListener):
    """What the sessions of one process share.

    Attributes:
        engine: Where the jobs live.
        timers: Who wants to be called when.
        commands: How often each verb was counted.
        draining: Whether puts are refused.
        dirty: Sessions whose replies leave at the end of this turn.
        runnable: Sessions that may go on with their input.
        next_turn: Sessions that have had their share of this turn.
        tracing: Whether commands and replies are logged.
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
        self.instance_id: str = _instance_id()
        self.dirty: list[Flow] = []
        self.runnable: deque[Flow] = deque()
        self.next_turn: list[Flow] = []
        self.tracing: bool = False
        self.alarm: Alarm | None = None
        self._alarm_at: float = NEVER
        self._soon: bool = False
        self._started_at: float = timers.clock.now()

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self.timers.clock.now()

    def tube_ready(self, tube: Tube) -> None:
        """Hand a tube's ready jobs to those who wait for them, the longest-waiting first."""
        waiters = tube.waiters
        while waiters:
            job = self.engine.take([tube])
            if job is None:
                return
            next(iter(waiters)).serve(job)

    def on_alarm(self) -> None:
        """Do what is due by now."""
        self._alarm_at = NEVER
        self._soon = False
        if self.next_turn:
            self.runnable.extend(self.next_turn)
            self.next_turn = []
        self.timers.run()
        self.end_turn()

    def end_turn(self) -> None:
        """Let sessions go on that can, then send everything on its way."""
        runs = 0
        while self.runnable and runs < RUNS_PER_TURN:
            runs += 1
            session = self.runnable.popleft()
            try:
                session.run()
            except Exception as error:  # noqa: BLE001 - a bug ends one connection, not the turn of all
                self._fail(session, error)
        if (self.runnable or self.next_turn) and not self._soon and self.alarm is not None:
            self._soon = True
            self.alarm.soon()
        self.engine.flush()
        if self.dirty:
            dirty = self.dirty
            self.dirty = []
            for session in dirty:
                try:
                    session.flush()
                except Exception as error:  # noqa: BLE001 - likewise
                    self._fail(session, error)
        next_at = self.timers.next_at()
        if next_at < self._alarm_at and self.alarm is not None:
            self._alarm_at = next_at
            self.alarm.set(next_at)

    def _fail(self, session: "Flow", error: Exception) -> None:
        logger.error("internal error; a connection is closed", exc_info=error)
        sink = session.sink
        session.close()
        sink.close()

    def snapshot(self) -> list[tuple[str, object]]:
        """Return every counter that `stats` reports, in beanstalkd's order, ours at the end."""
        counts = self.engine.counts
        usage = resource.getrusage(resource.RUSAGE_SELF)
        files, records = self.engine.journal_stats()
        uname = os.uname()
        fields: list[tuple[str, object]] = [
            ("current-jobs-urgent", counts.urgent),
            ("current-jobs-ready", counts.ready),
            ("current-jobs-reserved", counts.reserved),
            ("current-jobs-delayed", counts.delayed),
            ("current-jobs-buried", counts.buried),
        ]
        fields += [(name, self.commands[verb]) for name, verb in STATS_NAMES]
        fields += [
            ("job-timeouts", self.job_timeouts),
            ("total-jobs", self.total_jobs),
            ("max-job-size", self.max_job_size),
            ("current-tubes", len(self.engine.tubes())),
            ("current-connections", self.connections),
            ("current-producers", self.producers),
            ("current-workers", self.workers),
            ("current-waiting", self.waiting),
            ("total-connections", self.total_connections),
            ("pid", os.getpid()),
            ("version", quoted(BEANSTALKD_VERSION)),
            ("rusage-utime", f"{usage.ru_utime:.6f}"),
            ("rusage-stime", f"{usage.ru_stime:.6f}"),
            ("uptime", int(self.now() - self._started_at)),
            ("binlog-oldest-index", files),
            ("binlog-current-index", files),
            ("binlog-records-migrated", 0),
            ("binlog-records-written", records),
            ("binlog-max-size", self.binlog_max_size),
            ("draining", "true" if self.draining else "false"),
            ("id", self.instance_id),
            ("hostname", quoted(uname.nodename)),
            ("os", quoted(uname.version)),
            ("platform", quoted(uname.machine)),
            ("beanspiked-version", quoted(self.version)),
        ]
        return fields

    def tube_snapshot(self, tube: Tube) -> list[tuple[str, object]]:
        """Return every field that `stats-tube` reports."""
        counts = tube.counts
        others = self.engine.elsewhere(tube) or NO_OTHERS
        left = int(tube.paused_until - self.now()) if tube.pause else 0
        return [
            ("name", quoted(tube.name)),
            ("current-jobs-urgent", counts.urgent),
            ("current-jobs-ready", counts.ready),
            ("current-jobs-reserved", counts.reserved),
            ("current-jobs-delayed", counts.delayed),
            ("current-jobs-buried", counts.buried),
            ("total-jobs", tube.total_jobs + others.total_jobs),
            ("current-using", tube.using + others.using),
            ("current-watching", tube.watching + others.watching),
            ("current-waiting", len(tube.waiters) + others.waiting),
            ("cmd-delete", tube.deletes + others.deletes),
            ("cmd-pause-tube", tube.pauses + others.pauses),
            ("pause", int(tube.pause)),
            ("pause-time-left", max(0, left)),
        ]


def _instance_id() -> str:
    """Make 16 hexadecimal digits that no YAML parser takes for a number: one of them is a letter other than e."""
    digits = os.urandom(8).hex()
    return digits if set(digits) & set("abcdf") else "a" + digits[1:]

"""`beanspiked move`: moves jobs to another tube without losing any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beanspiked.cli.arguments import STATES, Parser, at_least_one, tube
from beanspiked.cli.command import EXIT_FAILED, Failed, connect, existing, number_of, run
from beanspiked.cli.looks import PEEKS
from beanspiked.cli.matching import Matching, add_all, expect_answer, over_admin
from beanspiked.cli.taking import at_once, take_ready, todo, watch_only
from beanspiked.cli.terminal import Progress, plural, print_json, say
from beanspiked.client import requests
from beanspiked.client.errors import JobBuried, NotUnderstood, Refused, StoreFailed
from beanspiked.client.requests import Job

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from beanspiked.client.blocking import Conn
    from beanspiked.client.documents import Stats
    from beanspiked.client.requests import Request

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "move",
        "Move jobs to another tube: ready ones, or those of another state. The command reserves each\n"
        "job, puts it into the other tube and then deletes it here. So it loses no job if it is killed;\n"
        "some dozens may then be in both tubes. Jobs keep their priority, time to run and the rest of a\n"
        "delay, and get new ids; buried ones arrive ready. To move buried or delayed jobs (reserve-job)\n"
        "it needs beanstalkd 1.12 or later; if it is killed, one of them may be ready where it was.\n\n"
        "With --admin or a filter the server moves the jobs itself, and the command asks before. Each\n"
        "job is then always in one of the two tubes, and keeps its state and all its figures.",
        "  beanspiked move emails emails-later\n  beanspiked move emails-failed emails --state buried --number 10\n"
        '  beanspiked move emails emails-bob --grep \'"to": "bob\' --older 1h --admin 11301',
    )
    words.add_argument("source", type=tube, metavar="FROM")
    words.add_argument("target", type=tube, metavar="TO")
    words.add_argument("-s", "--state", choices=STATES, default="ready", help="move jobs of this state (ready)")
    words.add_argument(
        "-n", "--number", type=at_least_one, metavar="N", help="move at most this many jobs (all that are there now)"
    )
    add_all(words)
    words.add_json()
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    words_parser = parser()
    return run(words_parser, words, lambda options: _move(words_parser, options))


def _move(words: Parser, options: argparse.Namespace) -> int:
    if options.source == options.target:
        words.error("move: the tubes are the same")
    if over_admin(options):
        return _over_admin(words, options)
    with connect(options) as conn:
        told = existing(conn, options.source)
        total = todo(told, options.state, options.number)
        moving = _Moving(conn, options, total)
        with moving.progress:
            if options.state == "ready" and not number_of(told, "pause-time-left"):
                moving.in_batches()
            else:
                moving.one_by_one()
    if options.json:
        print_json({"moved": moving.moved, "doubled": moving.doubled})
    else:
        print(f"{plural(moving.moved)} moved to {options.target}")
    if moving.doubled:
        say(f"{plural(len(moving.doubled))} may be in both tubes, because their time to run was over: {moving.doubled}")
    return EXIT_FAILED if moving.doubled else 0


def _over_admin(words: Parser, options: argparse.Namespace) -> int:
    expect_answer(words, options)
    matching = Matching(options, options.source, [options.state], options.number)
    if options.count:
        return matching.print_count()
    question = f"This moves {{}} to {options.target}"
    moved = matching.change("tube/move", "moved", question, "yes", {"target": options.target})
    if options.json:
        print_json({"moved": moved, "doubled": []})
    else:
        print(f"{plural(moved)} moved to {options.target}")
    return 0


class _Moving:
    """The state of a move.

    Attributes:
        moved: How many jobs were moved.
        doubled: The ids of jobs that may be in both tubes.
        progress: Shows how many were moved.
    """

    def __init__(self, conn: Conn, options: argparse.Namespace, total: int) -> None:
        self.moved = 0
        self.doubled: list[int] = []
        self.progress = Progress("moved", total)
        self._conn = conn
        self._source: str = options.source
        self._target: str = options.target
        self._state: str = options.state
        self._left = total

    def in_batches(self) -> None:
        """Move ready jobs, some dozens at a time."""
        conn = self._conn
        watch_only(conn, self._source)
        conn.ask(requests.use(self._target))
        size = at_once(conn)
        while self._left > 0 and (jobs := take_ready(conn, min(size, self._left))):
            self._left -= len(jobs)
            told = requests.accepted(conn.ask_all([requests.stats_job(job.id) for job in jobs]))
            # None means that its time to run is over and another worker has deleted it.
            self._put([(job, one) for job, one in zip(jobs, told, strict=True) if one is not None])

    def one_by_one(self) -> None:
        """Move jobs that a reserve does not return. A peek shows the first one, and the next one once the first is taken."""
        conn = self._conn
        conn.ask(requests.use(self._source))
        job = conn.ask(PEEKS[self._state]())
        while self._left > 0 and job is not None:
            self._left -= 1
            wanted: list[Request[Any]] = [
                requests.stats_job(job.id),
                requests.reserve_job(job.id),
                PEEKS[self._state](),
            ]
            try:
                told, taken, following = requests.accepted(conn.ask_all(wanted))
            except NotUnderstood as error:
                raise Failed("the server does not know reserve-job; beanstalkd has it since 1.12") from error
            if taken is not None and told is not None:
                conn.ask(requests.use(self._target))
                self._put([(taken, told)])
                conn.ask(requests.use(self._source))
            job = following

    def _put(self, jobs: Sequence[tuple[Job, Stats]]) -> None:
        """Put held jobs into the other tube, then delete them here. Give refused ones back to their tube. Raises Failed."""
        conn = self._conn
        outcomes = conn.ask_all(
            [
                requests.put(
                    job.body, priority=number_of(told, "pri"), delay=self._delay(told), ttr=number_of(told, "ttr")
                )
                for job, told in jobs
            ]
        )
        refused: Refused | None = None
        put = []
        for (job, told), outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Refused):
                refused = refused or outcome
                self._give_back(job, told)
                if isinstance(outcome, (StoreFailed, JobBuried)):
                    # It may have put it, or has.
                    self.doubled.append(job.id)
            else:
                put.append(job)
        deletes = conn.ask_all([requests.delete(job.id) for job in put])
        for job, gone in zip(put, deletes, strict=True):
            self.moved += 1
            if isinstance(gone, Refused):
                refused = refused or gone
            if gone is not True:
                self.doubled.append(job.id)
        self.progress.show(self.moved)
        if refused is not None:
            doubled = f"; {plural(len(self.doubled))} may be in both tubes: {self.doubled}" if self.doubled else ""
            raise Failed(f"{refused}; {plural(self.moved)} were moved, the others are where they were{doubled}")

    def _delay(self, told: Stats) -> int:
        return number_of(told, "time-left") if self._state == "delayed" else 0

    def _give_back(self, job: Job, told: Stats) -> None:
        priority = number_of(told, "pri")
        try:
            if self._state == "buried":
                self._conn.ask(requests.bury(job.id, priority=priority))
            else:
                self._conn.ask(requests.release(job.id, priority=priority, delay=self._delay(told)))
        except Refused:
            # Its time to run is over, or it goes back when the connection ends.
            say(f"job {job.id} is ready again")

"""The model: what a journal must hold after a crash, by what was acknowledged and what was still on its way.

Every change makes a new version of its job. Those that are acknowledged are settled; of those on their way any number
may have happened, but in their order. So a job's versions are the last settled one and those behind it, and after a
crash the job must be one of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.client import Client

READY, DELAYED, BURIED, GONE = "ready", "delayed", "buried", "gone"
# What is allowed between a due time that we reckon and the one the server tells in whole seconds.
SLACK_SECONDS = 1.0


@dataclasses.dataclass(eq=False)
class Version:
    """A job as it is after one change.

    Attributes:
        begun_at, settled_at: Between these times (`time.time`) the change was made.
        reserves, releases, buries, kicks: The counters of that change.
        burier: Whose connection buried it, or None.
        begun, settled: Numbers in one count of all events; of two burials the one that was settled before the other
            began is the first.
    """

    state: str
    pri: int = 0
    delay: int = 0
    begun_at: float = 0.0
    settled_at: float = math.inf
    reserves: int = 0
    releases: int = 0
    buries: int = 0
    kicks: int = 0
    burier: object = None
    begun: int = 0
    settled: float = math.inf

    def next(self, **changes: object) -> Version:
        """The version that a further change makes of this one."""
        return dataclasses.replace(self, settled_at=math.inf, settled=math.inf, **changes)  # type: ignore[arg-type]

    def difference(self, found: dict[str, str] | None, asked: float, answered: float) -> str:
        """Say how a server's stats-job differs from this, or nothing if it does not."""
        if found is None or self.state == GONE:
            return "" if found is None and self.state == GONE else f"{self.state} expected"
        earliest, latest = self.begun_at + self.delay, self.settled_at + self.delay
        states = {self.state}
        if self.state == DELAYED and earliest - SLACK_SECONDS < answered:
            states = {READY} if latest + SLACK_SECONDS < asked else {READY, DELAYED}
        if found["state"] not in states:
            return f"{self.state} expected"
        wanted = {
            name: str(getattr(self, name)) for name in ("pri", "delay", "reserves", "releases", "buries", "kicks")
        }
        wanted["timeouts"] = "0"
        for name, value in wanted.items():
            if found[name] != value:
                return f"{name} {value} expected"
        left = int(found["time-left"])
        if found["state"] != DELAYED:
            return "" if left == 0 else "no time left expected"
        if not earliest - answered - 1 - SLACK_SECONDS < left < latest - asked + SLACK_SECONDS:
            return f"{earliest - answered:.2f} to {latest - asked:.2f} seconds left expected"
        return ""

    def precedes(self, other: Version) -> bool:
        """Tell whether this burial is known to have been before the other."""
        if self.burier is not None and self.burier is other.burier:
            return self.begun < other.begun
        return self.settled < other.begun


@dataclasses.dataclass(eq=False)
class Job:
    """A job and its versions.

    Attributes:
        versions: The last settled one, then those on their way.
        where: Where it is in the server's memory, as far as its last command tells; `held` once a client has it.
        holder: Who has it, or wants to take it out of the world.
        on_their_way: How many commands name it and are not answered.
        reserves: How often it was reserved since the journal knows of it.
    """

    id: int
    tube: str
    body: bytes
    ttr: int
    versions: list[Version]
    where: str
    holder: object = None
    on_their_way: int = 0
    reserves: int = 0

    @property
    def newest(self) -> Version:
        return self.versions[-1]


@dataclasses.dataclass(eq=False)
class Pause:
    """One pause of a tube."""

    seconds: int
    begun_at: float = 0.0
    settled_at: float = math.inf

    def difference(self, found: dict[str, str] | None, asked: float, answered: float) -> str:
        if found is None:
            return "a tube expected"
        earliest, latest = self.begun_at + self.seconds, self.settled_at + self.seconds
        left = int(found["pause-time-left"])
        if found["pause"] == "0":
            is_over = not self.seconds or earliest - SLACK_SECONDS < answered
            return "" if is_over and left == 0 else f"a pause of {self.seconds} expected"
        if found["pause"] != str(self.seconds):
            return f"a pause of {self.seconds} expected"
        if not earliest - answered - 1 - SLACK_SECONDS < left < latest - asked + SLACK_SECONDS:
            return f"a pause with {earliest - answered:.2f} to {latest - asked:.2f} seconds left expected"
        return ""


def time_of_asking(client: Client) -> float:
    """Return the time at which a question can be asked whose reply knows of everything that was due before.

    A server that stood still first answers the commands that came meanwhile, and only then looks at what is due.
    """
    client.ask(b"list-tube-used")
    return time.time()


class World:
    """All jobs and pauses of a journal."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.gone: set[int] = set()
        self.arriving: dict[bytes, Job] = {}
        self.pauses: dict[str, list[Pause]] = {}
        self.puts_begun = 0
        self.acknowledged = 0
        self._known_ids = 0
        self._events = 0

    def event(self) -> int:
        """Number one more event."""
        self._events += 1
        return self._events

    # --- what clients do

    def begin_put(self, job: Job) -> None:
        self.puts_begun += 1
        self.arriving[job.body] = job

    def appear(self, job_id: int, body: bytes) -> Job:
        """A job was seen on the server, by the reply to its put or by a reserve that was even faster."""
        job = self.jobs.get(job_id)
        if job is not None:
            assert job.body == body, f"job {job_id} came back with another body"
            return job
        assert body in self.arriving, f"job {job_id} comes from nowhere: {body[:60]!r}"
        assert job_id > self._known_ids, f"the id {job_id} was given again"
        assert job_id not in self.gone, f"the id {job_id} was given again"
        job = self.arriving.pop(body)
        job.id = job_id
        self.jobs[job_id] = job
        self.settle(job, job.versions[0])
        return job

    def settle(self, job: Job, version: Version) -> None:
        """A change of a job is acknowledged."""
        self.acknowledged += 1
        version.settled_at = time.time()
        version.settled = self.event()
        while job.versions[0] is not version:
            job.versions.pop(0)
        if version.state == GONE:
            self.gone.add(job.id)
            del self.jobs[job.id]

    def retract(self, job: Job, version: Version) -> None:
        """A change of a job was refused."""
        job.versions = [one for one in job.versions if one is not version]

    # --- after a crash

    def reconcile(self, client: Client) -> None:
        """Compare a restarted server with what must be there, and take up what it decided of what was on its way."""
        # Jobs that came due while no server ran are ready; test_restart.py looks at whether they are so at once.
        time.sleep(0.02)
        found = {reply.line for reply in client.ask_all(b"peek %d" % job_id for job_id in self.gone)}
        assert found <= {b"NOT_FOUND"}, f"deleted jobs came back: {found}"
        self._take_in_arrivals(client)
        self._reconcile_jobs(client)
        for job, reply in zip(
            self.jobs.values(), client.ask_all(b"peek %d" % number for number in self.jobs), strict=True
        ):
            assert reply.word == b"FOUND", f"job {job.id}: {reply.line!r}"
            assert reply.data == job.body, f"job {job.id} has another body"
        stats = client.stats()
        count = sum(int(stats[f"current-jobs-{state}"]) for state in (READY, "reserved", DELAYED, BURIED))
        assert count == len(self.jobs), f"{len(self.jobs)} jobs expected, {count} are there"
        assert stats["current-jobs-reserved"] == "0", "nobody can hold a job yet"
        self._reconcile_pauses(client)
        self._reconcile_burials(client)

    def _take_in_arrivals(self, client: Client) -> None:
        """Find the jobs that arrived though their puts were not answered."""
        unknown = [number for number in range(self._known_ids + 1, self.puts_begun + 1) if number not in self.jobs]
        for number, reply in zip(unknown, client.ask_all(b"peek %d" % number for number in unknown), strict=True):
            if reply.word == b"FOUND":
                assert reply.data in self.arriving, f"job {number} comes from nowhere: {reply.data[:60]!r}"
                job = self.arriving.pop(reply.data)
                job.id = number
                self.jobs[number] = job
        self.arriving.clear()
        self._known_ids = max([self._known_ids, *self.jobs, *self.gone])
        self.gone.clear()

    def _reconcile_jobs(self, client: Client) -> None:
        jobs = list(self.jobs.values())
        asked = time_of_asking(client)
        replies = client.ask_all(b"stats-job %d" % job.id for job in jobs)
        answered = time.time()
        for job, reply in zip(jobs, replies, strict=True):
            found = None if reply.word == b"NOT_FOUND" else reply.fields()
            differences = [version.difference(found, asked, answered) for version in job.versions]
            assert "" in differences, f"job {job.id}: {differences}\nfound {found}\nversions {job.versions}"
            version = job.versions[differences.index("")]
            version.settled_at = min(version.settled_at, asked)
            job.versions = [version]
            job.where, job.holder, job.on_their_way, job.reserves = version.state, None, 0, version.reserves
            if found is None:
                del self.jobs[job.id]
            else:
                assert (found["tube"], found["ttr"]) == (f'"{job.tube}"', str(job.ttr)), (job, found)
                job.where = found["state"]

    def _reconcile_pauses(self, client: Client) -> None:
        for tube, pauses in self.pauses.items():
            asked = time_of_asking(client)
            reply = client.ask(b"stats-tube %s" % tube.encode())
            answered = time.time()
            found = None if reply.word == b"NOT_FOUND" else reply.fields()
            differences = [pause.difference(found, asked, answered) for pause in pauses]
            assert "" in differences, f"tube {tube}: {differences}, found {found}"
            pause = pauses[differences.index("")]
            pause.settled_at = min(pause.settled_at, asked)
            self.pauses[tube] = [pause]

    def _reconcile_burials(self, client: Client) -> None:
        """Take the buried jobs of each tube in their order; the journal does not learn of that."""
        for tube in {job.tube for job in self.jobs.values()}:
            buried = {job.id for job in self.jobs.values() if job.tube == tube and job.where == BURIED}
            client.ask(b"use %s" % tube.encode())
            versions: list[Version] = []
            while buried:
                first = client.ask(b"peek-buried").number
                assert first in buried, f"tube {tube}: job {first} is not expected among the buried"
                buried.remove(first)
                assert client.ask(b"reserve-job %d" % first).word == b"RESERVED"
                versions.append(self.jobs[first].newest)
            for earlier, later in itertools.combinations(versions, 2):
                assert not later.precedes(earlier), f"tube {tube}: not in the order of burial: {earlier}, {later}"
            for version in versions:
                version.begun, version.settled = self.event(), self.event()
        for job in self.jobs.values():
            job.newest.burier = None

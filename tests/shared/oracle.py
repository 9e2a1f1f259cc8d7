"""Clients that do random things to a simulated cluster, and an oracle that knows which replies are wrong.

The oracle knows only the wire: a job whose put was acknowledged exists until its delete is acknowledged, whatever dies in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from world import Client, FrontEnd, World

TUBES = (b"default", b"a", b"b")
# The time to run of a job that has to time out, in seconds.
SHORT_TTR = 2
MARGIN = 0.7


class Lie(AssertionError):  # noqa: N818 - that is what it is
    """A reply, or a silence, that breaks a promise."""


@dataclass
class Known:
    """The oracle's knowledge of one job, from replies.

    Attributes:
        body: Names the put.
        job_id: Its id, once a reply has told it.
        acknowledged: Whether its put was acknowledged.
        deleted: Whether a delete of it was acknowledged.
        doubted: Whether a change of it got no reply.
    """

    body: bytes
    tube: bytes
    job_id: int = 0
    acknowledged: bool = False
    deleted: bool = False
    deleted_at: float = 0.0
    doubted: bool = False


@dataclass
class Holding:
    """A job that a client has reserved and not given away."""

    session: int
    until: float
    doubted: bool = False


@dataclass
class Oracle:
    """The knowledge from all clients' replies."""

    world: World
    by_body: dict[bytes, Known] = field(default_factory=dict)
    by_id: dict[int, Known] = field(default_factory=dict)
    replies: int = 0

    def lie(self, text: str) -> Lie:
        return Lie(f"seed {self.world.seed}, {self.world.time:.4f} s: {text}")

    def new(self, body: bytes, tube: bytes) -> Known:
        """Note that a job is about to be put."""
        known = Known(body, tube)
        self.by_body[body] = known
        return known

    def inserted(self, known: Known, job_id: int) -> None:
        """Note that a put was acknowledged."""
        if known.job_id not in (0, job_id):
            raise self.lie(f"put as {job_id}, but reserved as {known.job_id}")
        if job_id in self.by_id and self.by_id[job_id] is not known:
            raise self.lie(f"id {job_id} was given twice")
        known.job_id = job_id
        known.acknowledged = True
        self.by_id[job_id] = known

    def settled(self) -> None:
        """Check the store when nothing is on its way any more."""

    def reserved(self, job_id: int, body: bytes) -> Known:
        known = self.by_body.get(body)
        if known is None:
            raise self.lie(f"job {job_id} was never put: {body!r}")
        if known.job_id not in (0, job_id):
            raise self.lie(f"job {job_id} was put once and is there twice, also as {known.job_id}")
        if known.deleted:
            raise self.lie(f"job {job_id} runs again after it was deleted")
        if known.job_id == 0:
            known.job_id = job_id
            self.by_id[job_id] = known
        return known

    def holders(self, job_id: int) -> list[FrontEnd]:
        """List the front-ends that would act for a holder of this job now."""
        found = []
        for front_end in self.world.front_ends:
            if front_end.loop.dead:
                continue
            job = front_end.engine.holdings.jobs.get(job_id)
            membership = front_end.engine.membership
            fresh = not membership.session.over and self.world.time - membership._last_good <= 6.0
            if job is not None and job.committer is not None and not job.leaving and fresh:
                found.append(front_end)
        return found


class Person:
    """One client that sends a command, waits for its reply, and chooses the next."""

    def __init__(self, oracle: Oracle, front_end: FrontEnd, chance: Random, number: int) -> None:
        self.oracle = oracle
        self.world = oracle.world
        self.front_end = front_end
        self.client: Client = front_end.connect()
        self.chance = chance
        self.number = number
        self.puts = 0
        self.held: dict[int, Holding] = {}
        self.asked: tuple[str, object] | None = None
        self.asked_at = 0.0
        self.tube = b"default"
        self.done = False
        self.ready_then: set[int] = set()

    def session(self) -> int:
        return self.front_end.engine.membership.session.number

    # --- commands

    def act(self) -> None:
        """Read the reply that is there, or send the next command."""
        if self.client.is_closed:
            self.gone()
            return
        if self.asked is not None:
            if self.client.answered():
                self.hear(self.client.take())
                self.asked = None
            return
        self.say()

    def gone(self) -> None:
        """Learn that the connection is gone. The last command is in doubt."""
        if self.asked is not None:
            self.doubt()
        for job_id in self.held:
            self.oracle.by_id[job_id].doubted = True
        self.held = {}
        self.done = True

    def doubt(self) -> None:
        assert self.asked is not None
        what, detail = self.asked
        if what == "by id":
            assert isinstance(detail, tuple)
            if detail[0] != b"delete":
                return
        job_id = detail[1] if isinstance(detail, tuple) else detail
        if isinstance(job_id, int) and job_id in self.oracle.by_id:
            self.oracle.by_id[job_id].doubted = True

    def send(self, what: str, detail: object, data: bytes) -> None:
        self.asked = (what, detail)
        self.asked_at = self.world.time
        self.client.post(data)

    def say(self) -> None:
        chance = self.chance
        draw = chance.random()
        if self.held and draw < 0.5:
            job_id = chance.choice(list(self.held))
            verb = chance.choice(("delete", "delete", "delete", "release", "bury", "touch"))
            pri = chance.randrange(3)
            if verb == "release":
                self.send(verb, job_id, b"release %d %d %d\r\n" % (job_id, pri, chance.choice((0, 0, 1))))
            elif verb == "bury":
                self.send(verb, job_id, b"bury %d %d\r\n" % (job_id, pri))
            else:
                self.send(verb, job_id, b"%b %d\r\n" % (verb.encode(), job_id))
        elif draw < 0.75:
            self.puts += 1
            body = b"%d-%d" % (self.number, self.puts)
            if chance.random() < 0.3:
                body += b"." + chance.randbytes(600).hex().encode()
            known = self.oracle.new(body, self.tube)
            ttr = chance.choice((SHORT_TTR, 60))
            delay = chance.choice((0, 0, 0, 1))
            self.send("put", known, b"put %d %d %d %d\r\n%b\r\n" % (chance.randrange(3), delay, ttr, len(body), body))
        elif draw < 0.91:
            timeout = chance.choice((0, 0, 1))
            self.ready_then = self.certainly_ready() if timeout == 0 else set()
            self.send("reserve", None, b"reserve-with-timeout %d\r\n" % timeout)
        elif draw < 0.93:
            self.send("kick", None, b"kick %d\r\n" % chance.randrange(1, 5))
        elif draw < 0.97:
            known_ids = list(self.oracle.by_id)
            if known_ids:
                job_id = chance.choice(known_ids)
                verb = chance.choice((b"reserve-job", b"delete", b"kick-job"))
                self.send("by id", (verb, job_id), b"%b %d\r\n" % (verb, job_id))
        elif draw < 0.98:
            self.send("look", None, chance.choice((b"peek-ready\r\n", b"stats-tube default\r\n", b"stats\r\n")))
        else:
            tube = chance.choice(TUBES)
            if chance.random() < 0.5:
                self.tube = tube
                self.send("tube", None, b"use %b\r\n" % tube)
            else:
                self.send("tube", None, b"watch %b\r\n" % tube)

    def certainly_ready(self) -> set[int]:
        """List the acknowledged jobs that are ready in a watched tube in the store now."""
        watched = {tube.name for tube in self.client.flow.session.tubes.watched}
        found = set()
        for record in self.world.cluster._segments.values():
            # This front-end does not give out jobs of a newer format.
            if record.tube in watched and record.form <= self.front_end.formats.newest:
                for key in record.queues["ready"]:
                    job_id = record.number << 14 | int.from_bytes(key[-2:], "big")
                    known = self.oracle.by_id.get(job_id)
                    if known is not None and known.acknowledged:
                        found.add(job_id)
        return found

    # --- replies

    def hear(self, reply: bytes) -> None:
        self.oracle.replies += 1
        assert self.asked is not None
        what, detail = self.asked
        word = reply.split()[0]
        if word in (b"INTERNAL_ERROR", b"OUT_OF_MEMORY"):
            self.doubt()
            if what in ("delete", "release", "bury") and detail in self.held:
                self.held[detail].doubted = True  # type: ignore[index]
            return
        if what == "put":
            assert isinstance(detail, Known)
            if word != b"INSERTED":
                raise self.oracle.lie(f"{reply!r} to a put")
            self.oracle.inserted(detail, int(reply.split()[1]))
        elif word == b"RESERVED":
            self.reserved(reply)
        elif what == "reserve":
            still = self.ready_then & self.certainly_ready() if word == b"TIMED_OUT" else set()
            # The reserve may have missed a job that was taken and given back in between.
            still = {job_id for job_id in still if self.world.left.get(job_id, 0.0) < self.asked_at}
            if still:
                raise self.oracle.lie(f"TIMED_OUT since {self.asked_at:.4f} s though {still} were ready all the time")
        elif what in ("delete", "release", "bury", "touch"):
            assert isinstance(detail, int)
            self.changed(what, detail, word)
        elif what == "by id":
            assert isinstance(detail, tuple)
            verb, job_id = detail
            if verb == b"delete" and word == b"DELETED":
                self.deleted(job_id)
                self.held.pop(job_id, None)

    def reserved(self, reply: bytes) -> None:
        line, _, rest = reply.partition(b"\r\n")
        job_id = int(line.split()[1])
        known = self.oracle.reserved(job_id, rest[:-2])
        holders = self.oracle.holders(job_id)
        if len(holders) > 1:
            raise self.oracle.lie(f"job {job_id} has {len(holders)} live holders")
        ttr = next(
            (job.ttr for job in [self.front_end.engine.holdings.jobs.get(job_id)] if job is not None), float(SHORT_TTR)
        )
        self.held[job_id] = Holding(self.session(), self.world.time + ttr)
        assert known.job_id == job_id

    def changed(self, verb: str, job_id: int, word: bytes) -> None:
        holding = self.held[job_id]
        if word == b"NOT_FOUND":
            del self.held[job_id]
            expired = self.world.time > holding.until - MARGIN
            lost = self.session() != holding.session or self.front_end.engine.membership.session.over
            if not (expired or lost or holding.doubted):
                raise self.oracle.lie(f"{verb} {job_id}: NOT_FOUND, though it was held")
            return
        if verb == "touch":
            if word != b"TOUCHED":
                raise self.oracle.lie(f"{word!r} to a touch")
            holding.until = self.world.time + SHORT_TTR
            return
        del self.held[job_id]
        if verb == "delete":
            self.deleted(job_id)

    def deleted(self, job_id: int) -> None:
        known = self.oracle.by_id[job_id]
        # Two deletes at the same time may both succeed: after an attempt without an answer the job is gone, whichever delete removed it.
        if known.deleted and self.asked_at > known.deleted_at:
            raise self.oracle.lie(f"job {job_id} was deleted twice")
        known.deleted = True
        known.deleted_at = self.world.time


def drain(oracle: Oracle, front_end: FrontEnd) -> None:
    """Check after the last failure that every acknowledged job without a delete comes out, and that no other job is left."""
    world = oracle.world
    cluster = world.cluster
    oracle.settled()
    for record in cluster._segments.values():
        if (any(record.queues.values()) or record.held()) and record.number not in cluster.listed(record.tube):
            raise oracle.lie(f"segment {record.number} of {record.tube} has jobs and is not listed")
    client = front_end.connect()
    for tube in TUBES[1:]:
        client.ask(b"watch %b\r\n" % tube)
    for tube in TUBES:
        client.ask(b"use %b\r\n" % tube)
        reply = b""
        rounds = 0
        while reply != b"KICKED 0\r\n":
            rounds += 1
            if rounds > 50:
                raise oracle.lie("there is no end of jobs to kick")
            reply = client.ask(b"kick 1000\r\n")
            if not reply.startswith(b"KICKED"):
                raise oracle.lie(f"{reply!r} to a kick though all is well")
    out: set[bytes] = set()
    while True:
        reply = client.ask(b"reserve-with-timeout 2\r\n", 60.0)
        if reply == b"INTERNAL_ERROR\r\n":
            raise oracle.lie("INTERNAL_ERROR though all is well")
        if not reply.startswith(b"RESERVED"):
            break
        line, _, rest = reply.partition(b"\r\n")
        job_id = int(line.split()[1])
        known = oracle.reserved(job_id, rest[:-2])
        if known.body in out:
            raise oracle.lie(f"job {job_id} comes out twice")
        out.add(known.body)
        gone = client.ask(b"delete %d\r\n" % job_id)
        if gone != b"DELETED\r\n":
            raise oracle.lie(f"{gone!r} to the delete of {job_id}")
        known.deleted = True
    for known in oracle.by_body.values():
        if known.acknowledged and not known.deleted and not known.doubted:
            raise oracle.lie(f"job {known.job_id} ({known.body[:20]!r}) in {known.tube!r} is lost")
        if known.acknowledged and known.doubted and not known.deleted and known.body not in out:
            # A delete without a reply may have removed it. Nothing else may do so.
            where = _where(world, known.job_id)
            if where:
                raise oracle.lie(f"job {known.job_id} is stuck: {where}")
    for tube in TUBES:
        buried = client.ask(b"use %b\r\n" % tube) and client.ask(b"peek-buried\r\n")
        if buried != b"NOT_FOUND\r\n":
            raise oracle.lie(f"a job was buried by nobody: {buried!r}")
    leftovers = [
        (record.number, record.tube, {name: len(queue) for name, queue in record.queues.items()}, record.held())
        for record in world.cluster._segments.values()
        if any(record.queues.values()) or record.held()
    ]
    if leftovers:
        raise oracle.lie(f"jobs are left behind: {leftovers}")
    world.run(3.0)
    for other in world.front_ends:
        coming = {} if other.loop.dead else {tube.name: tube.coming for tube in other.engine.registry.known_tubes()}
        if any(coming.values()):
            raise oracle.lie(f"requests for jobs are left that will never get an answer: {coming}")


def _where(world: World, job_id: int) -> str:
    for record in world.cluster._segments.values():
        if record.number != job_id >> 14:
            continue
        for name, queue in record.queues.items():
            for key in queue:
                if int.from_bytes(key[-2:], "big") == job_id & 0x3FFF:
                    return name
        for lease, held in record.leases.items():
            for key in held:
                if int.from_bytes(key[-2:], "big") == job_id & 0x3FFF:
                    return f"held by lease {lease}"
    return ""

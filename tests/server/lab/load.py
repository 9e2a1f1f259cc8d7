"""A random load from several pipelining connections, which keeps a model of what the server has acknowledged."""

from __future__ import annotations

import collections
import os
import selectors
import socket
import time
from typing import TYPE_CHECKING

from lab.client import Reply, ReplyReader, put
from lab.model import BURIED, DELAYED, GONE, READY, Job, Pause, Version, World

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from lab.process import Server

SHARED = "shared"
HELD = "held"
# Never over while a test runs, so that only changes on purpose move a job.
TTR = 1000
# Delays of jobs whose place among the delayed ones matters; these are not over either.
LONG_DELAYS = range(1000, 100_000)
# From so many on, jobs are deleted rather than put.
MANY_JOBS = 300
# Two due times nearer than this may be in either order, for all that we know.
NEAR_SECONDS = 5.0


class Worker:
    """One connection. Its own tubes are nobody else's, so what happens there follows from its commands alone."""

    def __init__(
        self, number: int, world: World, chance: random.Random, window: int, dial: Callable[[], socket.socket]
    ) -> None:
        self.world = world
        self.chance = chance
        self.window = window
        self.own = f"own-{number}"
        self.paused = f"paused-{number}"
        self.sock = dial()
        self.sock.setblocking(False)
        self.unsent = bytearray()
        self._reader = ReplyReader()
        self._awaiting: collections.deque[Callable[[Reply], None]] = collections.deque()
        self._used = "default"
        self._delayed_puts = 0
        jobs = [job for job in world.jobs.values() if job.tube == self.own and job.where == BURIED]
        self._buried = sorted(jobs, key=lambda job: job.newest.begun)
        self._command(b"watch %s" % self.own.encode(), b"WATCHING 2")
        self._command(b"watch %s" % SHARED.encode(), b"WATCHING 3")
        self._command(b"ignore default", b"WATCHING 2")
        if self.paused not in world.pauses:
            world.pauses[self.paused] = [Pause(0)]
            self._put(self.paused, 0)

    # --- bytes

    def send(self) -> None:
        """Fill the window up, then send what the socket takes."""
        if len(self._awaiting) <= self.window // 2:
            while len(self._awaiting) < self.window:
                self._act()
        try:
            sent = self.sock.send(self.unsent)
        except (BlockingIOError, ConnectionError):
            return
        del self.unsent[:sent]

    def receive(self) -> bool:
        """Take in replies; tell whether there may be more."""
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        self._reader.feed(data)
        while (reply := self._reader.next()) is not None:
            self._awaiting.popleft()(reply)
        return data != b""

    def _send(self, line: bytes, then: Callable[[Reply], None]) -> None:
        self.unsent += line + b"\r\n"
        self._awaiting.append(then)

    def _command(self, line: bytes, expected: bytes) -> None:
        def check(reply: Reply) -> None:
            assert reply.line == expected, f"{line!r}: {reply.line!r}"

        self._send(line, check)

    def _use(self, tube: str) -> None:
        if self._used != tube:
            self._used = tube
            self._command(b"use %s" % tube.encode(), b"USING %s" % tube.encode())

    # --- changes

    def _change(self, line: bytes, job: Job, version: Version, expected: bytes, *, may_miss: bool = False) -> None:
        """Send what makes a new version of a job; with `may_miss` the server may not find it in the state for it."""
        before = job.where
        version.begun_at = time.time() if version.state == DELAYED else version.begun_at
        version.begun = self.world.event()
        job.versions.append(version)
        job.where = version.state
        job.holder = self
        job.on_their_way += 1

        def check(reply: Reply) -> None:
            job.on_their_way -= 1
            if reply.line == expected:
                self.world.settle(job, version)
                return
            assert may_miss, f"{line!r}: {reply.line!r}"
            assert reply.line == b"NOT_FOUND", f"{line!r}: {reply.line!r}"
            self.world.retract(job, version)
            if job.where == version.state:
                job.where = READY if before == DELAYED else before

        self._send(line, check)

    def _put(self, tube: str, delay: int) -> None:
        self._use(tube)
        pri = self.chance.randrange(4)
        size = self.chance.choice((0, 30, 200, 200, 3000, 20_000))
        body = b"%s/%d/" % (tube.encode(), self.world.puts_begun) + self.chance.randbytes(size)
        version = Version(DELAYED if delay else READY, pri, delay, time.time(), begun=self.world.event())
        job = Job(0, tube, body, TTR, [version], version.state)
        self.world.begin_put(job)
        self._delayed_puts += delay > 0

        def check(reply: Reply) -> None:
            assert reply.word == b"INSERTED", f"put: {reply.line!r}"
            self._delayed_puts -= delay > 0
            if job.id:
                # Another connection has reserved it already, and perhaps deleted it.
                assert job.id == reply.number, f"job {job.id} was put as {reply.number}"
            else:
                self.world.appear(reply.number, body)

        self._send(put(body, pri=pri, delay=delay, ttr=TTR), check)

    def _reserve(self, line: bytes, otherwise: bytes) -> None:
        def check(reply: Reply) -> None:
            if reply.word != b"RESERVED":
                assert reply.line == otherwise, f"{line!r}: {reply.line!r}"
                return
            job = self.world.appear(reply.number, reply.data)
            assert job.where != HELD, f"job {job.id} has two holders"
            job.reserves += 1
            if job.where != GONE or job.holder is not self:
                job.where = HELD
                job.holder = self

        self._send(line, check)

    def _reserve_job(self, job: Job) -> None:
        if job in self._buried:
            self._buried.remove(job)
        job.on_their_way += 1
        job.where = "leaving" if job.tube == self.own else job.where
        self._reserve(b"reserve-job %d" % job.id, b"NOT_FOUND")
        reserved = self._awaiting.pop()

        def check(reply: Reply) -> None:
            job.on_their_way -= 1
            reserved(reply)

        self._awaiting.append(check)

    def _release(self, job: Job, delay: int) -> None:
        pri = self.chance.randrange(4)
        version = job.newest.next(
            state=DELAYED if delay else READY,
            pri=pri,
            delay=delay,
            reserves=job.reserves,
            releases=job.newest.releases + 1,
        )
        self._change(b"release %d %d %d" % (job.id, pri, delay), job, version, b"RELEASED")

    def _bury(self, job: Job) -> None:
        pri = self.chance.randrange(4)
        version = job.newest.next(
            state=BURIED, pri=pri, reserves=job.reserves, buries=job.newest.buries + 1, burier=self
        )
        self._change(b"bury %d %d" % (job.id, pri), job, version, b"BURIED")
        if job.tube == self.own:
            self._buried.append(job)

    def _delete(self, job: Job) -> None:
        if job in self._buried:
            self._buried.remove(job)
        may_miss = job.tube == SHARED and job.where != HELD
        self._change(b"delete %d" % job.id, job, job.newest.next(state=GONE), b"DELETED", may_miss=may_miss)

    def _kicked(self, job: Job) -> Version:
        return job.newest.next(state=READY, reserves=job.reserves, kicks=job.newest.kicks + 1)

    def _kick_job(self, job: Job) -> None:
        if job in self._buried:
            self._buried.remove(job)
        self._change(b"kick-job %d" % job.id, job, self._kicked(job), b"KICKED", may_miss=job.tube == SHARED)

    def _kick(self, bound: int) -> None:
        """Kick in the own tube, where it is known which jobs that will be."""
        jobs = self._buried[:bound] or self._first_delayed(bound)
        if jobs is None:
            return
        del self._buried[: len(jobs)]
        versions = [self._kicked(job) for job in jobs]
        for job, version in zip(jobs, versions, strict=True):
            job.versions.append(version)
            job.where = READY
            job.on_their_way += 1
        self._use(self.own)

        def check(reply: Reply) -> None:
            assert reply.line == b"KICKED %d" % len(jobs), f"kick {bound}: {reply.line!r}, but {len(jobs)} expected"
            for job, version in zip(jobs, versions, strict=True):
                job.on_their_way -= 1
                self.world.settle(job, version)

        self._send(b"kick %d" % bound, check)

    def _first_delayed(self, bound: int) -> list[Job] | None:
        """The delayed jobs that a kick will take, or None where that cannot be told."""
        if self._delayed_puts:
            return None
        jobs = [job for job in self.world.jobs.values() if job.tube == self.own and job.where == DELAYED]
        dues = {job.id: job.newest.begun_at + job.newest.delay for job in jobs}
        jobs.sort(key=lambda job: dues[job.id])
        if jobs and dues[jobs[0].id] < time.time() + NEAR_SECONDS:
            return None
        if len(jobs) > bound and dues[jobs[bound].id] - dues[jobs[bound - 1].id] < NEAR_SECONDS:
            return None
        return jobs[:bound]

    def _pause(self) -> None:
        seconds = self.chance.choice((0, 1, 1000, 5000))
        pauses = self.world.pauses[self.paused]
        pause = Pause(seconds, time.time())
        pauses.append(pause)

        def check(reply: Reply) -> None:
            assert reply.line == b"PAUSED", reply.line
            pause.settled_at = time.time()
            self.world.acknowledged += 1
            while pauses[0] is not pause:
                pauses.pop(0)

        self._send(b"pause-tube %s %d" % (self.paused.encode(), seconds), check)

    # --- choices

    def _jobs(self, *where: str) -> list[Job]:
        """The jobs that this connection may change now: its own tube's, and the shared ones that nobody else changes."""
        return [
            job
            for job in self.world.jobs.values()
            if job.where in where
            and (job.tube == self.own or (job.tube == SHARED and not job.on_their_way))
            and (job.where != HELD or job.holder is self)
        ]

    def _act(self) -> None:
        """Send one random command, or nothing where there is nothing to do it to."""
        chance = self.chance
        dice = chance.random()
        if dice < 0.30 and len(self.world.jobs) > MANY_JOBS:
            self._act_on_others()
        elif dice < 0.30:
            tube = chance.choice((self.own, SHARED))
            self._put(tube, self._some_delay(tube))
        elif dice < 0.55:
            self._reserve(b"reserve-with-timeout 0", b"TIMED_OUT")
        elif dice < 0.59:
            self._kick(chance.randrange(1, 5))
        elif dice < 0.61:
            self._pause()
        elif dice < 0.86:
            self._act_on_held()
        else:
            self._act_on_others()

    def _some_delay(self, tube: str) -> int:
        if self.chance.random() < 0.6:
            return 0
        return (
            self.chance.choice((1, 2, self.chance.choice(LONG_DELAYS)))
            if tube == SHARED
            else self.chance.choice(LONG_DELAYS)
        )

    def _act_on_held(self) -> None:
        held = self._jobs(HELD)
        if not held:
            self._reserve(b"reserve-with-timeout 0", b"TIMED_OUT")
            return
        job = self.chance.choice(held)
        dice = self.chance.random()
        if dice < 0.25:
            self._release(job, self._some_delay(job.tube))
        elif dice < 0.55:
            self._bury(job)
        elif dice < 0.9:
            self._delete(job)
        else:
            self._command(b"touch %d" % job.id, b"TOUCHED")

    def _act_on_others(self) -> None:
        jobs = self._jobs(DELAYED, BURIED)
        ready = self._jobs(READY)
        dice = self.chance.random()
        if dice < 0.3 and jobs:
            self._kick_job(self.chance.choice(jobs))
        elif dice < 0.6 and jobs:
            self._reserve_job(self.chance.choice(jobs))
        elif (jobs or ready) and len(self.world.jobs) > MANY_JOBS // 2:
            self._delete(self.chance.choice(jobs + ready))
        else:
            self._put(self.own, 0)


def run_until_crash(server: Server, world: World, chance: random.Random, connections: int, seconds: float) -> None:
    """Load a server, end it after so long by a kill -9, and take in the replies that it had sent by then."""
    workers = [
        Worker(number, world, chance, chance.choice((1, 4, 16, 64)), server.dial) for number in range(connections)
    ]
    try:
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.sock, selectors.EVENT_READ, worker)
            kill_at = time.monotonic() + seconds
            while (left := kill_at - time.monotonic()) > 0:
                for worker in workers:
                    worker.send()
                for key, _ in selector.select(min(left, 0.002)):
                    assert key.data.receive(), "the server hung up"
        os.kill(server.pid, 9)
        server.process.wait()
        for worker in workers:
            worker.sock.settimeout(5)
            while worker.receive():
                pass
    finally:
        for worker in workers:
            worker.sock.close()

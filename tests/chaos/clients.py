"""Producers, workers and busybodies, each with a connection to one front-end until that dies."""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import TYPE_CHECKING

from record import DELETED, DOUBT, NOT_FOUND, Delete, Delivery, Job
from wire import PATIENCE, Connection, Lost, Reply, Silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from fronts import FrontEnd
    from record import Record

TUBES = ("default", "a", "b", "c")
HELD_AT_ONCE = 40
# How many clients of each kind a front-end has.
PRODUCERS, WORKERS, BUSYBODIES = 2, 4, 1


class Client:
    """Somebody with one connection who goes on until told to stop."""

    kind = "client"

    def __init__(self, record: Record, fronts: list[FrontEnd], home: int, number: int, seed: str) -> None:
        self.record = record
        self.fronts = fronts
        self.front = fronts[home]
        self.name = f"{self.kind}{home + 1}.{number}"
        self.chance = random.Random(f"{seed} {self.name}")
        self.stopped = False
        self.connection: Connection

    async def run(self) -> None:
        """Connect, work, and connect anew whenever the connection is lost."""
        while not self.stopped:
            try:
                self.connection = await Connection.dial(self.front.port)
                await self.greet()
                while not self.stopped:
                    await self.work()
            except Lost as error:
                self.parted()
                self.record.counts["connections lost"] += 1
                self.record.log("lost", self.name, self.front.name, error)
                if self.chance.random() < 0.4:
                    self.front = self.chance.choice(self.fronts)
                await asyncio.sleep(self.chance.uniform(0.05, 0.4))
            else:
                self.connection.close()
                self.parted()

    async def ask(self, command: str, body: bytes | None = None) -> Reply:
        """Send a command; a few wait only briefly for the reply. Raises Lost."""
        patience = self.chance.uniform(0.5, 6.0) if self.chance.random() < 0.05 else PATIENCE
        try:
            reply = await self.connection.ask(command, body, patience=patience)
        except Silent as error:
            if patience == PATIENCE:
                self.record.odd(self.name, self.front.name, error)
            raise
        self.record.counts["replies"] += 1
        if reply.is_error():
            self.record.counts[reply.words[0]] += 1
            self.record.log("error", self.name, command, *reply.words)
        elif reply.words[0] in {"BAD_FORMAT", "UNKNOWN_COMMAND", "EXPECTED_CRLF", "JOB_TOO_BIG"}:
            self.record.odd(self.name, command, *reply.words)
        return reply

    async def greet(self) -> None:
        """Prepare a new connection."""

    async def work(self) -> None:
        """Do one thing."""

    def parted(self) -> None:
        """The connection is gone."""

    async def delete(self, job: Job, job_id: int) -> Delete:
        """Delete a job and note what came of it. Raises Lost."""
        record = self.record
        delete = Delete(self.name, record.now(), 0.0, DOUBT)
        job.deletes.append(delete)
        record.log("delete", self.name, job_id, job.tag)
        reply = await self.ask(f"delete {job_id}")
        delete.answered = record.now()
        if reply.words[0] == "DELETED":
            delete.outcome = DELETED
            record.counts["deletes"] += 1
        elif reply.words[0] == "NOT_FOUND":
            delete.outcome = NOT_FOUND
            record.counts["deletes not found"] += 1
        elif not reply.is_error():
            record.odd(self.name, "delete", *reply.words)
        record.log("deleted?", self.name, job_id, job.tag, *reply.words)
        return delete


class Producer(Client):
    """Puts jobs at a steady rate."""

    kind = "p"

    def __init__(
        self, record: Record, fronts: list[FrontEnd], home: int, number: int, seed: str, pace: Callable[[], float]
    ) -> None:
        super().__init__(record, fronts, home, number, seed)
        self._pace = pace
        self._puts = 0
        self._next = record.now()
        self._tube = ""

    async def greet(self) -> None:
        self._tube = ""

    async def work(self) -> None:
        record, chance = self.record, self.chance
        now = record.now()
        every = self._pace()
        if now < self._next:
            await asyncio.sleep(min(self._next - now, 0.2))
            return
        # After an outage it does not make up for all of it at once.
        self._next = max(self._next + every * chance.uniform(0.5, 1.5), now - 2.0)
        tube = chance.choice(TUBES)
        if tube != self._tube:
            await self.ask(f"use {tube}")
            self._tube = tube
        self._puts += 1
        size = chance.choices(
            [chance.randrange(20, 200), chance.randrange(1000), chance.randrange(3000, 20000)], [85, 10, 5]
        )[0]
        pri = chance.choice((0, 1, 2, 1024, 5000))
        delay = chance.choice((0,) * 12 + (1, 2, 3))
        ttr = chance.choice((60,) * 8 + (1, 2, 3, 5))
        job = Job(f"{self.name}-{self._puts}", tube, size, ttr, self.name, record.now())
        record.jobs[job.tag] = job
        body = job.body()
        record.log("put", job.tag, tube)
        reply = await self.ask(f"put {pri} {delay} {ttr} {len(body)}", body)
        if reply.words[0] == "INSERTED":
            job.acknowledged = record.now()
            job.job_id = int(reply.words[1])
            record.counts["puts"] += 1
            record.log("inserted", job.tag, job.job_id)
        elif reply.is_error():
            await asyncio.sleep(0.1)
        else:
            record.odd(self.name, "put", *reply.words)


class Worker(Client):
    """Reserves jobs, holds each for a while, and mostly deletes them."""

    kind = "w"

    def __init__(self, record: Record, fronts: list[FrontEnd], home: int, number: int, seed: str) -> None:
        super().__init__(record, fronts, home, number, seed)
        # By when something is to be done: (when, a number that tells equal ones apart, the job, its delivery).
        self.held: list[tuple[float, int, Job, Delivery]] = []
        self._entries = 0

    async def greet(self) -> None:
        watched = [TUBES[0], *self.chance.sample(TUBES[1:], self.chance.randrange(1, len(TUBES)))]
        for tube in watched[1:]:
            await self.ask(f"watch {tube}")

    def parted(self) -> None:
        for _, _, _, delivery in self.held:
            self._left(delivery, "connection")
        self.held = []

    def _left(self, delivery: Delivery, how: str) -> None:
        if not delivery.left:
            delivery.left = self.record.now()
            delivery.how = how

    def _keep(self, seconds: float, job: Job, delivery: Delivery) -> None:
        self._entries += 1
        heapq.heappush(self.held, (self.record.now() + seconds, self._entries, job, delivery))

    async def work(self) -> None:
        if self.held and (self.held[0][0] <= self.record.now() or len(self.held) >= HELD_AT_ONCE):
            _, _, job, delivery = heapq.heappop(self.held)
            try:
                await self._finish(job, delivery)
            except Lost:
                self._left(delivery, "connection")
                raise
            return
        await self._reserve()

    async def _reserve(self) -> None:
        record, chance = self.record, self.chance
        sent = record.now()
        reply = await self.ask(f"reserve-with-timeout {0 if self.held else chance.choice((0, 1, 2))}")
        if reply.words[0] == "RESERVED":
            delivery = Delivery(self.name, self.front.number, int(reply.words[1]), sent, record.now(), 0.0)
            job = record.delivered(reply.body, delivery)
            if job is not None:
                delivery.ttr = job.ttr
                short, long = chance.uniform(0, 0.05), chance.uniform(1, 25)
                self._keep(chance.choices([short, long], [98, 2])[0], job, delivery)
        elif reply.words[0] in {"TIMED_OUT", "DEADLINE_SOON"} or reply.is_error():
            await asyncio.sleep(0.02)
        else:
            record.odd(self.name, "reserve", *reply.words)

    async def _finish(self, job: Job, delivery: Delivery) -> None:
        chance = self.chance
        job_id = delivery.job_id
        verb = chance.choices(["delete", "release", "bury", "touch", "part"], [850, 60, 40, 48, 2])[0]
        if verb == "delete":
            self._left(delivery, "delete")
            delivery.delete = await self.delete(job, job_id)
            if delivery.delete.outcome == DOUBT and chance.random() < 0.5:
                await self.delete(job, job_id)
        elif verb == "part":
            self._left(delivery, "connection")
            self.connection.close()
            raise Lost("of its own will")
        elif verb == "touch":
            sent = self.record.now()
            reply = await self.ask(f"touch {job_id}")
            if reply.words[0] == "TOUCHED":
                delivery.touched = sent
                self.record.log("touched", self.name, job_id, job.tag)
            if reply.words[0] != "NOT_FOUND":
                self._keep(chance.uniform(0, 0.1), job, delivery)
            else:
                self._left(delivery, "touch: NOT_FOUND")
        else:
            self._left(delivery, verb)
            command = f"release {job_id} {chance.choice((0, 1, 1024))} {chance.choice((0, 0, 1))}"
            reply = await self.ask(command if verb == "release" else f"bury {job_id} 5")
            self.record.log(verb, self.name, job_id, job.tag, *reply.words)


class Busybody(Client):
    """Kicks what is buried, and deletes jobs that nobody holds."""

    kind = "b"

    async def work(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.1, 0.6))
        await self.ask(f"use {self.chance.choice(TUBES)}")
        if self.chance.random() < 0.7:
            await self.ask(f"kick {self.chance.randrange(1, 100)}")
            return
        reply = await self.ask(self.chance.choice(("peek-ready", "peek-buried", "peek-delayed")))
        if reply.words[0] != "FOUND":
            return
        job_id = int(reply.words[1])
        job = self.record.jobs.get(reply.body.partition(b" ")[0].decode("latin-1"))
        if job is None or job.body() != reply.body:
            self.record.odd(self.name, "peeked at a job that was never put:", job_id, reply.body[:40])
        elif self.chance.random() < 0.5:
            await self.ask(f"kick-job {job_id}")
        else:
            await self.delete(job, job_id)


def make_clients(record: Record, fronts: list[FrontEnd], seed: str, pace: Callable[[], float]) -> list[Client]:
    """Make the clients of all front-ends; `pace` says how many seconds there are between two puts of a producer."""
    clients: list[Client] = []
    for home in range(len(fronts)):
        clients += [Producer(record, fronts, home, number, seed, pace) for number in range(PRODUCERS)]
        clients += [Worker(record, fronts, home, number, seed) for number in range(WORKERS)]
        clients += [Busybody(record, fronts, home, number, seed) for number in range(BUSYBODIES)]
    return clients

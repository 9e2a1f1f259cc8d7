"""When all is well again: everything is kicked, reserved and deleted, through a front-end that nothing was done to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from clients import TUBES, Client
from record import DELETED, Delivery
from wire import Connection

if TYPE_CHECKING:
    from fronts import FrontEnd
    from record import Job, Record

AT_ONCE = 8
# What a query misses while data moves is found a minute later; what a front-end lost sight of, by its audits.
WITHIN = 90.0
STATES = ("ready", "reserved", "delayed", "buried")


def outstanding(record: Record) -> list[Job]:
    """List the jobs that must still be somewhere."""
    return [job for job in record.jobs.values() if job.acknowledged and not job.ended() and not job.doubted()]


class Drainer(Client):
    """Reserves and deletes until there is nothing more."""

    kind = "drain"

    async def empty(self) -> int:
        """Return how many jobs came out."""
        self.connection = await Connection.dial(self.front.port)
        for tube in TUBES:
            await self.ask(f"watch {tube}")
        count = 0
        while True:
            sent = self.record.now()
            reply = await self.calm("reserve-with-timeout 1")
            if reply[0] != "RESERVED":
                break
            delivery = Delivery(self.name, self.front.number, int(reply[1]), sent, self.record.now(), 60.0)
            job = self.record.delivered(self.body, delivery)
            count += 1
            if job is None:
                await self.calm(f"delete {reply[1]}")
                continue
            delivery.delete = await self.delete(job, delivery.job_id)
            if delivery.delete.outcome != DELETED:
                self.record.odd(
                    self.name, "delete", delivery.job_id, job.tag, delivery.delete.outcome, "though all is well"
                )
        self.connection.close()
        return count

    async def calm(self, command: str) -> list[str]:
        """Ask what must be answered now."""
        reply = await self.ask(command)
        self.body = reply.body
        if reply.is_error():
            self.record.odd(self.name, command, *reply.words, "though all is well")
        return reply.words

    async def kick_all(self) -> None:
        """Make everything ready."""
        self.connection = await Connection.dial(self.front.port)
        for tube in TUBES:
            await self.ask(f"use {tube}")
            while (await self.calm("kick 1000"))[-1] not in {"0", "INTERNAL_ERROR"}:
                pass
        self.connection.close()

    async def left(self) -> dict[str, int]:
        """Count the jobs that the store says are there."""
        self.connection = await Connection.dial(self.front.port)
        await self.calm("stats")
        self.connection.close()
        stats = dict(line.split(": ") for line in self.body.decode().splitlines() if ": " in line)
        return {state: int(stats[f"current-jobs-{state}"]) for state in STATES}

    async def look_for(self, job: Job) -> str:
        """Tell what the server says of a job that did not come out."""
        self.connection = await Connection.dial(self.front.port)
        words = (await self.ask(f"stats-job {job.job_id}")).words[0]
        peeked = (await self.ask(f"peek {job.job_id}")).words[0]
        self.connection.close()
        return f"stats-job: {words}, peek: {peeked}"


async def drain(record: Record, front: FrontEnd) -> dict[str, int]:
    """Take out what is left; return what the store says is there afterwards."""
    one = Drainer(record, [front], 0, 0, "")
    until = record.now() + WITHIN
    while True:
        await one.kick_all()
        drainers = [Drainer(record, [front], 0, number, "") for number in range(1, AT_ONCE + 1)]
        count = sum(await asyncio.gather(*[drainer.empty() for drainer in drainers]))
        left = await one.left()
        missing = outstanding(record)
        record.say(f"drained {count} jobs; {len(missing)} are missing, the store counts {left}")
        if not missing and not any(left.values()):
            break
        if record.now() > until:
            for job in missing[:20]:
                record.say("missing:", job.tag, job.job_id, await one.look_for(job))
            break
        if not count:
            await asyncio.sleep(5.0)
    return left

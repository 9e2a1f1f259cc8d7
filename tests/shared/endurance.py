"""Weeks of a cluster's ordinary life in virtual time, with counts of records, objects and operations at quiet moments.

All work here ends within an hour, so a count that grows is a leak.
"""

from __future__ import annotations

import gc
import random
import types
from collections import Counter
from logging import Logger
from typing import TYPE_CHECKING, Any, NamedTuple

from memory import Cluster
from world import Client, FrontEnd, World

from beanspiked.engine.aerospike.store.seam import DEAD

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from world import SimLoop

__all__ = ["Life", "Measured"]

MINUTE = 60.0
HOUR = 3600.0
# After this time, in seconds, dead sessions are forgotten and all tubes have been checked again.
QUIET_FOR = 1500.0
# How long periodic operations are counted, in seconds: as long as a round over all tubes takes.
COUNTED_FOR = 600.0
BIG = 3000
# How many records segments have at first. They are few, so that they are soon used again.
RECORDS = 64
# The walk over objects leaves out those that all front-ends share, and Python's own.
SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, Logger, World, Cluster)


class Measured(NamedTuple):
    """The counts at a quiet moment.

    Attributes:
        records: How many records there are, or entries of lists, by kind.
        objects: How many objects each front-end holds, by type.
        operations: How many operations the store gets in a second, by name.
    """

    records: Counter[str]
    objects: list[Counter[str]]
    operations: dict[str, float]


class CountingWorld(World):
    """Counts the store's operations."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, records=RECORDS)
        self.asked: Counter[str] = Counter()

    def send(self, loop: SimLoop, name: str, operation: Callable[[], Any]) -> asyncio.Future[Any]:
        self.asked[name] += 1
        return super().send(loop, name, operation)


class Life:
    """Three front-ends. The first only gets puts, the second only reserves.

    Args:
        seed: Decides everything that happens.
    """

    def __init__(self, seed: int) -> None:
        self.world = CountingWorld(seed)
        self.chance = random.Random(f"life {seed}")
        self.front_ends = [self.world.front_end() for _ in range(3)]
        self.minute = 0
        self.used = 0
        self.jobs: Counter[str] = Counter()

    # --- the clients

    def client(self, front_end: FrontEnd, tube: str) -> Client:
        client = front_end.connect()
        assert client.ask(b"use %b\r\n" % tube.encode()).startswith(b"USING")
        assert client.ask(b"watch %b\r\n" % tube.encode()).startswith(b"WATCHING")
        return client

    def leave(self, client: Client) -> None:
        client.hang_up()
        client.front_end.clients.remove(client)

    def put(self, tube: str, count: int = 1, size: int = 50, **how: int) -> None:
        client = self.client(self.front_ends[0], tube)
        for number in range(count):
            client.put(self.chance.randbytes(size), **{"pri": count - number, **how})
        self.jobs[tube] += count
        self.leave(client)

    def take(self, tube: str, count: int, front_end: FrontEnd | None = None) -> None:
        client = self.client(front_end or self.front_ends[1], tube)
        for _ in range(count):
            # If a front-end has died, its jobs come back after a while.
            reply = client.ask(b"reserve-with-timeout 90\r\n", 120.0)
            assert reply.startswith(b"RESERVED"), reply
            assert client.ask(b"delete %d\r\n" % int(reply.split()[1])) == b"DELETED\r\n"
        self.jobs[tube] -= count
        self.leave(client)

    def reply_tube(self) -> None:
        """Put a job into a tube of its own at one front-end, and take it at another."""
        self.used += 1
        name = f"reply-{self.used}"
        asking, answering = self.chance.sample(self.front_ends, 2)
        waiting = self.client(asking, name)
        if self.chance.random() < 0.5:
            waiting.post(b"reserve-with-timeout 10\r\n")
        else:
            waiting.post(b"stats\r\n")
            self.world.run(1.0)
            waiting.take()
        client = self.client(answering, name)
        client.put()
        self.leave(client)
        if not waiting.answered():
            self.world.run(2.0)
        if not waiting.received:
            waiting.post(b"reserve-with-timeout 10\r\n")
        assert self.world.run(20.0, waiting.answered)
        assert waiting.ask(b"delete %d\r\n" % int(waiting.take().split()[1])) == b"DELETED\r\n"
        self.leave(waiting)

    def bury_and_kick(self) -> None:
        """Use a tube once: pause it, and bury, kick and release its job with a delay."""
        self.used += 1
        name = f"once-{self.used}"
        client = self.client(self.chance.choice(self.front_ends), name)
        assert client.ask(b"pause-tube %b 1\r\n" % name.encode()) == b"PAUSED\r\n"
        job_id = client.buried()
        assert client.ask(b"kick 1\r\n") == b"KICKED 1\r\n"
        for change in (b"release %d 0 1\r\n", b"delete %d\r\n"):
            assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
            assert client.ask(change % job_id).startswith((b"RELEASED", b"DELETED"))
        self.leave(client)

    def replace(self, *, cleanly: bool) -> None:
        """End a front-end that holds a job, and start another one."""
        place = self.chance.randrange(3)
        old = self.front_ends[place]
        self.put("held", ttr=100)
        holder = self.client(old, "held")
        assert holder.ask(b"reserve\r\n").startswith(b"RESERVED")
        if cleanly:
            old.close()
            self.world.run(3.0)
        old.kill()
        self.world.front_ends.remove(old)
        self.front_ends[place] = self.world.front_end()
        self.world.run(3.0)
        self.take("held", 1)

    # --- time

    def live(self, hours: float) -> None:
        """Let this many hours pass."""
        until = self.world.time + hours * HOUR
        while self.world.time < until:
            self.minute += 1
            end = self.world.time + MINUTE
            self._do(self.minute)
            self.world.run(max(0.0, end - self.world.time))

    def _do(self, minute: int) -> None:
        self.reply_tube()
        if minute % 5 == 0:
            self.put("work", 20)
            self.take("work", 20)
        if minute % 10 == 3:
            self.put("large", 3, BIG)
            self.take("large", 3)
        if minute % 15 == 4:
            self.bury_and_kick()
        if minute % 15 == 6:
            self.put("delayed", 5, delay=300)
        if minute % 15 == 12:
            self.take("delayed", 5, self.front_ends[2])
        if minute % 60 == 7:
            # More jobs than a segment takes.
            self.put("backlog", 60, BIG // 3)
            self.put("backlog", 60, BIG)
        if minute % 60 == 43:
            self.take("backlog", 120)
        if minute % 120 == 51:
            self.replace(cleanly=self.chance.random() < 0.5)
        if minute % 60 == 55:
            client = self.front_ends[2].connect()
            for command in (b"stats\r\n", b"list-tubes\r\n"):
                assert client.ask(command).startswith(b"OK")
            self.leave(client)

    # --- counting

    def measure(self) -> Measured:
        """Let everything come to rest, and count."""
        assert not +self.jobs, self.jobs
        self.world.run(QUIET_FOR)
        self.world.asked.clear()
        self.world.run(COUNTED_FOR)
        operations = {name: count / COUNTED_FOR for name, count in self.world.asked.items()}
        return Measured(self._records(), [objects_of(front_end) for front_end in self.front_ends], operations)

    def _records(self) -> Counter[str]:
        cluster = self.world.cluster
        states = [record.state for record in cluster._segments.values()]
        return Counter(
            {
                "dead segments": states.count(DEAD),
                "segments": len(states) - states.count(DEAD),
                "directories": len(cluster._directories),
                "segments in directories": sum(len(record.segments) for record in cluster._directories.values()),
                "counters of tubes": sum(any(record.counters.values()) for record in cluster._directories.values()),
                "tubes": len(cluster.tubes()),
                "bodies": len(cluster._bodies),
                "sessions listed": len(cluster.listed_sessions()),
                "sessions": len(cluster._sessions),
                "news": len(cluster._news),
                "bytes of sessions": sum(len(record.payload) for record in cluster._sessions.values()),
            }
        )


def objects_of(front_end: FrontEnd) -> Counter[str]:
    """Count what a front-end holds, by type."""
    gc.collect()
    seen: dict[int, object] = {}
    found: list[object] = [front_end]
    while found:
        new = [one for one in found if id(one) not in seen and not isinstance(one, SHARED)]
        seen |= {id(one): one for one in new}
        found = gc.get_referents(*new)
    return Counter(type(one).__name__ for one in seen.values())

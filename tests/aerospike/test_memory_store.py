"""The store in memory does what the real one does."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from memory import Cluster, MemoryStore
from segments import LEASE, NEVER, QUEUES, RECORDS, jobs, key_of, listed, opened, run

from beanspiked.engine.aerospike.store.keys import due_key, job_slot, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import DEAD, OPEN, READY, Change, Move, Segment, StoreError

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore


def test_the_memory_store_notices_an_engine_that_moves_what_it_does_not_hold() -> None:
    async def check() -> None:
        store = MemoryStore(Cluster(lambda: 0))
        await opened(store, 1)
        with pytest.raises(KeyError):
            await store.apply(1, LEASE, Change(moves=[Move(key_of(1))]))

    run(check())


def test_the_memory_store_has_room_or_not_as_it_is_told() -> None:
    async def check() -> None:
        cluster = Cluster(lambda: 0)
        cluster.roomy = False
        assert not await MemoryStore(cluster).has_room()

    run(check())


# --- the stores are one and the same


# How often a walk takes each operation.
WEIGHTS = {
    "apply": 60,
    "shift": 14,
    "settle": 8,
    "settle_attach": 4,
    "reclaim": 3,
    "create": 6,
    "remove": 8,
    "close": 1,
    "retire": 8,
    "wipe": 1,
    "heads": 1,
    "sizes": 3,
    "leases": 2,
    "number_bodies": 2,
    "leased_by": 2,
    "enlist": 1,
    "unlist": 1,
    "directories": 1,
    "pause": 1,
    "add_counters": 1,
    "forget_tube": 1,
    "create_page": 1,
    "list_page": 1,
    "enter": 2,
    "leave_page": 2,
    "pages": 1,
    "retire_page": 1,
    "unlist_page": 1,
    "reserve_places": 1,
    "grow_ring": 1,
    "tubes": 1,
    "join": 1,
    "heartbeat": 1,
    "resign": 1,
    "kill": 1,
    "sessions": 1,
    "forget_session": 1,
    "publish": 1,
    "news": 1,
}


class Walk:
    """Random operations, as engines would send them: no lease is used twice, no slot is, and a holder moves what it holds."""

    # The third shares the first one's record.
    NUMBERS = (1, 2, 1 + RECORDS)
    PAGES = (RECORDS, 2 * RECORDS)
    SESSIONS = (7, 8, 9)
    TUBES = ("a", "b")

    def __init__(self, seed: int, memory: SegmentStore) -> None:
        self.random = random.Random(seed)
        self.memory = memory
        self.serial = 0
        self.slot = 0
        self.used: dict[int, list[int]] = {number: [] for number in self.NUMBERS}
        self.settled: dict[int, list[tuple[int, int]]] = {number: [] for number in self.NUMBERS}
        self.settled_attaches: dict[int, list[tuple[int, int]]] = {number: [] for number in self.NUMBERS}

    async def step(self) -> tuple[str, tuple[Any, ...]]:
        """Choose an operation and its arguments, most of them good ones."""
        (name,) = self.random.choices([*WEIGHTS], [*WEIGHTS.values()])
        if not hasattr(self, name):
            return name, self.simple(name)
        segments = [
            await self.memory.read(number) or Segment(number, "", 0, DEAD, 0, 0, 0, {}, {}, {}, {})
            for number in self.NUMBERS
        ]
        alive = [segment for segment in segments if segment.state != DEAD]
        if alive and name != "create" and self.random.random() < 0.9:
            segments = alive
        return name, getattr(self, name)(self.random.choice(segments))

    def fresh(self, number: int) -> int:
        self.serial += 1
        lease = lease_key(self.random.choice(self.SESSIONS), self.serial)
        self.used[number].append(lease)
        return lease

    def lease(self, segment: Segment) -> int:
        """Choose one that is there, or one that was or never will be."""
        if segment.leases and self.random.random() < 0.9:
            return self.random.choice([*segment.leases])
        gone = [lease for lease in self.used[segment.number] if lease not in segment.leases]
        return self.random.choice([*gone, NEVER + 2**31])

    def key(self, slot: int, queue: str) -> bytes:
        at = self.random.choice([1, 2, 2**40])
        return ready_key(self.random.choice([0, 5, 2000]), at, slot) if queue == READY else due_key(at, slot)

    def job(self) -> bytes:
        return self.random.randbytes(self.random.randrange(12))

    def some(self, choices: list[bytes], most: int) -> list[bytes]:
        return self.random.sample(choices, min(len(choices), self.random.randrange(most + 1)))

    def create(self, segment: Segment) -> tuple[Any, ...]:
        return segment.number, self.random.choice(self.TUBES), self.fresh(segment.number)

    def apply(self, segment: Segment) -> tuple[Any, ...]:
        attach = self.random.random() < 0.17
        lease = self.lease(segment)
        if attach:
            taken = segment.leases and self.random.random() < 0.2
            lease = self.random.choice([*segment.leases]) if taken else self.fresh(segment.number)
        held = [] if attach else [*segment.leases.get(lease, jobs(1))]
        new: dict[str, dict[bytes, bytes]] = {}
        if segment.state == OPEN:
            for queue in self.random.choices(QUEUES, k=self.random.randrange(4)):
                self.slot += 1
                new.setdefault(queue, {})[self.key(self.slot, queue)] = self.job()
        moves = [
            Move(key) if queue is None else Move(key, queue, self.key(job_slot(key), queue), self.job())
            for key in self.some(held, 3)
            for queue in [self.random.choice([None, None, *QUEUES])]
        ]
        change = Change(
            last_slot=self.slot if new else 0,
            puts=new,
            replaced={key: self.job() for key in self.some(held, 2)},
            moves=moves,
            take=self.random.choice([0, 0, 1, 2, 20]),
            close=self.random.random() < 0.01,
            attach=attach,
        )
        return segment.number, lease, change

    def settle(self, segment: Segment) -> tuple[Any, ...]:
        past = self.settled[segment.number]
        if not past or self.random.random() < 0.6:
            past.append((self.lease(segment), self.fresh(segment.number)))
            return segment.number, *past[-1]
        return segment.number, *self.random.choice(past)

    def settle_attach(self, segment: Segment) -> tuple[Any, ...]:
        past = self.settled_attaches[segment.number]
        if not past or self.random.random() < 0.6:
            there = segment.leases and self.random.random() < 0.5
            lease = self.random.choice([*segment.leases]) if there else self.fresh(segment.number)
            past.append((lease, self.fresh(segment.number)))
            return segment.number, *past[-1]
        return segment.number, *self.random.choice(past)

    def shift(self, segment: Segment) -> tuple[Any, ...]:
        source = self.random.choice([queue for queue in QUEUES if segment.queue(queue)] or QUEUES)
        keys = self.some([*segment.queue(source)], 3)
        if not keys or self.random.random() < 0.1:
            keys.append(self.key(self.random.randrange(1, self.slot + 2), source))
        keys = [*dict.fromkeys(keys)]
        target = self.random.choice([*QUEUES, self.lease(segment)])
        kind = target if isinstance(target, str) else READY
        entries = {self.key(job_slot(key), kind): self.job() for key in keys}
        return segment.number, source, keys, target, entries

    def remove(self, segment: Segment) -> tuple[Any, ...]:
        queue = self.random.choice(QUEUES)
        return segment.number, queue, self.random.choice([*segment.queue(queue), self.key(1, queue)])

    def reclaim(self, segment: Segment) -> tuple[Any, ...]:
        return segment.number, self.lease(segment)

    def number_bodies(self, segment: Segment) -> tuple[Any, ...]:
        return segment.number, self.lease(segment), self.random.randrange(1, 9)

    def close(self, segment: Segment) -> tuple[Any, ...]:
        return (segment.number,)

    def wipe(self, segment: Segment) -> tuple[Any, ...]:
        return (segment.number,)

    def retire(self, segment: Segment) -> tuple[Any, ...]:
        return (segment.number,)

    def simple(self, name: str) -> tuple[Any, ...]:
        """Choose the arguments of an operation on something else than a segment, or on all of them."""
        tube = self.random.choice(self.TUBES)
        session = self.random.choice(self.SESSIONS)
        count = self.random.randrange(9)
        arguments: dict[str, tuple[Any, ...]] = {
            "heads": (self.NUMBERS,),
            "sizes": (self.NUMBERS,),
            "leases": (self.NUMBERS,),
            "leased_by": (session,),
            "enlist": (tube, count),
            "unlist": (tube, count),
            "directories": (self.TUBES,),
            "pause": (tube, count, count),
            "forget_tube": (tube,),
            "create_page": (self.random.choice(self.PAGES), tube),
            "list_page": (tube, count),
            "enter": (self.random.choice(self.PAGES), count),
            "leave_page": (self.random.choice(self.PAGES), count),
            "pages": (self.PAGES,),
            "retire_page": (self.random.choice(self.PAGES),),
            "unlist_page": (tube, count),
            "reserve_places": ("segment", 1000 * count),
            "grow_ring": ("segment", 1 << 14 + count % 3),
            "add_counters": (tube, {"total_jobs": count, "deletes": 1}),
            "join": (session,),
            "heartbeat": (session, self.random.choice([None, self.job()])),
            "resign": (session,),
            # Either at once, or never.
            "kill": (session, self.random.choice([-1, 3_600_000])),
            "forget_session": (session,),
            "publish": (session, self.job()),
            "news": (self.SESSIONS, (), 0.001 * count),
        }
        return arguments.get(name, ())


async def result_of(store: SegmentStore, name: str, arguments: tuple[Any, ...]) -> Any:
    """Return what an operation gives or how it fails, without what a clock tells."""
    try:
        result = await getattr(store, name)(*arguments)
    except StoreError as error:
        return type(error)
    if name == "heartbeat":
        return isinstance(result, int)
    if name == "sessions":
        return await listed(store)
    return result


@pytest.mark.parametrize("seed", range(12))
def test_the_memory_store_does_what_the_real_one_does(real: SegmentStore, seed: int) -> None:
    async def check() -> None:
        memory = MemoryStore(Cluster(lambda: int(time.time() * 1000)))
        walk = Walk(seed, memory)
        done: list[Any] = []
        for _ in range(250):
            name, arguments = await walk.step()
            expected = await result_of(memory, name, arguments)
            done.append((name, arguments, expected))
            assert await result_of(real, name, arguments) == expected, done[-8:]
        for number in walk.NUMBERS:
            assert await real.read(number) == await memory.read(number), done

    run(check())

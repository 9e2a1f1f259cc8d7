"""What is done with all jobs that match, on every store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from stores import reserved

from beanspiked.engine.contract import BURIED, DELAYED, READY, RESERVED, Filter
from beanspiked.engine.later import Later

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stores import Stores

    from beanspiked.engine.contract import Job, TubeEngine
    from beanspiked.library.conn import Conn

Outcome = TypeVar("Outcome", bound=Later)
# Compressed these are still so large that a shared store keeps them outside of the segment.
LARGE = [b"%d needle " % number + bytes(range(256)) * 40 + str(list(range(2000))).encode() for number in range(3)]


class Matching:
    """Asks an engine what a connection does not."""

    def __init__(self, conn: Conn, name: str) -> None:
        self.core = conn._core
        self.engine: TubeEngine = conn._core.broker.engine
        self.conn = conn
        self.name = name

    async def done(self, later: Outcome) -> Outcome:
        await asyncio.wait_for(self.core.done(later, "", ""), 30)
        return later

    async def listed(self, state: int, wanted: Filter | None = None, name: str = "", limit: int = 2) -> list[Job]:
        found: list[Job] = []
        after = ""
        while True:
            tube = self.engine.tube(name or self.name)
            page = await self.done(self.engine.list_jobs(tube, state, wanted or Filter(), after, limit))
            found += page.jobs
            after = page.after
            if not after:
                return found

    async def bodies(self, state: int, wanted: Filter | None = None, name: str = "") -> list[bytes]:
        return [job.raw_body() for job in await self.listed(state, wanted, name)]

    async def count(self, wanted: Filter) -> int:
        return (await self.done(self.engine.count_jobs(self.engine.tube(self.name), wanted))).value

    async def clear(self, wanted: Filter) -> int:
        return (await self.done(self.engine.clear(self.engine.tube(self.name), wanted))).value

    async def move(self, target: str, wanted: Filter) -> int:
        tubes = self.engine.tube(self.name), self.engine.tube(target)
        return (await self.done(self.engine.move(*tubes, wanted))).value

    async def kick(self, wanted: Filter) -> int:
        return (await self.done(self.engine.kick_jobs(self.engine.tube(self.name), wanted))).value


def run(stores: Stores, check: Callable[[Matching], Awaitable[None]]) -> None:
    async def connected(conn: Conn) -> None:
        await check(Matching(conn, stores.tube))

    stores.run(connected)


async def fill(match: Matching) -> None:
    """Put some jobs in every state."""
    tube = match.conn.use(match.name)
    for body in (b"to hold", b"to bury", b"to bury, too"):
        await tube.put(body)
    for _ in range(3):
        job = await reserved(tube)
        if job.body.startswith(b"to bury"):
            await job.bury()
    for priority, body in ((7, b"late"), (5, b"first"), (7, b"later"), (6, b"second")):
        await tube.put(body, priority=priority)
    for delay, body in ((90, b"90"), (30, b"30"), (60, b"60")):
        await tube.put(body, delay=delay)


def test_jobs_are_listed_in_the_order_of_their_queues(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        await fill(match)
        assert await match.bodies(READY) == [b"first", b"second", b"late", b"later"]
        assert await match.bodies(DELAYED) == [b"30", b"60", b"90"]
        assert await match.bodies(BURIED) == [b"to bury", b"to bury, too"]
        assert await match.bodies(RESERVED) == [b"to hold"]
        assert await match.bodies(READY, Filter(min_pri=6, max_pri=6)) == [b"second"]

    run(stores, check)


def test_jobs_are_counted(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        await fill(match)
        assert await match.count(Filter()) == 9
        assert await match.count(Filter((RESERVED, BURIED))) == 3
        assert await match.count(Filter((RESERVED, BURIED), min_tries=1, text=b"bury")) == 2

    run(stores, check)


def test_jobs_that_match_are_cleared(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        await fill(match)
        assert await match.clear(Filter((READY, BURIED), text=b"t")) == 5
        assert await match.bodies(READY) == [b"second"]
        assert await match.bodies(BURIED) == []
        assert await match.bodies(DELAYED) == [b"30", b"60", b"90"]
        assert await match.clear(Filter((READY, DELAYED, RESERVED, BURIED))) == 4
        assert await match.bodies(RESERVED) == [b"to hold"]

    run(stores, check)


def test_jobs_move_and_stay_what_they_are(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        await fill(match)
        target = f"{match.name}-2"
        before = {state: await match.listed(state) for state in (READY, DELAYED, BURIED)}
        told = {
            state: [(job.raw_body(), job.pri, round(job.key) if state == DELAYED else 0, job.buries) for job in jobs]
            for state, jobs in before.items()
        }
        assert await match.move(target, Filter()) == 9
        for state, expected in told.items():
            assert await match.bodies(state) == []
            after = await match.listed(state, name=target)
            assert [
                (job.raw_body(), job.pri, round(job.key) if state == DELAYED else 0, job.buries) for job in after
            ] == expected
        assert await match.bodies(RESERVED) == [b"to hold"]
        tube = match.conn.use(target)
        taken = [await reserved(tube) for _ in range(4)]
        assert [job.body for job in taken] == [b"first", b"second", b"late", b"later"]
        for job in taken:
            await job.delete()

    run(stores, check)


def test_jobs_move_by_their_ids(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        await fill(match)
        jobs = await match.listed(READY)
        assert await match.move(f"{match.name}-2", Filter(ids=[jobs[1].id, jobs[3].id])) == 2
        assert await match.bodies(READY) == [b"first", b"late"]
        assert await match.bodies(READY, name=f"{match.name}-2") == [b"second", b"later"]

    run(stores, check)


def test_buried_and_delayed_jobs_are_kicked(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        await fill(match)
        assert await match.kick(Filter(text=b"0")) == 3
        assert await match.kick(Filter((READY, BURIED), text=b"too")) == 1
        assert await match.bodies(BURIED) == [b"to bury"]
        assert sorted(await match.bodies(READY, Filter(text=b"0"))) == [b"30", b"60", b"90"]

    run(stores, check)


def test_large_bodies_are_searched_and_move(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        tube = match.conn.use(match.name)
        for body in LARGE:
            await tube.put(body)
        assert await match.bodies(READY, Filter(text=b"1 needle ")) == [LARGE[1]]
        assert await match.move(f"{match.name}-2", Filter(text=b"needle")) == 3
        assert await match.bodies(READY, name=f"{match.name}-2") == LARGE
        moved = await reserved(match.conn.use(f"{match.name}-2"))
        assert moved.body == LARGE[0]

    run(stores, check)


def test_very_many_jobs_move_and_are_cleared(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        tube = match.conn.use(match.name)
        for start in range(0, 3000, 500):
            await asyncio.gather(*[tube.put(b"%d" % number) for number in range(start, start + 500)])
        target = f"{match.name}-2"
        assert await match.move(target, Filter()) == 3000
        assert await match.count(Filter()) == 0
        match.name = target
        assert await match.count(Filter()) == 3000
        assert await match.clear(Filter(text=b"7")) == sum(b"7" in b"%d" % number for number in range(3000))
        left = await match.listed(READY, limit=1000)
        assert sorted(int(job.body) for job in left) == [n for n in range(3000) if b"7" not in b"%d" % n]

    run(stores, check)


def test_jobs_that_are_put_once_a_clear_is_at_work_stay(stores: Stores) -> None:
    async def check(match: Matching) -> None:
        tube = match.conn.use(match.name)
        for start in range(0, 2000, 500):
            await asyncio.gather(*[tube.put(b"early") for _ in range(start, start + 500)])
        bulk = match.engine.clear(match.engine.tube(match.name), Filter())
        while not bulk.value and not bulk.done:
            match.core.turn()
            await asyncio.sleep(0)
        await asyncio.gather(*[tube.put(b"late") for _ in range(40)])
        await match.done(bulk)
        assert bulk.value == 2000
        assert await match.count(Filter()) == 40

    run(stores, check)

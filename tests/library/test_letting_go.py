"""How held jobs are let go: what go-beanspike's users have, on every store; tests have the names of its list of abilities.

go-beanspike (https://github.com/redsift/go-beanspike) is the library whose users should find everything here.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from stores import reserved

import beanspiked

if TYPE_CHECKING:
    from stores import Stores

    from beanspiked.library.conn import Conn

# More than compression begins with, and of use to it or not.
SQUEEZABLE = b"as compressible as can be " * 200
RANDOM = random.Random(1).randbytes(5000)


def test_release(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x", priority=9, ttr=50)
        job = await reserved(tube)
        await job.release()
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.priority, info.releases, info.retries) == ("ready", 9, 1, 0)
        job = await reserved(tube)
        await job.release(100, priority=3)
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.priority, info.delay) == ("delayed", 3, 100)
        assert 99 < info.time_left <= 100
        with pytest.raises(beanspiked.JobLost):
            await job.release()

    stores.run(check)


def test_retry_count(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", metadata="kept")

        async def again(**how: Any) -> tuple[int, bool]:
            job = await reserved(tube)
            await job.release(**how)
            job = await reserved(tube)
            found = job.retries, job.failed
            assert job.metadata == "kept"
            await job.release()
            return found

        # Only the flag is set: once, at least.
        assert await again(failed=True) == (1, True)
        assert await again() == (0, False)
        assert await again(count_retry=True, failed=True) == (1, True)
        assert await again(count_retry=True) == (2, False)
        assert await again() == (2, False)

    stores.run(check)


def test_bury_with_a_reason(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x", metadata="mine")
        assert await tube.find("mine") == [job_id]
        job = await reserved(tube)
        await job.bury("it is broken: é")
        info = await tube.peek(job_id)
        assert info is not None
        assert (info.state, info.reason, info.buries) == ("buried", "it is broken: é", 1)
        assert await tube.find("mine") == []
        with pytest.raises(ValueError, match="reason"):
            await job.bury("x" * 65536)

    stores.run(check)


def test_kick_one_job(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        delayed = await tube.put(b"delayed", delay=100)
        buried = await tube.put(b"buried", metadata="mine")
        job = await reserved(tube)
        await job.bury("why")
        await tube.kick_job(delayed)
        await tube.kick_job(buried)
        info = await tube.peek(buried)
        assert info is not None
        assert (info.state, info.reason, info.kicks, info.metadata) == ("ready", "", 1, "mine")
        assert await tube.find("mine") == [buried]
        with pytest.raises(beanspiked.NotKickable):
            await tube.kick_job(buried)
        with pytest.raises(beanspiked.JobNotFound):
            await tube.kick_job(2**62)
        for _ in range(2):
            job = await reserved(tube)
            await job.bury()
        assert (await tube.kick(1), await tube.kick(5), await tube.kick(5)) == (1, 1, 0)

    stores.run(check)


def test_peek_buried(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        assert (await tube.peek_buried(), await tube.peek_ready(), await tube.peek_delayed()) == (None, None, None)
        for body in (b"first", b"second"):
            await tube.put(body)
            job = await reserved(tube)
            await job.bury(f"because of {body.decode()}")
            # Burials are told apart by the millisecond.
            await asyncio.sleep(0.002)
        await tube.put(SQUEEZABLE)
        info = await tube.peek_buried()
        assert info is not None
        assert (info.body, info.reason) == (b"first", "because of first")
        ready = await tube.peek_ready()
        assert ready is not None
        assert ready.body == SQUEEZABLE
        assert await tube.peek(2**62) is None

    stores.run(check)


@pytest.mark.parametrize("body", [b"", b"token", SQUEEZABLE, RANDOM], ids=["empty", "small", "squeezed", "large"])
def test_update_a_body(stores: Stores, body: bytes) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        for first in (b"old", RANDOM[::-1]):
            job_id = await tube.put(first, ttr=60, metadata="m")
            job = await reserved(tube)
            await job.update(body)
            assert (job.body, job.held) == (body, True)
            await job.release()
            job = await reserved(tube)
            assert (job.id, job.body, job.metadata) == (job_id, body, "m")
            stats = await tube.stats()
            assert (stats.jobs, stats.job_size) == (1, len(body))
            assert await job.delete() is True

    stores.run(check)


def test_delete(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        job_id = await tube.put(b"x")
        job = await reserved(tube)
        assert await job.delete() is True
        assert await job.delete() is False
        assert await tube.peek(job_id) is None
        assert (await tube.stats()).deleted == 1

    stores.run(check)

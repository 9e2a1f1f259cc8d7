"""A tube that the program has dropped is one that it does not use: a program that uses each name once keeps none of them."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

from stores import reserved

from beanspiked.library.conn import Conn, connect

if TYPE_CHECKING:
    from stores import Stores


async def settled() -> None:
    gc.collect()
    await asyncio.sleep(0.05)


def test_tubes_that_the_program_has_dropped_exist_no_more(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        kept = conn.use(f"{stores.tube}-kept")
        for number in range(20):
            tube = conn.use(f"{stores.tube}-{number}")
            await tube.put(b"x")
            job = await reserved(tube)
            assert await job.delete()
        del tube, job
        await settled()
        assert len(conn._tubes) == 1
        engine = conn._core.broker.engine
        names = [kept.name, *[f"{stores.tube}-{number}" for number in range(20)]]
        used = [name for name in names if (known := engine.find_tube(name)) is not None and known.using]
        assert used == [kept.name]

    stores.run(check)


def test_a_tube_whose_job_the_program_keeps_is_used(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        await conn.use(stores.tube).put(b"x")
        job = await conn.use(stores.tube).reserve(1)
        await settled()
        assert job is not None
        assert conn.use(stores.tube) is job.tube
        assert conn._core.broker.engine.tube(stores.tube).using == 1

    stores.run(check)


def test_a_tube_may_be_dropped_in_another_thread_and_after_the_end() -> None:
    async def check() -> Conn:
        conn = connect("memory:")
        await conn.open()
        held = [conn.use("tube"), conn.use("other")]
        thread = threading.Thread(target=lambda: held.pop() and None)
        thread.start()
        thread.join()
        await settled()
        assert [tube.name for tube in conn._core.broker.engine.tubes()] == ["default", "tube"]
        await conn.close()
        del held[:]
        await settled()
        late.append(connect("memory:"))
        await late[0].open()
        return late[0]

    late: list[Conn] = []
    tube = None
    conn = asyncio.run(check())
    tube = conn.use("tube")
    # The loop is closed, and the connection was not.
    del tube
    gc.collect()

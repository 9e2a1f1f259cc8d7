"""Jobs of the library and of wire clients are the same jobs, in the same tubes."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import greenstalk
import pytest
from stores import reserved

import beanspiked

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Stores

    from beanspiked import Conn

SQUEEZABLE = b"as compressible as can be " * 200


async def client_of(serving: beanspiked.Serving, tube: str) -> greenstalk.Client:
    host, _, port = serving.addresses[0].rpartition(":")
    return await asyncio.to_thread(greenstalk.Client, (host, int(port)), encoding=None, use=tube, watch=tube)


@pytest.mark.parametrize(
    "body", [b"", b"small", SQUEEZABLE, random.Random(4).randbytes(9000)], ids=["none", "small", "squeezable", "random"]
)
def test_a_wire_client_gets_what_the_library_put(stores: Stores, body: bytes) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        async with await beanspiked.serve(conn, "127.0.0.1:0") as serving:
            client = await client_of(serving, stores.tube)
            job_id = await tube.put(body, ttr=60, priority=5)
            peeked = await asyncio.to_thread(client.peek, job_id)
            job = await asyncio.to_thread(client.reserve, 5)
            assert (job.id, job.body, peeked.body) == (job_id, body, body)
            info = await tube.peek(job_id)
            assert info is not None
            assert info.state == "reserved"
            assert await tube.delete(job_id) is False
            await asyncio.to_thread(client.delete, job)
            assert await tube.peek(job_id) is None
            client.close()

    stores.run(check)


def test_the_library_gets_what_a_wire_client_put(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        async with await beanspiked.serve(conn, "127.0.0.1:0") as serving:
            client = await client_of(serving, stores.tube)
            waiting = asyncio.create_task(tube.reserve(10))
            job_id = await asyncio.to_thread(client.put, SQUEEZABLE, ttr=60)
            job = await waiting
            assert job is not None
            assert (job.id, job.body, job.ttr, job.retries, job.metadata) == (job_id, SQUEEZABLE, 60, 0, "")
            stats = await asyncio.to_thread(client.stats_job, job_id)
            assert (stats["state"], stats["time-left"] > 50) == ("reserved", True)
            with pytest.raises(greenstalk.NotFoundError):
                await asyncio.to_thread(client.delete, job_id)
            # The protocol turns a time to run of 0 into 1.
            assert await job.delete()
            await asyncio.to_thread(client.put, b"x", ttr=0)
            job = await reserved(tube)
            assert job.ttr == 1
            client.close()

    stores.run(check)


def test_serving_ends_and_begins_again_while_the_connection_lives(stores: Stores) -> None:
    async def check(conn: Conn) -> None:
        tube = conn.use(stores.tube)
        await tube.put(b"x", ttr=600)
        for _ in range(2):
            serving = await beanspiked.serve(conn, "127.0.0.1:0")
            client = await client_of(serving, stores.tube)
            await asyncio.to_thread(client.reserve, 5)
            # What the client holds goes back.
            await serving.close()
            with pytest.raises(OSError, match=r"."):
                await client_of(serving, stores.tube)
            client.close()
            job = await reserved(tube)
            await job.release()
        assert [job.id for job in await tube.reserve_many(5, 1)] != []

    stores.run(check)


@pytest.mark.parametrize("cancelled", [False, True], ids=["a close waits", "a close was cancelled"])
def test_serving_ends_with_the_connection_although_clients_were_given_time(tmp_path: Path, *, cancelled: bool) -> None:
    async def check() -> None:
        path = str(tmp_path / "socket")
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}") as conn:
            serving = await beanspiked.serve(conn, f"unix:{path}")
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"put 0 0 60 1\r\nx\r\nreserve\r\n")
            await reader.readuntil(b"\r\nx\r\n")
            closing = asyncio.create_task(serving.close(drain_seconds=600))
            await asyncio.sleep(0)
            # Another call that gives time takes none away.
            again = asyncio.create_task(serving.close(drain_seconds=600))
            for _ in range(3):
                writer.write(b"touch 1\r\n")
                assert await asyncio.wait_for(reader.readline(), 10) == b"TOUCHED\r\n"
            if cancelled:
                closing.cancel()
        # Once the store is left, nothing that a client asks for could be kept.
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await asyncio.wait([closing, again])
        async with beanspiked.connect(f"sqlite:{tmp_path / 'jobs'}") as conn:
            assert (await conn.use("default").stats()).ready == 1

    asyncio.run(check())


def test_serving_on_a_unix_socket_ends_with_the_connection(tmp_path: Path) -> None:
    async def check() -> None:
        path = str(tmp_path / "socket")
        async with beanspiked.connect("memory:") as conn:
            serving = await beanspiked.serve(conn, f"unix:{path}")
            assert serving.addresses == [f"unix:{path}"]
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"list-tubes\r\n")
            assert (await reader.readline()).startswith(b"OK ")
        assert b"default" in await reader.read()
        writer.close()

    asyncio.run(check())


@pytest.mark.parametrize(
    "address", ["nowhere", "127.0.0.1:x", "127.0.0.1:99999", ":", ":11300", "[]:11300", "unix:", ""]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as conn:
            with pytest.raises(ValueError, match="not host:port"):
                await beanspiked.serve(conn, address)

    asyncio.run(check())


def test_an_address_in_use_is_refused_and_the_others_are_let_go() -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as conn, await beanspiked.serve(conn, "127.0.0.1:0") as serving:
            for _ in range(2):
                with pytest.raises(OSError, match="in use"):
                    await beanspiked.serve(conn, "127.0.0.1:0", *serving.addresses)

    asyncio.run(check())


def test_two_programs_share_a_clusters_tubes(stores: Stores) -> None:
    if not stores.shared:
        pytest.skip("the store belongs to one process")

    async def check() -> None:
        async with stores.connect() as one, stores.connect() as other:
            ids = [await one.use(stores.tube).put(b"%d" % number, ttr=60, metadata="m") for number in range(10)]
            waiting = asyncio.create_task(one.use(stores.tube).reserve(10))
            jobs = [await other.use(stores.tube).reserve(5) for _ in range(9)]
            jobs.append(await waiting)
            assert sorted(job.id for job in jobs if job is not None) == sorted(ids)
            assert await other.use(stores.tube).find("m") == sorted(ids)
            # Of a tube that somebody else deletes, a holder learns with its next word to the store.
            await other.delete_tube(stores.tube)
            mine = jobs[-1]
            assert mine is not None
            assert await mine.delete() is False

    asyncio.run(check())


def test_two_memories_share_nothing() -> None:
    async def check() -> None:
        async with beanspiked.connect("memory:") as one, beanspiked.connect("memory:") as other:
            await one.use("testtube").put(b"x")
            assert (await other.use("testtube").stats()).jobs == 0

    asyncio.run(check())

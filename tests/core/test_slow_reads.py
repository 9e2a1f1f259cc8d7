"""A store that takes long to answer: what many tubes have to be read for is read side by side, not tube after tube."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from memory import MemoryStore
from world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from world import Client

    from beanspiked.engine.aerospike.store.directory import Directory
    from beanspiked.engine.aerospike.store.seam import Head, Page, Sizes

TUBES = 32
# What a call takes, there and back, in seconds.
CALL = 0.2


class ManyInACall(MemoryStore):
    """Reads many records in one call, as the real store does."""

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        """See SegmentStore."""
        return await self._all("directory", self._cluster.directory, tubes)

    async def pages(self, numbers: Sequence[int]) -> list[Page | None]:
        """See SegmentStore."""
        return await self._all("page", self._cluster.page, numbers)

    async def heads(self, numbers: Sequence[int]) -> list[Head | None]:
        """See SegmentStore."""
        return await self._all("head", self._cluster.head, numbers)

    async def sizes(self, numbers: Sequence[int]) -> list[Sizes | None]:
        """See SegmentStore."""
        return await self._all("size", self._cluster.size, numbers)

    async def _all(self, name: str, read: Any, keys: Sequence[Any]) -> Any:
        return await self._transport(name, lambda: [read(key) for key in keys])


def filled(front_ends: int, delay: int = 0) -> tuple[World, Client, list[int]]:
    """Return a client who watches tubes that have a page with a job from each front-end, while calls take long, and the jobs."""
    here = World(1, store_class=ManyInACall)
    here.cluster.inline_max, here.cluster.page_max = 0, 1
    jobs: list[int] = []
    for _ in range(front_ends):
        producer = here.front_end().connect()
        for tube in range(TUBES):
            producer.ask(b"use tube-%d\r\n" % tube)
            jobs.append(producer.put(delay=delay))
    client = here.front_end().connect()
    for tube in range(TUBES):
        client.ask(b"watch tube-%d\r\n" % tube)
    here.run(5.0)
    here.latency = (CALL / 2, CALL / 2)
    return here, client, jobs


@pytest.mark.parametrize("command", [b"reserve\r\n", b"reserve-with-timeout 0\r\n"])
def test_a_reserve_reads_the_pages_of_its_tubes_side_by_side(command: bytes) -> None:
    here, client, jobs = filled(4)
    began = here.time
    assert int(client.ask(command).split()[1]) in jobs
    assert here.time - began < 10 * CALL


def test_an_empty_poll_reads_the_pages_of_its_tubes_side_by_side() -> None:
    here, client, _ = filled(4, delay=1000)
    began = here.time
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert here.time - began < 10 * CALL


def test_due_jobs_of_many_tubes_are_made_ready_side_by_side() -> None:
    here, client, jobs = filled(1, delay=3)
    began = here.time
    assert int(client.ask(b"reserve-with-timeout 0\r\n").split()[1]) in jobs
    assert here.time - began < 15 * CALL


def test_figures_of_many_tubes_are_read_side_by_side() -> None:
    here, client, _ = filled(4)
    began = here.time
    client.post(b"".join(b"stats-tube tube-%d\r\n" % tube for tube in range(TUBES)))
    for _ in range(TUBES):
        assert b"\ncurrent-jobs-ready: 4\n" in client.ask(b"")
    assert client.stats("stats")["current-jobs-ready"] == str(4 * TUBES)
    assert here.time - began < 25 * CALL


@pytest.mark.parametrize(("command", "front_ends", "ready"), [("stats", 1, TUBES), ("stats-tube tube-0", 8, 8)])
def test_due_jobs_that_nobody_waits_for_are_made_ready_side_by_side(command: str, front_ends: int, ready: int) -> None:
    here, client, _ = filled(front_ends, delay=3)
    began = here.time
    assert client.stats(command)["current-jobs-ready"] == str(ready)
    assert here.time - began < 15 * CALL

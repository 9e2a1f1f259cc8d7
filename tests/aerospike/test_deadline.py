"""A node carries out nothing that its sender has given up waiting for."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asd import NAMESPACE, Node, connected, note_build
from changes import sent
from segments import LEASE, key_of, puts, run, whole

from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore
from beanspiked.engine.aerospike.store.seam import READY, Busy, Outcome, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator


class Freezable(Node):
    """A server that may be frozen, and a client of it."""

    def __init__(self, asd: str, work: Path) -> None:
        super().__init__(asd, work)
        self.client = connected(self.address)

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        # Each of its threads stops in its own time.
        threads = list(Path(f"/proc/{self.process.pid}/task").iterdir())
        while any((thread / "stat").read_text().rpartition(") ")[2][0] != "T" for thread in threads):
            time.sleep(0.001)

    def wake(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.wake()
        self.client.close()
        super().stop()


@pytest.fixture
def node(tmp_path: Path, address: tuple[str, int], request: pytest.FixtureRequest) -> Iterator[Freezable]:  # noqa: ARG001
    asd = shutil.which("asd")
    if asd is None:
        pytest.skip("a node that can be frozen needs an asd on the PATH")
    node = Freezable(asd, tmp_path / "node")
    note_build(node.client, request)
    yield node
    node.stop()


def test_a_node_that_was_frozen_does_not_do_what_it_finds_in_its_sockets(node: Freezable) -> None:
    store = AerospikeStore(node.client, NAMESPACE, "late_")

    async def check() -> None:
        await store.join(1)
        await store.heartbeat(1, None)
        await store.create(1, "tube", LEASE)
        await store.enlist("tube", 1)
        node.freeze()
        late: list[Any] = [
            store.apply(1, LEASE, puts(1)),
            store.close(1),
            store.enlist("tube", 2),
        ]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unknown] * 3
        await asyncio.sleep(0.5)
        node.wake()
        await asyncio.sleep(0.5)
        segment = await whole(store)
        assert (segment.ready, segment.last_slot, segment.state) == ({}, 0, 0)
        (directory,) = await store.directories(["tube"])
        assert directory is not None
        assert list(directory.segments) == [1]
        await store.apply(1, LEASE, puts(1))
        assert list((await whole(store)).queue(READY)) == [key_of(1)]

    run(check())
    store.caller.close()


def test_nothing_is_written_to_a_node_that_is_known_to_sleep(node: Freezable) -> None:
    store = AerospikeStore(node.client, NAMESPACE, "sleep_")

    async def check() -> None:
        await store.join(1)
        await store.heartbeat(1, None)
        for number in range(1, 41):
            await store.create(number, "tube", LEASE)
        # As the watch has it after its question was not answered.
        store.caller.agreement.silent("it", 0)

        changes = [(number, LEASE, puts(1)) for number in range(1, 41)]
        node.freeze()
        assert [type(outcome) for outcome in await sent(store, changes)] == [Busy] * 40
        with pytest.raises(Busy):
            await store.close(1)
        node.wake()
        # It answers, but as long as the watch has not heard of it, nobody knows whether the others have left it out.
        assert [type(outcome) for outcome in await sent(store, changes)] == [Busy] * 40
        store.caller.agreement.gone("it")
        assert [type(outcome) for outcome in await sent(store, changes)] == [Outcome] * 40

    run(check())
    store.caller.close()


def test_a_query_does_not_wait_for_a_node_that_sleeps(node: Freezable) -> None:
    store = AerospikeStore(node.client, NAMESPACE, "query_")

    async def check() -> None:
        await store.prepare()
        await store.create(1, "tube", LEASE)
        assert await store.leased_by(LEASE >> 32) == [1]
        node.freeze()
        asked_at = time.monotonic()
        with pytest.raises(Unknown):
            await store.leased_by(LEASE >> 32)
        assert time.monotonic() - asked_at < 5.0
        node.wake()

    run(check())
    store.caller.close()


def test_a_node_whose_clock_is_ahead_is_written_to_after_it_was_asked_for_its_time(node: Freezable) -> None:
    store = AerospikeStore(node.client, NAMESPACE, "ahead_")

    async def check() -> None:
        await store.join(1)
        await store.heartbeat(1, None)
        await store.create(1, "tube", LEASE)
        # As if the heartbeat had gone to a node whose clock is five seconds behind.
        store.caller.deadline._ahead_ms -= 5000  # type: ignore[operator]
        # The event loop does not ask; the thread does that has the next change.
        for _ in range(2):
            with pytest.raises(Busy, match="too late"):
                await store.apply(1, LEASE, puts(1))
        await store.apply(1, LEASE, puts(1))

    run(check())
    store.caller.close()

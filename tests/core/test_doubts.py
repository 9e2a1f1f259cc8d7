"""What is known of a tube may be old: what was missed meanwhile is found nevertheless."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from memory import MemoryStore
from world import World

from beanspiked.engine.aerospike.store.keys import lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import READY, Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beanspiked.engine.aerospike.store.directory import Directory


class SlowDirectories(MemoryStore):
    """A store whose directories are a tenth of a second old when they arrive."""

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        found = await super().directories(tubes)
        await asyncio.sleep(0.1)
        return found


def put_untold(here: World) -> None:
    """Put a job of which no news come."""
    number, lease = (1 << 24) + 70, lease_key(99, 1)
    here.cluster.create(number, "default", lease)
    here.cluster.enlist("default", number)
    here.cluster.apply(number, lease, Change(last_slot=1, puts={READY: {ready_key(0, 1, 1): b"\0" * 29 + b"x"}}))


def test_a_look_does_not_stand_for_news_that_were_missed_after_it_had_begun() -> None:
    here = World(1, store_class=SlowDirectories)
    client = here.front_end().connect()
    here.run(3.0)
    client.post(b"reserve-with-timeout 0\r\n")
    here.run(0.05)
    # As when a link breaks, and is back before the look ends.
    client.front_end.engine.registry.tube("default").doubt()
    put_untold(here)
    assert here.run(0.5, client.answered)
    assert client.take() == b"TIMED_OUT\r\n"
    assert client.ask(b"reserve\r\n", 1.0).startswith(b"RESERVED ")

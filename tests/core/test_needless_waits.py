"""Nobody waits for a job that is there, or for what never comes, whatever happened before: on several front-ends, while links break."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from world import World

from beanspiked.engine.errors import JobGone

if TYPE_CHECKING:
    import asyncio

    from world import Client

TUBES = (b"one", b"two")
# The longest time between two steps, in seconds: all that a front-end keeps in mind of a tube is over by then.
PAUSE_MAX = 80.0
# A look at all segments of a tube takes no longer.
AT_ONCE = 0.3


def watch_only(client: Client, tube: bytes) -> None:
    client.ask(b"watch %b\r\n" % tube)
    for other in (b"default", *TUBES):
        if other != tube:
            client.ask(b"ignore %b\r\n" % other)


@pytest.mark.parametrize("seed", range(12))
def test_a_reserve_takes_a_ready_job_at_once(seed: int) -> None:
    chance = random.Random(seed)
    here = World(seed, links=chance.random() < 0.8)
    front_ends = [here.front_end() for _ in range(3)]
    here.run(3.0)
    clients = [front_end.connect() for front_end in front_ends for _ in range(2)]
    ready = dict.fromkeys(TUBES, 0)
    for _ in range(40):
        tube, client = chance.choice(TUBES), chance.choice(clients)
        if ready[tube] and chance.random() < 0.6:
            watch_only(client, tube)
            began = here.time
            command = chance.choice((b"reserve", b"reserve-with-timeout 100", b"reserve-with-timeout 0"))
            reply = client.ask(command + b"\r\n", 120.0)
            assert reply.startswith(b"RESERVED")
            assert here.time - began < AT_ONCE
            job_id = reply.split()[1]
            if chance.random() < 0.7:
                assert client.ask(b"delete %b\r\n" % job_id) == b"DELETED\r\n"
                ready[tube] -= 1
            else:
                assert client.ask(b"release %b 0 0\r\n" % job_id) == b"RELEASED\r\n"
        else:
            client.ask(b"use %b\r\n" % tube)
            client.put()
            ready[tube] += 1
        front_end = chance.choice(front_ends)
        links = list(front_end.engine.news.mesh._hearers.values())
        if links and chance.random() < 0.1:
            front_end.inside(chance.choice(links).wire.abort)
        here.run(math.exp(chance.uniform(math.log(0.001), math.log(PAUSE_MAX))))


@pytest.mark.parametrize("given_up", [True, False])
def test_a_sweep_goes_on_though_a_segment_that_it_closes_is_found_dead_at_that_moment(
    here: World, client: Client, given_up: bool
) -> None:
    client.put()
    front_end = client.front_end
    tube = front_end.engine.registry.tube("default")
    committer = tube.open
    assert committer is not None

    def found_dead() -> None:
        if given_up:
            committer.abandon(JobGone("the segment is over"))
        committer.gone = True
        tube.drop(committer)

    async def close() -> None:
        front_end.loop.call_soon(found_dead)
        committer.close()
        await committer.turn()

    closing: list[asyncio.Task[None]] = []
    front_end.inside(lambda: closing.append(front_end.loop.create_task(close())))
    assert here.run(1.0, closing[0].done)

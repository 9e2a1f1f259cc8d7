"""What a waiting client notices when the session of another front-end ends."""

from __future__ import annotations

from typing import Any

import pytest
from depth import on_source
from world import World

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Unknown


@on_source
@pytest.mark.parametrize("held", [False, True])
def test_who_waits_looks_once_more_only_where_a_dead_session_held_jobs(held: bool) -> None:
    here = World(1)
    dying, other = here.front_end(), here.front_end()
    here.run(3.0)
    client, waiting = dying.connect(), other.connect()
    client.ask(b"use t\r\n")
    client.ask(b"watch t\r\n")
    waiting.ask(b"watch t\r\n")
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    if not held:
        assert client.ask(b"bury %d 0\r\n" % job_id) == b"BURIED\r\n"
    waiting.post(b"reserve\r\n")
    here.run(1.0)
    ready: list[int] = []
    scout = other.engine.scout
    changed = scout.segment_changed
    scout.segment_changed = lambda tube, number: ready.append(number) or changed(tube, number)  # type: ignore[method-assign,func-returns-value]
    dying.kill()
    here.run(30.0)
    assert ready == [job_id >> SLOT_BITS] * held
    assert waiting.received.startswith(b"RESERVED") == held


def test_a_job_that_was_given_back_without_an_answer_is_taken_at_once() -> None:
    here = World(1)
    dying, other = here.front_end(), here.front_end()
    here.run(3.0)
    client, waiting = dying.connect(), other.connect()
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED")
    waiting.post(b"reserve\r\n")
    here.run(1.0)
    reclaim, reclaimed = here.cluster.reclaim, []

    def unanswered(number: int, lease: int) -> int:
        reclaim(number, lease)
        reclaimed.append(here.time)
        raise Unknown("9: timeout")

    here.cluster.reclaim = unanswered  # type: ignore[method-assign]
    dying.kill()
    assert here.run(60.0, waiting.answered)
    assert waiting.take().startswith(b"RESERVED %d " % job_id)
    assert here.time - reclaimed[0] < 1.0


@on_source
@pytest.mark.parametrize("phase", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
def test_a_front_end_that_stops_gives_its_segments_back_alone(phase: float) -> None:
    here = World(1, latency=(0.02, 0.04))
    stopping, other = here.front_end(), here.front_end()
    here.run(3.0)
    client = stopping.connect()
    for number in range(180):
        client.ask(b"use t%d\r\n" % number)
        client.put()
    found: list[tuple[int, bool]] = []
    burial = other.engine.membership.burial
    reclaim = burial.reclaim

    async def noted(*what: Any) -> tuple[int, bool]:
        outcome = await reclaim(*what)
        found.append(outcome)
        return outcome

    burial.reclaim = noted  # type: ignore[method-assign]
    here.run(phase)
    stopping.close()
    here.run(20.0)
    assert not any(leases for leases, _ in found)

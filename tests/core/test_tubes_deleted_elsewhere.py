"""A tube whose jobs another front-end has deleted, with all leases on its segments, which is not known here until a segment is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.errors import JobGone

if TYPE_CHECKING:
    from world import World
    from world_client import Client

    from beanspiked.engine.later import Later


def delete_elsewhere(here: World) -> None:
    other = here.front_end()
    here.run(2.0)
    later: list[Later] = []
    other.inside(lambda: later.append(other.engine.delete_tube(other.engine.tube("default"))))
    assert here.run(2.0, lambda: later[0].done)
    assert later[0].error is None


@pytest.mark.parametrize("size", [10, 2000])
def test_a_job_is_put_whatever_its_size(here: World, client: Client, size: int) -> None:
    client.put()
    delete_elsewhere(here)
    job_id = client.put(here.chance.randbytes(size))
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED %d %d\r\n" % (job_id, size))


@pytest.mark.parametrize("size", [10, 2000])
def test_a_held_job_that_is_given_a_new_body_is_lost(here: World, client: Client, size: int) -> None:
    job_id = client.put()
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED ")
    engine = client.front_end.engine
    job = engine.holdings.jobs[job_id]
    delete_elsewhere(here)
    later: list[Later] = []
    client.front_end.inside(lambda: later.append(engine.update(job, b"x" * size, -1)))
    assert here.run(1.0, lambda: later[0].done)
    assert isinstance(later[0].error, JobGone)
    assert client.ask(b"delete %d\r\n" % job_id) == b"NOT_FOUND\r\n"

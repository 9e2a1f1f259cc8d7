"""Segments whose records have no room to grow, and full stores: what needs room is told so, once, and everything else goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from failing import always

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import DEAD, Full

if TYPE_CHECKING:
    from world import World
    from world_client import Client

OUT_OF_MEMORY = b"OUT_OF_MEMORY\r\n"


def cram(here: World, job_id: int) -> None:
    """Leave no room in the record of a job's segment, as burials with long reasons do."""
    here.cluster.record_max = here.cluster.segment(job_id >> SLOT_BITS).size()


@pytest.fixture
def due(here: World, client: Client) -> int:
    """A job that is due; as a ready one it would have a longer key."""
    job_id = client.put(b"x" * 200, delay=5)
    cram(here, job_id)
    here.run(10.0)
    return job_id


@pytest.fixture
def buried(here: World, client: Client) -> int:
    job_id = client.buried(b"x" * 200)
    cram(here, job_id)
    return job_id


def test_a_due_job_stays_delayed_in_all_looks(client: Client, due: int) -> None:
    assert client.stats(f"stats-job {due}")["state"] == "delayed"
    assert client.stats("stats-tube default")["current-jobs-delayed"] == "1"
    assert client.ask(b"peek-delayed\r\n").startswith(b"FOUND %d " % due)
    assert client.ask(b"delete %d\r\n" % due) == b"DELETED\r\n"


def test_a_due_job_counts_as_delayed_while_the_store_is_full(here: World, client: Client) -> None:
    job_id = client.put(delay=5)
    here.run(10.0)
    here.cluster.shift = always(Full("8"))  # type: ignore[method-assign]
    asked_at = here.time
    assert client.stats(f"stats-job {job_id}")["state"] == "delayed"
    assert client.stats("stats-tube default")["current-jobs-delayed"] == "1"
    assert client.stats("stats")["current-jobs-delayed"] == "1"
    assert client.ask(b"peek-delayed\r\n").startswith(b"FOUND %d " % job_id)
    assert client.ask(b"peek-ready\r\n") == b"NOT_FOUND\r\n"
    assert here.time - asked_at < 0.5


def test_a_due_job_is_reserved_once_there_is_room_and_asked_for_rarely_until_then(
    here: World, client: Client, due: int
) -> None:
    asked: list[int] = []
    shift = here.cluster.shift

    def noted(*arguments: Any) -> Any:
        asked.append(1)
        return shift(*arguments)

    here.cluster.shift = noted  # type: ignore[assignment, method-assign]
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    client.post(b"reserve\r\n")
    assert not here.run(100.0, client.answered)
    assert 0 < len(asked) < 10
    here.cluster.record_max *= 2
    assert here.run(35.0, client.answered)
    assert client.take().startswith(b"RESERVED %d " % due)


def test_jobs_of_other_segments_are_reserved_meanwhile(client: Client, due: int) -> None:
    other = client.put()
    assert other >> SLOT_BITS != due >> SLOT_BITS
    assert client.ask(b"reserve-with-timeout 0\r\n", 2.0).startswith(b"RESERVED %d " % other)


@pytest.mark.parametrize("command", [b"kick 1\r\n", b"kick-job %d\r\n", b"reserve-job %d\r\n"])
def test_a_change_that_needs_room_is_refused_and_the_job_is_not_told_as_gone(
    client: Client, buried: int, command: bytes
) -> None:
    assert client.ask(command % buried if b"%" in command else command) == OUT_OF_MEMORY
    assert client.stats(f"stats-job {buried}")["state"] == "buried"


def test_a_due_job_is_kicked_as_a_delayed_one(client: Client, due: int) -> None:
    assert client.ask(b"kick 1\r\n") == OUT_OF_MEMORY
    assert client.ask(b"kick-job %d\r\n" % due) == OUT_OF_MEMORY


def test_a_segment_that_puts_have_left_ends_with_its_last_job(here: World, client: Client, due: int) -> None:
    client.put()
    assert client.ask(b"delete %d\r\n" % due) == b"DELETED\r\n"
    here.run(120.0)
    assert here.cluster.segment(due >> SLOT_BITS).state == DEAD

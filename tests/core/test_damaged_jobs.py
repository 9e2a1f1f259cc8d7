"""Jobs that cannot be read, or whose bodies are lost: they are set aside, can be deleted, and keep nothing else from its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot
from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY

if TYPE_CHECKING:
    from world import Client, World

BODY = 5000
INTERNAL_ERROR = b"INTERNAL_ERROR\r\n"


def damage(here: World, job_id: int, queue: str) -> None:
    """Make what a segment keeps of a job unreadable."""
    entries = here.cluster.segment(job_id >> SLOT_BITS).queues[queue]
    (key,) = [key for key in entries if job_slot(key) == job_id & ((1 << SLOT_BITS) - 1)]
    entries[key] = b"?"


def without_body(here: World, client: Client) -> int:
    job_id = client.put(here.chance.randbytes(BODY))
    here.cluster._bodies.clear()
    return job_id


def test_a_ready_one_is_buried_when_its_turn_comes(here: World, client: Client) -> None:
    job_id, other = client.put(), client.put()
    damage(here, job_id, READY)
    assert client.ask(b"reserve-with-timeout 1\r\n").startswith(b"RESERVED %d " % other)
    assert client.stats("stats-tube default")["current-jobs-buried"] == "1"


def test_a_delayed_one_is_buried_when_it_is_due_and_the_others_become_ready(here: World, client: Client) -> None:
    job_id, other = client.put(delay=2), client.put(delay=3)
    damage(here, job_id, DELAYED)
    assert client.ask(b"reserve-with-timeout 9\r\n").startswith(b"RESERVED %d " % other)
    stats = client.stats("stats-tube default")
    assert (stats["current-jobs-buried"], stats["current-jobs-delayed"]) == ("1", "0")


def test_a_look_at_a_tube_ends_though_a_due_one_is_there(here: World, client: Client) -> None:
    damage(here, client.put(delay=1), DELAYED)
    here.run(2.0)
    assert client.stats("stats-tube default")["current-jobs-buried"] == "1"


def test_a_kick_passes_it_over(here: World, client: Client) -> None:
    damaged, other = client.buried(), client.buried()
    damage(here, damaged, BURIED)
    assert client.ask(b"kick 10\r\n") == b"KICKED 1\r\n"
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED %d " % other)


def test_it_keeps_no_delayed_job_from_being_kicked(here: World, client: Client) -> None:
    damage(here, client.buried(), BURIED)
    delayed = client.put(delay=100)
    assert client.ask(b"kick 10\r\n") == b"KICKED 1\r\n"
    assert client.ask(b"reserve\r\n").startswith(b"RESERVED %d " % delayed)


def test_the_job_after_it_is_what_a_peek_shows(here: World, client: Client) -> None:
    damaged = client.buried()
    # In a segment of its own.
    other_client = here.front_end().connect()
    here.run(3.0)
    other = other_client.buried()
    assert other >> SLOT_BITS != damaged >> SLOT_BITS
    damage(here, damaged, BURIED)
    assert client.ask(b"peek-buried\r\n").startswith(b"FOUND %d " % other)


@pytest.mark.parametrize("command", [b"peek", b"stats-job", b"kick-job", b"reserve-job"])
def test_it_is_there_but_cannot_be_told_of(here: World, client: Client, command: bytes) -> None:
    job_id = client.buried()
    damage(here, job_id, BURIED)
    assert client.ask(b"%b %d\r\n" % (command, job_id)) == INTERNAL_ERROR


def test_it_can_be_deleted_by_its_id(here: World, client: Client) -> None:
    job_id = client.buried()
    damage(here, job_id, BURIED)
    assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"
    assert client.ask(b"peek %d\r\n" % job_id) == b"NOT_FOUND\r\n"


# --- whose body is lost


def test_one_without_its_body_is_buried_when_its_turn_comes(here: World, client: Client) -> None:
    without_body(here, client)
    assert client.ask(b"reserve-with-timeout 0\r\n") == b"TIMED_OUT\r\n"
    assert client.stats("stats-tube default")["current-jobs-buried"] == "1"


@pytest.mark.parametrize("command", [b"peek", b"reserve-job"])
def test_a_command_that_tells_its_body_fails(here: World, client: Client, command: bytes) -> None:
    job_id = without_body(here, client)
    assert client.ask(b"%b %d\r\n" % (command, job_id)) == INTERNAL_ERROR


def test_everything_else_is_known_of_it(here: World, client: Client) -> None:
    job_id = without_body(here, client)
    assert client.stats(f"stats-job {job_id}")["state"] == "ready"
    assert client.ask(b"delete %d\r\n" % job_id) == b"DELETED\r\n"


def test_it_can_be_kicked_by_its_id(here: World, client: Client) -> None:
    job_id = client.buried(here.chance.randbytes(BODY))
    here.cluster._bodies.clear()
    assert client.ask(b"kick-job %d\r\n" % job_id) == b"KICKED\r\n"
    assert client.stats(f"stats-job {job_id}")["state"] == "ready"

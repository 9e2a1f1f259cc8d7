"""Kicks whose segment is busy, or whose outcome is not told at first: what is replied is true."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from failing import always, busy_for

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Busy, Refused, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Client, World

INTERNAL_ERROR = b"INTERNAL_ERROR\r\n"
KICKS = [b"kick 10\r\n", b"kick-job %d\r\n"]


def once(here: World, meanwhile: Callable[[Callable[..., Any], tuple[Any, ...]], None]) -> None:
    """Let the first kick be of unknown outcome, and something happen then."""
    shift = here.cluster.shift
    done: list[bool] = []

    def unanswered(*arguments: Any) -> Any:
        if done:
            return shift(*arguments)
        done.append(True)
        meanwhile(shift, arguments)
        raise Unknown("no answer")

    here.cluster.shift = unanswered  # type: ignore[method-assign]


@pytest.mark.parametrize("kick", KICKS)
def test_a_busy_segment_is_tried_again(here: World, client: Client, kick: bytes) -> None:
    job_id = client.buried()
    here.cluster.shift = busy_for(here, 1.0, here.cluster.shift)  # type: ignore[method-assign]
    assert client.ask(kick % job_id if b"%" in kick else kick).startswith(b"KICKED")
    assert client.stats(f"stats-job {job_id}")["state"] == "ready"


@pytest.mark.parametrize("kick", KICKS)
@pytest.mark.parametrize("error", [Busy("14"), Unknown("9")])
def test_one_that_never_succeeds_is_answered_in_time(here: World, client: Client, kick: bytes, error: Any) -> None:
    job_id = client.buried()
    here.cluster.shift = always(error)  # type: ignore[method-assign]
    asked_at = here.time
    assert client.ask(kick % job_id if b"%" in kick else kick) == INTERNAL_ERROR
    assert here.time - asked_at < 3.5


@pytest.mark.parametrize("applied", [True, False])
def test_one_whose_answer_was_lost_counts_once(here: World, client: Client, applied: bool) -> None:
    ids = [client.buried() for _ in range(3)]

    def meanwhile(shift: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if applied:
            shift(*arguments)

    once(here, meanwhile)
    assert client.ask(b"kick 10\r\n") == b"KICKED 3\r\n"
    assert all(client.stats(f"stats-job {job_id}")["kicks"] == "1" for job_id in ids)


def test_jobs_that_stayed_though_another_was_deleted_meanwhile_are_kicked_then(here: World, client: Client) -> None:
    first, second = client.buried(), client.buried()

    def meanwhile(*_: object) -> None:
        queue = here.cluster.segment(first >> SLOT_BITS).queues["buried"]
        del queue[min(queue)]

    once(here, meanwhile)
    assert client.ask(b"kick 10\r\n") == b"KICKED 1\r\n"
    assert client.stats(f"stats-job {second}")["state"] == "ready"


@pytest.mark.parametrize("kick", KICKS)
def test_one_whose_job_is_not_there_afterwards_is_not_told_as_done(here: World, client: Client, kick: bytes) -> None:
    # It may have been deleted, or moved to another tube, where it is still buried.
    job_id = client.buried()
    once(here, lambda *_: here.cluster.segment(job_id >> SLOT_BITS).queues["buried"].clear())
    assert client.ask(kick % job_id if b"%" in kick else kick) == INTERNAL_ERROR


@pytest.mark.parametrize("kick", KICKS)
def test_a_job_whose_kick_was_done_and_never_answered_comes_to_who_waits(
    here: World, client: Client, kick: bytes
) -> None:
    job_id = client.buried()
    others = [client.front_end.connect(), here.front_end().connect()]
    here.run(5.0)
    for other in others:
        other.post(b"reserve\r\n")
    here.run(5.0)
    shift = here.cluster.shift

    def unanswered(*arguments: Any) -> Any:
        with contextlib.suppress(Refused):
            shift(*arguments)
        raise Unknown("9: no answer")

    here.cluster.shift = unanswered  # type: ignore[method-assign]
    assert client.ask(kick % job_id if b"%" in kick else kick) == INTERNAL_ERROR
    assert here.run(1.0, lambda: any(other.answered() for other in others))

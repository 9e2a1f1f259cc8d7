"""Puts whose outcome is not known when their lease is gone: done once, or told to be unknown, never done twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.store.keys import SLOT_BITS
from beanspiked.engine.aerospike.store.seam import Busy, Damaged, StoreError, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Client, World

    from beanspiked.engine.aerospike.store.seam import Change, Segment

TWIN = b"put 0 0 60 4\r\nTWIN\r\n"


def fenced_in_doubt(here: World, client: Client, after: Callable[[], Segment | None], applied: bool = True) -> None:
    """Have a put be applied or not, and not answered; meanwhile its session is declared dead and its lease taken back.

    How the segment is read afterwards, the caller says.
    """
    number = client.put() >> SLOT_BITS
    membership = client.front_end.engine.membership
    apply, read = here.cluster.apply, here.cluster.read

    def fenced(of: int, lease: int, change: Change) -> Any:
        if not change.puts or of != number:
            return apply(of, lease, change)
        here.cluster.apply = apply  # type: ignore[method-assign]
        here.cluster.read = lambda of: after() if of == number else read(of)  # type: ignore[method-assign]
        if applied:
            apply(of, lease, change)
        here.cluster.resign(membership.session.number)
        here.cluster.reclaim(number, lease)
        membership._over()
        raise Unknown("9: no answer")

    here.cluster.apply = fenced  # type: ignore[method-assign]


def copies(here: World) -> int:
    """Return how often the job is in the store."""
    queues = [queue for record in here.cluster._segments.values() for queue in record.queues.values()]
    return sum(packed.endswith(b"TWIN") for queue in queues for packed in queue.values())


def test_a_put_that_was_done_is_not_done_again_though_one_read_fails(here: World, client: Client) -> None:
    read = here.cluster.read
    number = client.put() >> SLOT_BITS
    answers: list[Callable[[], Segment | None]] = [lambda: read(number), lambda: fail(Busy("11: unavailable"))]
    fenced_in_doubt(here, client, lambda: answers.pop()() if len(answers) > 1 else answers[0]())
    assert client.ask(TWIN).startswith(b"INSERTED ")
    assert copies(here) == 1


def test_a_put_that_was_not_done_is_done_elsewhere(here: World, client: Client) -> None:
    read = here.cluster.read
    number = client.put() >> SLOT_BITS
    fenced_in_doubt(here, client, lambda: read(number), applied=False)
    reply = client.ask(TWIN)
    assert reply.startswith(b"INSERTED ")
    assert int(reply.split()[1]) >> SLOT_BITS != number
    assert copies(here) == 1


@pytest.mark.parametrize("error", [Busy("11: unavailable"), Damaged("hwm is missing"), None])
def test_a_put_that_nobody_can_tell_of_is_unknown(here: World, client: Client, error: StoreError | None) -> None:
    fenced_in_doubt(here, client, lambda: fail(error))
    assert client.ask(TWIN) == b"INTERNAL_ERROR\r\n"
    here.run(10.0)
    assert copies(here) == 1


def fail(error: StoreError | None) -> None:
    """Fail, or find the segment gone."""
    if error is not None:
        raise error

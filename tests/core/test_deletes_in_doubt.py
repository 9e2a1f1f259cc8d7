"""Deletes by id that fail at first, or whose outcome is not told: what is replied is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from failing import always

from beanspiked.engine.aerospike.store.seam import Busy, Full, Unknown

if TYPE_CHECKING:
    from world import Client, World


@pytest.mark.parametrize(("applied", "reply"), [(False, b"DELETED\r\n"), (True, b"INTERNAL_ERROR\r\n")])
def test_one_whose_job_is_not_there_afterwards_is_not_told_as_done(
    here: World, client: Client, applied: bool, reply: bytes
) -> None:
    # It may have been moved to another tube, where it has another id.
    job_id = client.put()
    remove, asked = here.cluster.remove, []

    def unanswered(*arguments: Any) -> bool:
        asked.append(arguments)
        if len(asked) > 1:
            return remove(*arguments)
        if applied:
            remove(*arguments)
        raise Unknown("no answer")

    here.cluster.remove = unanswered  # type: ignore[method-assign]
    assert client.ask(b"delete %d\r\n" % job_id) == reply
    assert client.ask(b"peek %d\r\n" % job_id) == b"NOT_FOUND\r\n"


def test_a_full_store_is_told_and_no_doubt_where_there_is_none(
    here: World, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = client.put()
    here.cluster.remove = always(Full("8: the store is full"))  # type: ignore[method-assign]
    assert client.ask(b"delete %d\r\n" % job_id) == b"INTERNAL_ERROR\r\n"
    assert caplog.messages == ["a command was answered INTERNAL_ERROR: 8: the store is full"]


@pytest.mark.parametrize("others", [b"delete %d\r\n", b"reserve-job %d\r\n"])
def test_a_job_that_others_took_while_its_segment_was_busy_is_not_found(
    here: World, client: Client, others: bytes
) -> None:
    job_id = client.put()
    other = client.front_end.connect()
    remove = here.cluster.remove

    def busy(*_: object) -> bool:
        here.cluster.remove = remove  # type: ignore[method-assign]
        other.post(others % job_id)
        raise Busy("14: key busy")

    here.cluster.remove = busy  # type: ignore[method-assign]
    assert client.ask(b"delete %d\r\n" % job_id) == b"NOT_FOUND\r\n"

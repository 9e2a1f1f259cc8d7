"""Deletes by id whose outcome is not told at first: what is replied is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.store.seam import Unknown

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

"""A front-end whose writes get no answer while it joins: it leaves few records behind, however long that lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.store.seam import Unknown

if TYPE_CHECKING:
    from world import World


@pytest.mark.slow
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(("failing", "most"), [("heartbeat", 2), ("claim", 100)])
def test_few_sessions_are_listed_while_joins_get_no_answer(here: World, failing: str, most: int, applied: bool) -> None:
    living = here.front_end()
    here.run(15.0)
    number = living.engine.membership.session.number
    operation = getattr(here.cluster, failing)

    def unanswered(session: int, *arguments: Any) -> Any:
        if session != number and not applied:
            raise Unknown("9: no answer")
        outcome = operation(session, *arguments)
        if session != number:
            raise Unknown("9: applied, and not answered")
        return outcome

    setattr(here.cluster, failing, unanswered)
    joining = here.front_end()
    here.run(200.0)
    assert len(here.cluster._listed) <= most
    assert len(here.cluster._sessions) <= most
    setattr(here.cluster, failing, operation)
    client = joining.connect()
    assert client.ask(b"put 0 0 9 1\r\nx\r\n").startswith((b"INSERTED", b"INTERNAL_ERROR"))
    here.run(200.0)
    assert client.ask(b"reserve-with-timeout 0\r\n").startswith((b"RESERVED", b"TIMED_OUT"))
    assert len(here.cluster._listed) == 2


def test_a_front_end_alone_joins_though_its_first_claim_is_lost(here: World) -> None:
    claim = here.cluster.claim
    lost: list[int] = []

    def once_lost(session: int, *arguments: Any) -> Any:
        if not lost:
            lost.append(session)
            raise Unknown("9: no answer")
        return claim(session, *arguments)

    here.cluster.claim = once_lost  # type: ignore[method-assign]
    client = here.front_end().connect()
    here.run(5.0)
    assert lost
    client.put()

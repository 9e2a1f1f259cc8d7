"""The looks that come every few seconds, whatever the news tell: a bug in one of them does not end the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from depth import on_source

from beanspiked.engine.aerospike.tubes import view

if TYPE_CHECKING:
    from world import World


@on_source
@pytest.mark.planted_bug
def test_a_bug_in_one_of_many_looks_ends_neither_the_round_nor_the_later_ones(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "LOOK_AT_ONCE", 1)
    front_end = here.front_end()
    here.run(3.0)
    for name in (b"one", b"two", b"three"):
        client = front_end.connect()
        client.ask(b"watch %b\r\n" % name)
        client.post(b"reserve\r\n")
    here.run(1.0)
    scout = front_end.engine.scout
    look_at, looked = scout._look_at, []

    async def with_a_bug(tubes: list[Any]) -> Any:
        looked.append(tubes[0].name)
        if len(looked) == 1:
            raise RuntimeError("planted")
        return await look_at(tubes)

    monkeypatch.setattr(scout, "_look_at", with_a_bug)
    # News were missed, so all of them are looked at in one round.
    front_end.inside(scout.look_everywhere)
    here.run(35.0)
    assert {"one", "two", "three"} <= set(looked[1:])


@on_source
@pytest.mark.planted_bug
def test_a_bug_in_a_look_at_several_tubes_keeps_nobody_waiting(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = here.front_end()
    here.run(3.0)
    scout = front_end.engine.scout
    look_at = scout._look_at

    async def with_a_bug(tubes: list[Any]) -> Any:
        if len(tubes) > 1:
            raise RuntimeError("planted")
        return await look_at(tubes)

    monkeypatch.setattr(scout, "_look_at", with_a_bug)
    client = front_end.connect()
    for name in (b"one", b"two"):
        client.ask(b"watch %b\r\n" % name)
    assert client.ask(b"reserve-with-timeout 0\r\n", 1.0) == b"TIMED_OUT\r\n"

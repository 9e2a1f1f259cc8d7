"""What is remembered of the last hour."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from beanspiked.admin import history as subject

if TYPE_CHECKING:
    import pytest
    from conftest import Port


def remember(port: Port, points: int) -> None:
    """Let points pass, ten seconds each."""
    for _ in range(points):
        port.wire.advance(10)

        async def add() -> None:
            await port.application.history.add(await port.application.snapshots.get())

        asyncio.run(add())


def series(port: Port, query: str = "") -> Any:
    return port.json(f"/api/v1/history{query}")["series"]


def test_levels_are_kept_as_they_were_and_counters_as_rates(port: Port) -> None:
    client = port.wire.connect()
    remember(port, 1)
    for _ in range(20):
        client.put()
    remember(port, 2)
    assert series(port)["ready"] == [0, 20, 20]
    assert series(port)["puts"] == [0, 2, 0]
    assert series(port, "?tube=default")["ready"] == [0, 20, 20]
    assert series(port, "?tube=default")["puts"] == [0, 2, 0]


def test_a_tube_that_came_later_has_no_points_before(port: Port) -> None:
    remember(port, 2)
    client = port.wire.connect()
    client.send(b"use late\r\n")
    client.put()
    remember(port, 1)
    assert series(port, "?tube=late")["ready"] == [None, None, 1]


def test_what_is_older_than_an_hour_is_forgotten(port: Port) -> None:
    client = port.wire.connect()
    client.put()
    remember(port, 1)
    client.send(b"delete 1\r\n")
    remember(port, 360)
    assert series(port)["ready"] == [0] * 360


def test_growth_is_what_came_within_a_minute(port: Port) -> None:
    client = port.wire.connect()
    remember(port, 10)
    for _ in range(12):
        client.put()
    remember(port, 1)
    port.wire.advance(2)
    assert port.json("/api/v1/tubes")["tubes"][0]["growth"] == 12


def test_only_the_busiest_tubes_have_a_history(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_TUBES", 2)
    client = port.wire.connect()
    for name in (b"one", b"two"):
        client.send(b"use %b\r\n" % name)
        for _ in range(5):
            client.put()
    remember(port, 1)
    assert series(port, "?tube=default")["ready"] == []
    assert series(port, "?tube=one")["ready"] == [5]

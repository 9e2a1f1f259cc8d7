"""What the core's tests share; the rest is in tests/shared/simulated.py."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from journals import Stores
from simulated import HandJournal, Wire, keep
from suite import EITHER_IO, either_io
from world import Client, World

from beanspiked.engine.embedded import folder as folder_module
from beanspiked.server.sockets import Sockets, open_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def here() -> World:
    """A simulated cluster."""
    return World(1)


@pytest.fixture
def client(here: World) -> Client:
    """A client of its first front-end."""
    return here.front_end().connect()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def journal(wire: Wire) -> HandJournal:
    """A journal that the test commits by hand; the wire's engine keeps its changes there."""
    journal = HandJournal(wire)
    keep(wire, journal)
    return journal


@pytest.fixture
def make_wire() -> type[Wire]:
    return Wire


@pytest.fixture(params=EITHER_IO)
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    sockets = open_sockets(either_io(request.param))
    yield sockets
    sockets.close()


@pytest.fixture
def pairs() -> Iterator[Callable[[int], list[Pair]]]:
    """Makes pairs of connected sockets: ours, which does not block, and the client's."""
    made: list[Pair] = []

    def make(count: int) -> list[Pair]:
        new = [socket.socketpair() for _ in range(count)]
        for ours, _ in new:
            ours.setblocking(False)
        made.extend(new)
        return new

    yield make
    for pair in made:
        for sock in pair:
            sock.close()


@pytest.fixture
def native() -> Iterator[Sockets]:
    sockets = open_sockets(either_io("native"))
    yield sockets
    sockets.close()


@pytest.fixture
def stores(tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """A journal that folds its log, and keeps its database tidy, when a test says so."""
    monkeypatch.setattr(folder_module, "HOUSEKEEPING_SECONDS", 1e6)
    stores = Stores(tmp_path, wire)
    yield stores
    stores.close()

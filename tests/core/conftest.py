"""What the core's tests share; the rest is in tests/shared/simulated.py."""

import pytest
from simulated import Wire
from world import Client, World


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
def make_wire() -> type[Wire]:
    return Wire

"""What the core's tests share; the rest is in tests/shared/simulated.py."""

import pytest
from simulated import Wire


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def make_wire() -> type[Wire]:
    return Wire

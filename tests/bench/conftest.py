"""Servers and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benches import Bench, FakeServer, Server, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as one:
        yield one


@pytest.fixture
def other_server() -> Iterator[Server]:
    with running_server() as one:
        yield one


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    with FakeServer(request.param).closing() as one:
        yield one


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(capsys)

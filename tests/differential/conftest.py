"""Put the harness on the import path and start one pair of servers per module."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from depth import absent
from suite import COMMAND, either_io

sys.path.insert(0, str(Path(__file__).parent))

from twins.pair import Pair
from twins.process import reference_command


@pytest.fixture(scope="session")
def reference() -> str:
    """The path of Debian's beanstalkd; without one the whole folder is skipped, except in CI."""
    return reference_command() or absent("beanstalkd is not installed")


@pytest.fixture(scope="module", params=["memory", "memory, python", "journal"])
def pair(request: pytest.FixtureRequest, reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """beanstalkd in memory beside the server under test, in memory with either way to hear sockets, and with `-b`."""
    folder = tmp_path_factory.mktemp("journal") if request.param == "journal" else None
    io = either_io("native") if request.param == "memory" else "python" if request.param != "journal" else "auto"
    with Pair([reference], [*shlex.split(COMMAND), "--io", io], journal=folder) as both:
        yield both

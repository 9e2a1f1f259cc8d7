"""Commands against servers: ours, and Debian's beanstalkd where it is installed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from either import EITHER, Running, running

from beanspiked.cli import main
from beanspiked.client.address import Address
from beanspiked.client.blocking import Conn

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """The one line of an error."""
        (line,) = self.err.splitlines()
        return line


class Commands:
    """Runs commands in this process, with a server's address in the environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, stdin: bytes = b"", code: int = 0) -> Result:
        self._capsys.readouterr()
        # The command that serves blocks a signal and lets others end the process, which later tests and their servers would inherit.
        mask, interrupted = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGINT)
        kept = os.dup(0)
        with tempfile.TemporaryFile() as file:
            file.write(stdin)
            file.seek(0)
            os.dup2(file.fileno(), 0)
            try:
                ended = main([str(word) for word in words])
            finally:
                os.dup2(kept, 0)
                os.close(kept)
                signal.signal(signal.SIGINT, interrupted)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        result = Result(ended, *self._capsys.readouterr())
        assert result.code == code, result
        return result

    def states(self, tube: str) -> dict[str, int]:
        """How many jobs of a tube are in each state; states without any are left out."""
        told = next(iter(self("tubes", tube, "--json").json), {})
        counts = {name: told.get(f"current-jobs-{name}", 0) for name in ("ready", "reserved", "delayed", "buried")}
        return {name: count for name, count in counts.items() if count}


@pytest.fixture(scope="module", params=EITHER)
def shared_server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param) as server:
        yield server


@pytest.fixture
def server(shared_server: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A server that other tests of the module use, too: each has a tube of its own."""
    monkeypatch.setenv("BEANSPIKED_ADDR", shared_server.address)
    return shared_server


@pytest.fixture(params=EITHER)
def own_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server that no other test uses."""
    with running(request.param) as server:
        monkeypatch.setenv("BEANSPIKED_ADDR", server.address)
        yield server


@pytest.fixture
def tube(request: pytest.FixtureRequest) -> str:
    """The name of a tube that no other test uses."""
    return f"{secrets.token_hex(4)}-{request.node.originalname.removeprefix('test_').replace('_', '-')[:100]}"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture
def conn(server: Running) -> Iterator[Conn]:
    with Conn.connect(Address.parse(server.address)) as connected:
        yield connected

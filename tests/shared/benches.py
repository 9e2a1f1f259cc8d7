"""Servers for the tests of `beanspiked bench`: real ones, and ones with prepared answers."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from launcher import serving
from suite import COMMAND

import beanspiked
from beanspiked.bench import main

if TYPE_CHECKING:
    from collections.abc import Iterator


IN_A_PROCESS = [sys.executable, "-m", "beanspiked", "bench"]


class Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"

    def ask(self, commands: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(commands + b"quit\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def stats(self, command: str = "stats") -> dict[str, int]:
        lines = self.ask(f"{command}\r\n".encode()).decode().splitlines()
        pairs = (line.partition(": ")[::2] for line in lines)
        return {key: int(value) for key, value in pairs if value.isdigit()}

    def tubes_are(self, *names: str) -> bool:
        # The server may not have noticed closed connections yet. Until then the tubes that they used exist.
        for _ in range(250):
            lines = self.ask(b"list-tubes\r\n").decode().splitlines()
            if sorted(line[2:] for line in lines if line.startswith("- ")) == sorted(names):
                return True
            time.sleep(0.02)
        return False


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    with serving(shlex.split(COMMAND)) as server:
        yield Server(server.address[1])


class FakeServer:
    """Answers the choice of a tube properly, and everything else as prepared."""

    def __init__(self, answers: dict[bytes, bytes | None]) -> None:
        self.answers: dict[bytes, bytes | None] = {
            b"use": b"USING t\r\n",
            b"watch": b"WATCHING 2\r\n",
            b"ignore": b"WATCHING 1\r\n",
            **answers,
        }
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: set[bytes] = set()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                word = line.split()[0]
                self.heard.add(word)
                if word == b"put":
                    lines.read(int(line.split()[-1]) + 2)
                answer = self.answers.get(word, b"")
                if answer is None:
                    return
                connection.sendall(answer)

    @contextlib.contextmanager
    def closing(self) -> Iterator[FakeServer]:
        try:
            yield self
        finally:
            self.close()

    def close(self) -> None:
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)


def fakes(*answers: dict[bytes, bytes | None]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fake", answers, indirect=True)


class Bench:
    """Runs the command in this process and returns its output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str, status: int = 0) -> tuple[str, str]:
        got = main(list(args))
        printed = self._capsys.readouterr()
        assert got == status, printed
        return printed.out, printed.err

    def json(self, *args: str) -> Any:
        out, err = self(*args, "--json")
        assert not err
        return json.loads(out)

    def error(self, *args: str, status: int = 1) -> str:
        out, err = self(*args, status=status)
        assert not out
        assert err.startswith("beanspiked bench: ")
        assert err.count("\n") == 1
        return err


def environment() -> dict[str, str]:
    assert beanspiked.__file__
    return os.environ | {"PYTHONPATH": str(Path(beanspiked.__file__).parent.parent)}

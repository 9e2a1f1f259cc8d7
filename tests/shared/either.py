"""Servers for the tests that must pass on any server: ours, and Debian's beanstalkd if it is installed."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from launcher import free_port

from beanspiked.client import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from beanspiked.client.blocking import Conn

__all__ = ["COMMAND", "EITHER", "Person", "Running", "bodies", "bury", "command_of", "running"]

EITHER = ["beanspiked", pytest.param("beanstalkd", marks=pytest.mark.real)]
COMMAND = shlex.split(os.environ.get("BEANSPIKED_TEST_COMMAND", str(Path(sys.executable).with_name("beanspiked"))))


def command_of(kind: str) -> list[str]:
    """Return the command of a server. Skips if it is not installed."""
    if kind == "beanspiked":
        return COMMAND
    found = shutil.which("beanstalkd") or shutil.which("beanstalkd", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("beanstalkd is not installed, and CI=true asks for it")
        pytest.skip("beanstalkd is not installed")
    return [found]


class Running(NamedTuple):
    """A running server."""

    address: str
    process: subprocess.Popen[bytes]


class Person:
    """A user at a terminal."""

    def __init__(self, types: str) -> None:
        self._types = types

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self._types}\n"


@contextlib.contextmanager
def running(kind: str, *words: str, path: Path | None = None) -> Iterator[Running]:
    """Run a server while the block lasts."""
    where: str | tuple[str, int] = str(path) if path else ("127.0.0.1", free_port())
    at = ["-l", f"unix:{where}"] if isinstance(where, str) else ["-l", where[0], "-p", str(where[1])]
    process = subprocess.Popen([*command_of(kind), *at, *words], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX if path else socket.AF_INET) as probe:
                probe.connect(where)
                break
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not listen"
            time.sleep(0.005)
        yield Running(f"unix:{where}" if isinstance(where, str) else f"{where[0]}:{where[1]}", process)
    finally:
        process.terminate()
        process.wait(10)


def bury(conn: Conn, tube: str, number: int = 1) -> None:
    """Bury the next jobs of a tube."""
    watch_only(conn, tube)
    for _ in range(number):
        job = conn.ask(requests.reserve_with_timeout(0))
        assert job is not None
        conn.ask(requests.bury(job.id, priority=7))


def bodies(conn: Conn, tube: str) -> list[bytes]:
    """Take all ready jobs of a tube; return their bodies."""
    found = []
    watch_only(conn, tube)
    while (job := conn.ask(requests.reserve_with_timeout(0))) is not None:
        found.append(job.body)
        conn.ask(requests.delete(job.id))
    return found


def watch_only(conn: Conn, tube: str) -> None:
    conn.ask(requests.watch(tube))
    conn.ask(requests.ignore("default"))

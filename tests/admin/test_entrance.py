"""Accepting while there are no descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.admin import entrance
from beanspiked.admin.entrance import Entrance
from beanspiked.admin.options import AdminOptions
from beanspiked.admin.start import listen

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSE = 0.01


class Poor:
    """A listening socket whose next accepts fail."""

    def __init__(self) -> None:
        self.sock = listen(AdminOptions("127.0.0.1", 0))
        self.failures: list[int] = []

    def fileno(self) -> int:
        return self.sock.fileno()

    def accept(self) -> Any:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return self.sock.accept()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Poor]:
    monkeypatch.setattr(entrance, "ACCEPT_AGAIN_AFTER", PAUSE)
    made = Poor()
    yield made
    made.close()


def seconds_until_accepted(poor: Any) -> float:
    """Open the entrance, and tell how long a client waits."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        welcomed: asyncio.Future[socket.socket] = loop.create_future()
        opened = Entrance(poor, welcomed.set_result)
        with socket.create_connection(poor.sock.getsockname(), 5):
            began = loop.time()
            opened.open()
            (await asyncio.wait_for(welcomed, 5)).close()
            opened.close()
            return loop.time() - began

    return asyncio.run(run())


@pytest.mark.parametrize("failure", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_a_client_waits_and_each_try_is_followed_by_a_pause(poor: Poor, failure: int) -> None:
    poor.failures = [failure] * 5
    # Timers may be early by the clock's resolution.
    assert seconds_until_accepted(poor) > 5 * PAUSE - 0.005


def test_want_of_descriptors_is_logged_once(poor: Poor, caplog: pytest.LogCaptureFixture) -> None:
    poor.failures = [errno.EMFILE] * 5
    seconds_until_accepted(poor)
    [line, over] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "Too many open files" in line.getMessage()
    assert "accepted again" in over.getMessage()


def test_a_client_that_gave_up_delays_nobody(poor: Poor, caplog: pytest.LogCaptureFixture) -> None:
    poor.failures = [errno.ECONNABORTED] * 5
    seconds_until_accepted(poor)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

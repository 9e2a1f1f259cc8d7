"""Drain mode (§2.8)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from .wire import eventually

if TYPE_CHECKING:
    from .servers import Farm
    from .wire import Connection


def drained(farm: Farm, *flags: str) -> Connection:
    """Return a connection that has one job, held, to a server that has just begun to drain."""
    server = farm.start(*flags)
    connection = server.connect()
    connection.insert(b"before")
    connection.reserve(0)
    assert connection.stats()["draining"] == "false"
    server.signal(signal.SIGUSR1)
    assert eventually(lambda: connection.stats()["draining"] == "true")
    return connection


@pytest.mark.rule("2.8/refuses-put")
def test_a_draining_server_reads_the_body_and_refuses_the_job(farm: Farm) -> None:
    connection = drained(farm)
    connection.send(b"put 0 0 60 5\r\nab\r\nc\r\nlist-tube-used\r\n")
    assert connection.replies(2) == [b"DRAINING", b"USING default"]
    stats = connection.stats()
    assert (stats["cmd-put"], stats["total-jobs"], stats["current-jobs-ready"]) == (2, 1, 0)


@pytest.mark.rule("2.8/precedence")
def test_other_refusals_of_a_put_go_before_draining(farm: Farm) -> None:
    connection = drained(farm, "-z", "10")
    connection.send(b"put 0 0 60 11\r\n" + b"x" * 11 + b"\r\n")
    assert connection.reply() == b"JOB_TOO_BIG"
    connection.send(b"put 0 0 60 1\r\nabc")
    assert connection.reply() == b"EXPECTED_CRLF"
    assert connection.ask(b"put 0 0 60 x") == b"BAD_FORMAT"


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.8/rest-works")
def test_everything_but_put_works_while_draining(farm: Farm) -> None:
    connection = drained(farm)
    assert connection.ask(b"touch 1") == b"TOUCHED"
    assert connection.ask(b"release 1 0 0") == b"RELEASED"
    assert connection.ask_job(b"reserve") == (b"RESERVED", 1, b"before")
    assert connection.ask(b"bury 1 0") == b"BURIED"
    assert connection.ask(b"kick 1") == b"KICKED 1"
    assert connection.ask(b"watch other") == b"WATCHING 2"
    assert connection.ask(b"delete 1") == b"DELETED"


@pytest.mark.rule("2.8/for-good")
def test_a_second_signal_does_not_end_the_draining_nor_the_server(farm: Farm) -> None:
    server = farm.start()
    connection = server.connect()
    for _ in range(2):
        server.signal(signal.SIGUSR1)
        assert eventually(lambda: connection.stats()["draining"] == "true")
    assert connection.ask(b"put 0 0 60 1\r\na") == b"DRAINING"
    assert server.connect().ask(b"put 0 0 60 1\r\na") == b"DRAINING"

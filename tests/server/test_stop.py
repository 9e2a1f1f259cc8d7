"""How the server stops: soon, quietly for those who wait, and with nothing lost."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from lab.client import put
from lab.process import until

if TYPE_CHECKING:
    from pathlib import Path

    from lab.process import Servers

# The longest that a stop may take, by the design.
STOP_SECONDS = 5.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_closes_blocked_reserves_without_a_reply_and_exits_with_0(
    servers: Servers, number: signal.Signals
) -> None:
    server = servers.start()
    waiting = [server.connect() for _ in range(10)]
    for client, command in zip(waiting, [b"reserve\r\n", b"reserve-with-timeout 1000\r\n"] * 5, strict=True):
        client.send(command)
    idle = server.connect()
    assert until(lambda: idle.stats()["current-waiting"] == "10")
    begun = time.monotonic()
    server.process.send_signal(number)
    assert [client.is_closed_silently() for client in (*waiting, idle)] == [True] * 11
    assert server.wait() == 0
    assert time.monotonic() - begun < STOP_SECONDS


def test_held_jobs_are_ready_after_a_restart(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    holder = server.connect()
    ids = holder.put_all([b"held"] * 5)
    holder.ask_all([b"reserve"] * 5)
    waiting = server.connect()
    waiting.send(b"reserve\r\n")
    assert until(lambda: holder.stats()["current-waiting"] == "1")
    begun = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - begun < STOP_SECONDS
    assert waiting.is_closed_silently()
    client = servers.start("-b", journal).connect()
    assert [client.ask(b"reserve-with-timeout 0").number for _ in ids] == ids


def test_a_stop_keeps_how_often_jobs_were_reserved_and_timed_out(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal)
    holder, other = server.connect(), server.connect()
    job_id = holder.put(ttr=1)
    holder.ask(b"reserve")
    assert other.ask(b"reserve-with-timeout 10").number == job_id
    assert server.terminate() == 0
    stats = servers.start("-b", journal).connect().stats(b"stats-job %d" % job_id)
    assert (stats["reserves"], stats["timeouts"], stats["state"]) == ("2", "1", "ready")


def test_a_job_given_back_by_the_stop_goes_to_nobody_who_still_waits(servers: Servers) -> None:
    server = servers.start()
    holder, waiting = server.connect(), server.connect()
    holder.put()
    holder.ask(b"reserve")
    waiting.send(b"reserve\r\n")
    assert until(lambda: holder.stats()["current-waiting"] == "1")
    assert server.terminate() == 0
    assert waiting.is_closed_silently()


@pytest.mark.parametrize("flags", [[], ["-f", "60000"], ["-F"]], ids=["by default", "-f 60000", "-F"])
def test_replies_that_were_due_arrive_and_their_writes_are_kept(
    servers: Servers, journal: Path, flags: list[str]
) -> None:
    server = servers.start("-b", journal, *flags)
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.send(b"".join(put(b"%d" % number) + b"\r\n" for number in range(200)))
    clients[0].reply()
    server.process.send_signal(signal.SIGTERM)
    ids: list[int] = []
    for client in clients:
        while True:
            try:
                ids.append(client.reply().number)
            except (AssertionError, ConnectionResetError):
                break
    assert server.wait() == 0
    client = servers.start("-b", journal).connect()
    assert all(client.found(ids))
    assert not (journal / "jobs.sqlite-wal").exists() or client.ask(b"peek 1").word == b"FOUND"


def test_nobody_can_connect_while_the_server_drains(servers: Servers) -> None:
    server = servers.start("--drain-timeout", "30")
    client = server.connect()
    client.put()
    client.ask(b"reserve")
    server.process.send_signal(signal.SIGTERM)

    def is_refused() -> bool:
        try:
            server.dial().close()
        except OSError:
            return True
        return False

    assert until(is_refused)
    assert client.ask(b"delete 1").line == b"DELETED"
    assert server.wait() == 0


def test_drain_timeout_lets_those_who_hold_jobs_finish_and_closes_the_others(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal, "--drain-timeout", "60")
    busy, idle, waiting = server.connect(), server.connect(), server.connect()
    first, second, third = busy.put_all([b"x"] * 3)
    busy.ask_all([b"reserve"] * 3)
    waiting.send(b"reserve\r\n")
    assert until(lambda: idle.stats()["current-waiting"] == "1")
    server.process.send_signal(signal.SIGTERM)
    assert idle.is_closed_silently()
    assert waiting.is_closed_silently()
    assert server.process.poll() is None
    assert busy.ask(b"touch %d" % first).line == b"TOUCHED"
    assert busy.ask(b"delete %d" % first).line == b"DELETED"
    assert busy.ask(b"release %d 5 100" % second).line == b"RELEASED"
    assert busy.ask(b"bury %d 6" % third).line == b"BURIED"
    assert server.wait() == 0
    after = servers.start("-b", journal).connect()
    states = [after.stats(b"stats-job %d" % job_id)["state"] for job_id in (second, third)]
    assert states == ["delayed", "buried"]


@pytest.mark.slow
def test_drain_timeout_ends_the_patience(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal, "--drain-timeout", "1")
    client = server.connect()
    job_id = client.put()
    client.ask(b"reserve")
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert client.is_closed_silently()
    assert server.wait() == 0
    assert 1.0 <= time.monotonic() - begun < 1.0 + STOP_SECONDS
    assert servers.start("-b", journal).connect().ask(b"reserve").number == job_id


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_signal_ends_at_once(servers: Servers, journal: Path, second: signal.Signals) -> None:
    server = servers.start("-b", journal, "--drain-timeout", "1000")
    client, idle = server.connect(), server.connect()
    job_id = client.put()
    client.ask(b"reserve")
    server.process.send_signal(signal.SIGTERM)
    assert idle.is_closed_silently()
    assert server.process.poll() is None
    server.process.send_signal(second)
    server.wait()
    assert servers.start("-b", journal).connect().ask(b"reserve").number == job_id


def test_a_client_that_does_not_read_does_not_hold_the_stop_up(servers: Servers) -> None:
    server = servers.start()
    client = server.connect()
    client.put(b"x" * 60_000)
    client.send(b"peek 1\r\n" * 2000)
    begun = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - begun < STOP_SECONDS


def test_a_stop_while_the_journal_is_read_ends_the_server(servers: Servers, journal: Path) -> None:
    server = servers.start("-b", journal, wait=False)
    server.dial_when_listening().close()
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() in (0, -signal.SIGTERM)
    assert servers.start("-b", journal).connect().put() == 1


def test_a_drained_server_stops_as_well(servers: Servers) -> None:
    server = servers.start()
    client = server.connect()
    server.process.send_signal(signal.SIGUSR1)
    assert until(lambda: client.stats()["draining"] == "true")
    assert client.ask(put(b"x")).line == b"DRAINING"
    assert server.terminate() == 0


@pytest.mark.parametrize("flags", [[], ["--admin", "0"]], ids=["our own loop", "asyncio"])
def test_a_request_to_drain_that_comes_late_does_not_end_the_process(servers: Servers, flags: list[str]) -> None:
    server = servers.start(*flags)
    server.connect().put_all([b""] * 20000)
    server.process.send_signal(signal.SIGTERM)
    while server.process.poll() is None:
        server.process.send_signal(signal.SIGUSR1)
        time.sleep(0.0005)
    assert server.wait() == 0

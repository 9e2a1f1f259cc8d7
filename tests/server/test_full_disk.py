"""On a full disk puts are refused, nothing acknowledged is lost, no command hangs, and deletes make room again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from lab.client import put
from lab.process import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.client import Client
    from lab.disk import SmallDisk
    from lab.process import Servers

    MakeDisk = Callable[[int], SmallDisk]

pytestmark = [pytest.mark.real, pytest.mark.slow]

ALL_FLAGS = pytest.mark.parametrize("flags", [[], ["-f", "50"], ["-F"]], ids=["by default", "-f 50", "-F"])


def put_until_full(client: Client) -> dict[int, bytes]:
    """Put jobs of all sizes until many in a row are refused; return the others."""
    chance = random.Random(4)
    jobs: dict[int, bytes] = {}
    refused = 0
    while refused < 30:
        body = chance.randbytes(chance.choice((100, 5000, 60_000, 60_000)))
        reply = client.ask(put(body))
        assert reply.word in (b"INSERTED", b"OUT_OF_MEMORY"), reply.line
        if reply.word == b"INSERTED":
            jobs[reply.number] = body
            refused = 0
        refused += 1
    return jobs


def holds_all(client: Client, jobs: dict[int, bytes]) -> bool:
    replies = client.ask_all(b"peek %d" % job_id for job_id in jobs)
    return [reply.data for reply in replies] == list(jobs.values())


@ALL_FLAGS
def test_a_full_disk_loses_nothing_and_deletes_make_room(
    servers: Servers, small_disk: MakeDisk, flags: list[str]
) -> None:
    disk = small_disk(32)
    server = servers.start("-b", disk.directory, *flags, within=disk.within)
    client = server.connect()
    jobs = put_until_full(client)
    assert len(jobs) > 50
    refused = client.ask_all([put(b"x" * 60_000)] * 100, at_once=20)
    assert b"OUT_OF_MEMORY" in {reply.line for reply in refused}
    assert {reply.word for reply in refused} <= {b"INSERTED", b"OUT_OF_MEMORY"}
    jobs |= {reply.number: b"x" * 60_000 for reply in refused if reply.word == b"INSERTED"}
    assert holds_all(client, jobs)
    replies = client.ask_all(b"delete %d" % job_id for job_id in jobs)
    assert {reply.line for reply in replies} == {b"DELETED"}
    assert client.stats()["current-jobs-ready"] == "0"
    give_up_at = time.monotonic() + 10
    accepted = 0
    while accepted < 20:
        accepted += client.ask(put(b"x" * 30_000)).word == b"INSERTED"
        assert time.monotonic() < give_up_at, f"{accepted} puts accepted"


@ALL_FLAGS
def test_deletes_of_large_jobs_make_room_too(servers: Servers, small_disk: MakeDisk, flags: list[str]) -> None:
    disk = small_disk(60)
    server = servers.start("-b", disk.directory, "-z", "3000000", *flags, within=disk.within)
    client = server.connect()
    body = b"x" * 1_000_000
    jobs: list[int] = []
    while (reply := client.ask(put(body))).word == b"INSERTED":
        jobs.append(reply.number)
    assert reply.line == b"OUT_OF_MEMORY"
    assert {reply.line for reply in client.ask_all(b"delete %d" % job_id for job_id in jobs)} == {b"DELETED"}
    give_up_at = time.monotonic() + 10
    while client.ask(put(body)).word != b"INSERTED":
        assert time.monotonic() < give_up_at, "puts are still refused"
        time.sleep(0.05)


@ALL_FLAGS
def test_the_log_says_so_once_and_not_with_every_put(servers: Servers, small_disk: MakeDisk, flags: list[str]) -> None:
    disk = small_disk(32)
    server = servers.start("-b", disk.directory, *flags, within=disk.within)
    client = server.connect()
    put_until_full(client)
    before = server.log()
    assert "full" in before
    inserted = 0
    for _ in range(100):
        inserted += client.ask(put(b"x" * 60_000)).word == b"INSERTED"
        time.sleep(0.01)
    after = server.log()
    assert len(after.splitlines()) - len(before.splitlines()) <= 1 + inserted, after[-1000:]


@ALL_FLAGS
def test_a_crash_on_a_full_disk_loses_nothing(servers: Servers, small_disk: MakeDisk, flags: list[str]) -> None:
    disk = small_disk(32)
    first = servers.start("-b", disk.directory, *flags, within=disk.within)
    client = first.connect()
    jobs = put_until_full(client)
    gone = list(jobs)[:3]
    assert {client.ask(b"delete %d" % job_id).line for job_id in gone} == {b"DELETED"}
    for job_id in gone:
        del jobs[job_id]
    first.kill()
    second = servers.start("-b", disk.directory, *flags, within=disk.within)
    client = second.connect()
    assert holds_all(client, jobs)
    assert client.found(gone) == [False] * 3
    assert {reply.line for reply in client.ask_all(b"delete %d" % job_id for job_id in jobs)} == {b"DELETED"}
    second.kill()
    stats = servers.start("-b", disk.directory, *flags, within=disk.within).connect().stats()
    assert [stats[f"current-jobs-{state}"] for state in ("ready", "delayed", "buried")] == ["0"] * 3


def test_every_other_change_works_on_a_full_disk_or_is_refused_and_undone(
    servers: Servers, small_disk: MakeDisk
) -> None:
    disk = small_disk(32)
    server = servers.start("-b", disk.directory, within=disk.within)
    client = server.connect()
    jobs = list(put_until_full(client))
    changes = [
        (b"reserve-job %d\r\nrelease %d 1 0", b"RELEASED"),
        (b"reserve-job %d\r\nrelease %d 1 500", b"RELEASED"),
        (b"reserve-job %d\r\nbury %d 1", b"BURIED"),
    ]
    for number, (lines, _) in enumerate(changes):
        job_id = jobs[number]
        client.send(lines % (job_id, job_id) + b"\r\n")
        assert client.reply().word == b"RESERVED"
        word = client.reply().word
        state = client.stats(b"stats-job %d" % job_id)["state"]
        if word in (b"OUT_OF_MEMORY", b"INTERNAL_ERROR"):
            assert state == "reserved"
        else:
            assert (word, state) == (changes[number][1], ("ready", "delayed", "buried")[number])
    assert client.ask(b"kick 5").word in (b"KICKED", b"OUT_OF_MEMORY", b"INTERNAL_ERROR")
    assert client.ask(b"pause-tube default 0").word in (b"PAUSED", b"OUT_OF_MEMORY", b"INTERNAL_ERROR")
    assert {client.ask(b"delete %d" % job_id).line for job_id in jobs} == {b"DELETED"}


def test_a_disk_that_others_have_filled_takes_puts_again_when_they_make_room(
    servers: Servers, small_disk: MakeDisk
) -> None:
    disk = small_disk(32)
    server = servers.start("-b", disk.directory, within=disk.within)
    client = server.connect()
    kept = client.put_all([b"kept" * 1000] * 50)
    filler = disk.fill()
    lines = [client.ask(put(b"x" * 60_000)).line for _ in range(20)]
    assert lines[-1] == b"OUT_OF_MEMORY"
    assert {client.ask(b"delete %d" % job_id).line for job_id in kept[:25]} == {b"DELETED"}
    server.kill()
    client = servers.start("-b", disk.directory, within=disk.within).connect()
    assert client.found(kept) == [False] * 25 + [True] * 25
    filler.unlink()
    give_up_at = time.monotonic() + 10
    while client.ask(put(b"x" * 60_000)).word != b"INSERTED":
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_server_starts_on_a_disk_that_others_have_filled_after_its_stop(
    servers: Servers, small_disk: MakeDisk
) -> None:
    disk = small_disk(32)
    server = servers.start("-b", disk.directory, within=disk.within)
    kept = server.connect().put_all([b"kept" * 1000] * 50)
    assert server.terminate() == 0
    disk.fill()
    client = servers.start("-b", disk.directory, within=disk.within).connect()
    assert client.found(kept) == [True] * 50
    assert {client.ask(b"delete %d" % job_id).line for job_id in kept} == {b"DELETED"}


def test_a_server_that_cannot_make_its_journal_for_want_of_room_says_so(small_disk: MakeDisk) -> None:

    disk = small_disk(1)
    disk.fill()
    assert "full" in refuse(disk.directory, within=disk.within)

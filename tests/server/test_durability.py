"""A reply follows its sync: kill -9 alone cannot show it, for it loses nothing that was written."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.client import put
from lab.load import run_until_crash
from lab.model import World
from lab.process import until
from lab.syscalls import crash_and_read, early_puts, early_replies, read, tracer

if TYPE_CHECKING:
    from lab.client import Client
    from lab.process import Servers

pytestmark = pytest.mark.real


def change_one_by_one(client: Client) -> int:
    """Make every kind of change, each after the reply to the one before; return how many they are."""
    lines = []
    ids = [client.put(b"body %d" % number, delay=500 * (number == 5)) for number in range(6)]
    for job_id, delay in zip(ids[:2], (0, 600), strict=True):
        lines += [b"reserve-job %d" % job_id, b"release %d 7 %d" % (job_id, delay)]
    for job_id in ids[2:4]:
        lines += [b"reserve-job %d" % job_id, b"bury %d 3" % job_id]
    lines += [
        b"kick 1",
        b"kick-job %d" % ids[3],
        b"kick-job %d" % ids[5],
        b"pause-tube default 9",
        b"pause-tube default 0",
    ]
    lines += [b"reserve-job %d" % ids[4], b"delete %d" % ids[4], b"delete %d" % ids[3], b"delete %d" % ids[1]]
    words = [client.ask(line).word for line in lines]
    wanted = [b"RELEASED"] * 2 + [b"BURIED"] * 2 + [b"KICKED"] * 3 + [b"PAUSED"] * 2 + [b"DELETED"] * 3
    assert [word for word in words if word != b"RESERVED"] == wanted
    return len(ids) + len(wanted)


@pytest.mark.parametrize("flags", [[], ["-f", "0"]], ids=["by default", "-f 0"])
def test_every_reply_to_a_change_follows_the_sync_of_its_writes(
    servers: Servers, journal: Path, tmp_path: Path, strace: str, flags: list[str]
) -> None:
    server = servers.start("-b", journal, *flags, within=tracer(strace, tmp_path / "trace"))
    count = change_one_by_one(server.connect())
    calls = crash_and_read(server, tmp_path / "trace")
    assert sum(len(call.answers()) for call in calls) == count
    assert early_replies(calls) == []


def test_the_check_sees_replies_that_do_not_wait_for_their_sync(
    servers: Servers, journal: Path, tmp_path: Path, strace: str
) -> None:
    server = servers.start("-b", journal, "-F", within=tracer(strace, tmp_path / "trace"))
    count = change_one_by_one(server.connect())
    assert len(early_replies(crash_and_read(server, tmp_path / "trace"))) == count


@pytest.mark.parametrize("flag", ["-f0", "-F"])
def test_the_replies_of_a_group_follow_the_sync_of_each_of_its_writes(
    servers: Servers, journal: Path, tmp_path: Path, strace: str, flag: str
) -> None:
    server = servers.start("-b", journal, flag, within=tracer(strace, tmp_path / "trace"))
    clients = [server.connect() for _ in range(4)]
    bodies: dict[bytes, bytes] = {}
    for turn in range(5):
        portions = [[b"<%d of %d in %d>" % (number, which, turn) for number in range(16)] for which in range(4)]
        for client, portion in zip(clients, portions, strict=True):
            client.send(b"".join(put(body) + b"\r\n" for body in portion))
        for client, portion in zip(clients, portions, strict=True):
            bodies.update({client.reply().line: body for body in portion})
    assert len(bodies) == 320
    early = early_puts(crash_and_read(server, tmp_path / "trace"), bodies)
    assert len(early) == (0 if flag == "-f0" else 320)


def test_with_f_a_timer_syncs_what_no_further_command_follows(
    servers: Servers, journal: Path, tmp_path: Path, strace: str
) -> None:
    trace = tmp_path / "trace"
    server = servers.start("-b", journal, "-f", "50", within=tracer(strace, trace))
    server.connect().put(b"the last for now")

    def delay() -> float | None:
        calls = read(trace)
        written = [call for call in calls if call.writes_journal() and b"the last for now" in call.data]
        synced = [call for call in calls if written and call.syncs_journal() and call.begun > written[0].done]
        return synced[0].begun_at - written[0].begun_at if synced else None

    assert until(lambda: delay() is not None, 10)
    print(f"synced {1000 * (delay() or 0):.1f} ms after it was written")


def test_with_f_a_steady_load_does_not_put_the_sync_off(
    servers: Servers, journal: Path, tmp_path: Path, strace: str
) -> None:
    trace = tmp_path / "trace"
    server = servers.start("-b", journal, "-f", "50", within=tracer(strace, trace))
    client = server.connect()
    stop_at = time.monotonic() + 0.6
    while time.monotonic() < stop_at:
        client.put()
    calls = crash_and_read(server, trace)
    first = next(call for call in calls if call.answers())
    writes = [call for call in calls if call.writes_journal() and call.begun > first.begun]
    syncs = [call for call in calls if call.syncs_journal() and call.begun > first.begun]
    assert 2 <= len(syncs) < len(writes) / 4


def test_with_capital_f_no_commit_is_synced(servers: Servers, journal: Path, tmp_path: Path, strace: str) -> None:
    server = servers.start("-b", journal, "-F", within=tracer(strace, tmp_path / "trace"))
    client = server.connect()
    client.put(b"first")
    client.put_all([b"x" * 100] * 300)
    time.sleep(0.2)
    calls = crash_and_read(server, tmp_path / "trace")
    first = next(call for call in calls if b"first" in call.data and call.writes_journal())
    assert not [call for call in calls if call.name in ("fsync", "fdatasync") and call.begun > first.begun]


# --- power losses


@pytest.fixture
def power_loss(compiler: str, tmp_path: Path, journal: Path) -> dict[str, str]:
    """An environment in which `tmp_path/synced` holds what a power loss would leave of the journal."""
    library = tmp_path / "synced.so"
    source = Path(__file__).parent / "lab" / "synced.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    (tmp_path / "synced").mkdir()
    return {"LD_PRELOAD": str(library), "SYNCED_OF": str(journal), "SYNCED_TO": str(tmp_path / "synced")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_acknowledged_change_survives_a_power_loss(
    servers: Servers, journal: Path, tmp_path: Path, power_loss: dict[str, str], seed: int
) -> None:
    world = World()
    server = servers.start("-b", journal, environ=power_loss)
    run_until_crash(server, world, random.Random(seed), 4, 0.5)
    world.reconcile(servers.start("-b", tmp_path / "synced").connect())
    assert world.acknowledged > 20


@pytest.mark.parametrize("flags", [["-F"], ["-f", "60000"]], ids=["-F", "-f 60000"])
@pytest.mark.parametrize("stopped", [False, True], ids=["killed", "stopped"])
def test_a_power_loss_takes_what_was_not_synced_and_a_clean_stop_syncs_everything(
    servers: Servers, journal: Path, tmp_path: Path, power_loss: dict[str, str], stopped: bool, flags: list[str]
) -> None:
    server = servers.start("-b", journal, *flags, environ=power_loss)
    ids = server.connect().put_all([b"x"] * 20)
    if stopped:
        assert server.terminate() == 0
    else:
        server.kill()
    after = servers.start("-b", tmp_path / "synced").connect()
    assert after.found(ids) == [stopped] * 20


def test_with_f_a_power_loss_takes_no_more_than_the_last_moments(
    servers: Servers, journal: Path, tmp_path: Path, power_loss: dict[str, str]
) -> None:
    server = servers.start("-b", journal, "-f", "50", environ=power_loss)
    client = server.connect()
    ids = [client.put(b"%d" % number) for number in range(20)]
    synced = tmp_path / "synced" / "log.0"
    assert until(lambda: synced.exists() and b"default19" in synced.read_bytes())
    server.kill()
    after = servers.start("-b", tmp_path / "synced").connect()
    assert after.found(ids) == [True] * 20

"""work: a command for each job."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from either import COMMAND, running

from beanspiked.client import requests
from beanspiked.client.address import Address
from beanspiked.client.blocking import Conn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Commands

pytestmark = pytest.mark.usefixtures("server")


@contextlib.contextmanager
def working(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `work` in a process of its own while the block lasts."""
    with subprocess.Popen([*COMMAND, "work", *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def eventually(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where commands write what they do, a line each."""
    path = tmp_path / "notes"
    path.touch()
    return path


def test_a_job_whose_command_succeeds_is_deleted(cli: Commands, tube: str, tmp_path: Path) -> None:
    ids = cli("put", tube, "a", "b\nc").out.split()
    cli("work", tube, "--until-empty", "--", "sh", "-c", f'cat > {tmp_path}/"$BEANSPIKED_TUBE.$BEANSPIKED_JOB_ID"')
    assert [(tmp_path / f"{tube}.{job_id}").read_text() for job_id in ids] == ["a", "b\nc"]
    assert cli.states(tube) == {}


def test_a_job_whose_command_fails_is_buried(cli: Commands, tube: str) -> None:
    (job_id,) = cli("put", tube, "a", "--pri", "3").out.split()
    assert cli("work", tube, "-u", "--", "sh", "-c", "exit 9").said == f"beanspiked: job {job_id}: exit code 9; buried"
    (told,) = cli("peek", tube, "--json").json
    assert (told["state"], told["pri"]) == ("buried", 3)


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (35, "signal 35")])
def test_a_command_that_a_signal_ends_has_failed(cli: Commands, tube: str, number: int, name: str) -> None:
    cli("put", tube, "a")
    assert cli("work", tube, "-u", "--", "sh", "-c", f"kill -{number} $$").said.endswith(f"ended by {name}; buried")


def test_a_command_need_not_read_its_job(cli: Commands, tube: str) -> None:
    cli("put", tube, "--whole", stdin=b"x" * 65535)
    assert re.search(r"done in \d+\.\d s$", cli("work", tube, "-u", "-v", "--", "true").said)


def test_a_failed_job_is_tried_again_later_and_later(cli: Commands, conn: Conn, tube: str, notes: Path) -> None:
    (job_id,) = cli("put", tube, "a").out.split()
    said = []
    for _ in range(3):
        retry = ["--retry", "2", "--backoff", "10"]
        script = f"echo $BEANSPIKED_RELEASES >> {notes}; exit 1"
        said.append(cli("work", tube, "-u", *retry, "--", "sh", "-c", script).said.partition("; ")[2])
        conn.ask(requests.use(tube))
        conn.ask(requests.peek_buried()) or conn.ask(requests.kick_job(int(job_id)))
    assert said == ["it is tried again in 10 s", "it is tried again in 20 s", "buried"]
    assert notes.read_text().split() == ["0", "1", "2"]


def test_a_command_that_takes_too_long_is_ended(cli: Commands, tube: str) -> None:
    cli("put", tube, "a")
    assert cli("work", tube, "-u", "--timeout", "1", "--", "sleep", "60").said.endswith("took longer than 1 s; buried")


def test_a_job_is_touched_while_its_command_runs(cli: Commands, tube: str) -> None:
    cli("put", tube, "a", "--ttr", "1")
    # A job that is not held any more could not be buried.
    assert cli("work", tube, "-u", "--", "sh", "-c", "sleep 2.5; exit 1").said.endswith("exit code 1; buried")
    assert cli("peek", tube, "--json").json[0]["timeouts"] == 0


@pytest.mark.slow
def test_a_job_is_touched_while_its_command_is_ended(cli: Commands, tube: str) -> None:
    cli("put", tube, "a", "--ttr", "1")
    said = cli("work", tube, "-u", "--timeout", "1", "--", "sh", "-c", "trap '' TERM; sleep 2.5").said
    assert said.endswith("took longer than 1 s; buried")
    assert cli("peek", tube, "--json").json[0]["timeouts"] == 0


@pytest.mark.slow
def test_a_job_is_touched_while_a_signal_ends_its_command(cli: Commands, tube: str, notes: Path) -> None:
    cli("put", tube, "a", "--ttr", "1")
    with working(tube, "--", "sh", "-c", f"trap '' TERM; echo x >> {notes}; sleep 2") as process:
        eventually(notes.read_text)
        process.terminate()
        assert process.wait(20) == 0
    eventually(lambda: cli.states(tube) == {"ready": 1})
    assert cli("peek", tube, "--json").json[0]["timeouts"] == 0


def test_so_many_commands_run_at_a_time(cli: Commands, tube: str, notes: Path) -> None:
    cli("put", tube, *"abc")
    # Each waits until all three are there.
    script = f'echo x >> {notes}; until [ "$(wc -l < {notes})" = 3 ]; do sleep 0.02; done'
    cli("work", tube, "-u", "-j", "3", "--timeout", "20", "--", "sh", "-c", script)
    assert cli.states(tube) == {}


def test_several_tubes_are_worked_on(cli: Commands, tube: str) -> None:
    cli("put", f"{tube}-1", "a")
    cli("put", f"{tube}-2", "a")
    cli("work", f"{tube}-1", f"{tube}-2", "-u", "--", "true")
    assert cli.states(f"{tube}-1") == cli.states(f"{tube}-2") == {}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGQUIT, 131), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_commands_and_gives_their_jobs_back(
    cli: Commands, tube: str, notes: Path, number: signal.Signals, code: int
) -> None:
    cli("put", tube, "a", "b")
    script = f"trap 'echo ended >> {notes}; exit 1' TERM; echo $$ >> {notes}; while :; do sleep 0.1; done"
    with working(tube, "-j", "3", "--", "sh", "-c", script) as process:
        eventually(lambda: len(notes.read_text().split()) == 2)
        pids = map(int, notes.read_text().split())
        process.send_signal(number)
        assert process.wait(20) == code
    assert notes.read_text().split().count("ended") == 2
    assert all(is_gone(pid) for pid in pids)
    assert cli.states(tube) == {"ready": 2}
    # As if nobody had had them.
    told = cli("peek", tube, "--json").json[0]
    assert (told["releases"], told["timeouts"], told["buries"]) == (0, 0, 0)


def test_the_shell_and_the_kernel_both_tell_that_the_terminal_is_closed(cli: Commands, tube: str, notes: Path) -> None:
    cli("put", tube, "a")
    script = f"trap 'echo ending >> {notes}; sleep 0.5; echo ended >> {notes}; exit 1' TERM; echo x >> {notes}; while :; do sleep 0.1; done"
    with working(tube, "--", "sh", "-c", script) as process:
        eventually(notes.read_text)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "ending" in notes.read_text())
        process.send_signal(signal.SIGHUP)
        process.wait(20)
    assert "ended" in notes.read_text()


def test_with_nohup_it_goes_on_when_the_terminal_is_closed(cli: Commands, tube: str, notes: Path) -> None:
    cli("put", tube, "a")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with working(tube, "--", "sh", "-c", f"echo x >> {notes}; sleep 60") as process:
            eventually(notes.read_text)
            process.send_signal(signal.SIGHUP)
            process.terminate()
            assert process.wait(20) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_all_at_once(cli: Commands, tube: str, notes: Path) -> None:
    cli("put", tube, "a")
    script = f"trap 'echo ending >> {notes}' TERM; echo $$ >> {notes}; while :; do sleep 0.1; done"
    with working(tube, "--", "sh", "-c", script) as process:
        eventually(notes.read_text)
        process.terminate()
        eventually(lambda: "ending" in notes.read_text())
        process.terminate()
        assert process.wait(3) == 128 + signal.SIGTERM
    pid = int(notes.read_text().split()[0])
    eventually(lambda: is_gone(pid))
    eventually(lambda: cli.states(tube) == {"ready": 1})


def test_when_the_server_goes_away_commands_are_ended_and_it_is_waited_for(
    tube: str, notes: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    script = f"echo $$ >> {notes}; read body; [ $body = short ] || exec sleep 60"
    with contextlib.ExitStack() as stack:
        with running("beanspiked", path=path) as server:
            where = Address.parse(server.address)
            with Conn.connect(where) as conn:
                conn.ask(requests.use(tube))
                conn.ask(requests.put(b"long\n"))
            process = stack.enter_context(working("-a", server.address, tube, "--", "sh", "-c", script))
            eventually(notes.read_text)
        pid = int(notes.read_text())
        eventually(lambda: is_gone(pid))
        with running("beanspiked", path=path), Conn.connect(where) as conn:
            conn.ask(requests.use(tube))
            job_id = conn.ask(requests.put(b"short\n"))
            eventually(lambda: conn.ask(requests.stats_job(job_id)) is None)
            process.terminate()
            assert process.wait(20) == 0
            assert process.stderr is not None
            gone, again = process.stderr.read().splitlines()
    assert gone.endswith("the server closed the connection; trying again until it is back")
    assert again.startswith("beanspiked: connected again to ")


def test_a_job_that_somebody_deletes_ends_its_command(
    cli: Commands, tube: str, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ours alone: beanstalkd now and then misses the deadline of a client that is silent.
    with running("beanspiked") as server:
        monkeypatch.setenv("BEANSPIKED_ADDR", server.address)
        cli("put", tube, "a", "--ttr", "1")
        with working(tube, "--", "sh", "-c", f"echo $$ >> {notes}; exec sleep 60") as process:
            eventually(notes.read_text)
            # It cannot touch meanwhile.
            process.send_signal(signal.SIGSTOP)
            eventually(lambda: cli.states(tube) == {"ready": 1})
            cli("clear", tube, "--yes")
            process.send_signal(signal.SIGCONT)
            assert process.stderr is not None
            assert "its time to run was over" in process.stderr.readline()
            pid = int(notes.read_text())
            eventually(lambda: is_gone(pid))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["t"], 5, "the command is missing; give it after --"),
        (["t", "--"], 5, "the command is missing"),
        (["--", "true"], 5, "TUBE"),
        (["t", "-j", "0", "--", "true"], 5, "at least 1"),
        (["t", "--", "no-such-command"], 1, "no-such-command: command not found"),
        (["t", "-a", "127.0.0.1:1", "--", "true"], 1, "cannot connect to 127.0.0.1:1"),
    ],
)
def test_what_cannot_work_is_said(cli: Commands, words: list[str], code: int, said: str) -> None:
    assert said in cli("work", *words, code=code).err


def test_a_command_that_cannot_be_started_gives_its_job_back(cli: Commands, tube: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    cli("put", tube, "a")
    assert "No such file" in cli("work", tube, "-u", "--", os.fspath(program), code=1).said
    eventually(lambda: cli.states(tube) == {"ready": 1})

"""How the command line answers people: help, mistakes, completion, pipes, Ctrl-C."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from depth import absent
from either import COMMAND

from beanspiked.cli import COMMANDS
from beanspiked.client import requests

if TYPE_CHECKING:
    from conftest import Commands
    from either import Running

    from beanspiked.client.blocking import Conn

OF_THE_WIRE = [name for name in COMMANDS if name not in ("bench", "backup", "check", "cleanup", "completion")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Commands, command: str) -> None:
    shown = cli(command, "-h").out
    assert f"beanspiked {command}" in shown
    if command in OF_THE_WIRE:
        assert shown.startswith(f"Usage: beanspiked {command}")
        assert "examples:\n  " in shown
        assert "BEANSPIKED_ADDR" in shown


def test_help_names_every_command(cli: Commands) -> None:
    lines = cli("-h").out.splitlines()
    assert [name for name in COMMANDS if any(line.startswith(f" {name} ") for line in lines)] == list(COMMANDS)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("stast", "stats"),
        ("kik", "kick"),
        ("complete", "completion"),
        ("--lisen x", "--listen"),
        ("put t --priorty 1", "--priority"),
        ("tubes --shrt=ready", "--sort"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(cli: Commands, words: str, meant: str) -> None:
    wrong, where = cli(*words.split(), code=5).err.splitlines()
    assert wrong.startswith("beanspiked: ")
    assert f"(do you mean {meant}?)" in wrong
    assert where.endswith("-h for help")


@pytest.mark.parametrize("words", ["nonsense", "put", "put a/b\tc", "peek 99999999999999999999", "jobs t --priority 9-1", "jobs t -i 9-1",
                                   "pause t soon", "move a", "tubes -s size", "stats -a localhost", "put t -d 99999999999"])  # fmt: skip
def test_a_mistake_is_one_line(cli: Commands, words: str) -> None:
    wrong, where = cli(*words.split(" "), code=5).err.splitlines()
    assert wrong.startswith("beanspiked: ")
    assert wrong.isprintable()
    assert where.endswith("-h for help")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("put", "the following arguments are required: TUBE"),
        ("stats -a h:99999", "argument -a/--address: 'h:99999': the port must be a number from 1 to 65535"),
    ],
)
def test_a_mistake_is_named_as_it_is(cli: Commands, words: str, wrong: str) -> None:
    assert cli(*words.split(), code=5).err.splitlines()[0] == f"beanspiked: {wrong}"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("a --delay 1h b", ["a", "b"]),
        ("--delay 1h -- -x b", ["-x", "b"]),
        ("-- a --", ["a", "--"]),
    ],
)
@pytest.mark.usefixtures("server")
def test_options_stand_among_other_words_and_none_behind_dashes(
    cli: Commands, tube: str, words: str, given: list[str]
) -> None:
    ids = cli("put", tube, *words.split()).out.split()
    assert [cli("peek", "--body", job_id).out for job_id in ids] == given


@pytest.mark.usefixtures("server")
def test_a_tube_may_stand_behind_dashes(cli: Commands, tube: str) -> None:
    cli("put", "--", tube, "-a")
    cli("kick", tube, "--delayed", "5")
    cli("work", f"{tube}-2", "--until-empty", tube, "--", "grep", "-q", "-e", "-a")
    assert cli.states(tube) == {}


@pytest.mark.parametrize(
    "command", ["stats", "tubes", "put t a", "clear t -y", "top --once", "wait t", "work t -- true"]
)
def test_without_a_server_it_is_said_how_to_name_one(cli: Commands, command: str) -> None:
    name, *words = command.split()
    said = cli(name, "-a", "127.0.0.1:1", *words, code=1).said
    assert said == (
        "beanspiked: cannot connect to 127.0.0.1:1: connection refused; set the server's address with -a or BEANSPIKED_ADDR"
    )


def test_a_flag_wins_over_the_environment(cli: Commands, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEANSPIKED_ADDR", "127.0.0.1:1")
    cli("stats", "-a", server.address)


def test_a_closed_pipe_ends_it_quietly(server: Running) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "tubes"], stdout=write, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    assert server.process.poll() is None


# What prints without a server.
PRINTING = [["-h"], ["-v"], ["tubes", "-h"], ["completion", "bash"], ["check", "-h"], ["cleanup", "-h"]]


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_no_command_minds_a_closed_pipe(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *words], stdout=write, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["-h"], ["-v"], ["check", "-h"]], ids=" ".join)
def test_a_full_disk_is_said_whatever_is_printed(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, timeout=20, check=False)
    assert (done.returncode, done.stderr.decode().strip()) == (
        1,
        "beanspiked: input or output: No space left on device",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("words", [["tubes"], ["bench", "--jobs", "50"]], ids=" ".join)
def test_a_full_disk_is_said(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (1, b"beanspiked: input or output: No space left on device\n")


@pytest.mark.usefixtures("server")
def test_the_exit_code_is_the_same_when_nobody_reads_the_errors(tube: str) -> None:
    read, write = os.pipe()
    os.close(read)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([*COMMAND, "stats", tube], stderr=write, env=environ, timeout=20, check=False)
    os.close(write)
    assert done.returncode == 1


def test_ctrl_c_ends_it_without_a_traceback(conn: Conn, tube: str) -> None:
    conn.ask(requests.use(tube))
    conn.ask(requests.put(b""))
    before = conn.ask(requests.stats())["cmd-stats-tube"]
    with subprocess.Popen([*COMMAND, "wait", tube], stderr=subprocess.PIPE) as process:
        # Once it has asked for the first time.
        while conn.ask(requests.stats())["cmd-stats-tube"] == before:
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, b"")


@pytest.mark.usefixtures("server")
def test_large_numbers_have_commas(cli: Commands, tube: str) -> None:
    cli("put", tube, "-q", stdin=b"x\n" * 1234)
    assert cli("clear", tube, "-y").out == "1,234 jobs deleted\n"


def test_commands_import_no_server() -> None:
    code = "import sys; from beanspiked.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "stats", "-a", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    ours = {name for name in done.stdout.split() if name.startswith("beanspiked.")}
    assert "beanspiked.client.core" in ours
    assert not any(name.startswith(("beanspiked.server", "beanspiked.engine", "beanspiked.library")) for name in ours)


# --- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(cli: Commands, shell: str) -> None:
    script = cli("completion", shell).out
    for name in COMMANDS:
        assert name in script
    if shutil.which(shell) is None:
        absent(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=20)


def completed(cli: Commands, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    command = " ".join(map(shlex.quote, COMMAND))
    script = cli("completion", "bash").out
    line = " ".join(map(shlex.quote, ["beanspiked", *words]))
    ask = f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _beanspiked; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", f'beanspiked() {{ {command} "$@"; }}\ncompopt() {{ COMPREPLY+=("$*"); }}\n{script}\n{ask}'],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.usefixtures("server")
def test_bash_completes_commands_options_and_tubes(cli: Commands, tube: str) -> None:
    cli("put", tube, "a")
    assert completed(cli, "st") == ["stats"]
    assert completed(cli, "p") == ["peek", "put", "pause"]
    assert completed(cli, "kick", "--de") == ["--delayed"]
    assert completed(cli, "--drain") == ["--drain-timeout"]
    assert completed(cli, "kick", tube[:12]) == [tube]
    assert completed(cli, "completion", "z") == ["zsh"]
    assert "true" in completed(cli, "work", tube, "--", "tru")


def test_bash_itself_completes_files(cli: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my journal").mkdir()
    assert completed(cli, "backup", "my") == ["-o default"]
    assert completed(cli, "work", "emails", "--", "cat", "my") == ["-o default"]
    assert completed(cli, "work", "emails", "--", "./my") == ["-o default"]


def test_fish_gets_short_options_of_one_letter(cli: Commands) -> None:
    short = re.findall(r" -s (\S+)", cli("completion", "fish").out)
    assert {"b", "V"} <= set(short)
    assert {len(letter) for letter in short} == {1}


def test_zsh_completes_the_command_of_work_as_if_it_stood_alone(cli: Commands) -> None:
    zsh = shutil.which("zsh") or absent("zsh is not installed")
    script = cli("completion", "zsh").out
    stubs = 'compdef() { :; }\n_normal() { print "$CURRENT $words"; }'
    ask = "words=(beanspiked work emails -- git -- comm); CURRENT=7; _beanspiked"
    done = subprocess.run(
        [zsh, "-f", "-c", f"{stubs}\n{script}\n{ask}"], capture_output=True, text=True, check=True, timeout=20
    )
    assert (done.stdout, done.stderr) == ("3 git -- comm\n", "")


@pytest.mark.usefixtures("server")
def test_completion_carries_out_no_tubes_name(cli: Commands, tube: str, tmp_path: Path) -> None:
    # All its characters are allowed.
    evil = f"{tube}$(touch$IFS{tmp_path}/done)"
    cli("put", evil, "a")
    (offered,) = completed(cli, "kick", tube)
    assert not (tmp_path / "done").exists()
    # What is offered is the name again when the shell reads it.
    done = subprocess.run(
        ["bash", "-c", f"printf %s {offered}"], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == evil
    assert not (tmp_path / "done").exists()


def test_a_cluster_has_no_journal_to_back_up(cli: Commands) -> None:
    ended = cli("backup", "aerospike://127.0.0.1:3000/test", "copy", code=5)
    assert "a cluster has no journal" in ended.err

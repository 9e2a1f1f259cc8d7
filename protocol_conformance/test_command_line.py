"""Flags, exit status and signals of the server program (§2.12)."""

from __future__ import annotations

import os
import pwd
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .launcher import free_port
from .wire import Endpoint, eventually

if TYPE_CHECKING:
    from .servers import Farm

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
LARGEST_SIZE = 1 << 30


@pytest.mark.rule("2.12/help")
def test_h_shows_the_flags_and_succeeds(farm: Farm) -> None:
    done = farm.command.run("-h")
    assert done.returncode == 0
    for flag in ("-b", "-f", "-F", "-l", "-p", "-u", "-z", "-s", "-v", "-V", "-h"):
        assert flag in done.stdout + done.stderr


@pytest.mark.rule("2.12/version")
def test_v_shows_name_and_version_and_succeeds(farm: Farm) -> None:
    done = farm.command.run("-v")
    assert done.returncode == 0
    name, version = done.stdout.split()[:2]
    assert name in {"beanstalkd", "beanspiked"}
    assert version[0].isdecimal()


@pytest.mark.rule("2.12/usage-errors")
@pytest.mark.parametrize(
    "flags",
    [["-x"], ["--no-such-flag"], ["stray"], ["-z"], ["-p"], ["-b"], ["-z", "many"], ["-s", "x"], ["-f", "x"]],
    ids=" ".join,
)
def test_a_usage_error_exits_with_5(farm: Farm, flags: list[str]) -> None:
    assert farm.command.run(*flags).returncode == 5


@pytest.mark.rule("2.12/port-busy")
def test_a_busy_port_exits_with_111(farm: Farm) -> None:
    port = farm.start().endpoint.port
    assert farm.command.run("-p", str(port)).returncode == 111


@pytest.mark.rule("2.12/no-journal-folder")
def test_a_missing_journal_folder_exits_with_10(farm: Farm, folder: Path) -> None:
    assert farm.command.run("-b", str(folder / "missing")).returncode == 10


@pytest.mark.rule("2.12/journal-lock")
def test_a_journal_folder_in_use_exits_with_10(farm: Farm, folder: Path) -> None:
    first = farm.start("-b", folder)
    assert farm.command.run("-b", str(folder)).returncode == 10
    assert first.connect().insert() == 1


@pytest.mark.rule("2.12/unknown-user")
def test_an_unknown_user_exits_with_33(farm: Farm) -> None:
    assert farm.command.run("-u", "no-such-user").returncode == 33


@needs_root
@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.12/flag-u")
def test_u_serves_as_another_user(farm: Farm) -> None:
    server = farm.start("-u", "nobody")
    assert server.connect().ask(b"put 0 0 60 1\r\na") == b"INSERTED 1"
    nobody = pwd.getpwnam("nobody")
    status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    assert f"\nUid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t" in status
    assert f"\nGid:\t{nobody.pw_gid}\t{nobody.pw_gid}\t" in status


@pytest.mark.shared_store_relaxed("ids do not begin at 1")
@pytest.mark.rule("2.12/flag-z", "1.2/size-limit")
@pytest.mark.parametrize("flags", [["-z", "77"], ["-z77"], ["-FVz77"], ["-z", "5", "-z", "77"]], ids=" ".join)
def test_z_sets_the_size_limit_and_values_may_be_attached_and_flags_bundled(farm: Farm, flags: list[str]) -> None:
    connection = farm.start(*flags).connect()
    assert connection.stats()["max-job-size"] == 77
    assert connection.ask(b"put 0 0 60 77\r\n" + b"a" * 77) == b"INSERTED 1"
    assert connection.ask(b"put 0 0 60 78\r\n" + b"a" * 78) == b"JOB_TOO_BIG"


@pytest.mark.rule("2.12/flag-z")
def test_a_size_limit_above_a_gigabyte_is_lowered_with_a_warning(farm: Farm) -> None:
    server = farm.start("-z", str(LARGEST_SIZE + 1))
    assert server.connect().stats()["max-job-size"] == LARGEST_SIZE
    assert server.log()


@pytest.mark.rule("2.12/flag-z")
@pytest.mark.parametrize("flags", [["-z", "-1"], ["-z", "99999999999999999999999"]], ids=" ".join)
def test_a_size_limit_is_read_as_sscanf_reads_it(farm: Farm, flags: list[str]) -> None:
    assert farm.start(*flags).connect().stats()["max-job-size"] == LARGEST_SIZE


@pytest.mark.rule("2.12/port-unknown")
@pytest.mark.parametrize("port", ["abc", "-1", "0x10"])
def test_what_is_neither_a_number_nor_a_service_exits_with_111(farm: Farm, port: str) -> None:
    assert farm.command.run("-l", "127.0.0.1", "-p", port).returncode == 111


@pytest.mark.rule("2.12/flag-s")
def test_s_is_shown_in_stats_as_given(farm: Farm, folder: Path) -> None:
    assert farm.start("-s", "5000", "-b", folder).connect().stats()["binlog-max-size"] == 5000


@pytest.mark.rule("2.12/flags-c-n")
@pytest.mark.parametrize("flag", ["-c", "-n"])
def test_c_and_n_are_accepted_and_do_nothing(farm: Farm, folder: Path, flag: str) -> None:
    server = farm.start(flag, "-b", folder)
    assert server.connect().ask(b"put 0 0 60 1\r\na") == b"INSERTED 1"


@pytest.mark.rule("2.12/flags-f")
@pytest.mark.parametrize(
    "flags",
    [["-f", "0"], ["-f0"], ["-f", "200"], ["-F"], ["-F", "-f", "10"], ["-f", "4294967296"], ["-f", "-1"]],
    ids=" ".join,
)
def test_f_and_capital_f_are_accepted(farm: Farm, folder: Path, flags: list[str]) -> None:
    server = farm.start(*flags, "-b", folder)
    assert server.connect().ask(b"put 0 0 60 1\r\na") == b"INSERTED 1"


@pytest.mark.rule("2.12/flag-V")
def test_capital_v_makes_the_server_say_what_it_does(farm: Farm) -> None:
    quiet, loud = farm.start(), farm.start("-V", "-V")
    for server in (quiet, loud):
        server.connect().insert()
        server.signal(signal.SIGTERM)
        server.wait()
    assert len(loud.log()) > len(quiet.log())


@pytest.mark.rule("2.12/sigterm")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_sigterm_and_sigint_end_the_server_soon(farm: Farm, number: signal.Signals) -> None:
    server = farm.start()
    idle, waiting = server.connect(), server.connect()
    waiting.send(b"reserve\r\n")
    assert waiting.is_silent(0.05)
    began_at = time.monotonic()
    server.signal(number)
    assert server.wait() in {0, -number}
    assert time.monotonic() - began_at < 5
    assert idle.is_ended()


@pytest.mark.rule("2.12/sigpipe")
def test_a_client_that_vanishes_amid_replies_does_not_end_the_server(farm: Farm) -> None:
    server = farm.start()
    observer, vanishing = server.connect(), server.connect()
    job_id = observer.insert(b"x" * 60_000)
    vanishing.send(b"peek %d\r\n" % job_id * 200)
    vanishing.reset()
    assert eventually(lambda: observer.stats()["current-connections"] == 1)
    assert server.process.poll() is None


def exhaust_descriptors(farm: Farm, open_for_seconds: float) -> tuple[bool, str]:
    """Let a server run out of descriptors; tell whether it served old and later new clients, and what it logged."""
    server = farm.start()
    old = server.connect()
    in_use = len(os.listdir(f"/proc/{server.pid}/fd"))  # noqa: PTH208 - only their number counts
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (in_use + 3, hard))
    crowd = [server.endpoint.dial() for _ in range(12)]
    try:
        time.sleep(open_for_seconds)
        served = old.ask(b"list-tube-used") == b"USING default"
    finally:
        for sock in crowd:
            sock.close()
    return served and server.connect().ask(b"list-tube-used") == b"USING default", server.log()


@pytest.mark.rule("2.12/descriptors")
def test_without_free_descriptors_old_clients_are_served_and_new_ones_later(farm: Farm) -> None:
    served, _ = exhaust_descriptors(farm, open_for_seconds=0.1)
    assert served


@pytest.mark.rule("2.12/descriptors-quiet")
@pytest.mark.beanstalkd_bug("accept is tried again and again, with a line of log each time")
def test_without_free_descriptors_the_log_stays_short(farm: Farm) -> None:
    _, log = exhaust_descriptors(farm, open_for_seconds=0.5)
    assert log.count("\n") < 100


@pytest.mark.rule("2.12/flag-p")
def test_the_last_of_several_ports_counts(farm: Farm) -> None:
    port = free_port()
    server = farm.start("-p", "1", f"-p{port}", port=port)
    assert server.endpoint == Endpoint(host="127.0.0.1", port=port)
    assert server.connect().ask(b"list-tube-used") == b"USING default"

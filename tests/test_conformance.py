"""protocol_conformance, against ours in every way it can be served and against beanstalkd itself."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from depth import FULL, absent, full_depth
from suite import CHOSEN_IO, COMMAND, EITHER_IO, address_of, conformance, either_io

pytestmark = [pytest.mark.scaled, pytest.mark.real]

# Without the tests that wait for deadlines, which a server keeps whatever its sockets are.
QUICK = ("-m", "not slow")
SHARED_SERVER = Path(__file__).parent / "shared" / "shared_server.py"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("io", CHOSEN_IO)
def test_in_memory_over_tcp(io: str) -> None:
    if FULL:
        ended = conformance("--fresh-server-command", f"{COMMAND} --io {either_io(io)}")
        assert ended["passed"] > 650
        assert "skipped" not in ended
    else:
        with address_of("--io", either_io(io)) as server:
            assert conformance("--server", server, *QUICK)["passed"] > 550


@full_depth
@pytest.mark.timeout(300)
def test_with_a_journal_over_tcp(tmp_path: Path) -> None:
    with address_of("-b", str(tmp_path)) as server:
        assert conformance("--server", server)["passed"] > 550


@full_depth
@pytest.mark.timeout(300)
@pytest.mark.parametrize("io", EITHER_IO)
def test_in_memory_over_a_unix_socket(tmp_path: Path, io: str) -> None:
    with address_of("--io", either_io(io), path=f"{tmp_path}/s") as server:
        assert conformance("--server", server, *QUICK)["passed"] > 550


@full_depth
@pytest.mark.timeout(300)
def test_with_a_journal_over_a_unix_socket(tmp_path: Path) -> None:
    with address_of("-b", str(tmp_path), path=f"{tmp_path}/s") as server:
        assert conformance("--server", server, *QUICK)["passed"] > 550


@full_depth
@pytest.mark.timeout(300)
def test_on_a_shared_store_in_memory() -> None:
    command = shlex.join([sys.executable, str(SHARED_SERVER), "memory"])
    ended = conformance("--fresh-server-command", command, "--profile", "shared")
    assert ended["passed"] > 650
    assert "failed" not in ended


@full_depth
@pytest.mark.timeout(300)
def test_beanstalkd_passes_but_for_what_is_listed() -> None:
    beanstalkd = shutil.which("beanstalkd") or absent("beanstalkd is not installed")
    ended = conformance("--fresh-server-command", beanstalkd)
    assert ended["passed"] > 600
    assert "failed" not in ended

"""A short chaos run keeps all promises. The long one is run by hand: tests/chaos/run.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NO_SERVER = "no Aerospike server: neither BEANSPIKED_TEST_AEROSPIKE nor an asd on the PATH"
NO_NODES = "no asd on the PATH: chaos runs start nodes of their own"
DONE_WITHIN_S = 280
ENDED_WITHIN_S = 20


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(DONE_WITHIN_S + 2 * ENDED_WITHIN_S)
def test_nothing_is_lost_while_servers_die(tmp_path: Path) -> None:
    if shutil.which("asd") is None:
        pytest.skip(NO_NODES if os.environ.get("BEANSPIKED_TEST_AEROSPIKE") else NO_SERVER)
    options = ["--minutes", "0.6", "--jobs", "4000", "--faults", "2", "--keep", str(tmp_path)]
    named = os.environ.get("BEANSPIKED_TEST_COMMAND")
    server = ["--server", named] if named else []
    command = [sys.executable, str(HERE / "run.py"), *options, *server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            output, _ = process.communicate(timeout=DONE_WITHIN_S)
        except BaseException:
            # It ends its servers when it is told to stop, not when it is killed.
            process.terminate()
            try:
                process.wait(ENDED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    assert process.returncode == 0, output
    assert "\n0 violations" in output

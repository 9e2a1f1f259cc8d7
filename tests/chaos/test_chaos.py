"""A short chaos run keeps all promises. The long one is run by hand: tests/chaos/run.py."""

import os
import shutil
from pathlib import Path

import pytest
from asd import NO_SERVER
from script import said_by

HERE = Path(__file__).parent
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
    output = said_by(HERE / "run.py", *options, *server, done_within_s=DONE_WITHIN_S, ended_within_s=ENDED_WITHIN_S)
    assert "\n0 violations" in output

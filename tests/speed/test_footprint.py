"""A compiled server keeps its jobs and connections within the bars of docs/benchmarks.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from depth import full_depth
from script import said_by

from beanspiked.engine import jobs

HERE = Path(__file__).parent
MEASURED_WITHIN_S = 100
ENDED_WITHIN_S = 15
MAX_BYTES_A_JOB = 400
MAX_KB_A_CONNECTION = 6


@full_depth
@pytest.mark.skipif(str(jobs.__file__).endswith(".py"), reason="the bars are for a compiled server")
def test_a_waiting_job_and_an_idle_connection_take_little_memory(tmp_path: Path) -> None:
    result = tmp_path / "footprint.json"
    options = ["--jobs", "200000", "--connections", "2000", "--json", str(result)]
    said_by(HERE / "footprint.py", *options, done_within_s=MEASURED_WITHIN_S, ended_within_s=ENDED_WITHIN_S)
    ours = json.loads(result.read_text())["beanspiked"]
    assert ours["bytes a job, one tube"] <= MAX_BYTES_A_JOB
    assert ours["bytes a job, 100 tubes"] <= MAX_BYTES_A_JOB
    assert ours["KB a connection"] <= MAX_KB_A_CONNECTION

"""The benchmark still measures: with tiny numbers, every row comes out. How fast anything is, no test judges."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROWS = {"cycle-50x1", "cycle-50x16", "durable-50x16", "bytes-per-job", "tubes", "jobs", "reserved", "pauses"}
MEASURED_WITHIN_S = 100
ENDED_WITHIN_S = 15


def run_quickly(result: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "measure.py"), "--quick", "--json", str(result)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            output, _ = process.communicate(timeout=MEASURED_WITHIN_S)
        except BaseException:
            # It ends its servers when it is told to stop, not when it is killed.
            process.terminate()
            try:
                process.wait(ENDED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    assert process.returncode == 0, output
    found: dict[str, Any] = json.loads(result.read_text())
    return found


@pytest.mark.slow
def test_every_row_is_measured(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("cc is not installed, and CI=true asks for it", pytrace=False)
        pytest.skip("cc is not installed")
    found = run_quickly(tmp_path / "figures.json")
    sides = {"ours", "peer"} & found["machine"].keys()
    assert {line["row"] for line in found["table"]} == ROWS
    assert {(run["row"], run["side"]) for run in found["runs"]} == {(row, side) for row in ROWS for side in sides}
    for line in found["table"]:
        assert all(line[side] > 0 for side in sides), line
    assert {histogram["side"] for histogram in found["histograms"]} == sides
    assert all(sum(histogram["counts"].values()) > 0 for histogram in found["histograms"])

"""The benchmark still measures: with tiny numbers, every row has results. No test judges the speed."""

import json
import shutil
from pathlib import Path

import pytest
from depth import absent, full_depth
from script import said_by

HERE = Path(__file__).parent
SPEEDS = {f"cycle-{shape}" for shape in ("1x1", "50x1", "500x1", "50x16")}
DURABLE = {f"durable-{shape}" for shape in ("1x1", "50x1", "50x16")}
ROWS = {*SPEEDS, *DURABLE, "bytes-per-job", "tubes", "jobs", "reserved", "pauses"}
MEASURED_WITHIN_S = 100
ENDED_WITHIN_S = 15


@full_depth
@pytest.mark.slow
def test_every_row_is_measured(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        absent("cc is not installed")
    result = tmp_path / "figures.json"
    options = ["--quick", "--json", str(result)]
    said_by(HERE / "measure.py", *options, done_within_s=MEASURED_WITHIN_S, ended_within_s=ENDED_WITHIN_S)
    found = json.loads(result.read_text())
    sides = found["sides"].keys()
    assert {line["row"] for line in found["table"]} == ROWS
    assert {(run["row"], run["side"]) for run in found["runs"]} == {(row, side) for row in ROWS for side in sides}
    for line in found["table"]:
        assert all(line["sides"][side]["value"] > 0 for side in sides), line
        assert {"beanspiked", *line["ratios"]} == sides
    assert {histogram["side"] for histogram in found["histograms"]} == sides
    assert all(sum(histogram["counts"].values()) > 0 for histogram in found["histograms"])

"""The source is formatted, linted and strictly typed."""

import subprocess
import sys
from pathlib import Path

import pytest
from depth import full_depth

ROOT = Path(__file__).parent.parent


@pytest.mark.scaled
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy", "--strict", "beanspiked"],
        # As it is compiled: before anything that it needs is installed.
        pytest.param(["mypy", "--strict", "--no-site-packages", "beanspiked"], marks=full_depth),
    ],
    ids=["formatted", "linted", "typed", "typed alone"],
)
def test_the_source_is(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr

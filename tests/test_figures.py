"""The documents' tables and charts show the figures of the committed JSON."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHARTS = ["speed", "processor", "shared"]
SHOWN = ["README.md", "docs/benchmarks.md", *(f"docs/figures/{name}.svg" for name in CHARTS)]


def figures(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script that makes them."""
    command = [sys.executable, str(ROOT / "tests/speed/figures.py"), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the documents with figures."""
    for name in [
        *SHOWN,
        *(
            f"docs/figures/{script}.json"
            for script in ("measure", "stalls", "library", "shared", "front_ends", "workers")
        ),
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_documents_show_the_committed_figures() -> None:
    checked = figures(ROOT, "--check")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_figure_that_somebody_typed_is_found_and_made_anew(copy: Path, name: str) -> None:
    made = (copy / name).read_text()
    before, figure, after = (
        made.partition(" \N{MULTIPLICATION SIGN}** (") if name.endswith(".md") else made.partition("</text>")
    )
    (copy / name).write_text(f"{before}1{figure}{after}")
    checked = figures(copy, "--check")
    assert checked.returncode == 1
    assert checked.stdout == f"{name}: does not show the JSON; run make figures\n"
    assert figures(copy).returncode == 0
    assert (copy / name).read_text() == made

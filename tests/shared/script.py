"""Runs a script that starts servers of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["said_by"]


def said_by(script: Path, *options: str, done_within_s: float, ended_within_s: float) -> str:
    """Run a Python script, which must succeed; return its output."""
    command = [sys.executable, str(script), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            output, _ = process.communicate(timeout=done_within_s)
        except BaseException:
            # The script ends its servers when a signal stops it, not when it is killed.
            process.terminate()
            try:
                process.wait(ended_within_s)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    assert process.returncode == 0, output
    return output

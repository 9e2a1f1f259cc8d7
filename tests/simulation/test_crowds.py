"""Random crowds of clients on many tubes, whose front-ends must believe in the end what the store knows."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import crowd
import pytest
from depth import FULL, repeated_by, seeds
from killed import KILLS

pytestmark = KILLS

# From the first on, these seeds also find a segment in two pages whose jobs are counted twice.
FIRST = 45
CROWDS = 100 if FULL else 14
CHUNK = 25 if FULL else 7
REPEATED = 50
STEPS = f"import crowd; print(crowd.run({REPEATED}).world.steps)"


@pytest.mark.scaled
@pytest.mark.parametrize("chunk", seeds(CROWDS, CHUNK, FIRST), ids=lambda chunk: f"{chunk.start}-{chunk.stop - 1}")
def test_front_ends_agree_with_the_store_after_a_crowd_has_worked(chunk: range) -> None:
    for seed in chunk:
        with repeated_by(BEANSPIKED_SEEDS=seed):
            crowd.run(seed)
    # What a killed front-end had only just begun is collected while that is expected.
    gc.collect()


@pytest.mark.slow
def test_the_same_seed_is_the_same_crowd_in_each_process() -> None:
    path = os.pathsep.join([str(Path(crowd.__file__).parent), *sys.path])
    steps = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", STEPS],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(steps) == 1

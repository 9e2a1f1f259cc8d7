"""The same random commands to beanstalkd and to the server under test: every reply must be the same."""

import os
import time

import pytest
from depth import FULL
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from twins.machine import bound
from twins.pair import Pair

SECONDS = float(os.environ.get("BEANSPIKED_DIFFERENTIAL_SECONDS", "0"))
EXAMPLES = 70 if FULL else 8

pytestmark = [pytest.mark.real, pytest.mark.scaled, pytest.mark.timeout(max(600, SECONDS + 900))]

COMMON = settings(
    stateful_step_count=25,
    database=None,
    print_blob=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def test_same_replies(pair: Pair) -> None:
    """Fixed examples by default; random ones for BEANSPIKED_DIFFERENTIAL_SECONDS, half of them for each way to store."""
    if not SECONDS:
        run_state_machine_as_test(bound(pair), settings=settings(COMMON, max_examples=EXAMPLES, derandomize=True))
        return
    until = time.monotonic() + SECONDS / 2
    while time.monotonic() < until:
        run_state_machine_as_test(bound(pair), settings=settings(COMMON, max_examples=200))

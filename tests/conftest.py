"""What all tests share: which core is tested, and a clean environment."""

import importlib.util
import os
from collections import Counter
from typing import Any

import beanspiked


def pytest_report_header() -> str:
    spec = importlib.util.find_spec("beanspiked.server.session")
    assert spec is not None
    compiled = not str(spec.origin).endswith(".py")
    return f"beanspiked {beanspiked.__version__}: {'compiled' if compiled else 'pure Python'} core"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which Aerospike server the tests ran on, and how many."""
    ended = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    builds = Counter(value for report in ended for name, value in report.user_properties if name == "aerospike")
    for build, count in builds.items():
        terminalreporter.write_line(f"Aerospike {build}: {count} tests ran on it")


# What steers the tests themselves; every other variable of the server's is cleared.
KEPT = ("BEANSPIKED_TEST_", "BEANSPIKED_DIFFERENTIAL_", "BEANSPIKED_CRASH_")

for name in [
    name for name in os.environ if name.startswith(("AEROSPIKE_", "BEANSPIKED_")) and not name.startswith(KEPT)
]:
    del os.environ[name]

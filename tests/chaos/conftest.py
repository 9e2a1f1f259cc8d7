"""Let what a missing server skips here and elsewhere be told of in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

NO_SERVER = "no Aerospike server: neither BEANSPIKED_TEST_AEROSPIKE nor an asd on the PATH"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip where tests/aerospike does."""
    report = yield
    if report.skipped and NO_SERVER in str(report.longrepr):
        where = Path(__file__).parent.parent / "aerospike" / "conftest.py"
        report.longrepr = (str(where), 1, f"Skipped: {NO_SERVER}")
    return report

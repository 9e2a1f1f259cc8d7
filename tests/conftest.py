"""What all tests share: which core is tested, a clean environment, and where a real Aerospike server is.

`BEANSPIKED_TEST_AEROSPIKE=host:port` names a server with a namespace `test`; else an `asd` on the PATH is started on loopback; else the
tests on it are skipped, which one line says.
"""

import gc
import logging
import os
import random
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import depth
import hypothesis
import pytest
from asd import NO_SERVER, Node, connected

import beanspiked


def pytest_report_header() -> str:
    return f"beanspiked {beanspiked.__version__}: {'compiled' if depth.COMPILED else 'pure Python'} core"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests to CI, and let workers that share the tests begin with the longest, so that none is busy alone at the end."""

    def allowed_s(item: pytest.Item) -> float:
        limit = item.get_closest_marker("timeout")
        return limit.args[0] if limit else float(config.getini("timeout"))

    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(depth.full_depth)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not any(map(item.get_closest_marker, ("slow", "scaled"))), -allowed_s(item)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was skipped and why, which Aerospike server the tests ran on, and how many."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section(f"{len(skipped)} skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {reason}")
    ended = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    builds = Counter(value for report in ended for name, value in report.user_properties if name == "aerospike")
    for build, count in builds.items():
        terminalreporter.write_line(f"Aerospike {build}: {count} tests ran on it")


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where a real Aerospike server listens."""
    named = os.environ.get("BEANSPIKED_TEST_AEROSPIKE")
    asd = shutil.which("asd")
    if named:
        host, _, port = named.rpartition(":")
        yield host, int(port)
    elif asd is None:
        pytest.skip(NO_SERVER)
    else:
        node = Node(asd, tmp_path_factory.mktemp("asd"))
        yield node.address
        node.stop()


@pytest.fixture(scope="session")
def aerospike_client(address: tuple[str, int]) -> Iterator[Any]:
    """A client of the real server."""
    client = connected(address)
    yield client
    client.close()


class Bugs(logging.Handler):
    """Collects what beanspiked says of its own bugs, which concern one connection or job only and might go unseen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "internal error" in record.getMessage():
            self.said.append(self.format(record))


@pytest.fixture(scope="module")
def what_was_killed_goes() -> Iterator[None]:
    """Drop what a module's simulated front-ends have left; see tests/shared/killed.py."""
    yield
    # What a coroutine does as it is dropped may keep others for one more round.
    while gc.collect():
        pass


@pytest.fixture
def what_was_logged_goes(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Drop a test's log before its module's `what_was_killed_goes`: the errors in it hold the front-ends in which they were raised."""
    yield
    caplog.get_records("call").clear()


@pytest.fixture(autouse=True)
def no_bugs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a bug was contained, unless it has planted one (`planted_bug`)."""
    bugs = Bugs()
    logging.getLogger().addHandler(bugs)
    yield
    logging.getLogger().removeHandler(bugs)
    if request.node.get_closest_marker("planted_bug") is None:
        assert bugs.said == []


@pytest.fixture(autouse=True)
def same_chance(request: pytest.FixtureRequest) -> None:
    """Let a test that draws lots draw the same ones each time."""
    random.seed(request.node.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a failure end with the command that repeats it."""
    report = yield
    if report.failed and call.excinfo is not None:
        report.sections.append(("again, alone", depth.command(item.nodeid, call.excinfo.value)))
    return report


# What steers the tests themselves; every other variable of the server's is cleared.
KEPT = (
    "BEANSPIKED_TEST_",
    "BEANSPIKED_SEEDS",
    "BEANSPIKED_DIFFERENTIAL_",
    "BEANSPIKED_CRASH_",
    "BEANSPIKED_ENDURANCE_",
)

# How long an example takes tells how busy the machine is.
hypothesis.settings.register_profile(
    "any machine",
    max_examples=100 if depth.FULL else 25,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")

for name in [
    name for name in os.environ if name.startswith(("AEROSPIKE_", "BEANSPIKED_")) and not name.startswith(KEPT)
]:
    del os.environ[name]

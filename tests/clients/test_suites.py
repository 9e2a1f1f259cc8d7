"""The test suites that other people's packages bring along, run as they are against the server under test."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from depth import full_depth

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.real, pytest.mark.slow, full_depth]

HERE = Path(__file__).parent
SUITE_SECONDS = 60

FIVEBEANS_TESTS = 54
FIVEBEANS_CLIENT_FAULTS = {
    # It compares errno, which node has given as a negative number for years, with the text ECONNREFUSED.
    "FiveBeansWorker starting & stopping emits the error event on failure",
}


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=inherited | environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SUITE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout
        return pytest.fail(f"the suite did not end within {SUITE_SECONDS} seconds; it said:\n{said}", pytrace=False)


def test_pystalk_passes_the_20_live_tests_and_10_others_of_its_0_5_1_release(
    sdists: Path, server_executable: Path, tmp_path: Path
) -> None:
    # Only the tests are taken from that release: the client they try is the installed one, which is newer.
    (tmp_path / "tests").symlink_to(sdists / "pystalk-0.5.1" / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    report = tmp_path / "report.xml"
    options = ["-c", "pytest.ini", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junit-xml={report}", "tests"]
    finished = run(
        [sys.executable, "-P", "-B", "-m", "pytest", *options], tmp_path, BEANSTALKD_PATH=str(server_executable)
    )
    assert report.is_file(), finished.stdout
    cases = list(ET.parse(report).iter("testcase"))
    passed = [case for case in cases if case.find("failure") is case.find("error") is case.find("skipped") is None]
    live = [case for case in passed if "integration" in case.get("classname", "")]
    assert (len(live), len(passed), len(cases)) == (20, 30, 30), finished.stdout


def test_pystalkd_passes_all_10_of_its_tests(sdists: Path, fresh_server: int) -> None:
    folder = sdists / "pystalkd-1.3.0"
    command = [sys.executable, "-B", str(HERE / "pystalkd_tests.py"), "test.py", "127.0.0.1", str(fresh_server)]
    finished = run(command, folder, PYTHONPATH=str(folder))
    assert finished.returncode == 0, finished.stdout
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result == {"run": 10, "broken": [], "skipped": 0}, finished.stdout


# Without a network of its own a run needs the port for itself.
@pytest.mark.xdist_group("port-11300")
def test_fivebeans_passes_all_of_its_tests_but_one_that_is_wrong_about_node(
    node_modules: Path,
    server_executable: Path,
    with_fixed_port: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.json"
    mocha = [str(node_modules / "mocha" / "bin" / "mocha.js"), "--timeout", "8000", "--exit"]
    options = ["--reporter", "json", "--reporter-option", f"output={report}", "test/"]
    words = with_fixed_port(11300)
    command = [*words, shlex.quote(str(server_executable)), "node", "--no-deprecation", *mocha, *options]
    finished = run(command, node_modules / "fivebeans")
    assert report.is_file(), finished.stdout
    result = json.loads(report.read_text())
    passed = {test["fullTitle"] for test in result["passes"]}
    failed = {test["fullTitle"] for test in result["failures"]}
    assert failed <= FIVEBEANS_CLIENT_FAULTS, result["failures"]
    assert len(result["passes"]) >= FIVEBEANS_TESTS - len(FIVEBEANS_CLIENT_FAULTS), sorted(passed)

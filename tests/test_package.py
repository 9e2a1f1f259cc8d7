"""What is installed."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from depth import absent

import beanspiked

ROOT = Path(__file__).parent.parent


def test_the_core_is_compiled() -> None:
    spec = importlib.util.find_spec("beanspiked.server.session")
    assert spec is not None
    if str(spec.origin).endswith(".py"):
        absent("the core was not compiled")


def test_every_compiled_module_has_its_source_beside_it() -> None:
    folder = Path(beanspiked.__file__).parent
    sources = [path.with_name(path.name.split(".")[0]) for path in folder.rglob("*.so")]
    assert all(source.with_suffix(".py").exists() or source.with_suffix(".c").exists() for source in sources)


def test_one_version_is_told_everywhere() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert stated == beanspiked.__version__ == importlib.metadata.version("beanspiked")
    told = subprocess.run(
        [sys.executable, "-m", "beanspiked", "-v"], capture_output=True, text=True, timeout=10, check=True
    )
    assert told.stdout == f"beanspiked {stated}\n"


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import beanspiked; print(*(set(sys.modules) - before))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=True)
    assert imported.stdout.split() == ["beanspiked"]


def test_the_socket_listens_before_anything_heavy_is_imported() -> None:
    # Clients' test suites connect 100 ms after they start the server; asyncio alone may take that long. On -I: without what only some
    # environments import at start.
    code = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from beanspiked import cli, config
from beanspiked.server import listeners, log
settings = config.parse(["-l", "127.0.0.1", "-p", "0", "-V"], {})
listeners.bind(settings)
print(*(set(sys.modules) - before))
"""
    folder = Path(beanspiked.__file__).parent.parent
    imported = subprocess.run(
        [sys.executable, "-I", "-c", code, folder], capture_output=True, text=True, timeout=10, check=True
    )
    ours = {
        "beanspiked",
        *(
            f"beanspiked.{name}"
            for name in ("cli", "config", "server", "server.listeners", "server.log", "usage", "version")
        ),
    }
    assert set(imported.stdout.split()) <= ours | {"__future__", "_socket", "errno", "select", "stat", "_stat"}


def test_the_installed_command_imports_nothing_heavy_of_its_own() -> None:
    words = shlex.split(os.environ.get("BEANSPIKED_TEST_COMMAND", str(Path(sys.executable).with_name("beanspiked"))))
    told = subprocess.run(
        [sys.executable, "-X", "importtime", *words, "-v"], capture_output=True, text=True, timeout=10, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "beanspiked.cli" in imported
    assert not imported & {"re", "enum", "typing", "socket", "signal", "logging"}


def test_the_unit_has_no_reload() -> None:
    # The only signal that there is for it would refuse all further puts.
    assert "\nExecReload=" not in (ROOT / "deploy/systemd/beanspiked.service").read_text()


def test_the_image_is_built_from_what_its_context_has() -> None:
    copied = [
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    ]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied
    assert set(copied) <= kept
    assert all((ROOT / source).exists() for source in copied)


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        assert "permissions" in job, f"{workflow.name}: a job has whatever rights the repository grants"
        yield from job.get("steps", [])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_only_files_and_actions_that_are_there(workflow: Path) -> None:
    for used in re.findall(r"uses: (\S+)", workflow.read_text()):
        # A tag may be moved to something else.
        assert (ROOT / used).exists() if used.startswith("./") else re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used), used
    for step in steps(workflow):
        for named in re.findall(r"(?<![\w$:/])(?:/project/)?((?:tests|\.ci)/[\w./]+)", step.get("run", "")):
            assert (ROOT / named).exists(), named


def test_wheels_and_tests_are_made_for_every_python_that_is_supported() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [line.rpartition(" ")[2] for line in data["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert data["tool"]["cibuildwheel"]["build"] == [f"cp{version.replace('.', '')}-*" for version in named]
    (tests,) = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"].values()
    assert tests["strategy"]["matrix"]["python"] == named
    assert data["project"]["requires-python"] == f">={named[0]}"


def told_by_setup(function: str, **environ: str) -> str:
    code = f"import runpy; print(runpy.run_path('setup.py')['{function}']())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "why"),
    [({"BEANSPIKED_PURE": "1"}, "BEANSPIKED_PURE=1"), ({"CC": "no-such-cc"}, "there is no C compiler (no-such-cc)")],
)
def test_the_compiler_is_not_fetched_where_it_cannot_be_used(environ: dict[str, str], why: str) -> None:
    assert told_by_setup("obstacle", **environ) == why
    assert told_by_setup("needs", **environ) == "[]"


def test_the_compiler_is_fetched_where_its_want_is_to_be_an_error() -> None:
    assert "mypy" in told_by_setup("needs", BEANSPIKED_PURE="0", CC="no-such-cc")


@pytest.mark.real
def test_the_installed_command_works_alone() -> None:
    if importlib.util.find_spec("beanspiked.server.session").origin.endswith(".py"):  # type: ignore[union-attr]
        absent("the core was not compiled")
    subprocess.run([sys.executable, ROOT / "tests" / "smoke.py"], timeout=60, check=True)


def test_a_python_that_is_too_old_is_refused_by_pip_rather_than_by_a_traceback() -> None:
    # pip compares versions once it has the metadata, and asks setup.py for that.
    code = "import runpy, setuptools, sys; sys.modules['tomllib'] = None; runpy.run_path('setup.py')['needs']()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)


def test_make_names_a_python_that_is_too_old(tmp_path: Path) -> None:
    make = shutil.which("make") or absent("make is not installed")
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    told = subprocess.run(
        [make, "run", "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 2
    assert "beanspiked: false is missing, or older than 3.11" in told.stderr
    assert not (tmp_path / ".venv").exists()

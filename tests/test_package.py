"""What is installed."""

import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

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
    assert all(path.with_name(path.name.split(".")[0] + ".py").exists() for path in folder.rglob("*.so"))


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
        *(f"beanspiked.{name}" for name in ("cli", "config", "server", "server.listeners", "server.log")),
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

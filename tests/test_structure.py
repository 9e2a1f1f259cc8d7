"""How the package is built: imports point one way, and a module fits on a few screens."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import beanspiked

# What each package may import of ours, and each module that stands in no package. A module that is named itself is one where things
# are put together: it may import this besides what its package may.
ALLOWED: dict[str, set[str]] = {
    "protocol": set(),
    "engine": set(),
    "engine.embedded": {"engine"},
    "engine.aerospike": {
        "engine",
        "engine.aerospike.queries",
        "engine.aerospike.tubes",
        "engine.aerospike.cluster",
        "engine.aerospike.segment",
        "engine.aerospike.store",
    },
    "engine.aerospike.start": {"engine.aerospike.store.aerospike", "ops"},
    "engine.aerospike.queries": {
        "engine",
        "engine.aerospike.tubes",
        "engine.aerospike.cluster",
        "engine.aerospike.segment",
        "engine.aerospike.store",
    },
    "engine.aerospike.tubes": {
        "engine",
        "engine.aerospike.cluster",
        "engine.aerospike.segment",
        "engine.aerospike.store",
    },
    "engine.aerospike.cluster": {"engine", "engine.aerospike.segment", "engine.aerospike.store"},
    "engine.aerospike.segment": {"engine", "engine.aerospike.store"},
    "engine.aerospike.store": {"engine"},
    "engine.aerospike.store.aerospike": {"engine", "engine.aerospike.store", "places"},
    "server": {"protocol", "engine"},
    "server.listeners": {"config"},
    "server.main": {"config", "engine.embedded", "engine.aerospike", "version"},
    "library": {"protocol", "engine", "server"},
    "library.core": {"version"},
    "library.conn": {"engine.embedded", "engine.aerospike", "ops"},
    "library.serving": {"config"},
    "blocking": {"library"},
    "bench": {"client"},
    "client": {"protocol"},
    "ops": {
        "config",
        "engine",
        "engine.aerospike.segment",
        "engine.aerospike.store",
        "engine.aerospike.store.aerospike",
        "places",
    },
    "places": set(),
    "config": {"admin", "ops", "spelling"},
    "admin": {"engine", "protocol", "server"},
    "spelling": set(),
    "usage": set(),
    "version": set(),
    "cli": {
        "admin",
        "bench",
        "client",
        "config",
        "engine",
        "engine.embedded",
        "ops",
        "protocol",
        "server",
        "spelling",
        "usage",
        "version",
    },
    "__main__": {"cli"},
    # The package itself: it names what programs use, and imports it when that is used.
    "": {"library", "version"},
}

# Modules that may name each other's types: those of a segment are one thing in several files.
ONE_PIECE = "engine.aerospike.segment."


MAX_LINES = 400

ROOT = Path(beanspiked.__file__).parent


def modules() -> dict[str, Path]:
    """Find all modules by their names within the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(source: str) -> set[str]:
    """List the modules of ours that a source imports, also inside functions and where only types are checked."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import hides where it points"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {name for name in whole if name.removeprefix("beanspiked.") in MODULES}
            named |= inner
            if inner != whole:
                named.add(str(node.module))
    ours = {name.removeprefix("beanspiked").removeprefix(".") for name in named if name.split(".")[0] == "beanspiked"}
    return ours & MODULES.keys()


def package(name: str) -> str:
    """Return the package that a module stands in; a package's own module stands in it, one that stands in none is its own."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0] or name


@cache
def all_imports() -> dict[str, set[str]]:
    """List what each module imports."""
    return {name: imports(path.read_text()) for name, path in MODULES.items()}


def lines(path: Path) -> int:
    """Count a file's lines."""
    return path.read_text().count("\n")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """List the groups of modules each of which imports, by whatever way, all the others of its group (Tarjan)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1 or name in graph[name]:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def test_every_import_is_found_wherever_it_stands() -> None:
    source = """
import beanspiked.cli
from beanspiked.engine import forks
from beanspiked.engine.timers import NEVER
if TYPE_CHECKING:
    from beanspiked.server.flow import Flow
def late():
    from beanspiked.ops.url import parse_address
from asyncio import sleep
"""
    assert imports(source) == {"cli", "engine.forks", "engine.timers", "server.flow", "ops.url"}


def test_a_circle_is_found_however_long_it_is() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"a", "d"}}
    assert circles(graph) == [["d", "e"], ["a", "b", "c"]]


def test_each_module_imports_only_what_its_package_may() -> None:
    refused = {}
    for name, others in all_imports().items():
        home = package(name)
        allowed = ALLOWED[home] | ALLOWED.get(name, set()) | {home}
        if wrong := {other for other in others if package(other) not in allowed}:
            refused[name] = wrong
    assert not refused


def test_no_modules_import_each_other_by_whatever_way() -> None:
    found = [group for group in circles(all_imports()) if not all(name.startswith(ONE_PIECE) for name in group)]
    assert not found


def test_each_module_fits_on_a_few_screens() -> None:
    assert {name for name, path in MODULES.items() if lines(path) > MAX_LINES} == set()


def test_each_module_of_tests_does_so_too() -> None:
    tests = Path(__file__).parent.rglob("*.py")
    assert {path.name for path in tests if lines(path) > MAX_LINES} == set()

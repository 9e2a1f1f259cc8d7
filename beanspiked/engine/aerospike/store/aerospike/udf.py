"""The Lua module that sums segments on the nodes, for statistics: its place, how nodes get it, and its query.

A module's name carries a hash of its content, so that versions that share a cluster during an upgrade do not share a module. The nodes need
the module, and so does this process, whose client sums the nodes' sums in Lua. The client looks for modules in one directory only. The
first client of a process decides that directory for all, so every client of ours gets `module_directory`.

All functions here block, and raise the client's errors if the cluster does not answer.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.store.aerospike.workers import look_until
from beanspiked.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ModuleMissing",
    "Sizes",
    "module_directory",
    "module_name",
    "module_source",
    "old_modules",
    "register",
    "remove_old",
    "sizes",
]

PREFIX: Final = "beanspiked_"
OURS: Final = re.compile(PREFIX + r"[0-9a-f]{12}\.lua")
# The answer of `udf-list`: filename=...,hash=...,type=LUA;filename=...
LISTED: Final = re.compile(r"filename=([^,;]+)")
FUNCTION: Final = "sizes"

# A module spreads in a few ms. A node that is joining takes longer.
PATIENCE_S: Final = 10.0
POLL_S: Final = 0.02
INFO_POLICY: Final = {"timeout": 5000}
# A query over very many segments takes seconds.
QUERY_POLICY: Final = {"total_timeout": 60_000, "socket_timeout": 10_000}

# The client's codes of a failure in Lua, here and on a node.
CODE_FAILED_HERE: Final = 100
CODE_FAILED_THERE: Final = -1
# A node whose settings forbid Lua.
CODE_FORBIDDEN: Final = 22


class ModuleMissing(EngineError):  # noqa: N818 - names a state of the cluster
    """The Lua module is not where it is needed, or cannot run there."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sums over segments.

    Attributes:
        ready: Ready jobs, and delayed ones that are due.
        delayed, reserved, buried: The other jobs by state.
        job_size: The bodies of all jobs before compression, in bytes.
        used_size: The same as stored.
        skipped_size: The bodies that compression did not make smaller, in bytes.
        damaged: Jobs that cannot be read. Their states count, their sizes do not.
    """

    ready: int = 0
    delayed: int = 0
    reserved: int = 0
    buried: int = 0
    job_size: int = 0
    used_size: int = 0
    skipped_size: int = 0
    damaged: int = 0


# --- the module


@cache
def _module_path() -> Path:
    """Find the module, under its full name in an installation or in this checkout."""
    package = Path(__file__).parents[4]
    installed = list((package / "lua").glob(f"{PREFIX}*.lua"))
    found = installed or list((package.parent / "lua").glob("beanspiked.lua"))
    if len(found) != 1:
        raise ModuleMissing(f"{len(installed)} Lua modules in {package / 'lua'}: the installation is damaged")
    return found[0]


@cache
def module_source() -> bytes:
    """Return this version's Lua module. Raises ModuleMissing where the installation lacks it."""
    return _module_path().read_bytes()


def module_name(source: bytes) -> str:
    """Name a module by its content."""
    return PREFIX + hashlib.sha256(source).hexdigest()[:12]


@cache
def module_directory() -> str:
    """Return the directory of this version's module, for the client's `lua.user_path`.

    Raises ModuleMissing where the installation lacks the module.
    """
    path = _module_path()
    name = module_name(module_source())
    if path.stem == name:
        return str(path.parent)
    import atexit  # noqa: PLC0415 - only a checkout needs these
    import shutil  # noqa: PLC0415 - likewise
    import tempfile  # noqa: PLC0415 - likewise

    directory = tempfile.mkdtemp(prefix=PREFIX)
    owner = os.getpid()

    def remove() -> None:
        # A child of a fork exits as well, and must not remove the directory.
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    Path(directory, f"{name}.lua").write_bytes(module_source())
    return directory


# --- on the nodes


def _listed(client: Any) -> list[set[str]]:
    """Return the files of the modules that each node has."""
    answers = client.info_all("udf-list", INFO_POLICY)
    return [set(LISTED.findall(answer or "")) for _, answer in answers.values()]


def _command(client: Any, command: str) -> None:
    """Send a command to any node, which tells the others. Raises ModuleMissing if the node refuses."""
    from aerospike.exception import AerospikeError  # noqa: PLC0415 - a server without Aerospike never needs it

    try:
        # The answer begins with the command.
        answer = str(client.info_random_node(command, INFO_POLICY)).rpartition("\t")[2].strip()
    except AerospikeError as error:
        answer = str(error.msg)
        if not answer.startswith("error="):
            raise
    if answer.lower() != "ok":
        raise ModuleMissing(f"a node refused {command.partition(':')[0]}: {answer}")


def _wait(client: Any, done: Callable[[set[str]], bool], what: str) -> None:
    """Wait until a condition holds for every node's files. Raises ModuleMissing if that takes too long."""

    def everywhere() -> bool:
        return all(done(files) for files in _listed(client))

    if not look_until(everywhere, bool, PATIENCE_S, POLL_S):
        raise ModuleMissing(f"{what} did not reach every node in {PATIENCE_S:.0f} s")


def _register(client: Any, source: bytes) -> str:
    name = module_name(source)
    file = f"{name}.lua"
    if not all(file in files for files in _listed(client)):
        # The client's `udf_put` sleeps for 2 s, waits without end and writes the file to the current directory.
        content = base64.b64encode(source).decode()
        _command(client, f"udf-put:filename={file};content={content};content-len={len(content)};udf-type=LUA;")
        _wait(client, lambda files: file in files, f"the Lua module {name}")
    return name


def register(client: Any) -> str:
    """Give this version's module to the nodes unless all have it; return its name once they have it.

    Raises ModuleMissing if a node refuses it or it does not spread.
    """
    return _register(client, module_source())


def old_modules(client: Any) -> list[str]:
    """Return the names of other versions' modules on any node."""
    current = f"{module_name(module_source())}.lua"
    files = set().union(*_listed(client))
    return sorted(file.removesuffix(".lua") for file in files if OURS.fullmatch(file) and file != current)


def remove_old(client: Any) -> list[str]:
    """Remove other versions' modules; return their names once no node has them.

    A running server of such a version registers its own again. Raises ModuleMissing if a node refuses.
    """
    names = old_modules(client)
    for name in names:
        _command(client, f"udf-remove:filename={name}.lua;")
    gone = {f"{name}.lua" for name in names}
    _wait(client, gone.isdisjoint, "the removal of old Lua modules")
    return names


# --- the query


def sizes(client: Any, namespace: str, set_name: str, tube: str | None, now_ms: int) -> Sizes:
    """Sum the segments of a set, by one query over all nodes.

    The sum is exact for each segment, but the query reads the segments one after the other. While data moves between nodes it may miss a
    few, or count them twice.

    Args:
        client: A connected client of the `aerospike` package, made with `module_directory`.
        namespace: The segments' namespace.
        set_name: The segments' set, which need not exist.
        tube: The only tube to look at, or None for all.
        now_ms: The server's time: delayed jobs due by then count as ready.

    Raises:
        ModuleMissing: The module does not run, even after it was registered again.
    """
    return _sizes(client, module_source(), (namespace, set_name), tube, now_ms)


def _sizes(client: Any, source: bytes, where: tuple[str, str], tube: str | None, now_ms: int) -> Sizes:
    from aerospike.exception import AerospikeError  # noqa: PLC0415 - a server without Aerospike never needs it

    name = module_name(source)
    arguments: list[str | int] = [tube or "", now_ms]
    try:
        return _query(client, name, where, arguments)
    except AerospikeError as error:
        if not _failed_in_lua(error):
            raise
    _register(client, source)
    try:
        return _query(client, name, where, arguments)
    except AerospikeError as error:
        if not _failed_in_lua(error):
            raise
        if error.code == CODE_FAILED_HERE:
            # Another client, without the directory, connected before ours.
            reason = "the first client that connected in this process needs lua.user_path = module_directory()"
        elif error.code == CODE_FORBIDDEN:
            reason = "a node may run no Lua (disable-udf-execution)"
        else:
            reason = "a node failed to run it"
        raise ModuleMissing(f"the Lua module {name}: {reason}: {error.msg}") from error


def _query(client: Any, name: str, where: tuple[str, str], arguments: list[str | int]) -> Sizes:
    query = client.query(*where)
    query.apply(name, FUNCTION, arguments)
    sums = query.results(QUERY_POLICY)
    # Without segments there is no sum.
    return Sizes(**sums[0]) if sums else Sizes()


def _failed_in_lua(error: Any) -> bool:
    """Tell whether a query failed because its module is missing or failed, here or on a node."""
    if error.code in (CODE_FAILED_HERE, CODE_FAILED_THERE):
        return str(error.msg).startswith("UDF")
    return bool(error.code == CODE_FORBIDDEN)

"""The Lua module is where it is needed, and older ones are removed."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from summed import NOW_MS, Segments, plain

from beanspiked.engine.aerospike.store.aerospike import udf
from beanspiked.engine.aerospike.store.aerospike.udf import ModuleMissing, Sizes
from beanspiked.engine.aerospike.store.seam import BURIED, READY
from beanspiked.ops import cleanup

if TYPE_CHECKING:
    from collections.abc import Iterator


# A server's modules are one for all: these tests take them away.
pytestmark = pytest.mark.xdist_group("aerospike-modules")

OLD = "beanspiked_0123456789ab"


@pytest.fixture
def extra(client: Any) -> Iterator[list[str]]:
    """Names of modules to be taken from the server afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        remove(client, name)


def give(client: Any, name: str, source: bytes = b"function nothing() end\n") -> None:
    """Register a module under a name of our choice."""
    content = base64.b64encode(source).decode()
    udf._command(client, f"udf-put:filename={name}.lua;content={content};content-len={len(content)};udf-type=LUA;")
    udf._wait(client, lambda files: f"{name}.lua" in files, name)


def remove(client: Any, name: str) -> None:
    udf._command(client, f"udf-remove:filename={name}.lua;")
    udf._wait(client, lambda files: f"{name}.lua" not in files, name)


def has(client: Any, name: str) -> bool:
    return all(f"{name}.lua" in files for files in udf._listed(client))


# --- where the module is


def test_the_client_finds_the_module_under_the_name_of_its_content() -> None:
    source = udf.module_source()
    name = udf.module_name(source)
    assert name == f"beanspiked_{hashlib.sha256(source).hexdigest()[:12]}"
    assert Path(udf.module_directory(), f"{name}.lua").read_bytes() == source
    assert udf.module_name(source + b"\n") != name


def test_a_module_is_registered_where_it_is_missing_and_only_there(client: Any) -> None:
    name = udf.register(client)
    remove(client, name)
    assert not has(client, name)
    assert udf.register(client) == name
    assert has(client, name)
    commands = Recording(client)
    assert udf.register(commands) == name
    assert commands.commands == []


def test_a_missing_module_is_registered_again_by_the_call_that_needs_it(segments: Segments) -> None:
    client = segments.client
    segments.fill(1, "tube", {READY: [plain(10)]})
    for _ in range(5):
        remove(client, udf.module_name(udf.module_source()))
        assert segments.sizes() == Sizes(ready=1, job_size=10, used_size=10)
    assert has(client, udf.module_name(udf.module_source()))


def test_many_may_find_the_module_missing_at_once(segments: Segments) -> None:
    segments.fill(1, "tube", {READY: [plain(10)]})
    remove(segments.client, udf.module_name(udf.module_source()))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: segments.sizes(), range(8))) == {Sizes(ready=1, job_size=10, used_size=10)}


def test_a_module_that_nodes_refuse_is_told(client: Any) -> None:
    with pytest.raises(ModuleMissing, match="compile_error"):
        udf._register(client, b"this is not Lua")


# A process of its own, since a process looks for modules in one directory only, and with a version of its own.
CHILD = """
import sys
import aerospike
from pathlib import Path
from beanspiked.engine.aerospike.store.aerospike import udf
host, port, set_name, directory, source = sys.argv[1:]
config = {"hosts": [(host, int(port))]}
if directory:
    config["lua"] = {"user_path": directory}
client = aerospike.client(config).connect()
try:
    print(udf._sizes(client, Path(source).read_bytes(), ("test", set_name), None, 0))
except udf.ModuleMissing as error:
    print("ModuleMissing:", error)
client.close()
"""


def in_another_process(
    segments: Segments, address: tuple[str, int], folder: Path, source: bytes, registered: bool = True
) -> str:
    """Sum the segments with another version of the module, or one that its client does not find."""
    path = folder / f"{udf.module_name(source)}.lua"
    path.write_bytes(source)
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            address[0],
            str(address[1]),
            segments.set_name,
            str(folder) if registered else "",
            str(path),
        ],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # The client's own library writes a module that it does not find to the standard output, too.
    return found.stdout.splitlines()[-1]


def test_two_versions_work_side_by_side(
    segments: Segments, address: tuple[str, int], tmp_path: Path, extra: list[str]
) -> None:
    source = udf.module_source()
    other = source.replace(b"buried = buried + 1", b"buried = buried + 100")
    assert other != source
    extra.append(udf.module_name(other))
    folder = tmp_path / "modules"
    folder.mkdir()
    segments.fill(1, "tube", {BURIED: [plain(10), plain(1)]})
    for _ in range(3):
        assert segments.sizes().buried == 2
        assert "buried=200," in in_another_process(segments, address, folder, other)
        remove(segments.client, udf.module_name(other))
    assert has(segments.client, udf.module_name(source))


def test_a_module_that_this_process_does_not_find_is_told(
    segments: Segments, address: tuple[str, int], tmp_path: Path
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    segments.fill(1, "tube", {READY: [plain(10)]})
    told = in_another_process(segments, address, folder, udf.module_source(), registered=False)
    assert told.startswith("ModuleMissing:")
    assert "lua.user_path" in told


def test_a_module_that_fails_is_told(
    segments: Segments, address: tuple[str, int], tmp_path: Path, extra: list[str]
) -> None:
    failing = udf.module_source().replace(b"buried = buried + 1", b"error('on purpose')")
    extra.append(udf.module_name(failing))
    folder = tmp_path / "modules"
    folder.mkdir()
    segments.fill(1, "tube", {BURIED: [plain(10)]})
    told = in_another_process(segments, address, folder, failing)
    assert told.startswith("ModuleMissing:")
    assert "on purpose" in told


class Recording:
    """A client that passes everything on and keeps the commands."""

    def __init__(self, client: Any) -> None:
        self.commands: list[str] = []
        self._client = client

    def info_random_node(self, command: str, policy: dict[str, int]) -> str:
        self.commands.append(command.partition(":")[0])
        answer: str = self._client.info_random_node(command, policy)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_module_that_is_removed_again_and_again_is_registered_once_a_call(segments: Segments) -> None:
    name = udf.module_name(udf.module_source())
    segments.fill(1, "tube", {READY: [plain(10)]})

    class Sabotaged(Recording):
        def query(self, *where: str) -> Any:
            remove(segments.client, name)
            return segments.client.query(*where)

    client = Sabotaged(segments.client)
    with pytest.raises(ModuleMissing, match=name):
        udf.sizes(client, "test", segments.set_name, None, NOW_MS)
    assert client.commands == ["udf-put"]


class Silent:
    """A cluster in which a module reaches one of two nodes only."""

    def __init__(self) -> None:
        self.files = ""

    def info_all(self, _command: str, _policy: dict[str, int]) -> dict[str, tuple[None, str]]:
        return {"A": (None, self.files), "B": (None, "\n")}

    def info_random_node(self, command: str, _policy: dict[str, int]) -> str:
        self.files = f"{command.removeprefix('udf-put:').partition(';')[0]},hash=1,type=LUA;\n"
        return f"{command}\tok\n"


def test_a_module_that_does_not_reach_every_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udf, "PATIENCE_S", 0.1)
    with pytest.raises(ModuleMissing, match="every node"):
        udf.register(Silent())


# --- clean-up


def test_modules_of_other_versions_are_removed_and_nothing_else(client: Any, extra: list[str]) -> None:
    current = udf.register(client)
    others = ["foreign", "beanspiked_mine", "xbeanspiked_0123456789ab", "beanspiked_0123456789abc"]
    for name in others:
        give(client, name)
        extra.append(name)
    old = [OLD, "beanspiked_ffffffffffff"]
    for name in old:
        give(client, name)
    assert udf.old_modules(client) == old
    assert udf.remove_old(client) == old
    assert udf.old_modules(client) == udf.remove_old(client) == []
    assert all(has(client, name) for name in [current, *others])


def test_the_command_cleans_up_and_says_so(
    client: Any, address: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    give(client, OLD)
    url = f"aerospike://{address[0]}:{address[1]}/test"
    assert cleanup.main([url]) == 0
    assert capsys.readouterr().out == f"removed the Lua module {OLD}\n"
    assert cleanup.main([url]) == 0
    assert capsys.readouterr().out == "there is no Lua module of another version\n"


@pytest.mark.parametrize("words", [[], ["aerospike://127.0.0.1/test", "again"], ["sqlite:jobs"]])
def test_the_command_refuses_other_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanup.main(words) == 5
    assert capsys.readouterr().err.startswith("beanspiked: ")


def test_the_command_says_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanup.main(["aerospike://me:secret@127.0.0.1:9/test"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("beanspiked: ")
    assert told.endswith("cannot connect to 127.0.0.1:9: connection refused\n")
    assert "secret" not in told


def test_the_command_needs_one_host_that_answers(
    client: Any,  # noqa: ARG001 - a server that answers
    address: tuple[str, int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cleanup.main([f"aerospike://127.0.0.1:9,{address[0]}:{address[1]}/test"]) == 0
    assert "Lua module" in capsys.readouterr().out


def test_the_command_finds_the_cluster_in_the_environment(
    client: Any,
    address: tuple[str, int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(client, OLD)
    monkeypatch.setenv("BEANSPIKED_STORE", f"aerospike://{address[0]}:{address[1]}/test")
    assert cleanup.main([]) == 0
    assert capsys.readouterr().out == f"removed the Lua module {OLD}\n"
    monkeypatch.setenv("BEANSPIKED_STORE", "memory:")
    assert cleanup.main([]) == 5
    assert "this command needs aerospike:" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_command_prints_its_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanup.main([option]) == 0
    assert capsys.readouterr().out.startswith("Usage: beanspiked cleanup")

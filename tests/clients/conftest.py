"""The server under test, and other people's packages from the public registries, for the tests in this folder.

Everything runs twice: with jobs in memory, and in Aerospike where tests/conftest.py finds a server. `BEANSPIKED_TEST_COMMAND`
names the server's command, so the same tests can be pointed at beanstalkd itself, with `-k memory`. Packages are fetched
once, checked by hash, and kept in `.clients/` at the top of the checkout.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asd import NAMESPACE, forget, note_build
from depth import absent
from drivers import PYTHON_CLIENTS, Queue
from launcher import serving
from node_drivers import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".clients"
DOWNLOAD_SECONDS = 90


def require_tool(name: str) -> str:
    return shutil.which(name) or absent(f"{name} is not installed")


@contextlib.contextmanager
def cache_lock() -> Iterator[None]:
    """Let one test process at a time fill the cache."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def filled_by(folder: Path, stamp: str, fill: Callable[[], None]) -> Path:
    """Make `folder` anew with `fill` unless an earlier run left it complete with the same stamp."""
    complete = folder / ".complete"
    with cache_lock():
        if not complete.is_file() or complete.read_text() != stamp:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill()
            complete.write_text(stamp)
    return folder


def download(command: list[str], what: str, folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        absent(f"could not download {what} in {DOWNLOAD_SECONDS} seconds")
    except subprocess.CalledProcessError as error:
        absent(f"could not download {what}: {error.stderr[-600:]}")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session", params=["memory", "aerospike"])
def store(request: pytest.FixtureRequest) -> str:
    """Where the jobs of the servers under test live."""
    store: str = request.param
    return store


@pytest.fixture(scope="session")
def server_executable(
    store: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A server that begins empty, as one file: suites that start it themselves take no options."""
    named = os.environ.get("BEANSPIKED_TEST_COMMAND")
    command = named or shlex.quote(str(Path(sys.executable).with_name("beanspiked")))
    wrapper = tmp_path_factory.mktemp("bin") / "server"
    if store == "memory":
        wrapper.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        wrapper.chmod(0o755)
        yield wrapper
        return
    host, port = request.getfixturevalue("address")
    client = request.getfixturevalue("aerospike_client")
    mine = f"k{uuid.uuid4().hex[:6]}_"
    # The shell's process id makes each server's prefix its own. A suite that asks for a journal gets the cluster instead.
    wrapper.write_text(f"""#!/bin/sh
[ "$1" = -b ] && shift 2
exec {command} --store "aerospike://{host}:{port}/{NAMESPACE}?prefix={mine}$$_" "$@"
""")
    wrapper.chmod(0o755)
    yield wrapper
    forget(client, mine)


@pytest.fixture(autouse=True)
def _told_of(store: str, request: pytest.FixtureRequest) -> None:
    """Let the end of the run say how many tests an Aerospike server saw."""
    if store == "aerospike":
        note_build(request.getfixturevalue("aerospike_client"), request)


@pytest.fixture(scope="session")
def server(server_executable: Path) -> Iterator[int]:
    """The port of a server that all scenarios of this process share; each keeps to tubes of its own."""
    with serving([str(server_executable)]) as server:
        yield server.address[1]


@pytest.fixture
def fresh_server(server_executable: Path) -> Iterator[int]:
    """The port of a server that nothing else talks to."""
    with serving([str(server_executable)]) as server:
        yield server.address[1]


@pytest.fixture(scope="session")
def sdists() -> Path:
    """A folder with each source distribution of `sdists.txt` unpacked under its own name and version."""
    wanted = HERE / "sdists.txt"
    folder = CACHE / "sdists"

    def fill() -> None:
        if importlib.util.find_spec("pip") is None:
            absent("pip is not installed")
        options = ["--quiet", "--require-hashes", "--no-deps", "--no-binary", ":all:", "--requirement", str(wanted)]
        download([sys.executable, "-m", "pip", "download", *options], "the Python clients' sources", folder)
        for archive in folder.glob("*.tar.gz"):
            with tarfile.open(archive) as opened:
                # Python has had the filter since 3.11.4.
                opened.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))

    return filled_by(folder, hashlib.sha256(wanted.read_bytes()).hexdigest(), fill)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of `node/package-lock.json`, installed without running any script of theirs."""
    require_tool("node")
    npm = require_tool("npm")
    manifests = [HERE / "node" / name for name in ("package.json", "package-lock.json")]
    folder = CACHE / "npm"

    def fill() -> None:
        for manifest in manifests:
            shutil.copy(manifest, folder)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        download([npm, "ci", *options], "the JavaScript clients", folder)

    stamp = hashlib.sha256(b"".join(manifest.read_bytes() for manifest in manifests)).hexdigest()
    return filled_by(folder, stamp, fill) / "node_modules"


@pytest.fixture(scope="session")
def namespace() -> list[str] | None:
    """The words before a command that give it a network of its own, or None where this machine does not allow it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    for how in (["--user", "--map-root-user", "--net"], ["--net"]):
        words = [unshare, *how, "--pid", "--fork", "--kill-child"]
        probe = [*words, sys.executable, str(HERE / "apart.py"), "--loopback", "0", "none"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            if subprocess.run(probe, check=False, capture_output=True, timeout=10).returncode == 0:
                return words
    return None


@pytest.fixture(scope="session")
def with_fixed_port(store: str, namespace: list[str] | None) -> Callable[[int], list[str]]:
    """Words that run a server on a port and a command that is known to use it: see `apart.py`."""

    def words(port: int) -> list[str]:
        runner = [sys.executable, str(HERE / "apart.py")]
        # A network of its own has no way to a cluster.
        if namespace is not None and store == "memory":
            return [*namespace, *runner, "--loopback", str(port)]
        if accepts(port):
            absent(f"port {port} is taken, and this test cannot have a network of its own")
        return [*runner, str(port)]

    return words


@pytest.fixture(scope="session")
def node_driver(request: pytest.FixtureRequest) -> Iterator[Callable[[str], NodeProcess]]:
    """One node process per client library, started when a scenario first asks for it."""
    started: dict[str, NodeProcess] = {}
    with contextlib.ExitStack() as cleanup:

        def start(library: str) -> NodeProcess:
            if library not in started:
                node_modules = request.getfixturevalue("node_modules")
                process = NodeProcess(require_tool("node"), HERE / "node", node_modules, library)
                started[library] = cleanup.enter_context(process)
            return started[library]

        yield start


@pytest.fixture
def connect(client: str, server: int, node_driver: Callable[[str], NodeProcess]) -> Iterator[Callable[[], Queue]]:
    """Open connections with the client library the test is parametrized with; all are closed at the end."""
    opened: list[Queue] = []

    def open_one() -> Queue:
        queue: Queue
        if client.startswith("npm-"):
            queue = Queue(node_driver(client.removeprefix("npm-")).connection(server))
        else:
            try:
                queue = Queue(PYTHON_CLIENTS[client](server))
            except ModuleNotFoundError as error:
                absent(f"{client} is not installed: {error}")
        opened.append(queue)
        return queue

    yield open_one
    for queue in opened:
        queue.close()

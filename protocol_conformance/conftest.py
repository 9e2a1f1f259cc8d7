"""Options, markers and fixtures of the conformance suite; README.md tells how to use them."""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from .servers import Command, Farm
from .wire import Connection, Endpoint, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MARKERS = (
    "rule(id, ...): the rules of rules.toml that this test checks",
    "fresh: needs a server of its own, so it needs --fresh-server-command",
    "slow: waits for more than a second",
    "since_1_13(reason): checks what beanstalkd does from 1.13 on; an older server is expected to fail",
    "beanstalkd_bug(reason, flaky=False): better behaviour than beanstalkd's, which must fail (flaky: is skipped)",
    "cluster_relaxed(reason): several front-ends of a cluster need not keep this rule; skipped with --profile cluster",
    "shared_store_relaxed(reason): nor need a single one whose jobs live in a shared store; skipped with --profile shared, too",
)
NO_SERVER = "no server to test: give --server HOST:PORT or --fresh-server-command CMD"
NO_COMMAND = "needs a server of its own: give --fresh-server-command CMD"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("protocol conformance")
    group.addoption(
        "--server",
        action="append",
        metavar="ADDRESS",
        help="HOST:PORT or unix:PATH of the server under test; repeat it for the front-ends of a cluster",
    )
    group.addoption(
        "--fresh-server-command",
        metavar="CMD",
        help="how to start a server; {host} and {port} are filled in, or '-l HOST -p PORT' is appended",
    )
    group.addoption(
        "--profile",
        choices=("single", "shared", "cluster"),
        default="single",
        help="shared: the server's jobs live in a shared store; cluster: connections are spread over all --server addresses; "
        "the rules that such servers may relax are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore SIGINT, and servers would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    has_command = bool(config.getoption("--fresh-server-command", default=None))
    has_server = has_command or bool(config.getoption("--server", default=None))
    profile = config.getoption("--profile", default="single")
    here = os.path.dirname(__file__)  # noqa: PTH120 - compared as text with item.path
    for item in items:
        if not str(item.path).startswith(here + os.sep):
            continue
        fixtures = getattr(item, "fixturenames", ())
        if "farm" in fixtures:
            item.add_marker(pytest.mark.fresh)
        needs_server = "connect" in fixtures or "farm" in fixtures
        relaxed = item.get_closest_marker("cluster_relaxed") if profile == "cluster" else None
        if profile != "single":
            relaxed = relaxed or item.get_closest_marker("shared_store_relaxed")
        if needs_server and not has_server:
            item.add_marker(pytest.mark.skip(reason=NO_SERVER))
        elif item.get_closest_marker("fresh") and not has_command:
            item.add_marker(pytest.mark.skip(reason=NO_COMMAND))
        elif relaxed:
            item.add_marker(pytest.mark.skip(reason=f"relaxed with --profile {profile}: {relaxed.args[0]}"))


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Which server program answers."""

    version: tuple[int, ...]
    is_ours: bool

    @classmethod
    def ask(cls, connection: Connection) -> Identity:
        """Find out from `stats`."""
        fields = connection.fields(b"stats")
        numbers = fields["version"].strip('"').partition("+")[0].split(".")
        version = tuple(int(number) for number in numbers if number.isdecimal())
        return cls(version=version, is_ours="beanspiked-version" in fields)


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """The server under test, or the front-ends of the cluster under test."""

    turns: Iterator[Endpoint]
    identity: Identity
    is_cluster: bool


class Connect(Protocol):
    """Opens a connection that is closed after the test; of a cluster's front-ends the next one is dialled."""

    def __call__(self, *, use: str = "default", watch: str | Iterable[str] = "default") -> Connection: ...


@pytest.fixture(scope="session")
def fresh_command(request: pytest.FixtureRequest) -> Command:
    template: str | None = request.config.getoption("--fresh-server-command", default=None)
    if not template:
        pytest.skip(NO_COMMAND)
    return Command(template)


@pytest.fixture(scope="session")
def fresh_identity(fresh_command: Command) -> Identity:
    """What the fresh server command starts."""
    farm = Farm(fresh_command)
    try:
        return Identity.ask(farm.start().connect())
    finally:
        farm.close()


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    addresses: list[str] = request.config.getoption("--server", default=None) or []
    endpoints = [Endpoint.parse(address) for address in addresses]
    farm: Farm | None = None
    if not endpoints:
        farm = Farm(request.getfixturevalue("fresh_command"))
        endpoints = [farm.start().endpoint]
    try:
        connection = Connection(endpoints[0].dial())
        try:
            identity = Identity.ask(connection)
        finally:
            connection.close()
        yield Site(
            turns=itertools.cycle(endpoints),
            identity=identity,
            is_cluster=request.config.getoption("--profile", default="single") == "cluster",
        )
    finally:
        if farm is not None:
            farm.close()


@pytest.fixture
def connect(site: Site) -> Iterator[Connect]:
    opened: list[Connection] = []

    def dial(*, use: str = "default", watch: str | Iterable[str] = "default") -> Connection:
        connection = Connection(next(site.turns).dial(), use=use, watch=watch)
        opened.append(connection)
        return connection

    yield dial
    for connection in opened:
        connection.close()


@pytest.fixture
def farm(fresh_command: Command) -> Iterator[Farm]:
    """Starts servers for this test alone."""
    servers = Farm(fresh_command)
    yield servers
    servers.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="pc.") as path:
        yield Path(path)


@pytest.fixture
def new_tube() -> Callable[[], str]:
    """Makes tube names that no other test, worker or run uses."""
    return lambda: f"conformance.{os.getpid()}.{secrets.token_hex(6)}"


@pytest.fixture
def tube(new_tube: Callable[[], str]) -> str:
    return new_tube()


@pytest.fixture
def agrees(site: Site) -> Callable[[Callable[[], bool]], bool]:
    """Judges what one connection sees of another's doing: at once on one server, within seconds in a cluster."""
    return lambda check: eventually(check) if site.is_cluster else check()


@pytest.fixture(autouse=True)
def _expect_known_differences(request: pytest.FixtureRequest) -> None:
    since = request.node.get_closest_marker("since_1_13")
    bug = request.node.get_closest_marker("beanstalkd_bug")
    if since is None and bug is None:
        return
    fresh = request.node.get_closest_marker("fresh")
    identity: Identity = (
        request.getfixturevalue("fresh_identity") if fresh else request.getfixturevalue("site").identity
    )
    if bug is not None and not identity.is_ours:
        reason = f"beanstalkd bug: {bug.args[0]}"
        if bug.kwargs.get("flaky"):
            pytest.skip(reason)
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    elif since is not None and identity.version < (1, 13):
        request.node.add_marker(pytest.mark.xfail(reason=f"since beanstalkd 1.13: {since.args[0]}", strict=True))

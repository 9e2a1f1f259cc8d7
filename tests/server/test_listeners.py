"""Where the server listens, and what it tells the service manager. The rest of this is in protocol_conformance."""

from __future__ import annotations

import _socket
import contextlib
import os
import secrets
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from lab.client import Client, dialer, serve_together
from lab.process import Server, Servers, free_port, run, server_command

from beanspiked.config import Settings
from beanspiked.server.listeners import Binding, ListenError, bind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from beanspiked.server.listeners import Address


# Becomes the server, with the descriptors of the first argument as descriptors 3, 4, ..., as systemd would start it.
ACTIVATE = """
import os, sys
fds = [os.dup2(int(fd), 100 + number) for number, fd in enumerate(sys.argv[1].split(","))]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def test_several_addresses_serve_the_same_jobs(servers: Servers, folder: Path) -> None:
    sockets = [folder / "one", folder / "two"]
    server = servers.start("-l", f"unix:{sockets[0]}", "-l", f"unix:{sockets[1]}", "-l", "127.0.0.2")
    assert isinstance(server.address, tuple)
    port = server.address[1]
    assert serve_together(server.address, ("127.0.0.2", port), *map(str, sockets))


@needs_ipv6
def test_ipv4_and_ipv6_together(servers: Servers) -> None:
    server = servers.start("-l", "::1")
    assert isinstance(server.address, tuple)
    assert serve_together(server.address, ("::1", server.address[1]))


def test_if_one_of_several_addresses_cannot_be_had_none_is(folder: Path) -> None:
    (folder / "precious").write_text("precious")
    result = run("-l", f"unix:{folder / 'socket'}", "-l", f"unix:{folder / 'precious'}", "-p", str(free_port()))
    assert (result.returncode, len(result.stderr.splitlines())) == (111, 1)
    assert str(folder / "precious") in result.stderr
    assert (folder / "precious").read_text() == "precious"


# --- inherited sockets


class Activated:
    """Starts servers with listening sockets as descriptors 3 and up."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def start(self, sockets: list[socket.socket], *flags: str, wait: bool = True) -> Server:
        numbers = [sock.fileno() for sock in sockets]
        words = [sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers)), *server_command(), *flags]
        server = self._servers.adopt(Server(words, sockets[0].getsockname(), {}, numbers))
        if wait:
            server.wait_until_serving()
        return server


@pytest.fixture
def activated(servers: Servers) -> Activated:
    return Activated(servers)


@pytest.fixture
def listening(folder: Path) -> Iterator[dict[str, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "inherited"))
        unix.listen()
        yield {"tcp": tcp, "unix": unix}


@pytest.mark.parametrize("kinds", [["tcp"], ["unix"], ["tcp", "unix"], ["unix", "tcp"]], ids="+".join)
def test_all_inherited_sockets_are_served(
    activated: Activated, listening: dict[str, socket.socket], kinds: list[str]
) -> None:
    sockets = [listening[kind] for kind in kinds]
    activated.start(sockets)
    assert serve_together(*(sock.getsockname() for sock in sockets))


def test_clients_that_came_before_the_server_are_served(
    activated: Activated, listening: dict[str, socket.socket]
) -> None:
    early = Client(lambda: dialer(listening["tcp"].getsockname()))
    early.send(b"list-tubes\r\n")
    activated.start([listening["tcp"]])
    assert early.reply().data == b"---\n- default\n"
    early.close()


def test_l_and_p_beside_inherited_sockets_are_ignored_with_a_warning(
    activated: Activated, listening: dict[str, socket.socket], folder: Path
) -> None:
    server = activated.start([listening["tcp"]], "-l", f"unix:{folder / 'ignored'}")
    assert "ignored" in server.log()
    assert not (folder / "ignored").exists()


def test_sockets_meant_for_another_process_are_not_touched(servers: Servers, folder: Path) -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    servers.start(path=folder / "socket", environ=environ)
    assert serve_together(str(folder / "socket"))


def test_an_inherited_descriptor_that_does_not_listen_exits_with_111(activated: Activated) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = activated.start([sock], wait=False)
        assert server.wait() == 111
        assert len(server.log().splitlines()) == 1


# --- sd_notify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_learns_of_start_and_stop(servers: Servers, journal: Path, folder: Path, kind: str) -> None:
    name = str(folder / "notify") if kind == "path" else f"@beanspiked-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1) if kind == "abstract" else name)
        manager.settimeout(10)
        server = servers.start("-b", journal, environ={"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"
        holder = server.connect()
        holder.put()
        holder.ask(b"reserve")
        assert server.terminate() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_gone_is_no_reason_to_stop(servers: Servers, folder: Path) -> None:
    server = servers.start(environ={"NOTIFY_SOCKET": str(folder / "nobody")})
    assert "notify" in server.log()
    assert server.connect().put() == 1


def test_a_server_that_refuses_its_journal_is_never_ready(servers: Servers, journal: Path, folder: Path) -> None:
    (journal / "jobs.sqlite").write_text("not a database\n" * 1000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        server = servers.start("-b", journal, wait=False, environ={"NOTIFY_SOCKET": str(folder / "notify")})
        assert server.wait() == 10
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


# --- names, ports and clients that are gone


def bound(*listen: str, port: str = "0", keepalive: int = 60) -> list[socket.socket]:
    settings = Settings()
    settings.listen, settings.port, settings.tcp_keepalive = listen, port, keepalive
    return [socket.socket(fileno=fd) for fd in bind(settings)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have every name stand for the given addresses."""

    def stand_for(*addresses: str) -> None:
        def look_up(_host: object, port: str, *_rest: object) -> list[object]:
            return [
                (socket.AF_INET6, 1, 6, "", (address, int(port), 0, 0))
                if ":" in address
                else (socket.AF_INET, 1, 6, "", (address, int(port)))
                for address in addresses
            ]

        monkeypatch.setattr(_socket, "getaddrinfo", look_up)

    return stand_for


def hosts_of(sockets: list[socket.socket]) -> list[str]:
    hosts = [sock.getsockname()[0] for sock in sockets]
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()
    return hosts


def test_all_addresses_of_a_name_are_listened_on_at_one_port(names: Callable[..., None]) -> None:
    names("127.0.0.1", "127.0.0.2", "127.0.0.1")
    assert hosts_of(bound("name", "other")) == ["127.0.0.1", "127.0.0.2"]


@needs_ipv6
def test_ipv4_and_ipv6_of_a_name_are_listened_on_at_one_port(names: Callable[..., None]) -> None:
    names("::1", "127.0.0.1")
    assert hosts_of(bound("localhost")) == ["::1", "127.0.0.1"]


# Of TEST-NET-1: no machine has it.
NOT_HERE = "192.0.2.1"


def test_an_address_that_this_machine_lacks_is_skipped_where_the_name_has_another(names: Callable[..., None]) -> None:
    names(NOT_HERE, "127.0.0.1")
    assert hosts_of(bound("name")) == ["127.0.0.1"]


def test_a_name_that_has_no_address_of_this_machine_is_refused(names: Callable[..., None]) -> None:
    names(NOT_HERE)
    with pytest.raises(ListenError, match=r"^name port 0: "):
        bound("name")


def test_a_name_with_one_address_taken_is_refused(names: Callable[..., None]) -> None:
    names("127.0.0.1", "127.0.0.2", NOT_HERE)
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(ListenError, match="in use"):
            bound("name", port=port)
        # Nothing of the failed try is left open.
        socket.create_server(("127.0.0.1", int(port))).close()


def test_any_port_is_one_that_is_free_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        ports = iter([port])
        bind_address = Binding._bind_address

        def first_takes_it(self: Binding, found: Address) -> None:
            # Whoever is the first is given the one port that the second cannot have.
            if found[3][0] == "127.0.0.1":
                found = (*found[:3], ("127.0.0.1", next(ports, 0)))
                bind_address(self, found)
                self.port = self.port or port
            else:
                bind_address(self, found)

        monkeypatch.setattr(Binding, "_bind_address", first_takes_it)
        assert hosts_of(bound("127.0.0.1", "127.0.0.2")) == ["127.0.0.1", "127.0.0.2"]


def test_a_services_name_is_a_port() -> None:
    try:
        (sock,) = bound("127.0.0.1", port="http")
    except ListenError as error:
        # Somebody else may serve there, or only root may.
        assert "Servname" not in str(error)  # noqa: PT017 - it may, or may not
        return
    with sock:
        assert sock.getsockname()[1] == 80


@pytest.mark.parametrize("port", ["abc", "-1"])
def test_what_is_no_services_name_exits_with_111(port: str) -> None:
    result = run("-l", "127.0.0.1", "-p", port)
    assert (result.returncode, len(result.stderr.splitlines())) == (111, 1)
    assert f"port {port}: " in result.stderr


def patience(sock: socket.socket) -> tuple[int, ...]:
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *(sock.getsockopt(socket.IPPROTO_TCP, option) for option in options),
    )


def accepted_by(listener: socket.socket) -> tuple[int, ...]:
    """How patient an accepted socket is."""
    listener.setblocking(True)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as sock:
        return patience(sock)


@pytest.mark.parametrize(("seconds", "expected"), [(60, (1, 60, 15, 4)), (5, (1, 5, 5, 4)), (7200, (1, 7200, 15, 4))])
def test_a_client_that_is_silent_is_asked_whether_it_is_there(seconds: int, expected: tuple[int, ...]) -> None:
    (listener,) = bound("127.0.0.1", keepalive=seconds)
    assert accepted_by(listener) == expected


def test_a_client_may_be_asked_when_the_kernel_thinks_best() -> None:
    with socket.socket() as plain:
        default = patience(plain)
    (listener,) = bound("127.0.0.1", keepalive=0)
    assert accepted_by(listener) == (1, *default[1:])


def test_clients_of_an_inherited_socket_are_asked_too(activated: Activated) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        activated.start([listener], "--tcp-keepalive", "77")
        assert patience(listener) == (1, 77, 15, 4)

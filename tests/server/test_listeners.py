"""Where the server listens, and what it tells the service manager. The rest of this is in protocol_conformance."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from lab.client import Client
from lab.process import Server, Servers, free_port, run, server_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def dialer(address: str | tuple[str, int]) -> socket.socket:
    """Connect to a unix socket or a TCP port."""
    if isinstance(address, tuple):
        return socket.create_connection(address, 10)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(address)
    return sock


def serve_together(*addresses: str | tuple[str, int]) -> bool:
    """Tell whether what is put at the first address is seen at each."""
    clients = [Client(lambda address=address: dialer(address)) for address in addresses]  # type: ignore[misc]
    job_id = clients[0].put(b"seen")
    seen = [client.ask(b"peek %d" % job_id).data for client in clients]
    for client in clients:
        client.close()
    return seen == [b"seen"] * len(addresses)


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


@pytest.mark.parametrize("mode", ["600", "660", "0777"])
def test_socket_mode_sets_the_permissions_of_unix_sockets(servers: Servers, folder: Path, mode: str) -> None:
    path = folder / "socket"
    servers.start("--socket-mode", mode, path=path)
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)


@pytest.mark.parametrize("mode", ["8", "rw", "1777", "-1", ""])
def test_what_are_no_permissions_is_a_usage_error(folder: Path, mode: str) -> None:
    assert run("-l", f"unix:{folder / 'socket'}", f"--socket-mode={mode}").returncode == 5
    assert not (folder / "socket").exists()


def test_a_stale_socket_is_replaced_and_a_link_to_a_file_is_not(servers: Servers, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "socket"))
    servers.start(path=folder / "socket")
    assert serve_together(str(folder / "socket"))
    (folder / "precious").write_text("precious")
    (folder / "link").symlink_to(folder / "precious")
    assert run("-l", f"unix:{folder / 'link'}").returncode == 111
    assert (folder / "link").is_symlink()
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

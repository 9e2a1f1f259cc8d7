"""Unix sockets: whose they are, who may use them, and what becomes of one that is left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

import pytest
from lab.client import serve_together
from lab.process import Servers, run, until

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_unix_socket_that_somebody_answers_on_is_left_to_him(servers: Servers, folder: Path) -> None:
    servers.start(path=folder / "socket")
    before = (folder / "socket").stat().st_ino
    result = run("-l", f"unix:{folder / 'socket'}")
    assert (result.returncode, len(result.stderr.splitlines())) == (111, 1)
    assert str(folder / "socket") in result.stderr
    assert (folder / "socket").stat().st_ino == before
    assert serve_together(str(folder / "socket"))


def test_a_unix_socket_whose_server_is_too_busy_to_answer_is_left_to_it(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
        busy.bind(str(folder / "socket"))
        busy.listen(0)
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(folder / "socket"))
            except BlockingIOError:
                break
        before = (folder / "socket").stat().st_ino
        assert run("-l", f"unix:{folder / 'socket'}").returncode == 111
        assert (folder / "socket").stat().st_ino == before


def test_a_unix_socket_of_another_kind_is_left_alone(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(folder / "socket"))
        assert run("-l", f"unix:{folder / 'socket'}").returncode == 111
        assert (folder / "socket").is_socket()


@pytest.mark.parametrize("number", range(5))
def test_of_servers_that_start_at_once_on_one_unix_socket_one_serves(
    servers: Servers, folder: Path, number: int
) -> None:
    if number:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(folder / "socket"))
    together = [servers.start(path=folder / "socket", wait=False) for _ in range(4)]
    until(lambda: sum(server.process.poll() is None for server in together) == 1)
    assert sorted(server.process.poll() or 0 for server in together) == [0, 111, 111, 111]
    assert serve_together(str(folder / "socket"))
    assert [entry.name for entry in folder.iterdir()] == ["socket"]


def test_a_stale_unix_socket_is_not_taken_while_another_start_looks_at_it(servers: Servers, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "socket"))
    directory = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        server = servers.start(path=folder / "socket", wait=False)
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            server.dial()
    finally:
        os.close(directory)
    server.wait_until_serving()


def test_a_start_that_fails_leaves_no_unix_socket_behind(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run("-l", f"unix:{folder / 'socket'}", "-l", "127.0.0.1", "-p", port).returncode == 111
        assert not list(folder.iterdir())
        assert run("-l", f"unix:{folder / 'socket'}", "--admin", port).returncode == 111
        assert not list(folder.iterdir())
    (folder / "no-journal").touch()
    assert run("-l", f"unix:{folder / 'socket'}", "-b", folder / "no-journal").returncode == 10
    assert [entry.name for entry in folder.iterdir()] == ["no-journal"]


def test_a_port_is_not_looked_up_for_unix_sockets(servers: Servers, folder: Path) -> None:
    servers.start("-p", "no-such-service", path=folder / "socket")
    assert serve_together(str(folder / "socket"))

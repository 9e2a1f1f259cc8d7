"""Where the server listens: IPv6, unix sockets and inherited sockets (§2.12)."""

from __future__ import annotations

import contextlib
import signal
import socket
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .servers import Farm, FreshServer


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def serves(server: FreshServer) -> bool:
    connection = server.connect(use="t", watch="t")
    job_id = connection.insert(b"body")
    return connection.ask_job(b"reserve") == (b"RESERVED", job_id, b"body")


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.rule("2.12/ipv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_an_ipv6_address_may_be_listened_on(farm: Farm, host: str) -> None:
    assert serves(farm.start(host=host))


@pytest.mark.rule("2.12/unix")
def test_a_unix_socket_serves_like_a_port(farm: Farm, folder: Path) -> None:
    path = folder / "socket"
    assert serves(farm.start(path=path))
    assert stat.S_ISSOCK(path.stat().st_mode)


@pytest.mark.rule("2.12/unix-stale")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_the_socket_that_an_ended_server_left_is_replaced(farm: Farm, folder: Path, end: signal.Signals) -> None:
    path = folder / "socket"
    first = farm.start(path=path)
    first.signal(end)
    first.wait()
    assert serves(farm.start(path=path))


@pytest.mark.rule("2.12/unix-other-file")
def test_another_file_in_the_place_of_the_socket_is_kept_and_exits_with_111(farm: Farm, folder: Path) -> None:
    path = folder / "precious"
    path.write_text("precious", encoding="ascii")
    assert farm.command.run("-l", f"unix:{path}").returncode == 111
    assert path.read_text(encoding="ascii") == "precious"


@pytest.mark.rule("2.12/unix-length")
def test_a_unix_path_too_long_for_a_socket_exits_with_111(farm: Farm, folder: Path) -> None:
    assert farm.command.run("-l", f"unix:{folder / ('x' * 120)}").returncode == 111


@pytest.mark.rule("2.12/inherited")
def test_a_listening_socket_inherited_from_systemd_is_used(farm: Farm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = farm.start(inherited=listener)
        assert serves(server)


@pytest.mark.rule("2.12/inherited")
def test_an_inherited_unix_socket_is_used(farm: Farm, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "inherited"))
        listener.listen()
        assert serves(farm.start(inherited=listener))

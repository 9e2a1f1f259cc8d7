"""Listening sockets: bound before anything heavy is imported, so that clients can connect within 100 ms of exec."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from beanspiked.config import Settings

__all__ = ["ListenError", "bind", "inherited"]

# beanstalkd's backlog; the kernel lowers it to net.core.somaxconn.
BACKLOG: Final = 1024
# sd_listen_fds(3): the first inherited descriptor.
FIRST_INHERITED: Final = 3


class ListenError(Exception):
    """A socket cannot be had; the text says which and why."""


def bind(settings: Settings) -> list[socket.socket]:
    """Bind and listen on all addresses.

    Raises:
        ListenError: One of them cannot be had; none is left open.
    """
    sockets: list[socket.socket] = []
    addresses = settings.listen or ("0.0.0.0",)  # noqa: S104 - beanstalkd's default
    # Alone, `::` takes IPv4 clients, too; beside another address that would be one port twice.
    v6_only = sum(not address.startswith("unix:") for address in addresses) > 1
    try:
        for address in addresses:
            if address.startswith("unix:"):
                sockets.append(_bind_unix(address[len("unix:") :], settings.socket_mode))
            else:
                sockets.append(_bind_tcp(address, settings.port, v6_only))
    except ListenError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_tcp(host: str, port: int, v6_only: bool) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        # A UnicodeError is what a host name with too long a part fails with.
        raise ListenError(f"{host}: {getattr(error, 'strerror', None) or 'no host name'}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by accepted sockets.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6 and v6_only:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{host} port {port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def _bind_unix(path: str, mode: int | None) -> socket.socket:
    """Bind a unix socket, in the place of one that is there already; any other file is refused."""
    try:
        if stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            os.unlink(path)
        else:
            raise ListenError(f"{path}: exists and is no socket")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ListenError(f"{path}: {error.strerror}") from error
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        if mode is not None:
            os.chmod(path, mode)
        sock.listen(BACKLOG)
    except (OSError, ValueError) as error:
        # A path that is too long comes as an OSError without an errno.
        sock.close()
        raise ListenError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    sock.setblocking(False)
    return sock


def inherited(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Return the sockets that systemd opened for this process (sd_listen_fds).

    Raises:
        ListenError: One of them does not listen for streams.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not count.isdigit():
        return []
    sockets = []
    for fd in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        try:
            sock = socket.socket(fileno=fd)
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise ListenError(f"inherited descriptor {fd}: {error.strerror}") from error
        if not listening or sock.type != socket.SOCK_STREAM:
            raise ListenError(f"inherited descriptor {fd}: not a listening stream socket")
        os.set_inheritable(fd, False)
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)
    return sockets

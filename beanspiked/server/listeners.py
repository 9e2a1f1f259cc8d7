"""Listening sockets. They are bound before any large import, so that clients can connect within 30 ms of exec.

For the same reason this module uses descriptors and `_socket`, whose import takes a tenth of the time of `socket`.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

# `typing` has this too, but takes longer to import than all of this.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from beanspiked.config import Settings

__all__ = ["ListenError", "bind", "inherited", "remove_files"]

# beanstalkd's backlog. The kernel lowers it to net.core.somaxconn.
BACKLOG: Final = 1024
# sd_listen_fds(3): the first inherited descriptor.
FIRST_INHERITED: Final = 3
# The number of unanswered probes after which a client is gone, and the seconds between two probes.
KEEPALIVE_PROBES: Final = 4
KEEPALIVE_INTERVAL: Final = 15
# Errors of an address whose family or interface this machine lacks.
NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)
# Tries to find one port that is free on all addresses.
PORT_TRIES: Final = 20
# How long another start may keep a unix socket's directory locked, and the pause between two tries, in seconds.
LOCKED_AT_MOST: Final = 2.0
LOOK_EVERY: Final = 0.01


class ListenError(Exception):
    """The server cannot listen on a socket. The text says on which, and why."""


def bind(settings: Settings) -> list[int]:
    """Bind and listen on all addresses; return the sockets' descriptors, which do not block.

    Raises:
        ListenError: The server cannot listen on one of them; none is left open.
    """
    found: dict[str, list[Address]] = {}
    for name in settings.listen or ("0.0.0.0",):  # noqa: S104 - beanstalkd's default
        if not name.startswith("unix:"):
            found[name] = _look_up(name, settings.port)
    # Alone, `::` takes IPv4 clients too. Beside another address it must not, or one port would be bound twice.
    v6_only = len({address for addresses in found.values() for address in addresses}) > 1
    tries_left = PORT_TRIES
    while True:
        binding = Binding(settings, v6_only)
        try:
            return binding.bind(found)
        except ListenError as error:
            binding.undo()
            taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            tries_left -= 1
            # Any port will do, but the port that was free on the first address is in use on another.
            if not (taken and binding.port and tries_left):
                raise


def remove_files(settings: Settings) -> None:
    """Remove the files of the unix sockets that `bind` made, when the start fails after that.

    The sockets must be open still: otherwise another server could have made the files anew.
    """
    _remove([name[len("unix:") :] for name in settings.listen if name.startswith("unix:")])


# --- TCP


Address = tuple[int, int, int, tuple[str, int] | tuple[str, int, int, int]]


def _look_up(host: str, port: str) -> list[Address]:
    """Find all addresses of a name, each once.

    Raises:
        ListenError: The name has no address, or the port is unknown.
    """
    try:
        # The name goes as bytes: for text, Python would load its tables for names that are not ASCII.
        name = host.encode("ascii" if host.isascii() else "idna")
        found = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)
    except _socket.gaierror as error:
        what = f"port {port}" if error.errno == _socket.EAI_SERVICE else host
        raise ListenError(f"{what}: {error.strerror}") from error
    except (OSError, UnicodeError) as error:
        # A host name with too long a part raises UnicodeError.
        raise ListenError(f"{host}: {getattr(error, 'strerror', None) or 'not a host name'}") from error
    # A Python that was built without IPv6 returns other things for such addresses.
    return list(dict.fromkeys((family, kind, protocol, address) for family, kind, protocol, _, address in found))  # type: ignore[misc]


class Binding:
    """One attempt to bind everything.

    Attributes:
        port: If any port will do, the port of the first address; 0 before it has one.
    """

    def __init__(self, settings: Settings, v6_only: bool) -> None:
        self.port = 0
        self._settings = settings
        self._v6_only = v6_only
        self._bound: set[Address] = set()
        self._descriptors: list[int] = []
        self._paths: list[str] = []

    def bind(self, found: Mapping[str, list[Address]]) -> list[int]:
        """Bind and listen on all addresses.

        Raises:
            ListenError: The server cannot listen on one of them. Those that were bound before it are still open.
        """
        for name in self._settings.listen or found:
            if name.startswith("unix:"):
                path = name[len("unix:") :]
                self._descriptors.append(_bind_unix(path, self._settings.socket_mode))
                self._paths.append(path)
            else:
                self._bind_name(name, found[name])
        return self._descriptors

    def undo(self) -> None:
        """Close what was bound and remove the files of unix sockets."""
        _remove(self._paths)
        for fd in self._descriptors:
            os.close(fd)

    def _bind_name(self, host: str, addresses: list[Address]) -> None:
        """Bind all addresses of a name. This machine may lack some of them if it can bind another."""
        missing = 0
        for address in addresses:
            try:
                self._bind_address(address)
            except OSError as error:
                if error.errno in NOT_HERE:
                    missing += 1
                    if missing < len(addresses):
                        continue
                raise ListenError(f"{host} port {self._settings.port}: {error.strerror}") from error

    def _bind_address(self, found: Address) -> None:
        family, kind, protocol, address = found
        if found in self._bound:
            # Two names may share an address.
            return
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            _set_for_clients(sock, self._settings.tcp_keepalive)
            if family == _socket.AF_INET6 and self._v6_only:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], address[1] or self.port, *address[2:]))
            sock.listen(BACKLOG)
            if address[1] == 0:
                self.port = sock.getsockname()[1]
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._bound.add(found)
        self._descriptors.append(sock.detach())


def _set_for_clients(sock: _socket.socket, keepalive: int) -> None:
    """Set what accepted sockets inherit.

    A client that loses its power sends nothing more. Without probes it would count as alive for ever. By default the kernel probes after
    two hours, and routers that translate addresses forget silent connections much sooner.
    """
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    if keepalive:
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, keepalive)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, min(keepalive, KEEPALIVE_INTERVAL))
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


# --- unix sockets


def _bind_unix(path: str, mode: int | None) -> int:
    """Bind a unix socket. Replace a socket on which no server listens any more, and refuse anything else at the path.

    If two servers start at once, one could take the other's new socket for an abandoned one. So each locks the directory meanwhile.
    """
    try:
        lock = _lock(os.path.dirname(path) or ".")
        try:
            _make_room(path)
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                sock.bind(path)
                try:
                    if mode is not None:
                        os.chmod(path, mode)
                    sock.listen(BACKLOG)
                except OSError:
                    os.unlink(path)
                    raise
            except (OSError, ValueError):
                sock.close()
                raise
        finally:
            # The close releases the lock.
            os.close(lock)
    except (OSError, ValueError) as error:
        # A path that is too long raises an OSError without an errno.
        raise ListenError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    sock.setblocking(False)
    return sock.detach()


def _remove(paths: list[str]) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except (FileNotFoundError, PermissionError):
            # Another process has removed it, or `-u` has given up the right to do so.
            continue


def _lock(directory: str) -> int:
    """Lock a directory; return the descriptor that holds the lock.

    Raises:
        ListenError: Another process has kept it locked for two seconds.
        OSError: It cannot be opened or locked.
    """
    import fcntl  # noqa: PLC0415 - only unix sockets need it
    import time  # noqa: PLC0415 - likewise

    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    give_up_at = time.monotonic() + LOCKED_AT_MOST
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise ListenError(f"{directory}: another process keeps this directory locked") from None
                time.sleep(LOOK_EVERY)
            else:
                return fd
    except (OSError, ListenError):
        os.close(fd)
        raise


def _make_room(path: str) -> None:
    """Remove a socket on which no server listens.

    Raises:
        ListenError: A server listens on it, or it is not a socket.
        OSError: It cannot be examined.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise ListenError(f"{path}: exists and is not a socket; choose another path")
    except FileNotFoundError:
        return
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # A listener with a full queue then refuses at once.
        probe.setblocking(False)
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except BlockingIOError:
        # The queue is full, so a server listens.
        pass
    finally:
        probe.close()
    raise ListenError(f"{path}: another server listens there")


# --- inherited sockets


def inherited(environ: Mapping[str, str], pid: int, keepalive: int) -> list[int]:
    """Return the descriptors of the sockets that systemd opened for this process (sd_listen_fds).

    Args:
        environ: The environment.
        pid: This process.
        keepalive: Seconds of silence before the kernel probes a client; 0 for the setting of systemd or the kernel.

    Raises:
        ListenError: One of them does not listen for streams.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not count.isdigit():
        return []
    descriptors = list(range(FIRST_INHERITED, FIRST_INHERITED + int(count)))
    for fd in descriptors:
        try:
            sock = _socket.socket(fileno=fd)
            try:
                if not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN) or sock.type != _socket.SOCK_STREAM:
                    raise ListenError(f"inherited descriptor {fd}: not a listening stream socket")
                os.set_inheritable(fd, False)
                sock.setblocking(False)
                if sock.family in (_socket.AF_INET, _socket.AF_INET6):
                    _set_for_clients(sock, keepalive)
            finally:
                sock.detach()
        except OSError as error:
            raise ListenError(f"inherited descriptor {fd}: {error.strerror}") from error
    return descriptors

"""The address of an Aerospike store, read from a URL or from the environment.

    aerospike://[USER:PASS@]HOST[:PORT][,HOST[:PORT]...]/NAMESPACE[?prefix=NAME&tls=true]

The module imports little, since the server reads the command line before the socket listens.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from beanspiked.places import host_port

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_NAMESPACE",
    "DEFAULT_PORT",
    "DEFAULT_PREFIX",
    "NOT_OURS",
    "SCHEME",
    "AddressError",
    "StoreAddress",
    "client_config",
    "from_environment",
    "parse_address",
    "set_by_kubernetes",
]

SCHEME: Final = "aerospike://"
DEFAULT_PORT: Final = 3000
DEFAULT_PREFIX: Final = "bsd_"
# go-beanspike's.
DEFAULT_NAMESPACE: Final = "beanspike"

# The server's limit of a namespace's name. A set's name has up to 63 characters; our names need some of them after the prefix.
MAX_NAMESPACE: Final = 31
MAX_PREFIX: Final = 40
NAMESPACE: Final = re.compile(r"[A-Za-z0-9_$-]+")
PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+")
HOST: Final = re.compile(r"[A-Za-z0-9_.-]+")
# A host with a port; only a URL has one.
WITH_PORT: Final = re.compile(r"[^:]+:\d+|\[.*\]:\d+")
# Stands for an empty value in messages.
NOTHING: Final = "(empty)"

# The message where `set_by_kubernetes` is true.
NOT_OURS: Final = "AEROSPIKE_PORT is ignored: Kubernetes sets it for a service of that name; set AEROSPIKE_HOST or a URL to choose a store"

# The shortest interval that the client allows, in ms (its default is 1000). The client learns only by asking that a node is gone, and
# which nodes have its records now.
TEND_INTERVAL_MS: Final = 250


class AddressError(ValueError):
    """An address that is malformed or cannot be used. The text says what is wrong with it, and shows no password."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A cluster, a namespace in it, and the prefix of our names there.

    Attributes:
        hosts: Nodes to ask first, as name or address, port, and the name that the node's certificate has (None without TLS).
        namespace: The namespace of all records.
        user: The user to log in as, or None.
        password: The user's password, or None.
        prefix: The beginning of the names of all sets and indexes.
        tls: Whether connections are encrypted.
    """

    hosts: tuple[tuple[str, int, str | None], ...]
    namespace: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    prefix: str = DEFAULT_PREFIX
    tls: bool = False

    def __str__(self) -> str:
        """Return the URL for people and logs, with stars instead of the password."""
        login = "" if self.user is None else f"{quote(self.user, safe='')}:***@"
        query = []
        if self.prefix != DEFAULT_PREFIX:
            query.append(f"prefix={self.prefix}")
        if self.tls:
            own = all(name == host for host, _, name in self.hosts)
            query.append(f"tls={'true' if own else self.hosts[0][2]}")
        hosts = ",".join(host_port(host, port) for host, port, _ in self.hosts)
        return f"{SCHEME}{login}{hosts}/{self.namespace}{'?' if query else ''}{'&'.join(query)}"


def parse_address(url: str) -> StoreAddress:
    """Read a store's URL.

    Raises:
        AddressError: The text is no such URL, or no cluster can have such names.
    """
    if not url.startswith(SCHEME):
        raise AddressError(f"must be {SCHEME}HOST/NAMESPACE")
    location, _, query = url.removeprefix(SCHEME).partition("?")
    authority, _, namespace = location.partition("/")
    if "@" in namespace or "@" in query:
        # Show nothing: it may be the rest of a password.
        raise AddressError("in USER:PASS@, write / as %2F, ? as %3F and @ as %40")
    login, at, places = authority.rpartition("@")
    user, password = _login(login) if at else (None, None)
    options = _options(query)
    prefix = _prefix(options.get("prefix", DEFAULT_PREFIX))
    tls = options.get("tls", "false")
    if tls.lower() in ("true", "false"):
        tls = tls.lower()
    elif not HOST.fullmatch(tls):
        raise AddressError(f"tls: must be true, false or the name in the nodes' certificate, not {tls or NOTHING}")
    hosts = []
    for place in places.split(","):
        host, port = _place(place)
        hosts.append((host, port, {"true": host, "false": None}.get(tls, tls)))
    return StoreAddress(tuple(hosts), _namespace(namespace), user, password, prefix, tls != "false")


def set_by_kubernetes(environ: Mapping[str, str]) -> bool:
    """Tell whether AEROSPIKE_PORT is set only because a service in the same namespace of Kubernetes is called `aerospike`.

    Kubernetes also sets AEROSPIKE_SERVICE_HOST; Docker does not for a linked container. If AEROSPIKE_HOST is set, or the port is a plain
    number, then a person has set it.
    """
    port = environ.get("AEROSPIKE_PORT", "")
    return bool(
        port.startswith("tcp://") and environ.get("AEROSPIKE_SERVICE_HOST") and not environ.get("AEROSPIKE_HOST")
    )


def from_environment(environ: Mapping[str, str], default_host: str | None = None) -> StoreAddress | None:
    """Read go-beanspike's variables: AEROSPIKE_HOST, AEROSPIKE_PORT, and AEROSPIKE_NAMESPACE beside them.

    The port may have the form that Docker sets for a linked container, `tcp://172.17.0.5:3000`, and then names the host as well. Where
    `set_by_kubernetes` is true it names nothing.

    Args:
        environ: The environment; an empty variable counts as not set.
        default_host: The host when no variable names one.

    Returns:
        The address, or None when nothing names a host.

    Raises:
        AddressError: A variable is malformed, or there is a port without a host; the text begins with the variable's name.
    """
    host = default_host
    port = DEFAULT_PORT
    variable = ""
    try:
        variable = "AEROSPIKE_PORT"
        if (value := environ.get(variable)) and not set_by_kubernetes(environ):
            if value.startswith("tcp://"):
                host, port = _place(value.removeprefix("tcp://"))
            else:
                port = _port(value)
        variable = "AEROSPIKE_HOST"
        if value := environ.get(variable):
            if WITH_PORT.fullmatch(value):
                raise AddressError(f"must be a host without a port, which AEROSPIKE_PORT sets: {value}")
            host = _host(value)
        elif host is None and environ.get("AEROSPIKE_PORT") and not set_by_kubernetes(environ):
            raise AddressError("missing, and AEROSPIKE_PORT alone names no host")
        variable = "AEROSPIKE_NAMESPACE"
        namespace = _namespace(environ.get(variable) or DEFAULT_NAMESPACE)
    except AddressError as error:
        raise AddressError(f"{variable}: {error}") from None
    return None if host is None else StoreAddress(((host, port, None),), namespace)


def client_config(address: StoreAddress) -> dict[str, Any]:
    """Make the configuration for `aerospike.client`, without the policies.

    With TLS the nodes' certificates must come from the system's authorities, or from those that SSL_CERT_FILE or SSL_CERT_DIR
    in the environment name.

    Raises:
        AddressError: There are no authorities.
    """
    hosts = [(host, port) if name is None else (host, port, name) for host, port, name in address.hosts]
    config: dict[str, Any] = {"hosts": hosts, "tend_interval": TEND_INTERVAL_MS}
    if address.user is not None:
        config.update(user=address.user, password=address.password)
    if address.tls:
        config["tls"] = {"enable": True, **_authorities()}
    return config


def _authorities() -> dict[str, str]:
    """Find the certificate authorities to trust. The client trusts none by itself."""
    import ssl  # noqa: PLC0415 - only TLS needs it

    paths = ssl.get_default_verify_paths()
    found = {"cafile": paths.cafile, "capath": paths.capath}
    known = {name: path for name, path in found.items() if path}
    if not known:
        raise AddressError("tls: this system has no certificate authorities; set SSL_CERT_FILE to yours")
    return known


def _login(login: str) -> tuple[str, str]:
    """Read USER:PASS, in which URLs' reserved characters are percent-encoded."""
    user, colon, password = login.partition(":")
    if not user or not colon or not password:
        raise AddressError("USER:PASS must stand before the @")
    try:
        return unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise AddressError("USER:PASS is not percent-encoded UTF-8") from None


def _options(query: str) -> dict[str, str]:
    """Read `key=value&...`. Only known keys may be there, each once."""
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        if key not in ("prefix", "tls"):
            raise AddressError(f"unknown option {key or NOTHING}; the options are prefix and tls")
        if key in options:
            raise AddressError(f"{key} is given twice")
        options[key] = unquote(value)
    return options


def _place(place: str) -> tuple[str, int]:
    """Read HOST[:PORT] or [IPV6][:PORT]."""
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise AddressError(f"not an IPv6 address in brackets: {place}")
        return _host(host), _port(rest[1:]) if rest else DEFAULT_PORT
    host, colon, port = place.partition(":")
    if ":" in port:
        raise AddressError(f"an IPv6 address needs brackets, such as [::1]:{DEFAULT_PORT}: {place}")
    return _host(host), _port(port) if colon else DEFAULT_PORT


def _host(host: str) -> str:
    """Check a host's name or address, an IPv6 address without its brackets."""
    if not host:
        raise AddressError("the host is missing")
    if ":" in host:
        try:
            socket.inet_pton(socket.AF_INET6, host)
        except (OSError, ValueError):
            raise AddressError(f"not an IPv6 address: {host}") from None
    elif not HOST.fullmatch(host):
        raise AddressError(f"not a host: {host}")
    return host


def _port(port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise AddressError(f"the port must be a number from 1 to 65535, not {port or NOTHING}")
    return int(port)


def _namespace(namespace: str) -> str:
    if not namespace:
        raise AddressError(f"the namespace is missing: {SCHEME}HOST/NAMESPACE")
    if not NAMESPACE.fullmatch(namespace):
        raise AddressError(f"a namespace has only letters, digits and _ - $: {namespace}")
    if len(namespace) > MAX_NAMESPACE:
        raise AddressError(f"a namespace has at most {MAX_NAMESPACE} characters: {namespace}")
    return namespace


def _prefix(prefix: str) -> str:
    if not PREFIX.fullmatch(prefix):
        raise AddressError(f"prefix: must have only letters, digits and _ -, not {prefix or NOTHING}")
    if len(prefix) > MAX_PREFIX:
        raise AddressError(f"prefix: more than {MAX_PREFIX} characters: {prefix}")
    return prefix

"""What the server is told by its command line and environment. Imports little: it runs before the socket listens."""

from __future__ import annotations

import getopt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from beanspiked.engine.aerospike.url import StoreAddress

__all__ = ["USAGE", "Settings", "UsageError", "parse"]

# beanstalkd's JOB_DATA_SIZE_LIMIT_MAX, in bytes.
MAX_JOB_SIZE_LIMIT: Final = 1073741824

USAGE: Final = """\
Use: beanspiked [OPTIONS]
     beanspiked bench [OPTIONS]         load a beanstalkd-compatible server and print its speed
     beanspiked backup DIR FILE         copy a journal, also one in use
     beanspiked check [URL]             tell whether an Aerospike cluster is fit for jobs
     beanspiked cleanup [URL]           remove what former versions left in a cluster

Options, each also as BEANSPIKED_<LONG_NAME> in the environment:
 -l, --listen ADDR        listen on this address (default 0.0.0.0); may be repeated
 -l unix:PATH             listen on a unix socket
     --socket-mode MODE   permissions of unix sockets, in octal
 -p, --port PORT          listen on this TCP port (default 11300)
 -b, --journal DIR        keep jobs in a journal in this directory
 -f, --fsync-ms MS        sync the journal at least every MS milliseconds (default 0: before each reply)
 -F, --no-fsync           never sync the journal; a crash of the machine may lose jobs
 -z, --max-job-size BYTES the largest job (default 65535, at most 1073741824)
 -s BYTES                 accepted for beanstalkd's sake and shown in stats: the journal has no files of a fixed size
 -u, --user USER          become this user once the socket listens
     --store URL          memory: (the default), sqlite:DIR (the same as -b DIR), or a cluster that other servers share:
                          aerospike://[USER:PASS@]HOST[:PORT][,HOST...]/NAMESPACE[?prefix=NAME&tls=NAME]
                          Without -b and --store, AEROSPIKE_HOST and AEROSPIKE_PORT name one, its namespace is beanspike.
     --lenient-eol        also take a bare LF for the end of a line
     --drain-timeout S    when told to stop, let clients that hold jobs finish for up to S seconds (default 0)
 -c, -n                   accepted and ignored, as beanstalkd does
 -V                       say more; may be repeated
 -v, --version            print the version and exit
 -h, --help               print this and exit
Signals: USR1 refuses further puts; TERM and INT give held jobs back and exit.
"""

SHORT: Final = "l:p:b:f:Fz:s:u:cnVvh"
LONG: Final = {
    "listen": "-l",
    "port": "-p",
    "journal": "-b",
    "fsync-ms": "-f",
    "no-fsync": "-F",
    "max-job-size": "-z",
    "user": "-u",
    "verbose": "-V",
    "version": "-v",
    "help": "-h",
    "store": "--store",
    "socket-mode": "--socket-mode",
    "lenient-eol": "--lenient-eol",
    "drain-timeout": "--drain-timeout",
}
SWITCHES: Final = ("no-fsync", "verbose", "version", "help", "lenient-eol")
# What an environment variable may set.
IN_ENVIRONMENT: Final = [name for name in LONG if name not in ("version", "help")]


class UsageError(Exception):
    """The command line or the environment cannot be understood; the text says what and where."""


class Settings(NamedTuple):
    """What the server was told.

    Attributes:
        listen: Addresses and `unix:PATH`s; empty for the wildcard.
        port: TCP port.
        journal: The journal's directory, or None without one.
        shared: The Aerospike cluster that the jobs live in, or None. With neither they live in memory only.
        fsync_ms: Milliseconds between syncs; 0 syncs before each reply, -1 never syncs.
        max_job_size: Bytes.
        binlog_size: beanstalkd's `-s`, shown in `stats`.
        user: Whom to become, or None.
        verbose: How often `-V` was given.
        socket_mode: Permissions of unix sockets, or None for what the umask leaves.
        lenient_eol: Whether a bare LF ends a line.
        drain_timeout: Seconds.
        action: `serve`, `version` or `help`.
        warnings: What was accepted but does nothing.
    """

    listen: tuple[str, ...] = ()
    port: int = 11300
    journal: str | None = None
    shared: StoreAddress | None = None
    fsync_ms: int = 0
    max_job_size: int = 65535
    binlog_size: int = 10485760
    user: str | None = None
    verbose: int = 0
    socket_mode: int | None = None
    lenient_eol: bool = False
    drain_timeout: float = 0.0
    action: str = "serve"
    warnings: tuple[str, ...] = ()


def parse(argv: list[str], environ: Mapping[str, str]) -> Settings:
    """Read the environment, then the command line, which wins.

    Raises:
        UsageError: Something is unknown, malformed, or contradicts something else.
    """
    try:
        given, rest = getopt.getopt(argv, SHORT, [name if name in SWITCHES else name + "=" for name in LONG])
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from error
    if rest:
        raise UsageError(f"unknown argument: {rest[0]}")
    options = [(_short(name), value, name) for name, value in given]
    for key, _, _ in options:
        if key in ("-v", "-h"):
            return Settings(action="version" if key == "-v" else "help")
    options = [*_from_environment(environ, {key for key, _, _ in options}), *options]
    settings = _read(options)
    if any(key in ("-b", "--store") for key, _, _ in options):
        return settings
    return settings._replace(shared=_address_in(environ))


def _short(name: str) -> str:
    """Give a long option its short name, where it has one."""
    return LONG.get(name[2:], name) if name.startswith("--") else name


def _from_environment(environ: Mapping[str, str], given: set[str]) -> list[tuple[str, str, str]]:
    options = []
    for name in IN_ENVIRONMENT:
        variable = "BEANSPIKED_" + name.upper().replace("-", "_")
        value = environ.get(variable, "")
        if name == "port" and value.startswith("tcp://"):
            # Kubernetes and Docker links set it so for a service of this name; it is not meant for this process.
            continue
        if not value or LONG[name] in given or (name in ("journal", "store") and given & {"-b", "--store"}):
            continue
        if name == "verbose":
            options += [("-V", "", variable)] * _number(value, variable, 0, 9)
        elif name in SWITCHES:
            if value.lower() in ("1", "true", "yes", "on"):
                options.append((LONG[name], "", variable))
            elif value.lower() not in ("0", "false", "no", "off"):
                raise UsageError(f"{variable}: not a yes or no: {value}")
        elif name == "listen":
            options += [("-l", part, variable) for part in value.replace(",", " ").split()]
        else:
            options.append((LONG[name], value, variable))
    return options


def _read(options: list[tuple[str, str, str]]) -> Settings:
    settings = Settings()
    listen: list[str] = []
    warnings: list[str] = []
    journal: str | None = None
    store: str | None = None
    # Where they were found, to say so.
    journal_source = store_source = ""
    for key, value, source in options:
        if key == "-l":
            listen.append(value)
        elif key == "-b":
            journal, journal_source = value, source
        elif key == "--store":
            store, store_source = value, source
        elif key == "-V":
            settings = settings._replace(verbose=settings.verbose + 1)
        elif key in ("-c", "-n"):
            warnings.append(f"{source}: does nothing, as in beanstalkd")
        else:
            settings = settings._replace(**READERS[key](value, source))
    shared: StoreAddress | None = None
    if store is not None:
        if journal is not None:
            raise UsageError(f"{journal_source} and {store_source} contradict each other")
        if store.startswith("aerospike:"):
            shared = _address_of(store, store_source)
        else:
            journal = _journal_of(store, store_source)
    if settings.max_job_size > MAX_JOB_SIZE_LIMIT:
        warnings.append(f"maximum job size was set to {MAX_JOB_SIZE_LIMIT}")
        settings = settings._replace(max_job_size=MAX_JOB_SIZE_LIMIT)
    return settings._replace(listen=tuple(listen), journal=journal, shared=shared, warnings=tuple(warnings))


def _address_of(store: str, source: str) -> StoreAddress:
    """Read the URL of a shared store."""
    from beanspiked.engine.aerospike.url import (  # noqa: PLC0415 - only where it is used
        AddressError,
        client_config,
        parse_address,
    )

    try:
        address = parse_address(store)
        # Whether the client can be made: without authorities for TLS it could not in all eternity.
        client_config(address)
    except AddressError as error:
        raise UsageError(f"{source}: {error}") from error
    return address


def _address_in(environ: Mapping[str, str]) -> StoreAddress | None:
    """Read AEROSPIKE_HOST and AEROSPIKE_PORT, which go-beanspike's users set."""
    if not environ.get("AEROSPIKE_HOST") and not environ.get("AEROSPIKE_PORT"):
        return None
    from beanspiked.engine.aerospike.url import AddressError, from_environment  # noqa: PLC0415 - likewise

    try:
        return from_environment(environ)
    except AddressError as error:
        raise UsageError(str(error)) from error


def _journal_of(store: str, source: str) -> str | None:
    """Return the journal's directory of a store URL."""
    scheme, colon, rest = store.partition(":")
    if scheme == "memory" and colon and not rest:
        return None
    if scheme == "sqlite" and rest:
        return rest
    raise UsageError(f"{source}: not memory:, sqlite:DIR or aerospike://HOST/NAMESPACE: {store}")


def _number(value: str, source: str, low: int, high: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 20) or not low <= int(value) <= high:
        raise UsageError(f"{source}: not a number from {low} to {high}: {value}")
    return int(value)


def _port(value: str, source: str) -> dict[str, Any]:
    return {"port": _number(value, source, 0, 65535)}


def _fsync_ms(value: str, source: str) -> dict[str, Any]:
    return {"fsync_ms": _number(value, source, 0, 2**31 - 1)}


def _no_fsync(value: str, source: str) -> dict[str, Any]:  # noqa: ARG001 - one shape for all readers
    return {"fsync_ms": -1}


def _max_job_size(value: str, source: str) -> dict[str, Any]:
    return {"max_job_size": _number(value, source, 0, 2**64 - 1)}


def _binlog_size(value: str, source: str) -> dict[str, Any]:
    return {"binlog_size": _number(value, source, 0, 2**64 - 1)}


def _user(value: str, source: str) -> dict[str, Any]:  # noqa: ARG001 - one shape for all readers
    return {"user": value}


def _socket_mode(value: str, source: str) -> dict[str, Any]:
    if not value or value.strip("01234567") or int(value, 8) > 0o777:
        raise UsageError(f"{source}: not permissions in octal: {value}")
    return {"socket_mode": int(value, 8)}


def _lenient_eol(value: str, source: str) -> dict[str, Any]:  # noqa: ARG001 - one shape for all readers
    return {"lenient_eol": True}


def _drain_timeout(value: str, source: str) -> dict[str, Any]:
    return {"drain_timeout": float(_number(value, source, 0, 86400))}


READERS: Final[dict[str, Callable[[str, str], dict[str, Any]]]] = {
    "-p": _port,
    "-f": _fsync_ms,
    "-F": _no_fsync,
    "-z": _max_job_size,
    "-s": _binlog_size,
    "-u": _user,
    "--socket-mode": _socket_mode,
    "--lenient-eol": _lenient_eol,
    "--drain-timeout": _drain_timeout,
}

"""The server's settings, from the command line and the environment. Imports little: it runs before the socket listens."""

from __future__ import annotations

# `typing` has this too, but takes longer to import than everything that is imported before the socket listens.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Final

    from beanspiked.admin.options import AdminOptions
    from beanspiked.ops.url import StoreAddress

__all__ = ["Settings", "UsageError", "parse"]

# beanstalkd's JOB_DATA_SIZE_LIMIT_MAX, in bytes.
MAX_JOB_SIZE_LIMIT: Final = 1073741824
# In milliseconds: from here on beanstalkd's nanoseconds overflow; and the longest wait.
FSYNC_MS_OVERFLOW: Final = 2**63 // 1000000
MAX_FSYNC_MS: Final = 2**31 * 1000
MAX_SIZE: Final = 2**64 - 1
# The kernel's longest TCP_KEEPIDLE, in seconds.
MAX_TCP_KEEPALIVE: Final = 32767
MAX_WORKERS: Final = 256
# isspace() in the C locale, which sscanf skips.
C_SPACE: Final = " \t\n\v\f\r"

SHORT_WITH_VALUE: Final = "lpbfzsu"
SHORT_SWITCHES: Final = "FcnVvh"
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
    "tcp-keepalive": "--tcp-keepalive",
    "io": "--io",
    "workers": "--workers",
    "stats-of": "--stats-of",
}
ADMIN_PORT: Final = ("admin", "admin-token-file", "admin-tls-cert", "admin-tls-key", "admin-prefix")
ADMIN: Final = (*ADMIN_PORT, "admin-insecure", "admin-read-only", "max-tube-series", "tube-series-map")
LONG.update(zip(ADMIN, ADMIN, strict=True))
SWITCHES: Final = ("no-fsync", "verbose", "version", "help", "lenient-eol", "admin-insecure", "admin-read-only")
# What an environment variable may set.
IN_ENVIRONMENT: Final = [name for name in LONG if name not in ("version", "help")]
# What is not for this process: Kubernetes and Docker links set the port of a service of this name, and commands ask an admin port's URL.
OTHERS: Final = {"port": ("tcp://",), "admin": ("http://", "https://")}


class UsageError(Exception):
    """The command line or the environment is wrong; the text says where and how."""


class Settings:
    """The server's settings; each has its default until it is set.

    Attributes:
        listen: Addresses, names and `unix:PATH`s; empty for the wildcard.
        port: TCP port: a number, or a service's name.
        tcp_keepalive: Seconds of silence after which a client is probed; 0 for the kernel's default.
        journal: The journal's directory, or None without one.
        shared: The Aerospike cluster that keeps the jobs, or None. Without journal and cluster, memory keeps them.
        fsync_ms: Milliseconds between syncs; 0 syncs before each reply, -1 never syncs.
        max_job_size: Bytes.
        binlog_size: beanstalkd's `-s`, shown in `stats`.
        user: The user to become, or None.
        verbose: How often `-V` was given.
        socket_mode: Permissions of unix sockets, or None for what the umask leaves.
        lenient_eol: Whether a bare LF ends a line.
        drain_timeout: Seconds.
        io: How sockets are heard: `native`, `python` or `auto`.
        workers: How many processes serve; 0 for this one alone, without a parent.
        stats_of: Whose counters `stats` shows: those of `all` workers, or of the one `worker` that is asked.
        admin: The admin port, or None without one.
        action: `serve`, `version` or `help`.
        notices: Log lines that say which variable chose the store.
        warnings: Log lines about options that are ignored, or reduced to a limit.
    """

    listen: tuple[str, ...] = ()
    port: str = "11300"
    tcp_keepalive: int = 60
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
    io: str = "auto"
    workers: int = 0
    stats_of: str = "all"
    admin: AdminOptions | None = None
    action: str = "serve"
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def parse(argv: list[str], environ: Mapping[str, str]) -> Settings:
    """Read the environment and the command line; the command line wins.

    Raises:
        UsageError: Something is unknown, malformed, or contradicts something else.
    """
    options = _from_command_line(argv)
    for key, _, _ in options:
        if key in ("-v", "-h"):
            settings = Settings()
            settings.action = "version" if key == "-v" else "help"
            return settings
    options = [*_from_environment(environ, {key for key, _, _ in options}), *options]
    settings = _read([option for option in options if option[0] not in ADMIN])
    if admin := [option for option in options if option[0] in ADMIN]:
        settings.admin = _read_admin(admin, environ)
    if not any(key in ("-b", "--store") for key, _, _ in options):
        _read_aerospike(settings, environ)
    if settings.workers and settings.shared is None:
        raise UsageError("--workers: needs a store that processes can share: --store aerospike://HOST/NAMESPACE")
    return settings


def _from_command_line(argv: list[str]) -> list[tuple[str, str, str]]:
    """Split the words into options: the short name if there is one, the value, and the name as it was given.

    `getopt` does the same, but takes six milliseconds to import.
    """
    options = []
    words = iter(argv)
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            given, equals, value = word[2:].partition("=")
            name = _long_name(given)
            if name in SWITCHES:
                if equals:
                    raise UsageError(f"--{name} takes no value")
            elif not equals:
                value = _value_of(f"--{name}", words)
            options.append((LONG[name], value, f"--{name}"))
        elif word.startswith("-") and len(word) > 1:
            options += _from_short(word[1:], words)
        else:
            raise UsageError(f"unknown argument: {_shown(word)}")
    for word in words:
        raise UsageError(f"unknown argument: {_shown(word)}")
    return options


def _from_short(letters: str, words: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """Split a word of short options: switches may stand together, and a value may follow its letter."""
    for place, letter in enumerate(letters):
        key = f"-{letter}"
        if letter in SHORT_SWITCHES:
            yield key, "", key
        elif letter in SHORT_WITH_VALUE:
            yield key, letters[place + 1 :] or _value_of(key, words), key
            return
        else:
            raise UsageError(f"unknown flag: {key}")


def _value_of(key: str, words: Iterator[str]) -> str:
    for word in words:
        return word
    raise UsageError(f"{key}: a value is missing")


def _long_name(given: str) -> str:
    """Find a long option by its name, or by the beginning of one."""
    if given in LONG:
        return given
    names = [name for name in LONG if name.startswith(given)]
    if len(names) != 1:
        if names:
            raise UsageError(f"--{given} is ambiguous: {', '.join(names)}")
        from beanspiked.spelling import meant  # noqa: PLC0415 - only an error needs it

        raise UsageError(f"unknown option: --{given}{meant(f'--{given}', [f'--{name}' for name in LONG])}")
    return names[0]


def _from_environment(environ: Mapping[str, str], given: set[str]) -> list[tuple[str, str, str]]:
    options = []
    for name in IN_ENVIRONMENT:
        variable = "BEANSPIKED_" + name.upper().replace("-", "_")
        value = environ.get(variable, "")
        foreign = value.lower().startswith(OTHERS.get(name, ()))
        if foreign or not value or LONG[name] in given or (name in ("journal", "store") and given & {"-b", "--store"}):
            continue
        if name == "verbose":
            options += [("-V", "", variable)] * _number(value, variable, 0, 9)
        elif name in SWITCHES:
            if value.lower() in ("1", "true", "yes", "on"):
                options.append((LONG[name], "", variable))
            elif value.lower() not in ("0", "false", "no", "off"):
                raise UsageError(f"{variable}: must be yes or no, not {value}")
        elif name == "listen":
            # A value of commas alone is an empty address; no address would mean all of them.
            options += [("-l", part, variable) for part in value.replace(",", " ").split() or [""]]
        else:
            options.append((LONG[name], value, variable))
    return options


def _read(options: list[tuple[str, str, str]]) -> Settings:
    settings = Settings()
    warnings: list[str] = []
    store: str | None = None
    # Which options set them, for errors.
    journal_source = store_source = ""
    for key, value, source in options:
        if key == "-b":
            settings.journal, journal_source = _not_empty(value, source, "directory"), source
        elif key == "--store":
            store, store_source = value, source
        elif key in ("-c", "-n"):
            warnings.append(f"{source} is ignored, as in beanstalkd")
        elif key == "-V":
            settings.verbose += 1
        elif key == "-l":
            if value == "unix:":
                raise UsageError(f"{source}: a path is missing after unix:")
            settings.listen = (*settings.listen, _not_empty(value, source, "address"))
        else:
            attribute, read = READERS[key]
            setattr(settings, attribute, read(value, source))
    if store is not None:
        if settings.journal is not None:
            raise UsageError(f"{journal_source} and {store_source} exclude each other: give one")
        if store.startswith("aerospike:"):
            settings.shared = _address_of(store, store_source)
        else:
            settings.journal = _journal_of(store, store_source)
    if settings.max_job_size > MAX_JOB_SIZE_LIMIT:
        warnings.append(f"maximum job size was set to {MAX_JOB_SIZE_LIMIT}")
        settings.max_job_size = MAX_JOB_SIZE_LIMIT
    settings.warnings = tuple(warnings)
    for source in (store_source, journal_source):
        if source.startswith("BEANSPIKED_"):
            settings.notices = (_chosen(settings, source),)
    return settings


def _read_admin(options: list[tuple[str, str, str]], environ: Mapping[str, str]) -> AdminOptions | None:
    from beanspiked.admin.options import OptionError, read  # noqa: PLC0415 - only where it is used

    try:
        return read({name: [value for key, value, _ in options if key == name] for name, _, _ in options}, environ)
    except OptionError as error:
        # The text begins with an option, which may have come from a variable.
        said = str(error).split()[0].rstrip(":")
        source = next((source for name, _, source in options if said == f"--{name}"), said)
        raise UsageError(source + str(error).removeprefix(said)) from error


def _chosen(settings: Settings, variable: str) -> str:
    """Return a log line about the variable that chose the store: the operator may not know that it is set."""
    if settings.shared is not None:
        return f"{variable} chooses the store: {settings.shared}"
    return f"{variable} chooses the store: {'memory:' if settings.journal is None else 'sqlite:' + settings.journal}"


def _address_of(store: str, source: str) -> StoreAddress:
    """Read the URL of a shared store."""
    from beanspiked.ops.url import AddressError, client_config, parse_address  # noqa: PLC0415 - only where it is used

    try:
        address = parse_address(store)
        # Fails now rather than at the first connection, for example without certificate authorities.
        client_config(address)
    except AddressError as error:
        raise UsageError(f"{source}: {error}") from error
    return address


def _read_aerospike(settings: Settings, environ: Mapping[str, str]) -> None:
    """Read AEROSPIKE_HOST and AEROSPIKE_PORT, go-beanspike's variables."""
    if not environ.get("AEROSPIKE_HOST") and not environ.get("AEROSPIKE_PORT"):
        return
    from beanspiked.ops.url import (  # noqa: PLC0415 - likewise
        NOT_OURS,
        AddressError,
        from_environment,
        set_by_kubernetes,
    )

    try:
        settings.shared = from_environment(environ)
    except AddressError as error:
        raise UsageError(str(error)) from error
    if settings.shared is not None:
        settings.notices = (_chosen(settings, "AEROSPIKE_HOST" if environ.get("AEROSPIKE_HOST") else "AEROSPIKE_PORT"),)
    elif set_by_kubernetes(environ):
        settings.notices = (NOT_OURS,)


def _journal_of(store: str, source: str) -> str | None:
    """Return the journal's directory of a store URL."""
    scheme, colon, rest = store.partition(":")
    if scheme == "memory" and colon and not rest:
        return None
    if scheme == "sqlite" and rest:
        return rest
    # Shows the scheme only: a password may follow.
    raise UsageError(
        f"{source}: must be memory:, sqlite:DIR or aerospike://HOST/NAMESPACE, not {_shown(scheme + colon)}"
    )


def _shown(value: str) -> str:
    return value or "(empty)"


def _not_empty(value: str, source: str, what: str) -> str:
    if not value:
        raise UsageError(f"{source}: the {what} is missing")
    return value


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(value: str, source: str) -> str:
        if value not in words:
            raise UsageError(f"{source}: not {', '.join(words[:-1])} or {words[-1]}: {_shown(value)}")
        return value

    return read


def _number(value: str, source: str, low: int, high: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 20) or not low <= int(value) <= high:
        raise UsageError(f"{source}: must be a number from {low} to {high}, not {_shown(value)}")
    return int(value)


def _size(value: str, source: str) -> int:
    """Read a number as beanstalkd does, with sscanf's %zu: a minus wraps around, too large a number is the largest."""
    digits = value.lstrip(C_SPACE)
    negative = digits.startswith("-")
    digits = digits[1:] if digits.startswith(("-", "+")) else digits
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"{source}: must be a number, not {_shown(value)}")
    digits = digits.lstrip("0")
    # Python refuses to read thousands of digits.
    number = int(digits or "0") if len(digits) <= 20 else MAX_SIZE
    if number >= MAX_SIZE:
        return MAX_SIZE
    return -number % (MAX_SIZE + 1) if negative else number


def _port(value: str, source: str) -> str:
    if value.isascii() and value.isdigit():
        _number(value, source, 0, 65535)
    # Anything else may be a service's name; it is looked up later.
    return _not_empty(value, source, "port")


def _fsync_ms(value: str, source: str) -> int:
    number = _size(value, source)
    # beanstalkd overflows here, and then syncs each time.
    return min(number, MAX_FSYNC_MS) if number < FSYNC_MS_OVERFLOW else 0


def _socket_mode(value: str, source: str) -> int:
    if not value or value.strip("01234567") or int(value, 8) > 0o777:
        raise UsageError(f"{source}: must be octal permissions, not {_shown(value)}")
    return int(value, 8)


# The attribute that an option sets, and the function that reads its value.
READERS: Final[dict[str, tuple[str, Callable[[str, str], object]]]] = {
    "-p": ("port", _port),
    "-f": ("fsync_ms", _fsync_ms),
    "-F": ("fsync_ms", lambda *_: -1),
    "-z": ("max_job_size", _size),
    "-s": ("binlog_size", _size),
    "-u": ("user", lambda value, _: value),
    "--socket-mode": ("socket_mode", _socket_mode),
    "--lenient-eol": ("lenient_eol", lambda *_: True),
    "--drain-timeout": ("drain_timeout", lambda value, source: float(_number(value, source, 0, 86400))),
    "--io": ("io", _one_of("auto", "native", "python")),
    "--workers": ("workers", lambda value, source: _number(value, source, 1, MAX_WORKERS)),
    "--stats-of": ("stats_of", _one_of("all", "worker")),
    "--tcp-keepalive": ("tcp_keepalive", lambda value, source: _number(value, source, 0, MAX_TCP_KEEPALIVE)),
}

"""The admin port's options. The module imports little, since it is loaded before the socket listens."""

from __future__ import annotations

# As `typing` has it, which takes longer to import than all of this.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping
    from typing import Final

__all__ = ["USAGE", "AdminOptions", "OptionError", "is_loopback", "read"]

USAGE: Final = """\
Admin port (extra `admin`):
     --admin ADDR:PORT    serve health, metrics, an API and a console over HTTP; without ADDR on 127.0.0.1
     --admin-token-file F the secret that clients show, alone in a file; or in BEANSPIKED_ADMIN_TOKEN
     --admin-tls-cert F   certificate of the admin port, in PEM
     --admin-tls-key F    its key
     --admin-insecure     allow an address that is not loopback without TLS; it still needs a token
     --admin-read-only    show everything, but refuse changes
     --admin-prefix PATH  serve below this path, for a proxy that does not remove it
     --max-tube-series N  tubes with metrics of their own, the busiest first (default 1000)
     --tube-series-map RE=NAME
                          count tubes whose whole name matches under another name; may be repeated
"""

TOKEN_VARIABLE: Final = "BEANSPIKED_ADMIN_TOKEN"  # noqa: S105 - the variable's name
LOOPBACK: Final = "127.0.0.1"
MAX_SERIES: Final = 1_000_000
# Shorter secrets can be guessed.
TOKEN_SIZE: Final = 8


class OptionError(Exception):
    """The options contradict each other, or one of them cannot be read. The text says which."""


class AdminOptions:
    """The admin port's options.

    Attributes:
        host: The address to listen on: IPv4 or IPv6, in digits.
        port: The TCP port; 0 for any.
        token: The secret that clients have to show; empty for none.
        tls_cert, tls_key: Files in PEM, or empty.
        read_only: Whether changes are refused.
        prefix: The path above all others: empty, or with a slash at the beginning and none at the end.
        max_tube_series: How many tubes have metrics of their own.
        tube_series_map: Expressions, and the names under which tubes with a matching whole name are counted.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.token = ""
        self.tls_cert = ""
        self.tls_key = ""
        self.read_only = False
        self.prefix = ""
        self.max_tube_series = 1000
        self.tube_series_map: list[tuple[re.Pattern[str], str]] = []


def read(given: Mapping[str, list[str]], environ: Mapping[str, str]) -> AdminOptions | None:
    """Read the options; None without --admin.

    Args:
        given: The values of each given option, by its long name.
        environ: The environment, which may have the token.

    Raises:
        OptionError: They are malformed, or would leave the port open to everybody.
    """
    if "admin" not in given:
        for name in given:
            raise OptionError(f"--{name} needs --admin")
        return None
    last = {name: values[-1] for name, values in given.items()}
    options = AdminOptions(*_address(last["admin"]))
    options.token = _token(last.get("admin-token-file", ""), environ)
    options.tls_cert, options.tls_key = last.get("admin-tls-cert", ""), last.get("admin-tls-key", "")
    if bool(options.tls_cert) != bool(options.tls_key):
        raise OptionError("--admin-tls-cert and --admin-tls-key belong together")
    options.read_only = "admin-read-only" in given
    options.prefix = _prefix(last.get("admin-prefix", ""))
    options.max_tube_series = _series(last.get("max-tube-series", "1000"))
    options.tube_series_map = [_mapping(value) for value in given.get("tube-series-map", [])]
    if not is_loopback(options.host):
        if not options.token:
            raise OptionError(
                f"--admin: {options.host} can be reached from elsewhere: give a secret with --admin-token-file or "
                f"{TOKEN_VARIABLE}"
            )
        if not options.tls_cert and "admin-insecure" not in given:
            raise OptionError(
                f"--admin: {options.host} can be reached from elsewhere: give --admin-tls-cert and --admin-tls-key, or "
                "--admin-insecure to send the secret as plain text"
            )
    return options


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address in digits."""
    import ipaddress  # noqa: PLC0415 - only an admin port needs it

    return ipaddress.ip_address(host).is_loopback


def _address(value: str) -> tuple[str, int]:
    import ipaddress  # noqa: PLC0415 - likewise

    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise OptionError(f"--admin: not ADDR:PORT: {value or '(empty)'}")
    if host in ("", "localhost"):
        return LOOPBACK, int(port)
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError as error:
        raise OptionError(f"--admin: not an address in digits: {host}") from error


def _token(path: str, environ: Mapping[str, str]) -> str:
    if not path:
        token, source = environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not token:
            return ""
    else:
        source = f"--admin-token-file: {path}"
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs milliseconds
                token = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{source}: {getattr(error, 'strerror', None) or 'not text'}") from error
    if len(token) < TOKEN_SIZE or not token.isascii() or not token.isprintable():
        raise OptionError(f"{source}: a secret has {TOKEN_SIZE} or more printable ASCII characters")
    return token


def _prefix(value: str) -> str:
    prefix = value.rstrip("/")
    if prefix and (not prefix.startswith("/") or set(prefix) & set("?#{}% ") or "//" in prefix):
        raise OptionError(f"--admin-prefix: not a path that begins with a slash: {value}")
    return prefix


def _series(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > MAX_SERIES:
        raise OptionError(f"--max-tube-series: not a number from 0 to {MAX_SERIES}: {value or '(empty)'}")
    return int(value)


def _mapping(value: str) -> tuple[re.Pattern[str], str]:
    import re  # noqa: PLC0415 - likewise

    pattern, equals, name = value.rpartition("=")
    # Half of a surrogate pair, which a byte that is not UTF-8 becomes, cannot be printed either.
    if not equals or not pattern or not name or not name.isprintable():
        raise OptionError(f"--tube-series-map: not REGULAR-EXPRESSION=NAME: {value or '(empty)'}")
    try:
        return re.compile(pattern), name
    except re.error as error:
        raise OptionError(f"--tube-series-map: {pattern}: {error}") from error

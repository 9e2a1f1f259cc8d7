"""Connects the official `aerospike` client, and tells in plain words why it cannot."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike.exception import AerospikeError

from beanspiked.engine.errors import StoreUnusable
from beanspiked.places import host_port

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["connect", "reasons"]


def connect(config: Mapping[str, Any]) -> Any:
    """Connect a client of the `aerospike` package, through any of the hosts; for one caller at a time.

    Blocks for some seconds at most, and for some more for each further host that is silent.

    Takes over the client's log, which is one for the whole process, and leaves it off.

    Args:
        config: What `aerospike.client` takes, such as `client_config` makes it.

    Raises:
        StoreUnusable: No node takes the client; the text has what each said.
    """
    hosts = config["hosts"]
    named = [host_port(host, port) for host, port, *_ in hosts]
    try:
        return _connect(config, named)
    except _NotConnected as error:
        said = str(error)
    if len(hosts) > 1:
        # With one node alive the client takes a host that is dead or unknown for a failure of all. One is enough: the client finds the
        # others through it. That it then knows this one only matters once all nodes are gone.
        failed = []
        # Those first that were not complained of.
        for host in sorted(hosts, key=lambda host: host_port(host[0], host[1]) in said):
            try:
                return _connect({**config, "hosts": [host]}, named)
            except _NotConnected as error:
                failed.append(str(error))
        # Without repetitions: a host may be named twice.
        said = "; ".join(dict.fromkeys(failed))
    raise StoreUnusable(f"cannot connect to {said}")


class _NotConnected(Exception):  # noqa: N818 - says what is so, and is seen here only
    """Hosts do not take the client; the text names them and what each said."""


def _connect(config: Mapping[str, Any], named: Collection[str]) -> Any:
    """Connect through the configuration's hosts as the client does it; `named` are all that were named."""
    # The exception has no reason; the client logs one for each host.
    _logged.clear()
    aerospike.set_log_handler(_log)
    aerospike.set_log_level(aerospike.LOG_LEVEL_WARN)
    try:
        return aerospike.client(dict(config))
    except AerospikeError as error:
        through = ", ".join(host_port(host, port) for host, port, *_ in config["hosts"])
        said = "; ".join(reasons(_logged, named, through)) or f"{through}: {error.msg}"
        raise _NotConnected(said) from error
    finally:
        # And not `set_log_handler(None)`: a thread of the client's may be about to call the handler.
        aerospike.set_log_level(aerospike.LOG_LEVEL_OFF)


_logged: Final[list[str]] = []


def _log(_level: int, _function: str, _path: str, _line: int, message: str) -> None:
    _logged.append(message)


FAILED: Final = re.compile(r"Failed to [a-z ]+ (\S+) (\d+)\. (.*)", re.DOTALL)
REASONS: Final = (
    (
        "not yet fully initialized",
        "is in no cluster yet: it is starting, or sees fewer nodes than its min-cluster-size",
    ),
    ("SECURITY_NOT_SUPPORTED", "knows no users, as a Community Edition does not: leave USER:PASS@ out"),
    ("INVALID_HOST", "no such host"),
    ("ERR_TIMEOUT", "does not answer"),
    ("TLS name", "has a certificate with another name: tls=NAME in the URL says which one to expect"),
    ("certificate verify failed", "has a certificate from no authority known here: name yours in SSL_CERT_FILE"),
    ("SSL_connect I/O error", "does not speak TLS"),
    ("Bad file descriptor", "closed the connection: it is no Aerospike node, or expects TLS"),
)
# Of an address that only the cluster knows.
LEARNT: Final = "an address learnt from {}: if it does not lead there from here, set access-address on that node"


def reasons(logged: Sequence[str], named: Collection[str], through: str) -> Iterator[str]:
    """Tell from the client's log, in plain words, why each host did not do.

    Args:
        logged: What the client logged.
        named: The hosts that somebody named; the client learns others from these.
        through: Those that it was to connect through.
    """
    details: list[str] = []
    for message in logged:
        failed = FAILED.fullmatch(message)
        if failed is None:
            # About the host whose failure is logged next.
            details.append(message)
            continue
        host, port, reason = failed.groups()
        all_said = "; ".join([*details, reason])
        number = re.search(r"error: (\d+)(?:,| from)", reason)
        known = next((text for part, text in REASONS if part in all_said), None)
        plain = known or (os.strerror(int(number[1])).lower() if number else all_said)
        details.clear()
        place = host_port(host, int(port))
        yield f"{place}: {plain}" if place in named else f"{place}: {plain} ({LEARNT.format(through)})"

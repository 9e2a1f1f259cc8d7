"""Connects the official `aerospike` client. If that fails, says why in plain words."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike.exception import AerospikeError

from beanspiked.engine.aerospike.store.aerospike.udf import ModuleMissing, module_directory
from beanspiked.engine.errors import StoreUnusable
from beanspiked.places import host_port

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["connect", "reasons", "told_by"]


def connect(config: Mapping[str, Any]) -> Any:
    """Connect a client through any of the hosts. Only one caller connects at a time. Blocks some seconds for each silent host.

    Takes over the client's log, which the whole process shares, and leaves it off. The first client of a process decides for all where
    Lua modules are, so each gets the directory of ours.

    Args:
        config: The configuration for `aerospike.client`.

    Raises:
        StoreUnusable: No node accepts the client; the text has each node's reason. Or the installation lacks the Lua module.
    """
    try:
        config = {"lua": {"user_path": module_directory()}, **config}
    except ModuleMissing as error:
        raise StoreUnusable(str(error)) from error
    hosts = config["hosts"]
    named = [host_port(host, port) for host, port, *_ in hosts]
    try:
        return _connect(config, named)
    except _NotConnected as error:
        said = str(error)
    if len(hosts) > 1:
        # The client fails if one host of several is dead or unknown. One host is enough, since it tells the client of the others. That
        # the client knows only this host matters only once all nodes are gone.
        failed = []
        # The hosts without complaints come first.
        for host in sorted(hosts, key=lambda host: host_port(host[0], host[1]) in said):
            try:
                return _connect({**config, "hosts": [host]}, named)
            except _NotConnected as error:
                failed.append(str(error))
        # The configuration may name a host twice.
        said = "; ".join(dict.fromkeys(failed))
    raise StoreUnusable(f"cannot connect to {said}")


class _NotConnected(Exception):  # noqa: N818 - names a fact, and stays in this module
    """No host accepts the client; the text has each host's reason."""


def _connect(config: Mapping[str, Any], named: Collection[str]) -> Any:
    """Connect through the configuration's hosts, some of the `named` ones. Raises _NotConnected."""
    # The exception lacks the reasons: the client logs one for each host.
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
        # The handler stays: a thread of the client may be about to call it.
        aerospike.set_log_level(aerospike.LOG_LEVEL_OFF)


def told_by(error: AerospikeError) -> str:
    """Say on one line what the client says of an error. A query's error has a line for each node or partition: the first is enough."""
    what, _, details = (error.msg or "").partition("\nsub-errors:\n")
    return ": ".join(part for part in (what, details.partition("\n")[0]) if part)


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
    # A node without TLS resets the connection; other servers answer in plain text.
    (f"SSL_connect I/O error: {errno.ECONNRESET}", "does not speak TLS"),
    ("wrong version number", "does not speak TLS"),
    ("wait_readable failed", "does not answer"),
    ("Bad file descriptor", "closed the connection: it is no Aerospike node, or expects TLS"),
)
# The addition for an address that only the cluster named.
LEARNT: Final = "an address learnt from {}: if it does not lead there from here, set access-address on that node"


def reasons(logged: Sequence[str], named: Collection[str], through: str) -> Iterator[str]:
    """Say in plain words why each host failed, by the client's log.

    Args:
        logged: The client's log.
        named: The hosts of the configuration; the client learns of others from these.
        through: The hosts through which the client tried to connect.
    """
    details: list[str] = []
    for message in logged:
        failed = FAILED.fullmatch(message)
        if failed is None:
            # This line is about the host whose failure comes next.
            details.append(message)
            continue
        host, port, reason = failed.groups()
        all_said = "; ".join([*details, reason])
        number = re.search(r"error: ([1-9]\d*)(?:,|;| from)", all_said)
        known = next((text for part, text in REASONS if part in all_said), None)
        plain = known or (os.strerror(int(number[1])).lower() if number else all_said)
        details.clear()
        place = host_port(host, int(port))
        yield f"{place}: {plain}" if place in named else f"{place}: {plain} ({LEARNT.format(through)})"

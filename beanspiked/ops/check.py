"""`beanspiked check`: checks whether a cluster can be reached and is fit for jobs."""

from __future__ import annotations

import getopt
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from beanspiked.config import UsageError, parse
from beanspiked.engine.aerospike.store.aerospike.client import connect
from beanspiked.engine.errors import StoreUnusable
from beanspiked.ops.health import Finding, inspect
from beanspiked.ops.records import set_aside
from beanspiked.ops.url import (
    NOT_OURS,
    SCHEME,
    AddressError,
    StoreAddress,
    client_config,
    from_environment,
    parse_address,
    set_by_kubernetes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EXIT_USAGE", "address_of", "main"]

USAGE: Final = f"""\
Usage: beanspiked check [-z BYTES] [{SCHEME}[USER:PASS@]HOST[:PORT][,HOST...]/NAMESPACE[?prefix=NAME&tls=...]]

Check whether the cluster can be reached and is fit for jobs, and name the records that this version cannot read.
Without a URL, BEANSPIKED_STORE or AEROSPIKE_HOST and AEROSPIKE_PORT choose the cluster.
 -z, --max-job-size BYTES the size of the largest job (default 65535)
 -h, --help               print this and exit
The exit code is 0, or 1 if the cluster cannot keep jobs.
"""

EXIT_UNFIT: Final = 1
# The server's exit code for usage errors.
EXIT_USAGE: Final = 5


def main(words: Sequence[str]) -> int:
    """Check the cluster that the command line or the environment names; return the exit code."""
    try:
        options, rest = getopt.gnu_getopt(words, "z:h", ["max-job-size=", "help"])
        if any(option in ("-h", "--help") for option, _ in options):
            sys.stdout.write(USAGE)
            return 0
        max_job_size = _max_job_size([value for _, value in options], os.environ)
        address = address_of(rest, os.environ)
        config = client_config(address)
    except (getopt.GetoptError, UsageError, AddressError) as error:
        sys.stderr.write(f"beanspiked: {error}\nbeanspiked check -h for help\n")
        return EXIT_USAGE
    findings = _look(config, address, max_job_size)
    sys.stdout.writelines(f"{level}: {text}\n" for level, text in findings)
    return EXIT_UNFIT if any(finding.level == "error" for finding in findings) else 0


def _look(config: Mapping[str, Any], address: StoreAddress, max_job_size: int) -> list[Finding]:
    try:
        client = connect(config)
    except StoreUnusable as error:
        return [Finding("error", str(error))]
    try:
        findings = inspect(client, address.namespace, max_job_size)
        if not any(finding.level == "error" for finding in findings):
            findings += set_aside(client, address.namespace, address.prefix)
        return findings
    finally:
        client.close()


def _max_job_size(given: Sequence[str], environ: Mapping[str, str]) -> int:
    """Return the largest job's size in bytes, read as the server does."""
    variable = "BEANSPIKED_MAX_JOB_SIZE"
    words = [word for value in given for word in ("--max-job-size", value)]
    return parse(words, {variable: environ.get(variable, "")}).max_job_size


def address_of(words: Sequence[str], environ: Mapping[str, str]) -> StoreAddress:
    """Return the address that a command's one word gives, or else the environment, as a server reads it.

    Raises:
        UsageError: There is more than one argument, or nothing names a cluster.
        AddressError: The URL or a variable is malformed.
    """
    if len(words) > 1:
        raise UsageError(f"unknown argument: {words[1]}")
    if words:
        return parse_address(words[0])
    if store := environ.get("BEANSPIKED_STORE"):
        if not store.startswith(SCHEME):
            # Show the scheme only: a password may follow.
            kind = store.partition(":")[0]
            raise UsageError(f"BEANSPIKED_STORE is a {kind}: store, but this command needs {SCHEME}HOST/NAMESPACE")
        try:
            return parse_address(store)
        except AddressError as error:
            raise AddressError(f"BEANSPIKED_STORE: {error}") from None
    address = from_environment(environ)
    if address is None and set_by_kubernetes(environ):
        raise UsageError(NOT_OURS)
    if address is None:
        raise UsageError("no cluster is named: give its URL, or set BEANSPIKED_STORE or AEROSPIKE_HOST")
    return address

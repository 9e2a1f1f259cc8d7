"""`beanspiked cleanup`: removes the Lua modules that other versions left in a cluster."""

from __future__ import annotations

import getopt
import os
import sys
from typing import Final

from aerospike.exception import AerospikeError

from beanspiked.config import UsageError
from beanspiked.engine.aerospike.store.aerospike.client import connect
from beanspiked.engine.aerospike.store.aerospike.udf import ModuleMissing, remove_old
from beanspiked.engine.errors import StoreUnusable
from beanspiked.ops.check import EXIT_USAGE, address_of
from beanspiked.ops.url import AddressError, client_config

__all__ = ["main"]

EXIT_FAILED: Final = 1

USAGE: Final = """\
Usage: beanspiked cleanup [aerospike://[USER:PASS@]HOST[:PORT][,HOST...]/NAMESPACE[?tls=...]]

Remove the Lua modules that other versions of beanspiked left in a cluster. A running server of such a version puts its own back.
Without a URL, BEANSPIKED_STORE or AEROSPIKE_HOST and AEROSPIKE_PORT choose the cluster.
 -h, --help               print this and exit
"""


def main(words: list[str]) -> int:
    """Remove the Lua modules of other versions from a cluster; return the exit code."""
    try:
        options, rest = getopt.gnu_getopt(words, "h", ["help"])
        if options:
            sys.stdout.write(USAGE)
            return 0
        address = address_of(rest, os.environ)
        config = client_config(address)
    except (getopt.GetoptError, UsageError, AddressError) as error:
        sys.stderr.write(f"beanspiked: {error}\nbeanspiked cleanup -h for help\n")
        return EXIT_USAGE
    try:
        client = connect(config)
        try:
            names = remove_old(client)
        finally:
            client.close()
    except AerospikeError as error:
        sys.stderr.write(f"beanspiked: {address}: {error.msg}\n")
        return EXIT_FAILED
    except (ModuleMissing, StoreUnusable) as error:
        sys.stderr.write(f"beanspiked: {address}: {error}\n")
        return EXIT_FAILED
    for name in names:
        sys.stdout.write(f"removed the Lua module {name}\n")
    if not names:
        sys.stdout.write("there is no Lua module of another version\n")
    return 0

"""Measure the memory of a waiting job and of an idle connection, on our server and on beanstalkd.

    python tests/speed/footprint.py [--jobs N] [--connections N] [--server CMD] [--json FILE]

One client that pipelines puts jobs of 100 bytes, into one tube and into 100. Each connection sends one command. A figure is the growth of
the resident memory, divided by the number of jobs or connections.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from measure import EXIT_BROKEN, EXIT_TERMINATED, default_peer, default_server
from rig.process import BrokenError, Server

if TYPE_CHECKING:
    from rig.client import Client

JOB = b"put 1000 0 60 100\r\n" + b"x" * 100 + b"\r\n"
AT_ONCE = 500
TUBES = 100
# These come before the measurement, since a server allocates some memory once.
FIRST = 10_000
FIRST_CONNECTIONS = 100
OTHER_DESCRIPTORS = 200


def put(client: Client, jobs: int, tubes: int) -> None:
    """Put jobs into this many tubes, AT_ONCE into one after the other."""
    for number in range(jobs // AT_ONCE):
        client.exchange(b"use tube-%d\r\n" % (number % tubes) + JOB * AT_ONCE, 1 + AT_ONCE)


def bytes_a_job(command: tuple[str, ...], jobs: int, tubes: int) -> float:
    """Return the bytes of one of this many waiting jobs."""
    with Server(command) as server, server.connect() as client:
        put(client, FIRST, tubes)
        before = server.rss_bytes()
        put(client, jobs, tubes)
        return (server.rss_bytes() - before) / jobs


def connect(stack: contextlib.ExitStack, server: Server, count: int) -> None:
    """Open connections that have sent a command and got its reply."""
    for number in range(count):
        # The port of a closed connection stays taken for a minute.
        source = (f"127.0.2.{1 + number % 4}", 0)
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10, source))
        sock.sendall(b"list-tube-used\r\n")
        if not sock.recv(100):
            raise BrokenError("the server closed a connection")


def kb_a_connection(command: tuple[str, ...], connections: int) -> float:
    """Return the KB of one of this many idle connections."""
    wanted = connections + FIRST_CONNECTIONS + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(command))
        connect(stack, server, FIRST_CONNECTIONS)
        before = server.rss_bytes()
        connect(stack, server, connections)
        return (server.rss_bytes() - before) / connections / 1024


def main() -> int:
    """Run the command line; return the exit code."""
    # Servers end with their measurement, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    parser = argparse.ArgumentParser(description="Measure the memory of a waiting job and an idle connection.")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs of 100 bytes (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections (default: %(default)s)")
    parser.add_argument("--server", metavar="CMD", default=default_server(), help="the server (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    sides = {"beanspiked": tuple(shlex.split(given.server))}
    if peer := default_peer():
        sides["beanstalkd"] = (peer,)
    found: dict[str, dict[str, float]] = {}
    try:
        for name, command in sides.items():
            with Server(command) as server:
                print(f"{name}: {server.about()}")
            found[name] = {
                "bytes a job, one tube": bytes_a_job(command, given.jobs, 1),
                f"bytes a job, {TUBES} tubes": bytes_a_job(command, given.jobs, TUBES),
                "KB a connection": kb_a_connection(command, given.connections),
            }
            for figure, value in found[name].items():
                print(f"{name}: {value:.1f} {figure}", flush=True)
    except (BrokenError, OSError, ValueError) as error:
        print(f"footprint: {error}", file=sys.stderr)
        return EXIT_BROKEN
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

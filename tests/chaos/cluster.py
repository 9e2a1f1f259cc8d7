"""Nodes of an Aerospike cluster on loopback, with files of their own, which can be killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from processes import Process, until

# run.py is started on its own.
sys.path.append(str(Path(__file__).parents[1] / "shared"))

from asd import HOST, NAMESPACE, prepared

if TYPE_CHECKING:
    from collections.abc import Sequence

INFO_WITHIN = 2.0
# How long a cluster may take to be whole again, data and all, in seconds.
WHOLE_WITHIN = 120.0

# Together with what all tests set, as in deploy/aerospike, with smaller files.
SERVICE = """
    cluster-name beanspiked-chaos
    node-id a{number}
    min-cluster-size {least}"""
NAMESPACE_SETTINGS = """
    replication-factor 2
    write-commit-level-override all
    nsup-period 0
    default-ttl 0
    sindex-stage-size 128M
    storage-engine device {{
        file {work}/data
        filesize 1G
        direct-files true
        flush-max-ms 1000
        post-write-cache 64M
    }}"""


class Ports:
    """Free ports of a range, none of them twice."""

    def __init__(self, first: int, last: int) -> None:
        self._left = list(range(first, last + 1))
        # Runs at the same time should not look at the same ones.
        random.SystemRandom().shuffle(self._left)

    def take(self) -> int:
        """Return a port that nobody listens on."""
        while True:
            port = self._left.pop()
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("", port))
                return port


async def info(port: int, command: str) -> str:
    """Ask a node for information. Raises OSError or EOFError; TimeoutError is one of the former."""
    async with asyncio.timeout(INFO_WITHIN):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            question = command.encode() + b"\n"
            writer.write(struct.pack(">Q", 2 << 56 | 1 << 48 | len(question)) + question)
            (header,) = struct.unpack(">Q", await reader.readexactly(8))
            answer = await reader.readexactly(header & 0xFFFFFFFFFFFF)
        finally:
            writer.close()
    return answer.decode().partition("\t")[2].strip()


class Node(Process):
    """One node."""

    def __init__(self, asd: str, work: Path, number: int, ports: Sequence[int], least: int, heartbeat: str) -> None:
        command = prepared(
            asd,
            work,
            ports,
            service=SERVICE.format(number=number, least=least),
            level="info",
            heartbeat=heartbeat,
            namespace=NAMESPACE_SETTINGS.format(work=work),
        )
        super().__init__(f"node {number}", command, ports[0], work / "log")


class Cluster:
    """All nodes."""

    def __init__(self, asd: str, work: Path, count: int, ports: Ports, beats: int) -> None:
        all_ports = [[ports.take() for _ in range(4)] for _ in range(count)]
        seeds = "\n".join(f"mesh-seed-address-port {HOST} {four[2]}" for four in all_ports)
        least = 2 if count > 2 else 1
        self.nodes = [
            Node(asd, work / f"node{number}", number, four, least, f"timeout {beats}\n{seeds}")
            for number, four in enumerate(all_ports, start=1)
        ]

    def url(self, prefix: str) -> str:
        """Return what front-ends are told."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"aerospike://{hosts}/{NAMESPACE}?prefix={prefix}"

    async def is_whole(self) -> bool:
        """Tell whether every node sees all others, and no data moves between them."""
        try:
            keys = [await info(node.port, f"cluster-stable:size={len(self.nodes)}") for node in self.nodes]
        except (OSError, EOFError):
            return False
        return len(set(keys)) == 1 and "ERROR" not in keys[0].upper()

    async def until_whole(self) -> None:
        """Wait until the cluster has all its copies. Raises TimeoutError."""
        await until(self.is_whole, WHOLE_WITHIN)

    async def build(self) -> str:
        """Return the version that the nodes are of."""
        return await info(self.nodes[0].port, "build")

"""The tests' Aerospike servers: their configuration, their command, and a client once they answer."""

from __future__ import annotations

import re
import subprocess
import time
from string import Template
from typing import TYPE_CHECKING, Any

from launcher import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

__all__ = ["HOST", "NAMESPACE", "NO_SERVER", "Node", "connected", "forget", "note_build", "prepared"]

HOST = "127.0.0.1"
NAMESPACE = "test"
NO_SERVER = "no Aerospike server: neither BEANSPIKED_TEST_AEROSPIKE nor an asd on the PATH"

ANSWERS_WITHIN_S = 30
IN_MEMORY = """
    replication-factor 1
    storage-engine memory {
        data-size 512M
    }"""

CONFIG = Template("""
service {
    run-as-daemon false
    work-directory $work
    pidfile $work/pid
    proto-fd-max 1024
    $service
}
logging {
    console {
        context any $level
    }
}
mod-lua {
    user-path $work/udf
}
network {
    service {
        address $host
        access-address $host
        port $port
    }
    fabric {
        address $host
        port $fabric
    }
    heartbeat {
        mode mesh
        address $host
        port $mesh
        interval 150
        $heartbeat
    }
    admin {
        address $host
        port $admin
    }
}
namespace $name {
    conflict-resolution-policy last-update-time
    transaction-pending-limit 0
    index-stage-size 128M
    $namespace
}
""")


def prepared(
    asd: str, work: Path, ports: Sequence[int], *, service: str, level: str, heartbeat: str, namespace: str
) -> list[str]:
    """Prepare a node's folder; return the command that runs it.

    Args:
        asd: The server's program.
        work: The node's folder.
        ports: Its four ports; clients connect to the first, other nodes send their heartbeats to the third.
        service: Further lines of this part of the configuration.
        level: The log level.
        heartbeat: Further lines, as with `service`.
        namespace: Further lines, as with `service`, and the storage's lines.
    """
    for folder in ("smd", "udf"):
        (work / folder).mkdir(parents=True)
    port, fabric, mesh, admin = ports
    text = CONFIG.substitute(
        work=work,
        host=HOST,
        port=port,
        fabric=fabric,
        mesh=mesh,
        admin=admin,
        name=NAMESPACE,
        service=service,
        level=level,
        heartbeat=heartbeat,
        namespace=namespace,
    )
    (work / "conf").write_text(text)
    return [asd, "--foreground", "--config-file", str(work / "conf")]


class Node:
    """A server that is a cluster of its own.

    Attributes:
        address: Where clients connect.
        process: The running server.
    """

    def __init__(self, asd: str, work: Path, namespace: str = IN_MEMORY) -> None:
        ports = [free_port() for _ in range(4)]
        self.address = (HOST, ports[0])
        self._log = work / "log"
        self._command = prepared(
            asd,
            work,
            ports,
            service="cluster-name beanspiked-test",
            level="warning",
            heartbeat="timeout 10",
            namespace=namespace,
        )
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def connected(address: tuple[str, int], **settings: object) -> Any:
    """Return a client of a server that may still be starting. Raises TimeoutError."""
    import aerospike
    from aerospike.exception import AerospikeError

    from beanspiked.engine.aerospike.store.aerospike.udf import module_directory

    # The first client of a process decides where all of them find their modules.
    config = {"hosts": [address], "lua": {"user_path": module_directory()}, **settings}
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        try:
            client = aerospike.client(config).connect()
            client.put((NAMESPACE, "probe", 1), {"a": 1})
        except AerospikeError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Aerospike server at {address} does not answer: {error}") from error
            time.sleep(0.2)
        else:
            return client


def forget(client: Any, prefix: str) -> None:
    """Remove the indexes that servers left, since a namespace has room for only 256."""
    for answer in client.info_all(f"sindex-list:namespace={NAMESPACE}").values():
        for name in set(re.findall(rf"indexname=({prefix}\w+)", str(answer))):
            client.index_remove(NAMESPACE, name)
    for answer in client.info_all(f"sets/{NAMESPACE}").values():
        for name in set(re.findall(rf"set=({prefix}\w+)", str(answer))):
            client.truncate(NAMESPACE, name, 0)


def note_build(client: Any, request: pytest.FixtureRequest) -> None:
    """Add the server of the test to the summary."""
    build = str(next(iter(client.info_all("build").values()))[1]).strip()
    request.node.user_properties.append(("aerospike", build))

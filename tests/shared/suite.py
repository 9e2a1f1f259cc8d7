"""Runs protocol_conformance against servers that are started for it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
COMMAND = os.environ.get("BEANSPIKED_TEST_COMMAND", str(Path(sys.executable).with_name("beanspiked")))


def conformance(*options: str) -> dict[str, int]:
    """Run the suite; return how many tests ended how."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        "protocol_conformance",
        *options,
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr
    return {
        word: int(count)
        for count, word in re.findall(r"(\d+) (passed|failed|skipped|xfailed|error)", result.stdout.splitlines()[-1])
    }


@contextlib.contextmanager
def serving(address: str, *options: str) -> Iterator[str]:
    """Serve on a unix socket or a free TCP port; give the address that the suite connects to."""
    port = free_port()
    server = subprocess.Popen([*shlex.split(COMMAND), "-l", address, "-p", str(port), *options])
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            family, target = (
                (socket.AF_UNIX, address[5:]) if address.startswith("unix:") else (socket.AF_INET, (address, port))
            )
            with contextlib.suppress(OSError), socket.socket(family) as probe:
                probe.connect(target)
                break
        yield address if address.startswith("unix:") else f"{address}:{port}"
    finally:
        server.terminate()
        server.wait(10)

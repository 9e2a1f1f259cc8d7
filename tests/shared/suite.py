"""The command under test, and protocol_conformance against servers that it starts."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from depth import FULL, absent
from launcher import serving

from beanspiked.engine import later
from beanspiked.server.sockets import NATIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
COMMAND = os.environ.get("BEANSPIKED_TEST_COMMAND", str(Path(sys.executable).with_name("beanspiked")))

# The path of the admin port's API.
API = "/api/v1"

# The ways in which a server may hear its sockets.
EITHER_IO = ["native", "python"]
# If one way is enough without CI=true, it is the server's default.
CHOSEN_IO = EITHER_IO if FULL else ["python" if NATIVE is None else "native"]


def either_io(how: str) -> str:
    """Return one of these ways. Skips if it is not installed; in CI only the plain source may lack it."""
    if how != "native" or NATIVE is not None:
        return how
    if str(later.__file__).endswith(".py"):
        pytest.skip("the plain source has no native sockets")
    return absent("native sockets are not installed")


def conformance(*options: str) -> dict[str, int]:
    """Run the suite; return the number of tests for each outcome."""
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
def address_of(*options: str, path: str = "") -> Iterator[str]:
    """Serve on a unix socket or a free TCP port; yield the address for the suite."""
    with serving(shlex.split(COMMAND), *options, path=path) as server:
        yield f"unix:{path}" if path else "{}:{}".format(*server.address)

"""The installed command alone: its core is compiled, it serves in memory and with a journal, and a restart keeps the job.

Needs nothing but Python and what beanspiked itself requires: `python tests/smoke.py`.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "shared"))

from launcher import ServerProcess, serving

COMMAND = [str(Path(sys.executable).with_name("beanspiked"))]


def ask(server: ServerProcess, commands: bytes, replies: bytes) -> None:
    """Send commands and insist on these replies."""
    with server.dial() as sock:
        sock.sendall(commands)
        got = b""
        while len(got) < len(replies):
            data = sock.recv(1000)
            assert data, f"the server hung up after {got!r}"
            got += data
        assert got == replies, got


def main() -> None:
    """Try it."""
    spec = importlib.util.find_spec("beanspiked.protocol.parser")
    assert spec is not None
    assert str(spec.origin).endswith(".so"), f"not compiled: {spec.origin}"
    with serving(COMMAND) as server:
        ask(
            server,
            b"put 0 0 9 5\r\nhello\r\nreserve\r\ndelete 1\r\n",
            b"INSERTED 1\r\nRESERVED 1 5\r\nhello\r\nDELETED\r\n",
        )
    with tempfile.TemporaryDirectory() as folder:
        with serving(COMMAND, "-b", folder) as server:
            ask(server, b"put 0 0 9 5\r\nhello\r\n", b"INSERTED 1\r\n")
            server.kill()
        with serving(COMMAND, "-b", folder) as server:
            ask(server, b"peek 1\r\n", b"FOUND 1 5\r\nhello\r\n")
    print(f"beanspiked works on {sys.version}")


if __name__ == "__main__":
    main()

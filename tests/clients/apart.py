"""Run a server and a command that insists on a fixed port, usually inside a network namespace of their own.

Called as `apart.py PORT SERVER COMMAND...`; SERVER is one word for the shell's lexer. With `--loopback` before PORT the
namespace's loopback interface is brought up first, which a new namespace needs. The exit status is the command's.
"""

from __future__ import annotations

import fcntl
import shlex
import socket
import struct
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from launcher import ServerProcess

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--loopback"]:
        raise_loopback()
        arguments = arguments[1:]
    port, server_command, *command = arguments
    if not command:  # a probe: only whether a namespace can be set up
        return 0
    server = ServerProcess([*shlex.split(server_command), "-l", "127.0.0.1", "-p", port], ("127.0.0.1", int(port)))
    try:
        server.wait_until_serving()
        return subprocess.run(command, check=False).returncode
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

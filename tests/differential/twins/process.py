"""The two servers that are compared."""

import shutil

from launcher import ServerProcess, free_port


def reference_command() -> str | None:
    """Find beanstalkd; Debian's lies outside many users' PATH."""
    return shutil.which("beanstalkd") or shutil.which("beanstalkd", path="/usr/bin:/usr/sbin:/usr/local/bin")


class Twin(ServerProcess):
    """One running server.

    Nobody connects to it before the harness does: a health check would show in `total-connections`.
    """

    def __init__(self, command: list[str], options: list[str] | None = None) -> None:
        port = free_port()
        super().__init__([*command, "-l", "127.0.0.1", "-p", str(port), *(options or [])], ("127.0.0.1", port))

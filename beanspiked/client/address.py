"""The address of a server."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Address"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address of a server: a TCP host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.

        Raises:
            ValueError: The text is none of these.

        """
        if text.startswith("unix:"):
            if not text[5:]:
                raise ValueError("a path is missing after unix:")
            return cls(path=text[5:])
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("an IPv6 address needs brackets, such as [::1]:11300")
        if not (colon and host and port.isascii() and port.isdigit()):
            raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
        if not 0 < int(port) < 65536:
            raise ValueError("the port must be a number from 1 to 65535")
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{os.fsencode(self.path).decode('utf-8', 'replace')}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

"""Ports for servers under test."""

import random
import socket

__all__ = ["free_port"]


def free_port() -> int:
    """Return a TCP port that nobody uses, on any address.

    It lies below the range from which the kernel serves other probes and outgoing connections: tests run in parallel and open
    thousands of them between this call and the server's bind.
    """
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port

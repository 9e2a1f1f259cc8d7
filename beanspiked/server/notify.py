"""Messages to the service manager (sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["VARIABLE", "notify"]

logger = logging.getLogger("beanspiked")

VARIABLE = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Send systemd a state, as one datagram to the socket that it named."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("cannot notify systemd at NOTIFY_SOCKET: %s", error)

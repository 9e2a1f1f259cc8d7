"""Messages to the service manager (sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["VARIABLE", "ask_for_patience", "notify"]

logger = logging.getLogger("beanspiked")

VARIABLE = "NOTIFY_SOCKET"
# How much more time a start asks for, in seconds, again and again while the journal is read or there is no session with the store.
PATIENCE = 30


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


def ask_for_patience() -> None:
    """Ask systemd for more time; otherwise it ends a start after TimeoutStartSec."""
    notify(f"EXTEND_TIMEOUT_USEC={PATIENCE * 1_000_000}")

"""The log of changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["log", "note"]

log = logging.getLogger("beanspiked.audit")


def note(request: Request, what: str) -> None:
    """Log who has changed what."""
    client = request.client
    who = f"{client.host}:{client.port}" if client is not None else "unknown"
    log.info("admin: %s (%s): %s", who, request.scope.get("user", "-"), what)

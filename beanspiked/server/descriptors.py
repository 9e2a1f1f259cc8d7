"""How many descriptors there are, and what their want looks like."""

from __future__ import annotations

import errno
import resource
import sys
from typing import Final

__all__ = ["OUT_OF_DESCRIPTORS", "most_clients", "most_clients_beside_journal"]

OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Descriptors for other things than clients of the job port: connections to the store, and those of the admin port.
SPARE_DESCRIPTORS: Final = 256

# More than a server with a journal has besides clients. SQLite, too, opens some files only when it needs them.
JOURNAL_DESCRIPTORS: Final = 32


def most_clients() -> int:
    """Return how many clients may be accepted, so that descriptors are left for other things."""
    files = _limit()
    return max(files // 2, files - SPARE_DESCRIPTORS)


def most_clients_beside_journal() -> int:
    """Return how many clients may be accepted, so that the journal can open its files."""
    return max(1, _limit() - JOURNAL_DESCRIPTORS)


def _limit() -> int:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if files == resource.RLIM_INFINITY else files

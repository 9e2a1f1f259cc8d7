"""The names of what is in a segment: keys of jobs, and leases."""

from struct import Struct
from typing import Final

__all__ = [
    "DUE_KEY",
    "LAST_SLOT",
    "SERIAL_BITS",
    "SLOT_BITS",
    "due_key",
    "job_slot",
    "key_ms",
    "lease_key",
    "lease_session",
    "ready_key",
]

# A job's id is segment << SLOT_BITS | slot. Keys end with a slot of 16 bits.
SLOT_BITS: Final = 14
LAST_SLOT: Final = (1 << SLOT_BITS) - 1

# A lease is session << SERIAL_BITS | serial; every attach and every settling takes the session's next serial.
SERIAL_BITS: Final = 32

READY_KEY: Final = Struct(">IQH")
DUE_KEY: Final = Struct(">HIH")


def ready_key(pri: int, put_us: int, slot: int) -> bytes:
    """Make the key of a ready job: by priority, then by the time of its put in microseconds, then by slot."""
    return READY_KEY.pack(pri, put_us, slot)


def due_key(at_ms: int, slot: int) -> bytes:
    """Make the key of a delayed job, by when it is due, or of a buried one, by when it was buried."""
    return DUE_KEY.pack(at_ms >> 32, at_ms & 0xFFFFFFFF, slot)


def key_ms(key: bytes) -> int:
    """Return when a delayed job is due, or a buried one was buried, by its key."""
    return int.from_bytes(key[:6], "big")


def job_slot(key: bytes) -> int:
    """Return the slot that a key of any queue ends with."""
    return int.from_bytes(key[-2:], "big")


def lease_key(session: int, serial: int) -> int:
    """Name a lease of a session."""
    return session << SERIAL_BITS | serial


def lease_session(lease: int) -> int:
    """Return the session that a lease is of."""
    return lease >> SERIAL_BITS

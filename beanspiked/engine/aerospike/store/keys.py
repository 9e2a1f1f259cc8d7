"""The names of what is in a segment: keys of jobs, and leases."""

from struct import Struct
from typing import Final

__all__ = [
    "DUE_KEY",
    "GENERATIONS_A_SIZE",
    "LAST_SLOT",
    "RING_BITS",
    "RING_MAX",
    "SERIAL_BITS",
    "SLOT_BITS",
    "due_key",
    "job_slot",
    "key_ms",
    "lease_key",
    "lease_session",
    "placed",
    "ready_key",
    "record_of",
]

# A job's id is segment << SLOT_BITS | slot. Keys end with a slot of 16 bits.
SLOT_BITS: Final = 14
LAST_SLOT: Final = (1 << SLOT_BITS) - 1

# Records of segments, and of pages, are used again under higher numbers. A number is generation << 24 | place, and its place names the
# record: of the first `size` places one after the other, in another order in each generation, so that what lives long does not lie
# together. Ids stay below 2^53, which is what JavaScript's numbers hold, while generations stay below 2^15: they begin at 1, and whoever
# meets the next GENERATIONS_A_SIZE of them doubles the ring, at most ten times from 2^14 on. So 10^11 segments fit, which is 31 years of a
# hundred new ones a second, and of 2,978 that ever were one record stays.
RING_BITS: Final = 24
RING_MAX: Final = 1 << RING_BITS
GENERATIONS_A_SIZE: Final = 2978
# Versions before this one numbered segments from 1 and had so many records for them.
FORMER_RING: Final = 1 << 20

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


def placed(n: int, size: int, base: int) -> int:
    """Return the number that the n-th count of a ring gives, 0 being the first; a power of two is its size."""
    generation = base + n // size
    # An odd factor only changes the order.
    factor = (generation * 0x9E3779B97F4A7C15 >> 20) | 1
    return generation << RING_BITS | (n * factor) % size


def record_of(number: int) -> int:
    """Return which record a segment, or a page, has: the rest is for later ones."""
    return number % (RING_MAX if number >= RING_MAX else FORMER_RING)

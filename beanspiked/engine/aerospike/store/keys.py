"""The numbers of segments, and the keys of their jobs and leases."""

from struct import Struct
from typing import Final

__all__ = [
    "DUE_KEY",
    "GENERATIONS_A_SIZE",
    "LAST_SLOT",
    "OTHERS_LATER_US",
    "RING_BITS",
    "RING_MAX",
    "SERIAL_BITS",
    "SLOT_BITS",
    "due_key",
    "job_slot",
    "key_ms",
    "lease_key",
    "lease_session",
    "moved",
    "placed",
    "put_us",
    "ready_key",
    "record_of",
]

# A job's id is segment << SLOT_BITS | slot. Keys end with the slot, in 16 bits.
SLOT_BITS: Final = 14
LAST_SLOT: Final = (1 << SLOT_BITS) - 1

# Records of segments and of pages are used again under higher numbers. A number is generation << 24 | place, and the place names the
# record. Each generation takes the first `size` places in another order, so that long-lived segments do not lie together. JavaScript's
# numbers are exact up to 2^53, and ids stay below that while generations stay below 2^15. Generations begin at 1. After each
# GENERATIONS_A_SIZE of them the ring is doubled, at most ten times from 2^14 on. So 10^11 segments fit: a hundred new ones a second for 31
# years. Of 2,978 segments one record stays.
RING_BITS: Final = 24
RING_MAX: Final = 1 << RING_BITS
GENERATIONS_A_SIZE: Final = 2978
# Earlier versions numbered segments from 1, and had this many records.
FORMER_RING: Final = 1 << 20

# A lease is session << SERIAL_BITS | serial. Each attach and each settling takes the session's next serial.
SERIAL_BITS: Final = 32

# Of jobs with the same priority, a front-end takes those of its own segments first: those of others have their turn so much later, in
# microseconds. News of them take about that long, so the order of puts at two front-ends is not known any better. Without it, two
# front-ends with clients on one tube take each other's jobs, and pay for an operation in two segments instead of one.
OTHERS_LATER_US: Final = 10_000

READY_KEY: Final = Struct(">IQH")
DUE_KEY: Final = Struct(">HIH")


def ready_key(pri: int, put_us: int, slot: int) -> bytes:
    """Make the key of a ready job: it sorts by priority, then by time of the put in microseconds, then by slot."""
    return READY_KEY.pack(pri, put_us, slot)


def put_us(key: bytes) -> int:
    """Return when a ready job was put, in microseconds."""
    at: int = READY_KEY.unpack_from(key)[1]
    return at


def moved(key: bytes, us: int) -> bytes:
    """Return the key of a ready job as if it had been put so many microseconds later, or earlier."""
    pri, at, slot = READY_KEY.unpack(key)
    return READY_KEY.pack(pri, max(0, at + us), slot)


def due_key(at_ms: int, slot: int) -> bytes:
    """Make the key of a delayed or buried job: it sorts by the time when the job is due, or was buried."""
    return DUE_KEY.pack(at_ms >> 32, at_ms & 0xFFFFFFFF, slot)


def key_ms(key: bytes) -> int:
    """Return when a delayed job is due, or a buried one was buried."""
    return int.from_bytes(key[:6], "big")


def job_slot(key: bytes) -> int:
    """Return the slot in a key of any queue."""
    return int.from_bytes(key[-2:], "big")


def lease_key(session: int, serial: int) -> int:
    """Name a lease of a session."""
    return session << SERIAL_BITS | serial


def lease_session(lease: int) -> int:
    """Return a lease's session."""
    return lease >> SERIAL_BITS


def placed(n: int, size: int, base: int) -> int:
    """Return the number for the n-th count of a ring, from 0. The ring's size is a power of two."""
    if base > 1:
        # The ring has been doubled, since nearly all of its records were in use. A generation of the new ones alone comes first.
        half = size // 2
        if n < half:
            return base << RING_BITS | half + _shuffled(n, half, base)
        n -= half
        base += 1
    generation = base + n // size
    return generation << RING_BITS | _shuffled(n, size, generation)


def _shuffled(n: int, size: int, generation: int) -> int:
    # An odd factor changes only the order.
    factor = (generation * 0x9E3779B97F4A7C15 >> 20) | 1
    return (n * factor) % size


def record_of(number: int) -> int:
    """Return the place of a segment's or page's record."""
    return number % (RING_MAX if number >= RING_MAX else FORMER_RING)

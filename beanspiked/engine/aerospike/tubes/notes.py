"""What is remembered of a segment that is not in use here, in 31 bytes: a tube may have a million of them."""

from struct import Struct
from typing import Final

from beanspiked.engine.aerospike.store.keys import OTHERS_LATER_US, key_ms, moved
from beanspiked.engine.aerospike.store.seam import Head

__all__ = ["note_due_ms", "note_empty", "note_head", "note_number", "note_of", "turn_of"]

# First ready key, number, due time in ms, ready jobs, other jobs, state. As bytes, notes with ready jobs are in the order of these.
NOTE: Final = Struct(">14sHIHIHHB")
KEY_SIZE: Final = 14
COUNT_MAX: Final = 0xFFFF


def note_of(number: int, head: Head) -> bytes:
    """Note what a segment's head tells."""
    due_ms = 0 if head.due_key is None else key_ms(head.due_key)
    others = min(head.delayed + head.buried + head.held, COUNT_MAX)
    key = head.first_keys[0] if head.first_keys else b""
    return NOTE.pack(
        key, number >> 32, number & 0xFFFFFFFF, due_ms >> 32, due_ms & 0xFFFFFFFF, head.ready, others, head.state
    )


def note_number(note: bytes) -> int:
    """Return the segment's number."""
    return int.from_bytes(note[14:20], "big")


def turn_of(note: bytes) -> bytes:
    """Return the key by which its most urgent job is taken in its turn. There must be one."""
    return moved(note[:KEY_SIZE], OTHERS_LATER_US)


def note_due_ms(note: bytes) -> int:
    """Return when its first delayed job is due, by the server's clock; 0 without one."""
    return int.from_bytes(note[20:26], "big")


def note_empty(note: bytes) -> bool:
    """Tell whether no job was in it."""
    return note[26:30] == b"\0\0\0\0"


def note_head(note: bytes) -> Head:
    """Return a head that tells as much as the note: of the ready jobs only the first key, of the others only how many there are."""
    key, _, _, high, low, ready, others, state = NOTE.unpack(note)
    due_key = note[20:26] + b"\0\0" if high or low else None
    return Head([key] if ready else (), None, due_key, ready, others, 0, 0, state)

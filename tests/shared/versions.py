"""The version after this one. It knows one more format, in which this version finds nothing."""

from __future__ import annotations

from beanspiked.engine.aerospike.segment.codec import FORMATS, Formats, Packed, pack, unpack

__all__ = ["AGREED", "NEXT", "NEXT_FORM"]

NEXT_FORM = FORMATS.newest + 1
# How long it takes until front-ends write a format that all read, in seconds.
AGREED = 4.0
TURNED = bytes(255 - byte for byte in range(256))


def encode(job: Packed) -> bytes:
    return pack(job)[::-1].translate(TURNED)


def decode(packed: bytes) -> Packed:
    return unpack(packed[::-1].translate(TURNED))


NEXT = Formats({NEXT_FORM: (encode, decode)})

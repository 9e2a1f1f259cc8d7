"""How front-ends use their tubes: packed for the others, and unpacked."""

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COUNTER_NAMES", "PAYLOAD_MAX", "SLICE", "pack_many", "pack_usage", "unpack_many", "unpack_usage"]

# More bytes than this are compressed. Beyond PAYLOAD_MAX bytes only the first tubes are told.
PACK_ABOVE: Final = 16 << 10
PAYLOAD_MAX: Final = 512 << 10
UNPACKED_MAX: Final = 64 << 20
# For each tube: using, watching, waiting, and COUNTER_NAMES.
USE_COUNTS: Final = 6
# How many tubes are packed before other work may run.
SLICE: Final = 100
# How many bytes are read before other work may run.
PART_SIZE: Final = 40_000
# How many bytes the compressor may add at the end.
END_SIZE: Final = 64

COUNTER_NAMES: Final = ("total_jobs", "deletes", "pauses")


def pack_usage(usage: dict[str, list[int]]) -> bytes:
    """Pack how tubes are used; a little of it is not compressed, as in the first versions."""
    payload = json.dumps(usage, separators=(",", ":")).encode()
    return payload if len(payload) <= PACK_ABOVE else zlib.compress(payload, 1)


def unpack_usage(payload: bytes) -> dict[str, list[int]]:
    """Unpack how tubes are used. Raises ValueError if it is of another version, or damaged."""
    try:
        usage = json.loads(payload if payload.startswith(b"{") else _decompress(payload))
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from error
    return _checked(usage)


def _checked(usage: object) -> dict[str, list[int]]:
    if not isinstance(usage, dict):
        raise ValueError("not tubes by their names")  # noqa: TRY004 - whatever is wrong with it
    for name, use in usage.items():
        if not isinstance(use, list) or len(use) < USE_COUNTS or not all(type(count) is int for count in use):
            raise ValueError(f"not how a tube is used: {name!r:.100}")
    return usage


async def unpack_many(payload: bytes) -> dict[str, list[int]]:
    """Do as unpack_usage does; where it is much, let other work run in between."""
    if payload.startswith(b"{"):
        return unpack_usage(payload)
    try:
        text = _decompress(payload)
        usage: dict[str, list[int]] = {}
        begin = 1
        while begin < len(text):
            await asyncio.sleep(0)
            # No tube's name has these characters.
            end = text.find(b'],"', begin + PART_SIZE) + 1 or len(text) - 1
            usage.update(_checked(json.loads(text[:1] + text[begin:end] + text[-1:])))
            begin = end + 1
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from error
    return usage


def _decompress(payload: bytes) -> bytes:
    """Decompress, unless the result is larger than anybody publishes."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(payload, UNPACKED_MAX)
    if not unpacker.eof:
        raise ValueError("too long, or cut off")
    return unpacked


async def pack_many(slices: "Callable[[int], dict[str, list[int]] | None]", at_most: int) -> tuple[bytes, bool]:
    """Pack how many tubes are used, letting other work run in between; tell also whether there was room for all.

    Args:
        slices: Returns how the tubes of a slice are used, by the slice's number; None after the last one.
        at_most: The size limit, in bytes.
    """
    packer = zlib.compressobj(1)
    packed = [packer.compress(b"{")]
    size, number, comma, whole = 0, 0, b"", True
    while whole and (usage := slices(number)) is not None:
        number += 1
        if usage:
            more = packer.copy()
            part = more.compress(comma + json.dumps(usage, separators=(",", ":")).encode()[1:-1])
            part += more.flush(zlib.Z_SYNC_FLUSH)
            whole = size + len(part) + END_SIZE <= at_most
            if whole:
                packer, comma = more, b","
                size += len(part)
                packed.append(part)
        await asyncio.sleep(0)
    packed.append(packer.compress(b"}") + packer.flush())
    return b"".join(packed), whole

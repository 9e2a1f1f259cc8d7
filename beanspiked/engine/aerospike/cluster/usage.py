"""How front-ends use their tubes, as they tell each other: packed, and read again."""

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COUNTER_NAMES", "PAYLOAD_MAX", "SLICE", "pack_many", "pack_usage", "unpack_many", "unpack_usage"]

# What is published is packed if it is larger than this, in bytes, and tells of the first tubes only where it is larger than that.
PACK_ABOVE: Final = 16 << 10
PAYLOAD_MAX: Final = 512 << 10
UNPACKED_MAX: Final = 64 << 20
# Of each tube: using, watching, waiting, and COUNTER_NAMES.
USE_COUNTS: Final = 6
# What is told of so many tubes is packed before others have a turn.
SLICE: Final = 100
# Of what is read, others have a turn after so many bytes.
PART_SIZE: Final = 40_000
# What the end of what is packed takes at most, in bytes.
END_SIZE: Final = 64

COUNTER_NAMES: Final = ("total_jobs", "deletes", "pauses")


def pack_usage(usage: dict[str, list[int]]) -> bytes:
    """Pack what is published of tubes; while that is little, as it was before it was ever compressed."""
    payload = json.dumps(usage, separators=(",", ":")).encode()
    return payload if len(payload) <= PACK_ABOVE else zlib.compress(payload, 1)


def unpack_usage(payload: bytes) -> dict[str, list[int]]:
    """Read what was published. Raises ValueError if that is of another version, or damaged."""
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
    """Read what was published, others having turns where it is much. Raises ValueError as unpack_usage does."""
    if payload.startswith(b"{"):
        return unpack_usage(payload)
    try:
        text = _decompress(payload)
        usage: dict[str, list[int]] = {}
        begin = 1
        while begin < len(text):
            await asyncio.sleep(0)
            # No name of a tube has these characters.
            end = text.find(b'],"', begin + PART_SIZE) + 1 or len(text) - 1
            usage.update(_checked(json.loads(text[:1] + text[begin:end] + text[-1:])))
            begin = end + 1
    except (zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from error
    return usage


def _decompress(payload: bytes) -> bytes:
    """Unpack what was packed, unless it is longer than anybody would publish."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(payload, UNPACKED_MAX)
    if not unpacker.eof:
        raise ValueError("too long, or cut off")
    return unpacked


async def pack_many(slices: "Callable[[int], dict[str, list[int]] | None]", at_most: int) -> tuple[bytes, bool]:
    """Pack what is published of many tubes, others having turns; tell also whether there was room for all.

    Args:
        slices: Returns how the tubes of the slice of a number are used, None after the last one.
        at_most: How many bytes there is room for.
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

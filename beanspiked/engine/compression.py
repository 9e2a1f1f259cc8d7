"""Compression of large bodies: LZ4 above 2 KiB where it helps."""

from typing import Final

from beanspiked.engine.errors import DamagedEntry

__all__ = ["SQUEEZE_ABOVE", "expand", "squeeze"]

# Bodies of more bytes are worth compressing; go-beanspike's threshold.
SQUEEZE_ABOVE: Final = 2048
# An LZ4 block never grows by more than this when it is expanded: a byte of it stands for 255 bytes at most.
MOST_GROWTH: Final = 255


def squeeze(body: bytes) -> tuple[bytes, int, bool]:
    """Compress a body of more than 2,048 bytes if that makes it smaller.

    Returns:
        The body as it is to be stored; its size before compression, in bytes, or -1 when it is not compressed; and whether
        compression was tried and given up.
    """
    if len(body) <= SQUEEZE_ABOVE:
        return body, -1, False
    import lz4.block  # noqa: PLC0415 - most servers never compress

    block: bytes = lz4.block.compress(body, store_size=False)
    if len(block) >= len(body):
        return body, -1, True
    return block, len(body), False


def expand(stored: bytes, raw_size: int) -> bytes:
    """Undo `squeeze`; a negative raw size means that there is nothing to undo. Raises DamagedEntry for a damaged block."""
    if raw_size < 0:
        return stored
    # A damaged size must not ask for gigabytes.
    if raw_size > MOST_GROWTH * len(stored):
        raise DamagedEntry(f"an LZ4 block of {len(stored)} bytes that is to become {raw_size}")
    import lz4.block  # noqa: PLC0415 - most servers never compress

    try:
        body: bytes = lz4.block.decompress(stored, uncompressed_size=raw_size)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise DamagedEntry(f"an LZ4 block of {len(stored)} bytes: {error}") from error
    if len(body) != raw_size:
        raise DamagedEntry(f"an LZ4 block that gives {len(body)} bytes of {raw_size}")
    return body

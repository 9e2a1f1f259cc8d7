"""Typed values from records. A value that is missing or of another type raises Damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.store.keys import DUE_KEY, READY_KEY
from beanspiked.engine.aerospike.store.seam import READY, Damaged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Bins: TypeAlias = Mapping[str, Any]

__all__ = [
    "blob",
    "entries",
    "first_key",
    "key_list",
    "keys",
    "mapping",
    "number",
    "numbers",
    "optional_number",
    "text",
    "unexpected",
]

# A key has a time and a slot, or more. That of a ready job, which is taken apart, has its own size.
KEY_MIN: Final = DUE_KEY.size


def unexpected(name: str, value: object) -> Damaged:
    """Make the error of a value that is missing or of a wrong type."""
    return Damaged(f"{name} is missing" if value is None else f"{name} is of type {type(value).__name__}")


def number(bins: Bins, name: str) -> int:
    """Return a bin's integer."""
    value = bins.get(name)
    if type(value) is not int:
        raise unexpected(name, value)
    return value


def optional_number(bins: Bins, name: str, default: int) -> int:
    """Return a bin's integer, or a default where the bin is missing."""
    return default if bins.get(name) is None else number(bins, name)


def text(bins: Bins, name: str) -> str:
    """Return a bin's text."""
    value = bins.get(name)
    if type(value) is not str:
        raise unexpected(name, value)
    return value


def blob(bins: Bins, name: str) -> bytes:
    """Return a bin's bytes."""
    value = bins.get(name)
    if not isinstance(value, (bytes, bytearray)):
        # bytes(value) would make a million zeros of the number 1,000,000.
        raise unexpected(name, value)
    return bytes(value)


def mapping(bins: Bins, name: str) -> Mapping[Any, Any]:
    """Return a bin's map, whatever its items."""
    value = bins.get(name)
    if not isinstance(value, dict):
        raise unexpected(name, value)
    return value


def numbers(name: str, values: Mapping[Any, Any]) -> list[int]:
    """Return a map's keys, all of them integers, in their order."""
    for value in values:
        if type(value) is not int:
            raise unexpected(f"a key of {name}", value)
    return sorted(values)


def entries(name: str, value: object) -> dict[bytes, bytes]:
    """Return packed jobs by their keys, in the order of the keys."""
    if not isinstance(value, dict):
        raise unexpected(name, value)
    for key, packed in value.items():
        _check_key(name, key, ready=name == READY)
        if not isinstance(packed, (bytes, bytearray)):
            raise unexpected(f"a job in {name}", packed)
    return {bytes(key): bytes(packed) for key, packed in sorted(value.items())}


def _check_key(name: str, key: object, *, ready: bool) -> None:
    if not isinstance(key, (bytes, bytearray)):
        raise unexpected(f"a key of {name}", key)
    if len(key) < KEY_MIN or (ready and len(key) != READY_KEY.size):
        raise Damaged(f"a key of {name} has {len(key)} bytes")


def key_list(bins: Bins, name: str, *, ready: bool) -> Sequence[bytes]:
    """Return a bin's list of keys of jobs, which are ready or are not."""
    return keys(name, bins.get(name), ready=ready)


def keys(name: str, value: object, *, ready: bool) -> Sequence[bytes]:
    """Return a list of keys of jobs, which are ready or are not."""
    if not isinstance(value, list):
        raise unexpected(name, value)
    usual = READY_KEY.size if ready else DUE_KEY.size
    for key in value:
        # Micro-optimization: every answer to a change has many keys.
        if type(key) is not bytes or len(key) != usual:
            _check_key(name, key, ready=ready)
    return value


def first_key(bins: Bins, name: str, *, ready: bool = False) -> bytes | None:
    """Return the first of a bin's keys, or None if there is none."""
    keys = key_list(bins, name, ready=ready)
    return keys[0] if keys else None

"""The YAML of stats and lists, as beanstalkd 1.12 (bare names), 1.13 (quoted names) and beanspiked send it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from beanspiked.client.errors import BrokenReply

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["Stats", "Value", "mapping", "sequence"]

Value = int | float | bool | str
Stats = dict[str, Value]

# Values that stay text although they may look like numbers, such as a tube's name.
TEXT: Final = frozenset(
    ("name", "tube", "state", "version", "hostname", "os", "platform", "beanspiked-version"),
)
# What names no character stays as it is.
ESCAPE: Final = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U((?:0010|000[0-9a-f])[0-9a-f]{4})|(["\\]))')


def mapping(document: bytes, text: Container[str] = TEXT) -> Stats:
    """Read `key: value` lines; the values of the keys in `text` stay text. Raises BrokenReply."""
    fields: Stats = {}
    for line in _lines(document):
        key, colon, value = line.partition(":")
        if not colon or not key:
            raise BrokenReply(f"not a line of stats: {line[:80]!r}")
        value = value.strip()
        fields[key] = _text(value) if key in text else _value(value)
    return fields


def sequence(document: bytes) -> list[str]:
    """Read a list of names. Raises BrokenReply."""
    lines = _lines(document)
    for line in lines:
        if not line.startswith("- "):
            raise BrokenReply(f"not a line of a list: {line[:80]!r}")
    return [_text(line[2:].strip()) for line in lines]


def _lines(document: bytes) -> list[str]:
    first, *lines = document.decode("utf-8", "backslashreplace").split("\n")
    if first != "---" or (lines and lines.pop()):
        raise BrokenReply(f"not a YAML document: {document[:80]!r}")
    return lines


def _text(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return ESCAPE.sub(lambda found: found[4] or chr(int(found[1] or found[2] or found[3], 16)), value[1:-1])


def _value(value: str) -> Value:
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return _text(value)

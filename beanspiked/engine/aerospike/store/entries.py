"""Directories of tubes in records: the items of shards, pages, and the records of the version before.

A tube's entry is the part of its shard's map between the tube's name with a 0 byte and the name with a 1 byte. No name has either byte. So
an entry needs no preparation and leaves nothing behind. The byte after the 0 tells the kind of an item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from beanspiked.engine.aerospike.store import fields
from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.formats import FORMAT, checked
from beanspiked.engine.aerospike.store.seam import DEAD, Damaged, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Bins: TypeAlias = Mapping[str, Any]

__all__ = [
    "COUNTERS",
    "ITEM_COUNTER",
    "ITEM_PAGE",
    "ITEM_PAUSE",
    "ITEM_SEGMENT",
    "directories",
    "former_directory",
    "former_names",
    "item",
    "items",
    "items_of",
    "numbered_item",
    "page",
]

COUNTERS: Final = ("total_jobs", "deletes", "pauses")
ITEM_COUNTER: Final = b"c"
ITEM_PAGE: Final = b"p"
ITEM_SEGMENT: Final = b"s"
ITEM_PAUSE: Final = b"w"
NUMBER_SIZE: Final = 8
# To look the method up for each of many thousand numbers takes longer than to read them.
read_number: Final = int.from_bytes


def item(tube: str, kind: bytes, name: str = "") -> bytes:
    """Return the key of an item of a tube's entry."""
    return b"%b\0%b%b" % (tube.encode(), kind, name.encode())


def numbered_item(tube: str, kind: bytes, number: int) -> bytes:
    """Return the key of a segment or a page in a tube's entry: such keys sort by number."""
    return b"%b\0%b%b" % (tube.encode(), kind, number.to_bytes(NUMBER_SIZE, "big"))


def items_of(tube: str, kind: bytes = b"") -> tuple[bytes, bytes]:
    """Return the key range of a tube's items, or of its items of one kind."""
    name = tube.encode()
    return (name + b"\0", name + b"\1") if not kind else (name + b"\0" + kind, name + b"\0" + bytes([kind[0] + 1]))


def items(bins: Bins) -> dict[bytes, Any]:
    """Return the items of a shard, which is a map, or a list of keys and values that alternate. Raises Damaged."""
    found = checked(bins).get("items")
    if isinstance(found, list):
        return dict(zip(found[::2], found[1::2], strict=False))
    return dict(fields.mapping(bins, "items"))


def directories(items: Mapping[Any, Any], damaged: Callable[[str, Damaged], None]) -> dict[str, Directory]:
    """Decode the entries in a shard's items. Leave out damaged ones, and report them."""
    read: dict[bytes, Directory] = {}
    odd: dict[bytes, bytes] = {}
    for key, value in items.items():
        name, zero, what = key.partition(b"\0") if isinstance(key, bytes) else (b"", b"", b"")
        if not zero:
            damaged("an item of a shard", fields.unexpected("a key", key))
            continue
        entry = read.get(name)
        if entry is None:
            read[name] = entry = Directory([])
        if not _add(entry, what, value):
            odd[name] = what
    for name, what in odd.items():
        damaged(f"the entry of tube {name!r}", Damaged(f"an item of it is odd: {what!r:.50}"))
        del read[name]
    found: dict[str, Directory] = {}
    for name, entry in read.items():
        # Items come in the order of their keys, unless somebody else wrote the map.
        for numbers in (entry.segments, entry.pages):
            if len(numbers) > 1:
                numbers.sort()
        try:
            found[name.decode()] = entry
        except UnicodeDecodeError:
            damaged(f"the entry of tube {name!r}", Damaged("its name is odd"))
    return found


def _add(entry: Directory, what: bytes, value: Any) -> bool:
    """Add an item to an entry; return False if the item is damaged."""
    kind, name = what[:1], what[1:]
    if kind == ITEM_SEGMENT and len(name) == NUMBER_SIZE:
        entry.segments.append(read_number(name, "big"))
    elif kind == ITEM_PAGE and len(name) == NUMBER_SIZE:
        if not entry.pages:
            entry.pages = []
        entry.pages.append(read_number(name, "big"))
    elif kind == ITEM_COUNTER and type(value) is int:
        if not entry.counters:
            entry.counters = {}
        entry.counters[name.decode("utf-8", "replace")] = value
    elif kind == ITEM_PAUSE and isinstance(value, list) and [type(part) for part in value] == [int, int]:
        entry.pause_ms, entry.paused_until_ms = value
    else:
        return False
    return True


def page(number: int, bins: Bins, _newest: int = FORMAT) -> Page | None:
    """Decode a page; None if it is dead or the record has another page. Raises Damaged."""
    checked(bins)
    if fields.number(bins, "no") != number or fields.number(bins, "st") == DEAD:
        return None
    return Page(number, fields.text(bins, "tube"), fields.numbers("segs", fields.mapping(bins, "segs")))


# --- the version before


def former_directory(bins: Bins) -> Directory:
    """Decode a tube's record of the version before. Every part of it may be missing. Raises Damaged."""
    listed = {} if bins.get("segments") is None else fields.mapping(bins, "segments")
    counters = {name: fields.number(bins, name) for name in COUNTERS if bins.get(name) is not None}
    return Directory(
        fields.numbers("segments", listed),
        fields.optional_number(bins, "pause", 0),
        fields.optional_number(bins, "until", 0),
        counters,
    )


def former_names(bins: Bins) -> list[str]:
    """Decode a list of tubes of the version before. Raises Damaged if it is no map."""
    return [key for key in fields.mapping(bins, "names") if type(key) is str]

"""What stands in records, made into what the engine knows.

Others can write to the same cluster, and disks fail: whatever does not have the shape that this version writes raises Damaged, so that one
record concerns nobody but those who ask for it.

Every record says in its bin `f` which format it has; one that does not is of the first. In every format, now and later, `no` is a segment's
number, and a session's `reads` and `writes` are what it announces. All else of a record of a newer format is left alone (Newer).

A new format takes a number here (NEWEST), what tells the formats of a record apart below and where it is written, and an encoder and a
decoder of jobs in segment/codec.py (FORMATS). Which format is written, the sessions agree on (cluster/membership.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beanspiked.engine.aerospike.store.keys import DUE_KEY
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    DEAD,
    DELAYED,
    FIRST,
    NEVER_WROTE,
    OVER,
    READY,
    Damaged,
    Directory,
    Head,
    Leases,
    Newer,
    Page,
    Segment,
    SessionRecord,
    Sizes,
)
from beanspiked.engine.errors import DamagedEntry, NewerEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    Bins: TypeAlias = Mapping[str, Any]

__all__ = [
    "COUNTERS",
    "FORMAT",
    "ITEM_COUNTER",
    "ITEM_PAGE",
    "ITEM_PAUSE",
    "ITEM_SEGMENT",
    "NEWEST",
    "SetAside",
    "blob",
    "checked",
    "directories",
    "form",
    "former_directory",
    "head",
    "item",
    "items",
    "items_of",
    "leases",
    "number",
    "page",
    "segment",
    "session",
    "sizes",
    "slots",
    "texts",
    "whole_session",
]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# The newest format that this version reads and writes.
NEWEST: Final = 1

COUNTERS: Final = ("total_jobs", "deletes", "pauses")
# What shards, pages and rings have in their bin `f`.
FORMAT: Final = 1
# A tube's entry is what its shard's map has between its name with a 0 byte and its name with a 1 byte, which no name holds: so nothing
# has to be made before an entry, and nothing stays of one. Behind the 0 each item begins with what it is.
ITEM_COUNTER: Final = b"c"
ITEM_PAGE: Final = b"p"
ITEM_SEGMENT: Final = b"s"
ITEM_PAUSE: Final = b"w"
# So many records are remembered as set aside; with more of them some are logged again.
REMEMBERED_MAX: Final = 1000
NUMBER_SIZE: Final = 8
# A time and a slot, or more.
KEY_MIN: Final = DUE_KEY.size


class SetAside:
    """Records, and jobs in them, that cannot be read or are of a newer format: each is logged once, and left alone."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, what: str, error: Damaged | DamagedEntry) -> None:
        """Say that something cannot be read, unless that was said before."""
        if what in self._told:
            return
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told.add(what)
        if isinstance(error, Newer | NewerEntry):
            logger.warning("%s is left alone: %s", what, error)
        else:
            logger.error("%s cannot be read and is left alone: %s", what, error)

    def read(self, what: str, decode: Callable[[], Result]) -> Result | None:
        """Return what a record says, or None if it cannot be read."""
        try:
            return decode()
        except Damaged as error:
            self.tell(what, error)
            return None


def form(bins: Bins, newest: int = NEWEST) -> int:
    """Return the format of a record. Raises Newer for one that is not known."""
    number = FIRST if bins.get("f") is None else _number(bins, "f")
    if number > newest:
        raise Newer(f"it is of format {number}, but this version knows formats up to {newest}")
    return number


def number(bins: Bins) -> int:
    """Return a segment's number. Raises Damaged."""
    return _number(bins, "no")


def segment(number: int, bins: Bins, newest: int = NEWEST) -> Segment | None:
    """Read a whole segment; None if the record is another segment's. Raises Damaged."""
    if _number(bins, "no") != number:
        return None
    known = form(bins, newest)
    leases = _map(bins, "held")
    return Segment(
        number,
        _text(bins, "tube"),
        _number(bins, "own"),
        _number(bins, "st"),
        _number(bins, "hwm"),
        _number(bins, "bodies"),
        _number(bins, "nheld"),
        _entries(bins, READY),
        _entries(bins, DELAYED),
        _entries(bins, BURIED),
        {lease: _entries(leases, lease) for lease in sorted(_all_numbers("held", leases))},
        known,
        # Segments that were made by the version before have none.
        0 if bins.get("page") is None else _number(bins, "page"),
    )


def head(number: int, bins: Bins, newest: int = NEWEST) -> Head | None:
    """Read what LOOK_READS give; of a record that a later segment has by now: OVER; None if it is an earlier one's. Raises Damaged."""
    found = _number(bins, "no")
    if found != number:
        return OVER if found > number else None
    form(bins, newest)
    return Head(
        _keys(bins, "keys"),
        _first_key(bins, "last"),
        _first_key(bins, "due"),
        *_counts(bins),
        _number(bins, "st"),
    )


def sizes(number: int, bins: Bins, newest: int = NEWEST) -> Sizes | None:
    """Read what SIZE_READS give; None if the record is another segment's. Raises Damaged."""
    if _number(bins, "no") != number:
        return None
    form(bins, newest)
    return Sizes(
        *_counts(bins),
        _number(bins, "urgent"),
        _first_key(bins, "first"),
        _first_key(bins, "due"),
        _first_key(bins, "oldest"),
    )


def leases(number: int, bins: Bins, newest: int = NEWEST) -> Leases | None:
    """Read what LEASE_READS give; None if the record is another segment's. Raises Damaged."""
    if _number(bins, "no") != number:
        return None
    form(bins, newest)
    found = bins.get("leases")
    if not isinstance(found, list) or not all(type(lease) is int for lease in found):
        raise _unexpected("leases", found)
    return Leases(number, _text(bins, "tube"), _number(bins, "own"), found)


def checked(bins: Bins) -> Bins:
    """Return the bins of a record of this format. Raises Damaged."""
    found = _number(bins, "f")
    if found != FORMAT:
        raise Damaged(f"its format is {found}, known is {FORMAT}")
    return bins


def item(tube: str, kind: bytes, of: int | str = "") -> bytes:
    """Name one item of a tube's entry: numbers stand in their order."""
    return b"%b\0%b%b" % (tube.encode(), kind, of.to_bytes(8, "big") if isinstance(of, int) else of.encode())


def items_of(tube: str, kind: bytes = b"") -> tuple[bytes, bytes]:
    """Return the range of a tube's items, or of those of one kind."""
    name = tube.encode()
    return (name + b"\0", name + b"\1") if not kind else (name + b"\0" + kind, name + b"\0" + bytes([kind[0] + 1]))


def items(bins: Bins) -> dict[bytes, Any]:
    """Read the items of a shard, a whole map or keys and values in turn. Raises Damaged."""
    found = checked(bins).get("items")
    if isinstance(found, list):
        return dict(zip(found[::2], found[1::2], strict=False))
    return dict(_map(bins, "items"))


def directories(items: Mapping[Any, Any], damaged: Callable[[str, Damaged], None]) -> dict[str, Directory]:
    """Read entries from the items of a shard; those that cannot be read are left out, and told."""
    parts: dict[bytes, list[tuple[bytes, Any]]] = {}
    for key, value in items.items():
        name, zero, what = bytes(key).partition(b"\0") if isinstance(key, bytes | bytearray) else (b"", b"", b"")
        if zero:
            parts.setdefault(name, []).append((what, value))
        else:
            damaged("an item of a shard", _unexpected("a key", key))
    read: dict[str, Directory] = {}
    for name, found in parts.items():
        try:
            read[name.decode()] = _directory(sorted(found))
        except (Damaged, UnicodeDecodeError) as error:
            damaged(f"the entry of tube {name!r}", error if isinstance(error, Damaged) else Damaged("its name is odd"))
    return read


def _directory(items: Sequence[tuple[bytes, Any]]) -> Directory:
    """Read an entry's items, in their order. Raises Damaged."""
    numbered: dict[bytes, list[int]] = {ITEM_SEGMENT: [], ITEM_PAGE: []}
    counters: dict[str, int] = {}
    pause = until = 0
    for what, value in items:
        kind, of = what[:1], what[1:]
        if kind in numbered and len(of) == NUMBER_SIZE:
            numbered[kind].append(int.from_bytes(of, "big"))
        elif kind == ITEM_COUNTER and type(value) is int:
            counters[of.decode("utf-8", "replace")] = value
        elif kind == ITEM_PAUSE and isinstance(value, list) and [type(part) for part in value] == [int, int]:
            pause, until = value
        else:
            raise Damaged(f"one of its items is malformed: {what!r:.50}")
    return Directory(numbered[ITEM_SEGMENT], pause, until, counters, numbered[ITEM_PAGE])


def page(number: int, bins: Bins) -> Page | None:
    """Read a page; None if it is dead, or the record another page's. Raises Damaged."""
    checked(bins)
    if _number(bins, "no") != number or _number(bins, "st") == DEAD:
        return None
    return Page(number, _text(bins, "tube"), sorted(_all_numbers("segs", _map(bins, "segs"))))


def former_directory(bins: Bins) -> Directory:
    """Read a tube's record of the version before, of which every part may be missing. Raises Damaged."""
    listed = {} if bins.get("segments") is None else _map(bins, "segments")
    pause, until = (0 if bins.get(name) is None else _number(bins, name) for name in ("pause", "until"))
    counters = {name: _number(bins, name) for name in COUNTERS if bins.get(name) is not None}
    return Directory(sorted(_all_numbers("segments", listed)), pause, until, counters)


def session(number: int, slot: int, bins: Bins | None, aside: SetAside, newest: int = NEWEST) -> SessionRecord | None:
    """Read a session's record: None of one without a slot whose record is not there.

    Whatever is wrong with it, the session can still be silent, and die of that. Raises Damaged.
    """
    what = f"session {number}"
    if slot == 0 and bins is None:
        return None
    if bins is not None and slot:
        owner = aside.read(f"whose the record of {what} is", partial(_number, bins, "no"))
        if owner is not None and owner > number:
            # Nobody else gets the record of a session that is not dead.
            return SessionRecord(number, True, 0, b"")
        if owner is not None and owner < number:
            bins = None
    if bins is None:
        return SessionRecord(number, False, NEVER_WROTE, b"")
    reads, writes = (
        FIRST if bins.get(name) is None else aside.read(f"what {what} {name}", partial(_number, bins, name)) or FIRST
        for name in ("reads", "writes")
    )
    try:
        form(bins, newest)
    except Damaged as error:
        aside.tell(what, error)
        if isinstance(error, Newer):
            return SessionRecord(number, False, _number(bins, "silent"), b"", reads, writes, newer=True)
    dead = aside.read(f"whether {what} is dead", partial(_number, bins, "dead"))
    payload = aside.read(f"what {what} tells of its tubes", partial(_blob, bins, "payload"))
    address = None if bins.get("at") is None else aside.read(f"where {what} is", partial(_text, bins, "at"))
    # One of an older version says nothing of news: it reads and writes them. One that has just come reads none yet.
    listens = bins.get("listens")
    said = isinstance(listens, list) and all(type(session) is int for session in listens)
    return SessionRecord(
        number,
        bool(dead),
        _number(bins, "silent"),
        payload or b"",
        reads,
        writes,
        newer=False,
        address=address or "",
        listens=listens if said else None if listens is None else (),
        tells=bins.get("tells") != 0,
    )


def whole_session(bins: Bins) -> None:
    """See whether all of a session's record can be read. Raises Damaged."""
    form(bins)
    for name in ("dead", *[name for name in ("reads", "writes") if bins.get(name) is not None]):
        _number(bins, name)
    _blob(bins, "payload")


def slots(bins: Bins, newest: int = NEWEST) -> dict[int, int]:
    """Read the list of sessions; one that was never made has none. Raises Damaged if it is no map."""
    form(bins, newest)
    listed = {} if bins.get("numbers") is None else _map(bins, "numbers")
    return {number: slot for number, slot in listed.items() if type(number) is int and type(slot) is int}


def texts(bins: Bins, name: str) -> list[str]:
    """Return the keys of a map that are texts. Raises Damaged if it is no map."""
    return [key for key in _map(bins, name) if type(key) is str]


def blob(bins: Bins, name: str, newest: int = NEWEST) -> bytes:
    """Return a value of bytes. Raises Damaged if it is none."""
    form(bins, newest)
    return _blob(bins, name)


def _blob(bins: Bins, name: str) -> bytes:
    value = bins.get(name)
    if not isinstance(value, bytes | bytearray):
        # And never bytes(value): of a number it would make so many zeros.
        raise _unexpected(name, value)
    return bytes(value)


def _unexpected(name: int | str, value: object) -> Damaged:
    return Damaged(f"{name} is missing" if value is None else f"{name} is of type {type(value).__name__}")


def _number(bins: Bins, name: str) -> int:
    value = bins.get(name)
    if type(value) is not int:
        raise _unexpected(name, value)
    return value


def _text(bins: Bins, name: str) -> str:
    value = bins.get(name)
    if type(value) is not str:
        raise _unexpected(name, value)
    return value


def _map(bins: Mapping[Any, Any], name: int | str) -> Mapping[Any, Any]:
    value = bins.get(name)
    if not isinstance(value, dict):
        raise _unexpected(name, value)
    return value


def _all_numbers(name: str, values: Mapping[Any, Any]) -> list[int]:
    for value in values:
        if type(value) is not int:
            raise _unexpected(f"a key of {name}", value)
    return list(values)


def _counts(bins: Bins) -> tuple[int, int, int, int]:
    return tuple(_number(bins, name) for name in ("ready-n", "delayed-n", "buried-n", "nheld"))  # type: ignore[return-value]


def _entries(maps: Mapping[Any, Any], name: int | str) -> dict[bytes, bytes]:
    """Return packed jobs by their keys, in the order of these."""
    entries = _map(maps, name)
    for key, packed in entries.items():
        _check_key(f"a key of {name}", key)
        if not isinstance(packed, bytes | bytearray):
            raise _unexpected(f"a job in {name}", packed)
    return {bytes(key): bytes(packed) for key, packed in sorted(entries.items())}


def _check_key(name: str, key: object) -> None:
    if not isinstance(key, bytes | bytearray):
        raise _unexpected(name, key)
    if len(key) < KEY_MIN:
        raise Damaged(f"{name} has {len(key)} bytes")


def _keys(bins: Bins, name: str) -> Sequence[bytes]:
    keys = bins.get(name)
    if not isinstance(keys, list):
        raise _unexpected(name, keys)
    for key in keys:
        _check_key(f"a key of {name}", key)
    return keys


def _first_key(bins: Bins, name: str) -> bytes | None:
    keys = _keys(bins, name)
    return keys[0] if keys else None

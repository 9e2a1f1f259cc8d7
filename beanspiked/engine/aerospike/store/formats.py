"""Decodes records into the engine's values.

Other programs can write to the same cluster, and disks fail. So a record without the shape that this version writes raises Damaged, and one
bad record affects only the commands that need it.

Bin `f` has a record's format; a record without it is of the first format. In every format, now and later, `no` is a segment's number, and a
session's `reads` and `writes` are the formats that it announces. This version leaves the rest of a record of a newer format alone (Newer).

A new format needs a number here (NEWEST), code below and in the writers that tells the formats of a record apart, and an encoder and a
decoder of jobs in segment/codec.py (FORMATS). The sessions agree which format they write (cluster/membership.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from beanspiked.engine.aerospike.store import fields
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    DELAYED,
    FIRST,
    NEVER_WROTE,
    OVER,
    READY,
    Damaged,
    Head,
    Leases,
    Newer,
    Segment,
    SessionRecord,
    Sizes,
)
from beanspiked.engine.errors import DamagedEntry, NewerEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Bins: TypeAlias = Mapping[str, Any]

__all__ = [
    "FORMAT",
    "NEWEST",
    "SetAside",
    "blob",
    "checked",
    "form",
    "head",
    "leases",
    "segment",
    "session",
    "sizes",
    "slots",
    "whole_session",
]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# The newest format that this version reads and writes.
NEWEST: Final = 1
# Bin `f` of shards, pages and rings.
FORMAT: Final = 1
# How many records are remembered as set aside. If there are more, some are logged again.
REMEMBERED_MAX: Final = 1000


class SetAside:
    """Records and jobs that are damaged or of a newer format. Each is logged once and left alone."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, what: str, error: Damaged | DamagedEntry) -> None:
        """Log that a record or job is left alone, unless that was logged before."""
        if what in self._told:
            return
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told.add(what)
        if isinstance(error, (Newer, NewerEntry)):
            logger.warning("%s is left alone: %s", what, error)
        else:
            logger.error("%s cannot be read and is left alone: %s", what, error)

    def read(self, what: str, decode: Callable[[], Result]) -> Result | None:
        """Return a decoded record, or None if it cannot be read."""
        try:
            return decode()
        except Damaged as error:
            self.tell(what, error)
            return None


def form(bins: Bins, newest: int = NEWEST) -> int:
    """Return a record's format. Raises Newer for an unknown one."""
    found = _format(bins, "f")
    if found > newest:
        raise Newer(f"it is of format {found}, and this version knows those up to {newest}")
    return found


def _format(bins: Bins, name: str) -> int:
    """Return the format that a bin names, the first where the bin is missing. Raises Damaged if there is none such."""
    found = fields.optional_number(bins, name, FIRST)
    if found < FIRST:
        raise Damaged(f"{name} is {found}")
    return found


def checked(bins: Bins) -> Bins:
    """Return the bins of a shard, page or ring. Raises Damaged."""
    found = fields.number(bins, "f")
    if found != FORMAT:
        raise Damaged(f"its format is {found}, known is {FORMAT}")
    return bins


def blob(bins: Bins, name: str, newest: int = NEWEST) -> bytes:
    """Return the bytes in a bin of a record of a known format. Raises Damaged."""
    form(bins, newest)
    return fields.blob(bins, name)


# --- segments


def segment(number: int, bins: Bins, newest: int = NEWEST) -> Segment | None:
    """Decode a whole segment; None if the record has another segment. Raises Damaged."""
    if fields.number(bins, "no") != number:
        return None
    known = form(bins, newest)
    held = fields.mapping(bins, "held")
    return Segment(
        number,
        fields.text(bins, "tube"),
        fields.number(bins, "own"),
        fields.number(bins, "st"),
        fields.number(bins, "hwm"),
        fields.number(bins, "bodies"),
        fields.number(bins, "nheld"),
        fields.entries(READY, bins.get(READY)),
        fields.entries(DELAYED, bins.get(DELAYED)),
        fields.entries(BURIED, bins.get(BURIED)),
        {lease: fields.entries(str(lease), held[lease]) for lease in fields.numbers("held", held)},
        known,
        # Segments of the version before have no page.
        fields.optional_number(bins, "page", 0),
    )


def head(number: int, bins: Bins, newest: int = NEWEST) -> Head | None:
    """Decode the results of LOOK_READS. Raises Damaged.

    Returns:
        The head; OVER if a later segment has the record by now; None if an earlier one still has it.
    """
    found = fields.number(bins, "no")
    if found != number:
        return OVER if found > number else None
    form(bins, newest)
    ready, delayed, buried, held = _counts(bins)
    return Head(
        fields.key_list(bins, "keys", ready=True),
        fields.first_key(bins, "last", ready=True),
        fields.first_key(bins, "due"),
        ready,
        delayed,
        buried,
        held,
        fields.number(bins, "st"),
    )


def sizes(number: int, bins: Bins, newest: int = NEWEST) -> Sizes | None:
    """Decode the results of SIZE_READS; None if the record has another segment. Raises Damaged."""
    if fields.number(bins, "no") != number:
        return None
    form(bins, newest)
    ready, delayed, buried, held = _counts(bins)
    return Sizes(
        ready,
        delayed,
        buried,
        held,
        fields.number(bins, "urgent"),
        fields.first_key(bins, "first", ready=True),
        fields.first_key(bins, "due"),
        fields.first_key(bins, "oldest"),
        fields.number(bins, "hwm"),
    )


def leases(number: int, bins: Bins, newest: int = NEWEST) -> Leases | None:
    """Decode the results of LEASE_READS; None if the record has another segment. Raises Damaged."""
    if fields.number(bins, "no") != number:
        return None
    form(bins, newest)
    found = bins.get("leases")
    if not isinstance(found, list) or not all(type(lease) is int for lease in found):
        raise fields.unexpected("leases", found)
    return Leases(number, fields.text(bins, "tube"), fields.number(bins, "own"), found)


def _counts(bins: Bins) -> tuple[int, int, int, int]:
    """Return the numbers of ready, delayed, buried and reserved jobs."""
    return (
        fields.number(bins, "ready-n"),
        fields.number(bins, "delayed-n"),
        fields.number(bins, "buried-n"),
        fields.number(bins, "nheld"),
    )


# --- sessions


def session(number: int, slot: int, bins: Bins | None, aside: SetAside, newest: int = NEWEST) -> SessionRecord | None:
    """Decode a session's record; None for a missing record of a session without a slot.

    A damaged record still tells how long its session has been silent, so that others can declare the session dead.

    Raises:
        Damaged: The record lacks even that.
    """
    what = f"session {number}"
    if slot == 0 and bins is None:
        return None
    if bins is not None and slot:
        owner = aside.read(f"whose the record of {what} is", partial(fields.number, bins, "no"))
        if owner is not None and owner > number:
            # A later session gets the record only after this session's death.
            return SessionRecord(number, True, 0, b"")
        if owner is not None and owner < number:
            bins = None
    if bins is None:
        return SessionRecord(number, False, NEVER_WROTE, b"")
    reads = aside.read(f"what {what} reads", partial(_format, bins, "reads")) or FIRST
    writes = aside.read(f"what {what} writes", partial(_format, bins, "writes")) or FIRST
    silent_ms = fields.number(bins, "silent")
    try:
        form(bins, newest)
    except Damaged as error:
        aside.tell(what, error)
        if isinstance(error, Newer):
            return SessionRecord(number, False, silent_ms, b"", reads, writes, newer=True)
    dead = aside.read(f"whether {what} is dead", partial(fields.number, bins, "dead"))
    payload = aside.read(f"what {what} tells of its tubes", partial(fields.blob, bins, "payload"))
    address = None if bins.get("at") is None else aside.read(f"where {what} is", partial(fields.text, bins, "at"))
    # A session of an older version names no sessions: it reads the news of all.
    listens = bins.get("listens")
    said = isinstance(listens, list) and all(type(session) is int for session in listens)
    return SessionRecord(
        number,
        bool(dead),
        silent_ms,
        payload or b"",
        reads,
        writes,
        newer=False,
        address=address or "",
        listens=listens if said else None if listens is None else (),
        tells=bins.get("tells") != 0,
    )


def whole_session(bins: Bins) -> None:
    """Check that all parts of a session's record can be read. Raises Damaged."""
    form(bins)
    fields.number(bins, "dead")
    for name in ("reads", "writes"):
        _format(bins, name)
    fields.blob(bins, "payload")


def slots(bins: Bins, newest: int = NEWEST) -> dict[int, int]:
    """Decode the list of sessions: their slots by their numbers. Raises Damaged if it is no map."""
    form(bins, newest)
    listed = {} if bins.get("numbers") is None else fields.mapping(bins, "numbers")
    return {number: slot for number, slot in listed.items() if type(number) is int and type(slot) is int}

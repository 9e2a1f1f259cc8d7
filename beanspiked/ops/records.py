"""Names the records of a cluster that are set aside: damaged ones, and those of a newer format.

The time of a look grows with the number of records. So the look goes by slices of the key space, ends when its time is over, and says
which part it has not seen. It reads only the format of bodies, since they may be many and large. The cluster keeps digests of keys, so
the look names a record by its digest where no list has its name.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike.exception import AerospikeError

from beanspiked.engine.aerospike.segment.codec import FORMATS
from beanspiked.engine.aerospike.store import fields, formats
from beanspiked.engine.aerospike.store.aerospike.client import told_by
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot
from beanspiked.engine.aerospike.store.seam import Damaged, Newer
from beanspiked.engine.errors import DamagedEntry, NewerEntry
from beanspiked.ops.health import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from beanspiked.engine.aerospike.store.seam import Segment

    Bins = Mapping[str, Any]
    # Names of records by the digests of their keys.
    Names = Mapping[bytes, str]

__all__ = ["set_aside"]

# The longest time of a look, in seconds, and how many findings it names of each set.
LOOK_FOR: Final = 10.0
NAMED_MAX: Final = 20
# How many partitions a namespace has, and how many a slice has.
PARTITIONS: Final = 4096
SLICE: Final = 64
SCAN_POLICY: Final = {"total_timeout": 3000, "socket_timeout": 1000, "max_retries": 0}


def set_aside(
    client: Any, namespace: str, prefix: str, seconds: float = LOOK_FOR, now: Callable[[], float] = time.monotonic
) -> list[Finding]:
    """Name the records that this version leaves alone, and the part that the look has not seen. Blocks for some seconds.

    Args:
        client: A connected client of the `aerospike` package.
        namespace: Where jobs are kept.
        prefix: What the names of all sets begin with.
        seconds: How long to look at most.
        now: A clock in seconds.
    """
    until = now() + seconds
    names = _names(client, namespace, prefix)
    findings: list[Finding] = []
    looked = 0
    # The small sets come first.
    for name, bins, read in KINDS:
        named = partial(read, names)
        seen, whole, found = _look(client, (namespace, prefix + name), bins, named, lambda: now() >= until)
        looked += seen
        findings += found[:NAMED_MAX]
        if len(found) > NAMED_MAX:
            findings.append(Finding("warning", f"{len(found) - NAMED_MAX} more of {prefix + name} are left alone"))
        if whole < PARTITIONS:
            part = f"{whole * 100 // PARTITIONS} % of {prefix + name}"
            findings.append(Finding("warning", f"only {part} was searched for records that cannot be read"))
    if not findings:
        what = f"{looked} records can be read; of bodies, counters, directories and lists only the format was read"
        findings.append(Finding("ok", what))
    return findings


def _look(
    client: Any,
    place: tuple[str, str],
    bins: tuple[str, ...],
    read: Callable[[bytes, Bins], Iterator[Finding]],
    over: Callable[[], bool],
) -> tuple[int, int, list[Finding]]:
    """Look at a set slice by slice; return how many records and partitions the look has seen, and the findings."""
    seen = 0
    found: list[Finding] = []
    for begin in range(0, PARTITIONS, SLICE):
        if over():
            return seen, begin, found
        query = client.query(*place)
        if bins:
            query.select(*bins)
        try:
            records = query.results({**SCAN_POLICY, "partition_filter": {"begin": begin, "count": SLICE}})
        except AerospikeError as error:
            found.append(Finding("warning", f"{place[1]} cannot be searched: {error.code}: {told_by(error)}"))
            return seen, begin, found
        for key, _, values in records:
            seen += 1
            found += read(bytes(key[3]), values)
    return seen, PARTITIONS, found


def _told(what: str, read: Callable[[], object]) -> Iterator[Finding]:
    """Say why a record cannot be read; return nothing if it can."""
    try:
        read()
    except Newer as error:
        yield Finding("warning", f"{what} is left alone: {error}; a newer beanspiked sees to it")
    except Damaged as error:
        yield Finding("warning", f"{what} cannot be read and is left alone: {error}")


def _names(client: Any, namespace: str, prefix: str) -> dict[bytes, str]:
    """Return the names of sessions' records and of shared ones, by digest."""
    shared = ("sessions", "shards", "counter-segment", "counter-session")
    keys: list[tuple[str, int | str, str]] = [("ctl", name, name) for name in shared]
    try:
        listed = client.get((namespace, f"{prefix}ctl", "sessions"))[2]
        slots = formats.slots(listed)
    except (AerospikeError, Damaged):
        # The look at its set names it.
        slots = {}
    for number, slot in slots.items():
        keys += [(name, f"slot-{slot}" if slot else number, str(number)) for name in ("ses", "news")]
    return {bytes(aerospike.calc_digest(namespace, prefix + name, key)): called for name, key, called in keys}


def _segment(_names: Names, _digest: bytes, bins: Bins) -> Iterator[Finding]:
    number = bins.get("no")
    tube = bins.get("tube")
    named = f"segment {number}" if type(number) is int else "a segment without a number"
    what = f"{named} of tube {tube}" if type(tube) is str else named
    read: list[Segment | None] = []
    yield from _told(what, lambda: read.append(formats.segment(fields.number(bins, "no"), bins)))
    for segment in read:
        assert segment is not None
        for entries in (segment.ready, segment.delayed, segment.buried, *segment.leases.values()):
            for key, packed in entries.items():
                yield from _job(f"job {segment.number << SLOT_BITS | job_slot(key)} of tube {segment.tube}", packed)


def _job(what: str, packed: bytes) -> Iterator[Finding]:
    try:
        FORMATS.unpack(packed)
    except NewerEntry as error:
        yield Finding("warning", f"{what} is left alone: {error}; a newer beanspiked sees to it")
    except DamagedEntry as error:
        yield Finding("warning", f"{what} cannot be read: {error}")


def _session(names: Names, digest: bytes, bins: Bins) -> Iterator[Finding]:
    yield from _told(_named("session", names, digest), lambda: formats.whole_session(bins))


def _news(names: Names, digest: bytes, bins: Bins) -> Iterator[Finding]:
    yield from _told(_named("the news of session", names, digest), lambda: formats.blob(bins, "news"))


def _other(kind: str, names: Names, digest: bytes, bins: Bins) -> Iterator[Finding]:
    yield from _told(_named(kind, names, digest), lambda: formats.form(bins))


def _named(kind: str, names: Names, digest: bytes) -> str:
    name = names.get(digest)
    return f"{kind} with digest {digest.hex()}" if name is None else f"{kind} {name}"


# Each set, the bins to read (none means all), and what makes findings of them.
KINDS: Final[tuple[tuple[str, tuple[str, ...], Callable[[Names, bytes, Bins], Iterator[Finding]]], ...]] = (
    ("ctl", ("f",), partial(_other, "the record")),
    ("ses", (), _session),
    ("news", (), _news),
    ("dir", ("f",), partial(_other, "the directory of tube")),
    ("seg", (), _segment),
    ("body", ("f",), partial(_other, "the body")),
)

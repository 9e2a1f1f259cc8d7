"""Leases under which jobs move from one segment to another. No session has such a lease, so no session's end changes it.

Two segments with jobs on the move between them are a *pair*. In the source the jobs stand under a lease that names the target, and in the
target their copies stand under one that names the source. Such a lease is negative. It also says which queue the jobs are of, and has a
serial. A front-end that finishes a pair renames its leases first, so that no other front-end's operation under them can succeed after that.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from beanspiked.engine.aerospike.store.seam import BURIED, DELAYED, READY

__all__ = ["SERIALS", "SERIALS_TO_ATTACH", "Pair", "find_leases", "pair_lease", "pairs_of"]

QUEUES: Final = (READY, DELAYED, BURIED)
QUEUE_BITS: Final = 2
SERIAL_BITS: Final = 20
# How many serials there are, and how many of them are for the front-end that begins a move. Each try to attach takes the next serial. So a
# late attach makes no lease under which jobs were sent.
SERIALS: Final = 1 << SERIAL_BITS
SERIALS_TO_ATTACH: Final = 8


class Pair(NamedTuple):
    """Two segments with jobs on the move between them.

    Attributes:
        source: The segment that they leave.
        target: The segment that they come into.
        queue: The queue in which they stand, before and after the move.
    """

    source: int
    target: int
    queue: str


def pair_lease(pair: Pair, serial: int, *, leaving: bool) -> int:
    """Name a lease of a pair.

    Args:
        pair: The pair.
        serial: The lease's serial.
        leaving: Whether it is the lease in the source.
    """
    return -(_name(pair, leaving) << SERIAL_BITS | serial)


def find_leases(leases: Iterable[int], pair: Pair, *, leaving: bool) -> list[int]:
    """Return those of a segment's leases that `pair_lease` names, whatever their serials. At most one of them has jobs."""
    name = _name(pair, leaving)
    return [lease for lease in leases if lease < 0 and -lease >> SERIAL_BITS == name]


def pairs_of(number: int, leases: Iterable[int]) -> list[Pair]:
    """List the pairs that a segment is in, by its leases."""
    found: dict[Pair, None] = {}
    for lease in leases:
        if lease < 0:
            name = -lease >> SERIAL_BITS
            queue = QUEUES[name >> 1 & ((1 << QUEUE_BITS) - 1)]
            other = name >> 1 >> QUEUE_BITS
            found[Pair(number, other, queue) if name & 1 else Pair(other, number, queue)] = None
    return list(found)


def _name(pair: Pair, leaving: bool) -> int:
    other = pair.target if leaving else pair.source
    return (other << QUEUE_BITS | QUEUES.index(pair.queue)) << 1 | leaving

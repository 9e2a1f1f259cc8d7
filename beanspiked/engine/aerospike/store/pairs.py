"""Leases under which jobs move from one segment to another: names that are no session's, so that no session's end touches them.

Two segments with jobs on the move between them are a *pair*. In the source the jobs stand under a lease that names the target, and in the
target their copies stand under one that names the source. Such a lease is negative. It also says which state the jobs are in, and has a
serial: whoever sees to a pair renames its leases first, so that nobody else's operation under them can succeed afterwards.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["FIRST_SERIAL", "SERIALS", "Pair", "find_lease", "pair_lease", "pairs_of"]

STATE_BITS: Final = 2
SERIAL_BITS: Final = 20
# The serial of the lease that a move begins with, and how many there are.
FIRST_SERIAL: Final = 0
SERIALS: Final = 1 << SERIAL_BITS


class Pair(NamedTuple):
    """Two segments with jobs on the move between them.

    Attributes:
        source: The segment that they leave.
        target: The segment that they come into.
        state: Their state: READY, DELAYED or BURIED.
    """

    source: int
    target: int
    state: int


def pair_lease(other: int, state: int, serial: int, *, leaving: bool) -> int:
    """Name a lease in one segment of a pair by the other one.

    Args:
        other: The other segment.
        state: The jobs' state.
        serial: Its serial.
        leaving: Whether it is the lease in the source.
    """
    return -((((other << STATE_BITS | state) << 1 | leaving) << SERIAL_BITS) | serial)


def find_lease(leases: Sequence[int], other: int, state: int, *, leaving: bool) -> int | None:
    """Return which of a segment's leases it is that `pair_lease` names, whatever its serial."""
    wanted = -pair_lease(other, state, FIRST_SERIAL, leaving=leaving) >> SERIAL_BITS
    return next((lease for lease in leases if lease < 0 and -lease >> SERIAL_BITS == wanted), None)


def pairs_of(number: int, leases: Sequence[int]) -> list[Pair]:
    """List the pairs that a segment is in, by its leases."""
    found: list[Pair] = []
    for lease in leases:
        if lease < 0:
            name = -lease >> SERIAL_BITS
            other, state = name >> 1 >> STATE_BITS, name >> 1 & ((1 << STATE_BITS) - 1)
            found.append(Pair(number, other, state) if name & 1 else Pair(other, number, state))
    return found

"""Long work in slices: the event loop serves jobs between two of them."""

from __future__ import annotations

import asyncio
import time
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

__all__ = ["busiest", "page_of", "sliced"]

Item = TypeVar("Item")

# How many items are taken before the clock is read, and how long a slice may last, in seconds.
AT_ONCE: Final = 25
SLICE_SECONDS: Final = 0.001
# How many items are sorted, or skipped, before the clock is read.
SORTED_AT_ONCE: Final = 500


async def sliced(items: Sequence[Item], at_once: int = AT_ONCE) -> AsyncIterator[Sequence[Item]]:
    """Yield items, and let the event loop turn whenever a slice was long enough."""
    until = time.perf_counter() + SLICE_SECONDS
    for first in range(0, len(items), at_once):
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
        yield items[first : first + at_once]


async def page_of(
    items: Sequence[Item], key: Callable[[Item], Any], descending: bool, offset: int, limit: int
) -> list[Item]:
    """Sort items, skip the first ones, and return this many of the others."""
    runs = [sorted(some, key=key, reverse=descending) async for some in sliced(items, SORTED_AT_ONCE)]
    merged = merge(*runs, key=key, reverse=descending)
    async for some in sliced(range(min(offset, len(items))), SORTED_AT_ONCE):
        # Skip these.
        next(islice(merged, len(some) - 1, None), None)
    return list(islice(merged, limit))


async def busiest(items: Sequence[Item], activity: Callable[[Item], int], most: int) -> list[Item]:
    """Return this many items with the highest activity, in the order of the items. It sorts only numbers, which is quick."""
    if not most or len(items) <= most:
        return list(items[:most])
    found = [activity(item) async for some in sliced(items, SORTED_AT_ONCE) for item in some]
    least = sorted(found)[-most]
    # Of the items with the least activity that still counts, take the first ones.
    room = most - sum(one > least for one in found)
    chosen: list[Item] = []
    async for some in sliced(range(len(items)), SORTED_AT_ONCE):
        for place in some:
            if found[place] == least and room:
                room -= 1
                chosen.append(items[place])
            elif found[place] > least:
                chosen.append(items[place])
    return chosen

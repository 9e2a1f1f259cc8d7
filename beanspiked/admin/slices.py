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

# How many items are taken before the clock is looked at, and how long a slice may last, in seconds.
AT_ONCE: Final = 25
SLICE_SECONDS: Final = 0.001
# How many items are sorted, or passed over, before that.
SORTED_AT_ONCE: Final = 500


async def sliced(items: Sequence[Item], at_once: int = AT_ONCE) -> AsyncIterator[Sequence[Item]]:
    """Pass on items, some at a time, and let the event loop turn whenever a slice was long enough."""
    until = time.perf_counter() + SLICE_SECONDS
    for first in range(0, len(items), at_once):
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
        yield items[first : first + at_once]


async def page_of(
    items: Sequence[Item], key: Callable[[Item], Any], descending: bool, offset: int, limit: int
) -> list[Item]:
    """Sort items and return so many of them, leaving out the first ones."""
    runs = [sorted(some, key=key, reverse=descending) async for some in sliced(items, SORTED_AT_ONCE)]
    merged = merge(*runs, key=key, reverse=descending)
    async for some in sliced(range(min(offset, len(items))), SORTED_AT_ONCE):
        # Passed over.
        next(islice(merged, len(some) - 1, None), None)
    return list(islice(merged, limit))


async def busiest(items: Sequence[Item], activity: Callable[[Item], int], most: int) -> list[Item]:
    """Return so many items with the highest activity, in the order of the items. Only numbers are sorted, which is quick."""
    if not most or len(items) <= most:
        return list(items[:most])
    found = [activity(item) async for some in sliced(items, SORTED_AT_ONCE) for item in some]
    least = sorted(found)[-most]
    # Of those with the least activity that is wanted, the first ones.
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

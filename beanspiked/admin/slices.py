"""Long work in slices: the event loop serves jobs between two of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["sliced"]

Item = TypeVar("Item")

# How many items are taken before the clock is looked at, and how long a slice may last, in seconds.
AT_ONCE: Final = 25
SLICE_SECONDS: Final = 0.001


async def sliced(items: Sequence[Item], at_once: int = AT_ONCE) -> AsyncIterator[Sequence[Item]]:
    """Pass on items, some at a time, and let the event loop turn whenever a slice was long enough."""
    until = time.perf_counter() + SLICE_SECONDS
    for first in range(0, len(items), at_once):
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_SECONDS
        yield items[first : first + at_once]

"""How segments get numbers, and how they come into their tubes' directories and out of them.

A segment is listed from before its first put until it is dead, and a page from before anything is entered in it until it is dead, too;
whoever dies between two of these steps leaves something empty listed, never something with jobs unlisted.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.store.keys import GENERATIONS_A_SIZE, RING_BITS, RING_MAX, placed
from beanspiked.engine.aerospike.store.seam import Full, Refused

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import DirectoryStore
    from beanspiked.engine.aerospike.store.seam import Directory

__all__ = ["Lister", "Numbers"]

logger = logging.getLogger(__name__)

# Numbers are taken in blocks.
NUMBERS_BLOCK: Final = 32
# So many living records in a row, and the ring is doubled: it is three quarters full then, or more.
ALIVE_MAX: Final = 12
# From which size on the ring may be so large that it is doubled for its generations only.
USUAL_BITS: Final = 14
# So many pages are read at once.
PAGES_AT_ONCE: Final = 8


class Numbers:
    """The numbers of one kind of record, each of which names a record that is free, or will be refused.

    Args:
        store: The store.
        ring: Which kind.
    """

    def __init__(self, store: "DirectoryStore", ring: str) -> None:
        self._store: DirectoryStore = store
        self._ring: str = ring
        self._numbers: list[int] = []
        self._size: int = 0
        self._alive: int = 0

    async def take(self) -> int:
        """Take a number. Raises Full where all records that there may be are alive, as far as can be told."""
        if self._alive >= ALIVE_MAX:
            if self._size >= RING_MAX:
                raise Full(f"nearly all records of {self._ring}s that there may be are in use: {RING_MAX}")
            await self._grow()
        while not self._numbers:
            await self._reserve()
        return self._numbers.pop()

    def used(self) -> None:
        """The number taken last is in use now."""
        self._alive = 0

    def refused(self) -> None:
        """The record of the number taken last is alive, or another one's by now. The next one is somewhere else: see `placed`."""
        self._alive += 1

    def forget(self) -> None:
        """Give up all numbers."""
        self._numbers = []
        self._alive = 0

    async def _reserve(self) -> None:
        ring = await self._store.reserve_places(self._ring, NUMBERS_BLOCK)
        self._size = ring.size
        counts = range(ring.first + NUMBERS_BLOCK - 1, ring.first - 1, -1)
        self._numbers = [placed(n, ring.size, ring.base) for n in counts]
        generations = GENERATIONS_A_SIZE * max(1, ring.size.bit_length() - USUAL_BITS)
        if self._numbers[-1] >> RING_BITS > generations and ring.size < RING_MAX:
            await self._store.grow_ring(self._ring, ring.size)

    async def _grow(self) -> None:
        await self._store.grow_ring(self._ring, self._size)
        logger.info("there are many %ss: twice %d records are in use now, or will be", self._ring, self._size)
        self.forget()


class Lister:
    """Enters segments in directories, and takes them out.

    Args:
        store: The store.
    """

    def __init__(self, store: "DirectoryStore") -> None:
        self._store: DirectoryStore = store
        self._pages: Numbers = Numbers(store, "page")

    async def enlist(self, tube: str, number: int, page: int) -> int:
        """Enter a segment: in a page of this front-end's own, else in the tube's entry, else in a new page. May be repeated.

        Args:
            tube: The tube's name.
            number: The segment.
            page: A page of the tube that most probably has room, or 0.

        Returns:
            The page that most probably has room afterwards, or 0.

        Raises:
            TooBig: The record has no room; Full: nor is there one for a page.
        """
        if page:
            try:
                return page if await self._store.enter(page, number) else 0
            except Refused:
                # It filled up, or was empty for so long that somebody let it die.
                pass
        try:
            await self._store.enlist(tube, number)
        except Refused as error:
            if type(error) is not Refused:
                raise
        else:
            return 0
        page = await self.make_page(tube)
        await self._store.enter(page, number)
        return page

    async def make_page(self, tube: str) -> int:
        """Make a page and list it: create, list, then enter (segment-protocol H6)."""
        while True:
            page = await self._pages.take()
            try:
                await self._store.create_page(page, tube)
            except Refused:
                self._pages.refused()
            else:
                break
        self._pages.used()
        await self._store.list_page(tube, page)
        return page

    async def unlist(self, tube: str, number: int, page: int) -> None:
        """Take a dead segment out of its tube's directory, wherever it is; may be repeated.

        Args:
            tube: The tube's name.
            number: The segment.
            page: Where it most probably is listed, 0 for the entry itself.
        """
        if not page and await self._store.unlist(tube, number):
            return
        if page and await self._leave(tube, page, number):
            return
        record = (await self._store.directories([tube]))[0]
        if record is None:
            return
        if number in record.segments:
            await self._store.unlist(tube, number)
            return
        for other in record.pages:
            if other != page and await self._leave(tube, other, number):
                return

    async def _leave(self, tube: str, page: int, number: int) -> bool:
        left = await self._store.leave_page(page, number)
        if left == 0:
            await self.end_page(tube, page)
        return left is not None

    async def end_page(self, tube: str, page: int) -> None:
        """Let a page die if nothing is in it, and take it out of its tube's entry then."""
        if await self._store.retire_page(page):
            await self._store.unlist_page(tube, page)

    async def in_pages(self, tube: str, pages: Sequence[int]) -> tuple[list[int], list[int]]:
        """List the segments in some pages of a tube, and the pages in which none is, as far as can be seen."""
        numbers: list[int] = []
        idle: list[int] = []
        for number, page in zip(pages, await self._store.pages(pages), strict=True):
            if page is not None and page.tube == tube and page.segments:
                numbers.extend(page.segments)
            else:
                # Or it is dead, and whoever let it die was to take it out.
                idle.append(number)
        return numbers, idle

    async def everywhere(self, tube: str, record: "Directory | None") -> list[int]:
        """List all segments of a tube, in its entry and in pages."""
        if record is None:
            return []
        numbers = list(record.segments)
        for start in range(0, len(record.pages), PAGES_AT_ONCE):
            found, _ = await self.in_pages(tube, record.pages[start : start + PAGES_AT_ONCE])
            numbers.extend(found)
            await asyncio.sleep(0)
        return numbers

"""Numbers segments and pages, and lists segments in their tubes' directories.

A segment is listed from before its first put until it is dead, and a page from before its first entry until it is dead. So a front-end
that dies in between leaves an empty segment listed, never an unlisted segment with jobs.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.store.keys import GENERATIONS_A_SIZE, RING_BITS, RING_MAX, placed
from beanspiked.engine.aerospike.store.seam import Full, Refused, Ring

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import DirectoryStore
    from beanspiked.engine.aerospike.store.directory import Directory

__all__ = ["PAGES_AT_ONCE", "Lister", "Numbers"]

logger = logging.getLogger(__name__)

# How many numbers to reserve at a time.
NUMBERS_BLOCK: Final = 32
# After this many living records in a row the ring is doubled, since it is at least three quarters full.
ALIVE_MAX: Final = 12
# A ring of 2^USUAL_BITS records has GENERATIONS_A_SIZE generations; each doubling adds as many.
USUAL_BITS: Final = 14
# How many pages to read in one call, and how many such calls are made side by side.
PAGES_A_CALL: Final = 8
SIDE_BY_SIDE: Final = 4
PAGES_AT_ONCE: Final = PAGES_A_CALL * SIDE_BY_SIDE


class Numbers:
    """The numbers of one kind of record. Each number names a record that is free, or one that the store refuses to make.

    Args:
        store: The store.
        ring: The kind of record.
    """

    def __init__(self, store: "DirectoryStore", ring: str) -> None:
        self._store: DirectoryStore = store
        self._ring: str = ring
        self._numbers: list[int] = []
        # The ring as it was when the numbers were reserved.
        self._ring_then: Ring = Ring(0, 0, 0)
        self._alive: int = 0
        # Whether new numbers were reserved after the last use of one.
        self._again: bool = False

    async def take(self) -> int:
        """Take a number. Raises Full if nearly all records that there may be are in use."""
        if self._alive >= ALIVE_MAX:
            former = self._ring_then
            self.forget()
            await self._reserve()
            # While this front-end keeps numbers, others may use their records under numbers of a later generation. Then only these are
            # useless.
            by_others = self._ring_then.first - former.first - NUMBERS_BLOCK
            overtaken = self._ring_then.base != former.base or by_others >= former.size // 2
            if self._again or not overtaken:
                if self._ring_then.size >= RING_MAX:
                    raise Full(f"nearly all of the {RING_MAX} possible records of {self._ring}s are in use")
                await self._grow()
            self._again = True
        while not self._numbers:
            await self._reserve()
        return self._numbers.pop()

    def used(self) -> None:
        """Note that the last number is in use now."""
        self._alive = 0
        self._again = False

    def refused(self) -> None:
        """Note that the record of the last number is in use. The next number's record is elsewhere; see `placed`."""
        self._alive += 1

    def forget(self) -> None:
        """Give up all numbers."""
        self._numbers = []
        self._alive = 0

    async def _reserve(self) -> None:
        ring = await self._store.reserve_places(self._ring, NUMBERS_BLOCK)
        self._ring_then = ring
        counts = range(ring.first + NUMBERS_BLOCK - 1, ring.first - 1, -1)
        self._numbers = [placed(n, ring.size, ring.base) for n in counts]
        generations = GENERATIONS_A_SIZE * max(1, ring.size.bit_length() - USUAL_BITS)
        if self._numbers[-1] >> RING_BITS > generations and ring.size < RING_MAX:
            await self._store.grow_ring(self._ring, ring.size)

    async def _grow(self) -> None:
        size = self._ring_then.size
        await self._store.grow_ring(self._ring, size)
        logger.info("many %ss are in use; the ring of %d records is doubled", self._ring, size)
        self.forget()


class Lister:
    """Lists segments in directories, and unlists them.

    Args:
        store: The store.
    """

    def __init__(self, store: "DirectoryStore") -> None:
        self._store: DirectoryStore = store
        self._pages: Numbers = Numbers(store, "page")

    async def enlist(self, tube: str, number: int, page: int) -> int:
        """List a segment in this front-end's page, else in the tube's entry, else in a new page. May be repeated.

        Args:
            tube: The tube's name.
            number: The segment.
            page: A page of the tube that probably has room, or 0.

        Returns:
            The page that probably has room after that, or 0.

        Raises:
            TooBig: The shard has no room.
            Full: No record is free for a new page.
        """
        if page:
            try:
                return page if await self._store.enter(page, number) else 0
            except Refused:
                # The page is full, or it was empty and has died.
                pass
        try:
            await self._store.enlist(tube, number)
        except Refused:
            pass
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
        """Unlist a dead segment, wherever it is listed. May be repeated.

        Args:
            tube: The tube's name.
            number: The segment.
            page: The page where it probably is, or 0 for the entry.
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
        """Let an empty page die, and unlist it."""
        if await self._store.retire_page(page):
            await self._store.unlist_page(tube, page)

    async def in_pages(self, pages: Sequence[tuple[str, int]]) -> list[Sequence[int]]:
        """Return the segments in each of at most PAGES_AT_ONCE pages, given with their tubes; none of a page that seems to have none.

        Whichever tubes they are of, they are read together: one after the other, each tube would take as long as the store to answer.
        """
        parts = [pages[start : start + PAGES_A_CALL] for start in range(0, len(pages), PAGES_A_CALL)]
        answers = await asyncio.gather(*[self._store.pages([number for _, number in part]) for part in parts])
        found: list[Sequence[int]] = []
        for part, answer in zip(parts, answers, strict=True):
            # A page may be dead and not unlisted yet.
            found += [
                page.segments if page is not None and page.tube == tube else ()
                for (tube, _), page in zip(part, answer, strict=True)
            ]
        return found

    async def everywhere(self, records: "Mapping[str, Directory | None]") -> dict[str, list[int]]:
        """Return all segments of tubes, in their entries and in pages.

        Each is there once: one whose entering was in doubt may be in two pages.
        """
        pages: list[tuple[str, int]] = []
        numbers: dict[str, dict[int, None]] = {}
        for name, record in records.items():
            numbers[name] = {} if record is None else dict.fromkeys(record.segments)
            pages += [] if record is None else [(name, page) for page in record.pages]
        for start in range(0, len(pages), PAGES_AT_ONCE):
            part = pages[start : start + PAGES_AT_ONCE]
            for count, ((name, _), segments) in enumerate(zip(part, await self.in_pages(part), strict=True), 1):
                numbers[name].update(dict.fromkeys(segments))
                if count % PAGES_A_CALL == 0:
                    await asyncio.sleep(0)
        return {name: list(found) for name, found in numbers.items()}

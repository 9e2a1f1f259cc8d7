"""The directories of tubes in memory, and the rings that number segments and pages; see memory.py."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.keys import record_of
from beanspiked.engine.aerospike.store.seam import (
    DEAD,
    INLINE_MAX,
    OPEN,
    PAGE_MAX,
    PARTS,
    Fenced,
    Page,
    Refused,
    Ring,
    TooBig,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["Calls", "DirectoryCalls", "DirectoryRecord", "DirectoryRecords", "PageRecord"]

SHARDS: Final = 1024
# The bytes of an item of an entry besides its tube's name.
ITEM_SIZE: Final = 16


class DirectoryRecord:
    """One tube's entry."""

    def __init__(self) -> None:
        self.segments: set[int] = set()
        self.pages: set[int] = set()
        self.pause_ms = 0
        self.paused_until_ms = 0
        self.counters: dict[str, int] = {}

    def items(self) -> int:
        """Count its items."""
        return len(self.segments) + len(self.pages) + len(self.counters) + bool(self.pause_ms)

    def directory(self) -> Directory:
        """Return it as a read returns it."""
        counters = dict(self.counters)
        return Directory(sorted(self.segments), self.pause_ms, self.paused_until_ms, counters, sorted(self.pages))


class PageRecord:
    """One page's record."""

    def __init__(self, number: int, tube: str) -> None:
        self.number = number
        self.tube = tube
        self.state = OPEN
        self.segments: set[int] = set()


class DirectoryRecords:
    """The part of a cluster that has the directories.

    Args:
        records: How many records there are of each kind at first.
        record_max: The largest record, in bytes.

    Attributes:
        inline_max, page_max: How many segments stand in an entry itself, and in a page.
    """

    def __init__(self, records: int, record_max: int) -> None:
        self.inline_max = INLINE_MAX
        self.page_max = PAGE_MAX
        self.record_max = record_max
        self._records = records
        self._directories: dict[str, DirectoryRecord] = {}
        self._shard_sizes: Counter[int] = Counter()
        self._pages: dict[int, PageRecord] = {}
        self._rings: dict[str, Ring] = {}

    def _change(self, tube: str, change: Callable[[DirectoryRecord], Any]) -> Any:
        """Change an entry, which exists as long as it has an item."""
        shard, cost = crc32(tube.encode()) % SHARDS, len(tube) + ITEM_SIZE
        record = self._directories.setdefault(tube, DirectoryRecord())
        before = record.items()
        try:
            result = change(record)
        finally:
            self._shard_sizes[shard] += (record.items() - before) * cost
            if not record.items():
                del self._directories[tube]
        return result

    def _check_room(self, tube: str) -> None:
        size = self._shard_sizes[crc32(tube.encode()) % SHARDS] + len(tube) + ITEM_SIZE
        if size > self.record_max:
            raise TooBig(f"a shard of {size} bytes")

    def enlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""

        def change(record: DirectoryRecord) -> None:
            if number not in record.segments:
                if len(record.segments) >= self.inline_max:
                    raise Refused(f"the entry of tube {tube} is full")
                self._check_room(tube)
                record.segments.add(number)

        self._change(tube, change)

    def unlist(self, tube: str, number: int) -> bool:
        """See SegmentStore."""
        there = number in self._directories.get(tube, DirectoryRecord()).segments
        self._change(tube, lambda record: record.segments.discard(number))
        return there

    def directory(self, tube: str) -> Directory | None:
        """Read one entry."""
        record = self._directories.get(tube)
        return None if record is None else record.directory()

    def listed(self, tube: str) -> set[int]:
        """Return all segments of a tube to which its entry leads."""
        record = self._directories.get(tube, DirectoryRecord())
        pages = [self._page(number) for number in record.pages]
        return record.segments.union(*[page.segments for page in pages if page is not None and page.tube == tube])

    def tubes(self, part: int | None = None) -> dict[str, Directory]:
        """See SegmentStore."""
        return {
            tube: record.directory()
            for tube, record in self._directories.items()
            if part is None or crc32(tube.encode()) % PARTS == part
        }

    def pause(self, tube: str, pause_ms: int, until_ms: int) -> None:
        """See SegmentStore."""

        def change(record: DirectoryRecord) -> None:
            record.pause_ms = pause_ms
            record.paused_until_ms = until_ms if pause_ms else 0

        self._change(tube, change)

    def forget_tube(self, tube: str) -> None:
        """See SegmentStore."""

        def change(record: DirectoryRecord) -> None:
            record.pause_ms = record.paused_until_ms = 0
            record.counters = {}

        self._change(tube, change)

    def add_counters(self, tube: str, counters: Mapping[str, int]) -> None:
        """See SegmentStore."""

        def change(record: DirectoryRecord) -> None:
            for name, count in counters.items():
                if count:
                    record.counters[name] = record.counters.get(name, 0) + count

        self._change(tube, change)

    # --- pages

    def create_page(self, number: int, tube: str) -> None:
        """See SegmentStore."""
        page = self._pages.get(record_of(number))
        if page is not None and (page.segments or page.number >= number):
            raise Refused(f"the record of page {number} is in use")
        self._pages[record_of(number)] = PageRecord(number, tube)

    def list_page(self, tube: str, page: int) -> None:
        """See SegmentStore."""
        self._check_room(tube)
        self._change(tube, lambda record: record.pages.add(page))

    def _page(self, number: int) -> PageRecord | None:
        page = self._pages.get(record_of(number))
        return page if page is not None and page.number == number and page.state != DEAD else None

    def enter(self, page: int, number: int) -> bool:
        """See SegmentStore."""
        found = self._page(page)
        if found is None or (number not in found.segments and len(found.segments) >= self.page_max):
            raise Refused(f"page {page} is full, or not there")
        found.segments.add(number)
        return len(found.segments) < self.page_max

    def leave_page(self, page: int, number: int) -> int | None:
        """See SegmentStore."""
        found = self._page(page)
        if found is None or number not in found.segments:
            return None
        found.segments.discard(number)
        return len(found.segments)

    def page(self, number: int) -> Page | None:
        """Read one page."""
        found = self._page(number)
        return None if found is None else Page(number, found.tube, sorted(found.segments))

    def retire_page(self, page: int) -> bool:
        """See SegmentStore."""
        record = self._pages.get(record_of(page))
        if record is None or record.number < page:
            return False
        if record.number == page and not record.segments:
            record.state = DEAD
        return record.number > page or record.state == DEAD

    def unlist_page(self, tube: str, page: int) -> None:
        """See SegmentStore."""
        self._change(tube, lambda record: record.pages.discard(page))

    # --- numbers

    def reserve_places(self, ring: str, count: int) -> Ring:
        """See SegmentStore."""
        found = self._rings.get(ring, Ring(0, self._records, 1))
        self._rings[ring] = found._replace(first=found.first + count)
        return found

    def grow_ring(self, ring: str, size: int) -> None:
        """See SegmentStore."""
        found = self._rings.get(ring)
        if found is None:
            raise Fenced(f"the ring of {ring}s is not there")
        if found.size == size:
            self._rings[ring] = Ring(0, 2 * size, found.base + found.first // size + 1)


class Calls:
    """The way from a store in memory to its cluster."""

    _cluster: Any
    _transport: Callable[[str, Callable[[], Any]], Awaitable[Any]]

    async def _send(self, name: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        return await self._transport(name, partial(operation, *arguments))


class DirectoryCalls(Calls):
    """The part of a store in memory that has the directories; see SegmentStore for its methods."""

    async def enlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        await self._send("enlist", self._cluster.enlist, tube, number)

    async def unlist(self, tube: str, number: int) -> bool:
        """See SegmentStore."""
        there: bool = await self._send("unlist", self._cluster.unlist, tube, number)
        return there

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        """See SegmentStore."""
        return [await self._send("directory", self._cluster.directory, tube) for tube in tubes]

    async def tubes(self, part: int | None = None) -> dict[str, Directory]:
        """See SegmentStore."""
        entries: dict[str, Directory] = await self._send("tubes", self._cluster.tubes, part)
        return entries

    async def pause(self, tube: str, pause_ms: int, until_ms: int) -> None:
        """See SegmentStore."""
        await self._send("pause", self._cluster.pause, tube, pause_ms, until_ms)

    async def forget_tube(self, tube: str) -> None:
        """See SegmentStore."""
        await self._send("forget_tube", self._cluster.forget_tube, tube)

    async def add_counters(self, tube: str, counters: Mapping[str, int]) -> None:
        """See SegmentStore."""
        await self._send("add_counters", self._cluster.add_counters, tube, counters)

    async def create_page(self, number: int, tube: str) -> None:
        """See SegmentStore."""
        await self._send("create_page", self._cluster.create_page, number, tube)

    async def list_page(self, tube: str, page: int) -> None:
        """See SegmentStore."""
        await self._send("list_page", self._cluster.list_page, tube, page)

    async def enter(self, page: int, number: int) -> bool:
        """See SegmentStore."""
        room: bool = await self._send("enter", self._cluster.enter, page, number)
        return room

    async def leave_page(self, page: int, number: int) -> int | None:
        """See SegmentStore."""
        left: int | None = await self._send("leave_page", self._cluster.leave_page, page, number)
        return left

    async def pages(self, numbers: Sequence[int]) -> list[Page | None]:
        """See SegmentStore."""
        return [await self._send("page", self._cluster.page, number) for number in numbers]

    async def retire_page(self, page: int) -> bool:
        """See SegmentStore."""
        dead: bool = await self._send("retire_page", self._cluster.retire_page, page)
        return dead

    async def unlist_page(self, tube: str, page: int) -> None:
        """See SegmentStore."""
        await self._send("unlist_page", self._cluster.unlist_page, tube, page)

    async def reserve_places(self, ring: str, count: int) -> Ring:
        """See SegmentStore."""
        taken: Ring = await self._send("reserve_places", self._cluster.reserve_places, ring, count)
        return taken

    async def grow_ring(self, ring: str, size: int) -> None:
        """See SegmentStore."""
        await self._send("grow_ring", self._cluster.grow_ring, ring, size)

"""The directories of tubes in Aerospike: entries in shards, pages, and the rings that give pages and segments their numbers.

A shard is a record with one map, which has the items of many tubes' entries. A hash chooses a tube's shard. It is salted with random
bytes of the cluster's own, so nobody can fill one shard with chosen names.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import aerospike
from aerospike import exception as client_errors
from aerospike_helpers.expressions import arithmetic
from aerospike_helpers.expressions import base as exp
from aerospike_helpers.expressions import map as exp_map
from aerospike_helpers.operations import expression_operations, map_operations, operations

from beanspiked.engine.aerospike.store import entries
from beanspiked.engine.aerospike.store.aerospike.calls import READ_POLICY, SORTED
from beanspiked.engine.aerospike.store.aerospike.conditions import numbered
from beanspiked.engine.aerospike.store.aerospike.records import Records, lower
from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.entries import (
    ITEM_COUNTER,
    ITEM_PAGE,
    ITEM_PAUSE,
    ITEM_SEGMENT,
    item,
    items_of,
    numbered_item,
)
from beanspiked.engine.aerospike.store.formats import FORMAT, NEWEST, blob, checked
from beanspiked.engine.aerospike.store.keys import RING_MAX, record_of
from beanspiked.engine.aerospike.store.seam import (
    DEAD,
    INLINE_MAX,
    OPEN,
    PAGE_MAX,
    PARTS,
    Damaged,
    Fenced,
    Page,
    Refused,
    Ring,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beanspiked.engine.aerospike.store.aerospike.calls import Key

__all__ = ["Directories"]

SHARDS: Final = 1024
# How many of them are decoded before others have their turn.
DECODED_AT_ONCE: Final = 16
SALT_SIZE: Final = 16
# How many records of each kind there are at first. The number grows to at most three times as many as were ever alive at once.
RINGS: Final = {"segment": 1 << 14, "page": 1 << 10}
SEGS: Final = exp.MapBin("segs")
EMPTY_PAGE: Final = lower(exp.Eq(exp_map.MapSize(None, SEGS), 0))
# The bins of a new shard.
SHARD: Final = [operations.write("f", FORMAT), map_operations.map_create("items", aerospike.MAP_KEY_ORDERED, True)]
SHARD_READS: Final = [operations.read("f"), operations.read("items")]
PAGE_READS: Final = [operations.read(name) for name in ("f", "no", "st", "tube", "segs")]


class Directories(Records):
    """The part of the store that has the directories; see SegmentStore for the methods.

    Attributes:
        inline_max, page_max: How many segments stand in an entry itself, and in a page.
        rings: How many records of each kind there are at first.
    """

    def __init__(self, client: Any, namespace: str, prefix: str = "bsd_", newest: int = NEWEST) -> None:
        super().__init__(client, namespace, prefix, newest)
        self.inline_max: int = INLINE_MAX
        self.page_max: int = PAGE_MAX
        self.rings: dict[str, int] = dict(RINGS)
        self._salt = b""

    async def secret(self) -> bytes:
        """See SegmentStore."""
        return await self.caller.call(self._read_salt)

    async def _shard(self, tube: str) -> Key:
        """Return the key of a tube's shard."""
        if not self._salt:
            await self.secret()
        return self._shard_key(tube)

    async def change_entry(self, tube: str, ops: list[Any]) -> dict[str, Any]:
        """Change a tube's entry; return the last result of each bin."""
        return await self.begin(await self._shard(tube), SHARD, ops)

    # --- shards, on a worker thread

    def salt(self) -> bytes:
        """Return the cluster's salt, as this front-end has read it last."""
        return self._salt or self._read_salt()

    def _read_salt(self) -> bytes:
        """Read the cluster's salt. The first front-end makes it, and any other puts it back that has read it before it was lost."""
        key = self.key("ctl", "shards")
        try:
            bins = self.caller.client.get(key, READ_POLICY)[2]
        except client_errors.RecordNotFound:
            salt = self._salt or secrets.token_bytes(SALT_SIZE)
            made = [operations.write("f", FORMAT), operations.write("salt", salt)]
            if self._salt:
                # A front-end that lives on such a cluster is not of the version before (upgrade.py).
                made.append(operations.write("moved", 1))
            with contextlib.suppress(client_errors.RecordExistsError):
                self.caller.make(key, made, aerospike.POLICY_EXISTS_CREATE)
            bins = self.caller.client.get(key, READ_POLICY)[2]
        self._salt = blob(checked(bins), "salt")
        return self._salt

    def _shard_key(self, tube: str) -> Key:
        digest = blake2b(tube.encode(), digest_size=8, key=self.salt()).digest()
        return self.key("ctl", f"tubes.{int.from_bytes(digest, 'big') % SHARDS}")

    # --- entries

    async def enlist(self, tube: str, number: int) -> None:
        """See SegmentStore."""
        listed = items_of(tube, ITEM_SEGMENT)
        ops = [
            _put(numbered_item(tube, ITEM_SEGMENT, number), 0),
            map_operations.map_get_by_key_range("items", *listed, aerospike.MAP_RETURN_COUNT),
        ]
        # To count them beforehand would be a condition, which costs more than to take back the entry of one tube in many.
        if (await self.change_entry(tube, ops))["items"] > self.inline_max:
            await self.unlist(tube, number)
            raise Refused(f"{self.inline_max} segments are listed")

    async def unlist(self, tube: str, number: int) -> bool:
        """See SegmentStore."""
        return await self._drop(tube, numbered_item(tube, ITEM_SEGMENT, number))

    async def _drop(self, tube: str, name: bytes) -> bool:
        ops = [map_operations.map_remove_by_key("items", name, aerospike.MAP_RETURN_COUNT)]
        try:
            results = await self.alter(await self._shard(tube), ops)
        except Fenced:
            return False
        return bool(results["items"])

    async def directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        """See SegmentStore."""
        return await self.caller.call(partial(self._directories, tubes)) if tubes else []

    def _directories(self, tubes: Sequence[str]) -> list[Directory | None]:
        reads = [(self._shard_key(tube), _reads_of(tube)) for tube in tubes]
        found = (
            self.caller.read_all([reads[0][0]], reads[0][1]) if len(reads) == 1 else self.caller.read_differently(reads)
        )
        return [
            None if bins is None else self._entries(f"the shard of tube {tube}", bins).get(tube)
            for tube, bins in zip(tubes, found, strict=True)
        ]

    def _entries(self, shard: str, bins: Mapping[str, Any]) -> dict[str, Directory]:
        """Decode the entries of a shard; damaged ones are set aside."""
        items = self._aside.read(shard, lambda: entries.items(bins)) or {}
        return entries.directories(items, self._aside.tell)

    async def tubes(self, part: int | None = None) -> dict[str, Directory]:
        """See SegmentStore."""
        shards = range(SHARDS) if part is None else range(part, SHARDS, PARTS)
        found = await self.caller.read_many([self.key("ctl", f"tubes.{shard}") for shard in shards], SHARD_READS)
        tubes: dict[str, Directory] = {}
        for count, (shard, bins) in enumerate(zip(shards, found, strict=True), 1):
            if bins is not None:
                tubes.update(self._entries(f"shard {shard}", bins))
            if count % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return tubes

    async def pause(self, tube: str, pause_ms: int, until_ms: int) -> None:
        """See SegmentStore."""
        if pause_ms:
            await self.change_entry(tube, [_put(item(tube, ITEM_PAUSE), [pause_ms, until_ms])])
        else:
            await self._drop(tube, item(tube, ITEM_PAUSE))

    async def forget_tube(self, tube: str) -> None:
        """See SegmentStore."""
        ops = [
            map_operations.map_remove_by_key_range("items", *items_of(tube, kind), aerospike.MAP_RETURN_NONE)
            for kind in (ITEM_COUNTER, ITEM_PAUSE)
        ]
        with contextlib.suppress(Fenced):
            await self.alter(await self._shard(tube), ops)

    async def add_counters(self, tube: str, counters: Mapping[str, int]) -> None:
        """See SegmentStore."""
        ops = [
            map_operations.map_increment("items", item(tube, ITEM_COUNTER, name), count, SORTED)
            for name, count in counters.items()
            if count
        ]
        if ops:
            await self.change_entry(tube, ops)

    # --- pages

    def _page_key(self, number: int) -> Key:
        return self.key("page", record_of(number))

    async def create_page(self, number: int, tube: str) -> None:
        """See SegmentStore."""
        bins = {"f": FORMAT, "no": number, "tube": tube, "st": OPEN}
        ops = [operations.write(name, value) for name, value in bins.items()]
        made = [map_operations.map_create("segs", aerospike.MAP_KEY_ORDERED, False), *ops]
        await self.claim(self._page_key(number), number, EMPTY_PAGE, made, ops)

    async def list_page(self, tube: str, page: int) -> None:
        """See SegmentStore."""
        await self.change_entry(tube, [_put(numbered_item(tube, ITEM_PAGE, page), 0)])

    async def enter(self, page: int, number: int) -> bool:
        """See SegmentStore."""
        there = exp_map.MapGetByKey(None, aerospike.MAP_RETURN_EXISTS, exp.ResultType.BOOLEAN, number, SEGS)
        room = exp.Or(there, exp.LT(exp_map.MapSize(None, SEGS), self.page_max))
        guard = exp.And(numbered(page), exp.Eq(exp.IntBin("st"), OPEN), room)
        ops = [map_operations.map_put("segs", number, 0, SORTED)]
        try:
            results = await self.alter(self._page_key(page), ops, guard)
        except Fenced as error:
            raise Refused(f"page {page} is not there") from error
        size: int = results["segs"]
        return size < self.page_max

    async def leave_page(self, page: int, number: int) -> int | None:
        """See SegmentStore."""
        ops = [
            map_operations.map_remove_by_key("segs", number, aerospike.MAP_RETURN_COUNT),
            map_operations.map_size("segs"),
        ]
        guard = exp.And(numbered(page), exp.NE(exp.IntBin("st"), DEAD))
        try:
            results = await self.change(self._page_key(page), ops, guard)
        except (Fenced, Refused):
            return None
        return results[1][1] if results[0][1] else None

    async def pages(self, numbers: Sequence[int]) -> list[Page | None]:
        """See SegmentStore."""
        keys = [self._page_key(number) for number in numbers]
        return await self.look("page", numbers, keys, PAGE_READS, entries.page)

    async def retire_page(self, page: int) -> bool:
        """See SegmentStore."""
        guard = exp.And(numbered(page), exp.Or(exp.Eq(exp.IntBin("st"), DEAD), exp.Eq(exp_map.MapSize(None, SEGS), 0)))
        try:
            await self.alter(self._page_key(page), [operations.write("st", DEAD)], guard)
        except Fenced:
            return False
        except Refused:
            # The page is not empty; or it was dead, since a later page has its record.
            bins = (await self.caller.read_many([self._page_key(page)], [operations.read("no")]))[0]
            found = None if bins is None else bins.get("no")
            return type(found) is int and found > page
        return True

    async def unlist_page(self, tube: str, page: int) -> None:
        """See SegmentStore."""
        await self._drop(tube, numbered_item(tube, ITEM_PAGE, page))

    # --- numbers

    async def reserve_places(self, ring: str, count: int) -> Ring:
        """See SegmentStore."""
        # Generations begin at 1, since the version before has used the numbers below.
        begun = {"f": FORMAT, "n": 0, "size": self.rings[ring], "base": 1}
        made = [operations.write(name, value) for name, value in begun.items()]
        ops = [operations.increment("n", count), *[operations.read(name) for name in ("n", "size", "base")]]
        results = await self.begin(self.key("ctl", f"ring-{ring}"), made, ops)
        values: list[Any] = [results.get(name) for name in ("n", "size", "base")]
        last, size, base = values
        if not all(type(value) is int for value in (last, size, base)) or size & (size - 1) or not 0 < size <= RING_MAX:
            raise Damaged(f"the ring of {ring}s is malformed")
        return Ring(last - count, size, base)

    async def grow_ring(self, ring: str, size: int) -> None:
        """See SegmentStore."""
        # Above all generations given so far.
        beyond = arithmetic.Add(exp.IntBin("base"), arithmetic.Div(exp.IntBin("n"), size), 1)
        ops = [
            expression_operations.expression_write("base", beyond.compile()),
            operations.write("n", 0),
            operations.write("size", 2 * size),
        ]
        guard = exp.Eq(exp.IntBin("size"), size)
        with contextlib.suppress(Refused):
            await self.change(self.key("ctl", f"ring-{ring}"), ops, guard)


def _put(name: bytes, value: Any) -> Any:
    return map_operations.map_put("items", name, value, SORTED)


def _reads_of(tube: str) -> list[Any]:
    """Read a tube's items only."""
    items = map_operations.map_get_by_key_range("items", *items_of(tube), aerospike.MAP_RETURN_KEY_VALUE)
    return [operations.read("f"), items]

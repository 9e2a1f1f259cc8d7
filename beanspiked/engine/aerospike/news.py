"""What front-ends tell each other: in which tubes jobs became ready that nobody of their own waits for, and which were paused.

One small record a front-end, written at most every few milliseconds and read by those that have waiters, so that the cost of waiting does
not grow with the number of tubes. News are hints: what is lost costs the time until the next recheck, never a job.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.store import StoreError

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.store import SegmentStore

__all__ = ["News"]

logger = logging.getLogger(__name__)

# In seconds: between two writes, and between two reads while somebody waits.
WRITE_EVERY: Final = 0.005
READ_EVERY: Final = 0.01
# How many tubes the record names; readers that fall behind look at everything they wait for.
ITEMS_MAX: Final = 256


class News:
    """This front-end's news, and those of the others.

    The record is `[sequence number of the last item, [[sequence number, tube], ...]]`, each tube once, the newest last.
    """

    def __init__(self, engine: "SharedEngine", store: "SegmentStore") -> None:
        self._engine = engine
        self._store = store
        self._sequence = 0
        self._items: OrderedDict[str, int] = OrderedDict()
        self._writing = False
        self._unwritten = False
        self._seen: dict[int, int] = {}
        self._following = False
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Somebody wants a job."""
        self._wanted.set()

    def following(self) -> bool:
        """Tell whether the others' news are being read, so that what is known of a tube stays true."""
        return self._following or not self._engine.membership.others

    def tell(self, tube: str) -> None:
        """Tell the others to look at a tube."""
        if not self._engine.membership.others:
            return
        self._sequence += 1
        self._items.pop(tube, None)
        self._items[tube] = self._sequence
        if len(self._items) > ITEMS_MAX:
            self._items.popitem(last=False)
        self._unwritten = True
        if not self._writing:
            self._writing = True
            self._engine.spawn(self._write())

    async def _write(self) -> None:
        try:
            while self._unwritten and not self._engine.membership.session.over:
                self._unwritten = False
                record = [self._sequence, [[number, tube] for tube, number in self._items.items()]]
                try:
                    number = self._engine.membership.session.number
                    await self._store.publish(number, json.dumps(record, separators=(",", ":")).encode())
                except StoreError as error:
                    # Rechecks find what this would have told.
                    logger.info("news: %s", error)
                await asyncio.sleep(WRITE_EVERY)
        finally:
            self._writing = False

    async def read(self) -> None:
        """Follow the others' news while somebody waits, for as long as this process serves."""
        while True:
            await asyncio.sleep(READ_EVERY)
            others = self._engine.membership.others
            if not others or not self._engine.takes.wants_jobs() or self._engine.membership.session.over:
                if self._following:
                    self._following = False
                    self._engine.scout.stop_following()
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                records = await self._store.news(others)
            except StoreError as error:
                logger.info("news: %s", error)
                self._following = False
                self._engine.scout.stop_following()
                continue
            self._following = True
            for session, record in zip(others, records, strict=True):
                if record:
                    self._read_one(session, record)
            for session in self._seen.keys() - set(others):
                del self._seen[session]

    def _read_one(self, session: int, record: bytes) -> None:
        last, items = json.loads(record)
        seen = self._seen.get(session)
        if seen == last:
            return
        self._seen[session] = last
        if seen is None or (len(items) == ITEMS_MAX and items[0][0] > seen + 1):
            # Who knows what was missed.
            self._engine.scout.look_everywhere()
            return
        for number, tube in items:
            if number > seen:
                self._engine.scout.heard_of(tube)

"""What front-ends tell each other: in which tubes jobs became ready that nobody of their own waits for, and which were paused.

One small record a front-end, written at most every few milliseconds and read by those that have waiters, so that the cost of waiting does
not grow with the number of tubes. News are hints: what is lost costs the time until the next recheck, never a job.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from beanspiked.engine.aerospike.store.seam import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.store.seam import SegmentStore

__all__ = ["News"]

logger = logging.getLogger(__name__)

# In seconds: between two writes.
WRITE_EVERY: Final = 0.005
# Between two reads while somebody waits, and when there were no news for so long.
READ_EVERY: Final = 0.01
READ_RARELY: Final = 0.02
QUIET_AFTER: Final = 1.0
# Whether anybody still waits, and for whose news, is looked at this often while there are none.
LISTEN_FOR: Final = 0.25
# How many tubes the record names; readers that fall behind look at everything they wait for.
ITEMS_MAX: Final = 256


class News:
    """This front-end's news, and those of the others.

    The record is `[sequence number of the last item, [[sequence number, tube], ...]]`, each tube once, the newest last.
    """

    def __init__(self, engine: "SharedEngine", store: "SegmentStore", now: "Callable[[], float]") -> None:
        self._engine = engine
        self._store = store
        self._now = now
        self._sequence = 0
        self._items: OrderedDict[str, int] = OrderedDict()
        self._writing = False
        self._unwritten = False
        self._seen: dict[int, int] = {}
        # News that cannot be read, by session.
        self._odd: dict[int, bytes] = {}
        # Whose news are being read; none while nobody waits.
        self._followed: list[int] = []
        self._heard_at = 0.0
        self._resting: bool = False
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Somebody wants a job, or others came whose news have not been read."""
        if self._resting and self._engine.membership.others:
            self._resting = False
            self._wanted.set()

    def following(self) -> bool:
        """Tell whether the others' news are being read, so that what is known of a tube stays true."""
        others = self._engine.membership.others
        return self._followed == others

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
                    membership = self._engine.membership
                    news = json.dumps(record, separators=(",", ":")).encode()
                    await self._store.publish(membership.session.number, news, membership.writes)
                except StoreError as error:
                    # Rechecks find what this would have told.
                    logger.info("news: %s", error)
                await asyncio.sleep(WRITE_EVERY)
        finally:
            self._writing = False

    async def read(self) -> None:
        """Follow the others' news while somebody waits, for as long as this process serves."""
        records: list[bytes] = []
        while True:
            others = self._engine.membership.others
            if not others or not self._engine.takes.wants_jobs() or self._engine.membership.session.over:
                self._stop_following()
                self._wanted.clear()
                self._resting = True
                await self._wanted.wait()
                continue
            failed = False
            try:
                records = await self._next(others, records)
            except StoreError as error:
                logger.info("news: %s", error)
                failed = True
            if failed:
                self._stop_following()
                await asyncio.sleep(READ_EVERY)
                continue
            self._followed = others
            for session, record in zip(others, records, strict=True):
                if record:
                    self._read_one(session, record)
            for session in (self._seen.keys() | self._odd.keys()) - set(others):
                self._seen.pop(session, None)
                self._odd.pop(session, None)

    async def _next(self, others: list[int], known: list[bytes]) -> list[bytes]:
        """Read the others' news: now if they were not followed, else when there are some, or after a while."""
        if self._followed != others:
            return await self._store.news(others)
        every = READ_EVERY if self._now() - self._heard_at < QUIET_AFTER else READ_RARELY
        return await self._store.news(others, known, LISTEN_FOR, every)

    def _stop_following(self) -> None:
        if self._followed:
            self._followed = []
            self._engine.scout.stop_following()

    def _read_one(self, session: int, record: bytes) -> None:
        if self._odd.get(session) == record:
            return
        try:
            last, items = unpack_news(record)
        except ValueError as error:
            if session not in self._odd:
                logger.warning("the news of session %d cannot be read: %s", session, error)
            self._odd[session] = record
            # It tells something.
            self._engine.scout.look_everywhere()
            return
        known = self._seen.get(session, 0)
        if known == last:
            return
        self._seen[session] = last
        self._heard_at = self._now()
        if len(items) == ITEMS_MAX and items[0][0] > known + 1:
            # Who knows what was missed.
            self._engine.scout.look_everywhere()
            return
        for number, tube in items:
            if number > known:
                self._engine.scout.heard_of(tube)


def unpack_news(record: bytes) -> tuple[int, list[tuple[int, str]]]:
    """Read a record; see News. Raises ValueError if it is of another version, or damaged."""
    try:
        last, items = json.loads(record)
        news = [(number, tube) for number, tube in items]
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if type(last) is not int or not all(type(number) is int and type(tube) is str for number, tube in news):
        raise ValueError("not numbers and names of tubes")
    return last, news

"""How many jobs there are, in which tubes, and who uses these."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from beanspiked.engine.aerospike.store.keys import key_ms, put_us
from beanspiked.engine.aerospike.store.seam import PAGE_MAX, Damaged, Full, Sizes
from beanspiked.engine.aerospike.store.tasks import side_by_side
from beanspiked.engine.aerospike.tubes.registry import tube_usage
from beanspiked.engine.contract import Answer, Counts, TubeSight, TubeUse
from beanspiked.engine.errors import StoreFailed, StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from beanspiked.engine.aerospike.cluster.membership import Membership
    from beanspiked.engine.aerospike.store.contract import SegmentStore
    from beanspiked.engine.aerospike.store.directory import Directory
    from beanspiked.engine.aerospike.store.lister import Lister
    from beanspiked.engine.aerospike.store.tasks import Tasks
    from beanspiked.engine.aerospike.tubes.due import Timetable
    from beanspiked.engine.aerospike.tubes.registry import Registry
    from beanspiked.engine.aerospike.tubes.view import Scout

__all__ = ["Census"]

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

# How many segments are counted at once, so many times side by side.
SIZES_AT_ONCE: Final = 250
SIDE_BY_SIDE: Final = 4
# Up to so many segments are counted when tubes are listed.
COUNTED_MAX: Final = 1000
# How many tubes are gone through before others have their turn.
TUBES_AT_ONCE: Final = 500
# The pages of how many tubes are read together when all jobs are counted.
PAGED_AT_ONCE: Final = 32


class Census:
    """Counts what is in the whole cluster.

    Args:
        store: The store.
        tasks: What tries again.
        lister: What lists a tube's segments.
        registry: The tubes that are used here.
        membership: What knows the other front-ends, and the server's time.
        timetable: What makes due jobs ready.
        scout: Whom to tell of segments that were changed.
    """

    def __init__(
        self,
        store: "SegmentStore",
        tasks: "Tasks",
        lister: "Lister",
        registry: "Registry",
        membership: "Membership",
        timetable: "Timetable",
        scout: "Scout",
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._lister = lister
        self._registry = registry
        self._membership = membership
        self._timetable = timetable
        self._scout = scout

    # --- segments

    async def segments(self, name: str) -> list[int]:
        """List all segments of a tube. Raises StoreFailed."""
        record = (await self._tasks.try_for_a_while(lambda: self._store.directories([name])))[0]
        return (await self._listed({name: record}))[name]

    async def _listed(self, records: "Mapping[str, Directory | None]") -> dict[str, list[int]]:
        return await self._tasks.try_for_a_while(lambda: self._lister.everywhere(records))

    async def promote(self, name: str, number: int) -> bytes | None:
        """Make due jobs of a segment ready; return the next delayed one's key, see promote_segment. Raises StoreFull or StoreFailed."""
        due = await self._tasks.try_for_a_while(lambda: self._timetable.promote_segment(number), Full)
        self._scout.segment_changed(name, number)
        return due

    async def each(self, name: str, numbers: list[int], see: "Callable[[int, Sizes], None]") -> None:
        """Count segments of a tube. Due jobs are made ready first, so that they count as such. Raises StoreFailed."""
        await self._each_of([(name, number) for number in numbers], lambda _, number, size: see(number, size))

    async def _each_of(
        self, wanted: list[tuple[str, int]], see: "Callable[[str, int, Sizes], None]", most: bool = False
    ) -> None:
        """Count segments of tubes, given with these tubes' names; however many there are, others have turns."""
        now_ms = self._membership.clock.server_ms()
        parts = [wanted[start : start + SIZES_AT_ONCE] for start in range(0, len(wanted), SIZES_AT_ONCE)]
        for start in range(0, len(parts), SIDE_BY_SIDE):
            some = parts[start : start + SIDE_BY_SIDE]
            # Side by side: while the client reads one answer the cluster works at the next.
            answers = await asyncio.gather(*[self._sizes([number for _, number in part], most) for part in some])
            places = [place for part in some for place in part]
            counted = dict(zip(places, [size for sizes in answers for size in sizes], strict=True))
            await self._make_ready(counted, now_ms)
            for (name, number), size in counted.items():
                if size is not None:
                    see(name, number, size)

    async def _make_ready(self, counted: "dict[tuple[str, int], Sizes | None]", now_ms: int) -> None:
        """Make the due jobs of segments ready, of some segments side by side, and replace the sizes of these."""
        due = [(place, size) for place, size in counted.items() if _is_due(size, now_ms)]

        async def make_ready(segment: "tuple[tuple[str, int], Sizes | None]") -> None:
            (name, number), size = segment
            counted[name, number] = await self._size_without_due(name, number, size, now_ms)

        await side_by_side(due, make_ready)

    async def _size_without_due(self, name: str, number: int, size: Sizes | None, now_ms: int) -> Sizes | None:
        """Make a segment's due jobs ready; return its sizes then."""
        while _is_due(size, now_ms):
            try:
                due = await self.promote(name, number)
            except (Damaged, StoreFull) as error:
                logger.info("due jobs of segment %d count as delayed: %s", number, error)
                break
            size = (await self._sizes([number], most=False))[0]
            if due is None or key_ms(due) > now_ms:
                # What seems due still is of a format that is not known here.
                break
        return size

    async def _sizes(self, numbers: list[int], most: bool) -> list[Sizes | None]:
        """Count the jobs of segments; None for one that is gone. If most will do, also for one that does not answer while others do."""
        try:
            return await self._tasks.try_for_a_while(lambda: self._store.sizes(numbers))
        except StoreFailed:
            if len(numbers) == 1 or not most:
                raise
        singly = [self._tasks.try_for_a_while(partial(self._store.sizes, [number])) for number in numbers]
        answers = await asyncio.gather(*singly, return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if not isinstance(failure, StoreFailed) or len(failures) == len(numbers):
                raise failure
            logger.warning("jobs of a segment are not counted: %s", failure)
        return [None if isinstance(answer, BaseException) else answer[0] for answer in answers]

    async def last_slots(self, numbers: list[int]) -> dict[int, int]:
        """Find the highest slot that was ever put in each segment, of those that are there. Raises StoreFailed."""
        found: dict[int, int] = {}
        for start in range(0, len(numbers), SIZES_AT_ONCE):
            part = numbers[start : start + SIZES_AT_ONCE]
            for number, size in zip(part, await self._sizes(part, most=False), strict=True):
                if size is not None:
                    found[number] = size.last_slot
        return found

    # --- tubes

    async def some(self, wanted: list[tuple[str, Answer]]) -> None:
        """Find some tubes, and count the jobs and users of each; the same few reads are for all. Raises StoreFailed."""
        for name, _ in wanted:
            await self._registry.forgotten(name)
        seen = self._timetable.step()
        names = list(dict.fromkeys([name for name, _ in wanted]))
        found = await self._tasks.try_for_a_while(lambda: self._store.directories(names))
        await self._tasks.try_for_a_while(self._membership.look)
        records = dict(zip(names, found, strict=True))
        counted = {name: Counts() for name in names}
        listed = await self._listed(records)
        segments = [(name, number) for name in names for number in listed[name]]
        await self._each_of(segments, lambda name, _, size: _add(counted[name], size))
        usages = await self._membership.usages()
        for name, answer in wanted:
            self._tell(answer, name, records[name], counted[name], usages, seen)

    def _tell(
        self,
        answer: Answer,
        name: str,
        record: "Directory | None",
        counts: Counts,
        usages: list[dict[str, list[int]]],
        seen: int,
    ) -> None:
        """Write what was found of a tube into its answer."""
        answer.counts = counts
        others = _kept_use(record)
        for usage in usages:
            use = usage.get(name)
            if use is not None:
                _add_use(others, use)
        exists = counts.jobs() or others.using or others.watching or self._paused(record)
        if not exists and self._registry.find_tube(name) is None:
            return
        answer.tube = tube = self._registry.tube(name)
        answer.others = others
        if record is not None:
            self._timetable.apply_pause(tube, record.pause_ms, record.paused_until_ms, seen)

    async def sizes(self, answer: Answer, name: str) -> None:
        """Add up the sizes of the bodies of a tube's jobs. Raises StoreFailed."""
        answer.sizes = await self._tasks.try_for_a_while(lambda: self._store.tube_sizes(name))

    async def everything(self, answer: Answer) -> None:
        """Count all jobs, and find the names of all tubes that exist. Raises StoreFailed."""
        records = await self._records()
        answer.names = await self._in_order(records, set(await self._count_all(answer, records)))

    async def tubes(self, answer: Answer) -> None:
        """Count all jobs, and find all tubes that exist, with the counts, users and pause of each. Raises StoreFailed."""
        records = await self._records()
        firsts: dict[str, int] = {}
        counted = await self._count_all(answer, records, firsts)
        now_ms = self._membership.clock.server_ms()
        found = set(counted)
        for tubes in _parts(self._registry.known_tubes()):
            found.update([tube.name for tube in tubes if self._registry.find_tube(tube.name) is not None])
            await asyncio.sleep(0)
        uses: dict[str, TubeUse] = {}
        for names in _parts(list(records)):
            uses.update({name: _kept_use(records[name]) for name in names})
            found.update([name for name in names if records[name].paused_until_ms > now_ms])
            await asyncio.sleep(0)
        for usage in await self._membership.usages():
            for part in _parts(list(usage.items())):
                for name, use in part:
                    _add_use(uses.setdefault(name, TubeUse()), use)
                found.update([name for name, use in part if use[0] or use[1]])
                await asyncio.sleep(0)
        for names in _parts(list(found)):
            for name in names:
                sight = TubeSight(name, counted.get(name) or Counts(), uses.get(name) or TubeUse())
                if name in firsts:
                    sight.oldest = self._membership.clock.local_time(firsts[name] // 1000)
                tube = self._registry.known_tube(name)
                if tube is not None:
                    _add_use(sight.use, tube_usage(tube))
                known = records.get(name)
                if known is not None and known.paused_until_ms > now_ms:
                    sight.pause = known.pause_ms / 1000
                    sight.paused_until = self._membership.clock.local_time(known.paused_until_ms)
                answer.tubes.append(sight)
            await asyncio.sleep(0)

    async def names(self, answer: Answer) -> None:
        """Find the names of all tubes that exist. Raises StoreFailed.

        Very many segments are not counted: a tube whose last job has gone is then named until its segment ends.
        """
        records = await self._records()
        usages = await self._membership.usages()
        listed = 0
        filled: set[str] = set()
        for part in _parts(list(records)):
            listed += _add_filled(filled, records, part)
            await asyncio.sleep(0)
        if listed + sum([len(usage) for usage in usages]) <= COUNTED_MAX:
            filled = set(await self._count_all(answer, records))
        answer.names = await self._in_order(records, filled)

    async def _records(self) -> "dict[str, Directory]":
        """Read what the cluster tells of all tubes and all front-ends."""
        records = await self._tasks.try_for_a_while(self._store.tubes)
        await self._tasks.try_for_a_while(self._membership.look)
        return records

    async def _count_all(
        self, answer: Answer, records: "dict[str, Directory]", firsts: dict[str, int] | None = None
    ) -> dict[str, Counts]:
        """Count all jobs; return the counts of those tubes that have any.

        `firsts` gets, by tube, when the oldest one was put of the ready jobs that are next in their segments, in microseconds.
        """
        wanted: list[tuple[str, int]] = []
        for names in _parts(list(records)):
            paged = [name for name in names if records[name].pages]
            for start in range(0, len(paged), PAGED_AT_ONCE):
                some = {name: records[name] for name in paged[start : start + PAGED_AT_ONCE]}
                for name, segments in (await self._listed(some)).items():
                    wanted += [(name, segment) for segment in segments]
            listed = [(name, records[name].segments) for name in names if not records[name].pages]
            wanted += [(name, segment) for name, segments in listed for segment in segments]
            await asyncio.sleep(0)
        filled: dict[str, Counts] = {}

        def see(name: str, _: int, size: Sizes) -> None:
            _add(answer.counts, size)
            if size.ready or size.delayed or size.buried or size.held:
                counts = filled.get(name)
                if counts is None:
                    filled[name] = counts = Counts()
                _add(counts, size)
            if firsts is not None and size.ready_key is not None:
                at = put_us(size.ready_key)
                firsts[name] = min(firsts.get(name, at), at)

        # One of all segments may be where nobody answers.
        await self._each_of(wanted, see, most=True)
        return filled

    async def _in_order(self, records: "dict[str, Directory]", filled: set[str]) -> list[str]:
        """List those tubes that are used here, in their order; then those filled, paused or used elsewhere, by age.

        The records are dropped a few at a time: to free many thousand of them takes as long as a turn.
        """
        elsewhere: dict[str, None] = {}
        for usage in await self._membership.usages():
            for uses in _parts(list(usage.items())):
                elsewhere.update(dict.fromkeys([name for name, use in uses if use[0] or use[1]]))
                await asyncio.sleep(0)
        ages: list[tuple[int, str]] = []
        for part in _parts(list(records)):
            ages += self._ages([(name, records.pop(name)) for name in part], filled, elsewhere)
            await asyncio.sleep(0)
        # Parts that are in order are put together quickly.
        ages.sort(key=_age, reverse=True)
        await asyncio.sleep(0)
        found = dict.fromkeys(self._registry.used_names())
        while ages:
            found.update(dict.fromkeys([name for _, name in reversed(ages[-TUBES_AT_ONCE:])]))
            del ages[-TUBES_AT_ONCE:]
            await asyncio.sleep(0)
        found.update(elsewhere)
        names = list(found)
        # The reply is made in a turn of its own.
        await asyncio.sleep(0)
        return names

    def _ages(
        self, rows: "list[tuple[str, Directory]]", filled: set[str], elsewhere: dict[str, None]
    ) -> list[tuple[int, str]]:
        """Return some tubes that exist, the youngest first."""
        ages = [
            (record.first(), name)
            for name, record in rows
            if name in filled or name in elsewhere or self._paused(record)
        ]
        ages.sort(reverse=True)
        return ages

    def _paused(self, record: "Directory | None") -> bool:
        return record is not None and record.paused_until_ms > self._membership.clock.server_ms()


def _parts(rows: list[Row]) -> "Iterator[list[Row]]":
    """Cut a long list into parts that others have a turn between."""
    for start in range(0, len(rows), TUBES_AT_ONCE):
        yield rows[start : start + TUBES_AT_ONCE]


def _add_filled(filled: set[str], records: "dict[str, Directory]", names: list[str]) -> int:
    """Add those of the tubes that list segments; return how many segments that may be."""
    listed = 0
    for name in names:
        record = records[name]
        if record.segments or record.pages:
            listed += len(record.segments) + PAGE_MAX * len(record.pages)
            filled.add(name)
    return listed


def _is_due(size: Sizes | None, now_ms: int) -> bool:
    """Tell whether a segment has due jobs that are not ready yet."""
    return size is not None and size.due_key is not None and key_ms(size.due_key) <= now_ms


def _age(aged: tuple[int, str]) -> int:
    return aged[0]


def _kept_use(record: "Directory | None") -> TubeUse:
    """Return what those that have ended counted of a tube."""
    kept = TubeUse()
    if record is not None:
        kept.total_jobs = record.counters.get("total_jobs", 0)
        kept.deletes = record.counters.get("deletes", 0)
        kept.pauses = record.counters.get("pauses", 0)
    return kept


def _add_use(total: TubeUse, use: list[int]) -> None:
    total.using += use[0]
    total.watching += use[1]
    total.waiting += use[2]
    total.total_jobs += use[3]
    total.deletes += use[4]
    total.pauses += use[5]


def _add(counts: Counts, size: Sizes) -> None:
    counts.ready += size.ready
    counts.urgent += size.urgent
    counts.delayed += size.delayed
    counts.buried += size.buried
    counts.reserved += size.held

"""Commands that look at the whole cluster, and the cold changes that look before they write.

Each change is one operation guarded by what was seen; whoever comes second looks again.
"""

import asyncio
import heapq
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.segment.bodies import fetch_bodies
from beanspiked.engine.aerospike.segment.codec import Packed
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, BATCH_MAX, SharedJob, job_id
from beanspiked.engine.aerospike.store.keys import SLOT_BITS, job_slot, key_ms, ready_key
from beanspiked.engine.aerospike.store.seam import (
    BURIED,
    DELAYED,
    PAGE_MAX,
    READY,
    Damaged,
    Fenced,
    Newer,
    Refused,
    Segment,
    Sizes,
    StoreError,
    Unknown,
)
from beanspiked.engine.contract import BURIED as IS_BURIED
from beanspiked.engine.contract import DELAYED as IS_DELAYED
from beanspiked.engine.contract import PLACE, RESERVED, WHOLE, Counts, TubeSizes, TubeUse
from beanspiked.engine.contract import READY as IS_READY
from beanspiked.engine.errors import DamagedEntry, JobGone, NewerEntry, OutcomeUnknown, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from beanspiked.engine.aerospike.engine import SharedEngine
    from beanspiked.engine.aerospike.store.seam import Directory
    from beanspiked.engine.aerospike.tubes.tube import SharedTube

__all__ = [
    "QUEUES",
    "changed",
    "delete",
    "delete_tube",
    "each_size",
    "everything",
    "find",
    "job",
    "kick",
    "kick_job",
    "make_ready",
    "names",
    "next_job",
    "pause",
    "seen",
    "segments",
    "sizes",
    "tube",
]

logger = logging.getLogger(__name__)

SLOT_MASK: Final = (1 << SLOT_BITS) - 1
STATES: Final = {READY: IS_READY, DELAYED: IS_DELAYED, BURIED: IS_BURIED}
QUEUES: Final = {IS_READY: READY, IS_DELAYED: DELAYED, IS_BURIED: BURIED}
# How many segments are counted at once, so many times side by side.
SIZES_AT_ONCE: Final = 250
SIDE_BY_SIDE: Final = 4
# How often a look is repeated that others' changes spoil.
LOOKS_MAX: Final = 20
# Of so many segments it is seen which hold jobs when tubes are listed.
COUNTED_MAX: Final = 1000


def _find(segment: Segment, slot: int) -> tuple[str, bytes, bytes] | None:
    """Find a job in a segment: its queue ("" for a lease), key and packed form."""
    for name in (READY, DELAYED, BURIED):
        for key, packed in segment.queue(name).items():
            if job_slot(key) == slot:
                return name, key, packed
    for held in segment.leases.values():
        for key, packed in held.items():
            if job_slot(key) == slot:
                return "", key, packed
    return None


def _unpack(engine: "SharedEngine", number: int, key: bytes, packed: bytes) -> Packed | None:
    """Take a packed job apart; None of what cannot be read."""
    try:
        return engine.formats.unpack(packed)
    except NewerEntry as newer:
        engine.unread.tell(f"job {job_id(number, job_slot(key))}", newer)
    except DamagedEntry as damage:
        logger.error("segment %d: a damaged job: %s", number, damage)
    return None


def seen(engine: "SharedEngine", segment: Segment, name: str, key: bytes, packed: bytes) -> SharedJob | None:
    """Make a job of what was seen; None of what cannot be read."""
    unpacked = _unpack(engine, segment.number, key, packed)
    if unpacked is None:
        return None
    found = SharedJob(segment.number, key, engine.tube(segment.tube), unpacked, engine.membership.session.offset_ms)
    if name == "":
        found.state = RESERVED
        # Its holder knows more; this much is certain.
        found.reserves += 1
        found.key = engine.now() + found.ttr
    else:
        found.state = STATES[name]
        if name == DELAYED:
            # Due times are whole milliseconds of another clock: what is left must not seem more than it was asked for.
            found.key = engine.membership.clock.local_time(key_ms(key)) - 0.002
    return found


async def job(engine: "SharedEngine", job_id: int, need: int) -> SharedJob | None:
    """Read one job, in whatever state. Raises StoreFailed if what is needed of it is lost or damaged."""
    number, slot = job_id >> SLOT_BITS, job_id & SLOT_MASK
    if not 0 < number < 1 << 62 or slot == 0:
        return None
    while True:
        segment: Segment | None = await engine.try_for_a_while(lambda: engine.store.read(number))
        place = None if segment is None else _find(segment, slot)
        if segment is None or place is None:
            return None
        name, key, packed = place
        if not engine.formats.knows(packed):
            # Not even to be deleted: what else there is of it, nobody knows here.
            raise StoreFailed("the job is of a newer format")
        if name != DELAYED or key_ms(key) > engine.membership.clock.server_ms():
            break
        await engine.try_for_a_while(lambda: engine.timetable.promote_segment(number))
        engine.scout.segment_changed(segment.tube, segment.number)
    found = seen(engine, segment, name, key, packed)
    if found is None:
        if need != PLACE:
            raise StoreFailed("the job cannot be read")
        # Enough to delete it by.
        found = SharedJob(number, key, engine.tube(segment.tube), Packed(0, 0, 0, 0, b""), 0)
        found.state = STATES.get(name, RESERVED)
    elif need == WHOLE and not (await engine.try_for_a_while(lambda: fetch_bodies(engine.store, [found])))[0]:
        raise StoreFailed("the job's body is lost or damaged")
    return found


async def _sizes_of(engine: "SharedEngine", numbers: list[int], most: bool = False) -> "list[Sizes | None]":
    """Count the jobs of segments; None for one that is not there. If most will do, also for one that does not answer while others do."""
    try:
        sizes: list[Sizes | None] = await engine.try_for_a_while(lambda: engine.store.sizes(numbers))
    except StoreFailed:
        if len(numbers) == 1 or not most:
            raise
    else:
        return sizes
    singly = [engine.try_for_a_while(partial(engine.store.sizes, [number])) for number in numbers]
    answers = await asyncio.gather(*singly, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    for failure in failures:
        if not isinstance(failure, StoreFailed) or len(failures) == len(numbers):
            raise failure
        logger.warning("jobs of a segment are not counted: %s", failure)
    return [None if isinstance(answer, BaseException) else answer[0] for answer in answers]


async def each_size(
    engine: "SharedEngine", name: str, numbers: list[int], see: "Callable[[int, Sizes], None]", most: bool = False
) -> None:
    """Count segments of a tube, see _sizes_of; due jobs are made ready first, so that they count as such."""
    await _each_size_of([(name, number) for number in numbers], engine, lambda _, number, size: see(number, size), most)


async def _each_size_of(
    wanted: list[tuple[str, int]], engine: "SharedEngine", see: "Callable[[str, int, Sizes], None]", most: bool
) -> None:
    """Count segments of tubes by the names of these, see _each_size; however many there are, others have turns."""
    now_ms = engine.membership.clock.server_ms()
    parts = [wanted[start : start + SIZES_AT_ONCE] for start in range(0, len(wanted), SIZES_AT_ONCE)]
    for start in range(0, len(parts), SIDE_BY_SIDE):
        some = parts[start : start + SIDE_BY_SIDE]
        # Side by side: while the client reads one answer the cluster works at the next.
        answers = await asyncio.gather(*[_sizes_of(engine, [number for _, number in part], most) for part in some])
        for part, sizes in zip(some, answers, strict=True):
            for (name, number), found in zip(part, sizes, strict=True):
                size = found
                while size is not None and size.due_key is not None and key_ms(size.due_key) <= now_ms:
                    try:
                        promote = partial(engine.timetable.promote_segment, number)
                        due: bytes | None = await engine.try_for_a_while(promote)
                    except Damaged as error:
                        logger.info("due jobs of segment %d count as delayed: %s", number, error)
                        break
                    engine.scout.segment_changed(name, number)
                    size = (await _sizes_of(engine, [number]))[0]
                    if due is None or key_ms(due) > now_ms:
                        # What seems due still is of a format that is not known here.
                        break
                if size is not None:
                    see(name, number, size)


def _count(counts: Counts, size: Sizes) -> None:
    counts.ready += size.ready
    counts.urgent += size.urgent
    counts.delayed += size.delayed
    counts.buried += size.buried
    counts.reserved += size.held


async def segments(engine: "SharedEngine", home: "SharedTube") -> list[int]:
    """List all segments of a tube."""
    record: Directory | None = (await engine.try_for_a_while(lambda: engine.store.directories([home.name])))[0]
    numbers: list[int] = await engine.try_for_a_while(lambda: engine.lister.everywhere(home.name, record))
    return numbers


def _note(engine: "SharedEngine", name: str, counts: Counts, record: "Directory | None") -> None:
    """Note what a look found in a tube."""
    found = engine.tube(name)
    found.counts = counts
    found.first_number = 0 if record is None else record.first()
    use = TubeUse()
    if record is not None:
        engine.timetable.apply_pause(found, record.pause_ms, record.paused_until_ms)
        use.total_jobs = record.counters.get("total_jobs", 0)
        use.deletes = record.counters.get("deletes", 0)
        use.pauses = record.counters.get("pauses", 0)
    found.use = use
    paused = record is not None and record.paused_until_ms > engine.membership.clock.server_ms()
    found.exists = counts.jobs() > 0 or paused


def _add_uses(engine: "SharedEngine", only: str | None = None) -> None:
    """Add how live sessions of others use tubes."""
    live = set(engine.membership.others)
    for record in engine.membership.records:
        if record.number not in live:
            continue
        usage = record.usage()
        for name in usage if only is None else usage.keys() & {only}:
            use = usage[name]
            found = engine.tube(name)
            if found.use is None:
                found.use = TubeUse()
            found.use.using += use[0]
            found.use.watching += use[1]
            found.use.waiting += use[2]
            found.use.total_jobs += use[3]
            found.use.deletes += use[4]
            found.use.pauses += use[5]
            if use[0] or use[1]:
                found.exists = True


async def tube(engine: "SharedEngine", name: str) -> None:
    """Count a tube's jobs and users."""
    await engine.registry.forgotten(name)
    record: Directory | None = (await engine.try_for_a_while(lambda: engine.store.directories([name])))[0]
    await engine.try_for_a_while(engine.membership.look)
    numbers: list[int] = await engine.try_for_a_while(lambda: engine.lister.everywhere(name, record))
    counts = Counts()
    await each_size(engine, name, numbers, lambda _, size: _count(counts, size))
    if record is None and engine.registry.known_tube(name) is None and not engine.registry.used_elsewhere(name):
        return
    _note(engine, name, counts, record)
    _add_uses(engine, name)


async def everything(engine: "SharedEngine") -> None:
    """Count all jobs, and find all tubes."""
    records: dict[str, Directory] = await engine.try_for_a_while(engine.store.tubes)
    await engine.try_for_a_while(engine.membership.look)
    wanted: list[tuple[str, int]] = []
    for name, record in records.items():
        numbers: list[int] = await engine.try_for_a_while(lambda: engine.lister.everywhere(name, record))  # noqa: B023
        wanted += [(name, number) for number in numbers]
    per_tube: dict[str, Counts] = {name: Counts() for name in records}
    # One of all segments may be where nobody answers.
    await _each_size_of(wanted, engine, lambda name, _, size: _count(per_tube[name], size), most=True)
    total = Counts()
    for found in engine.registry.known_tubes():
        found.exists = False
        found.use = None
        found.counts = Counts()
    for name, counts in per_tube.items():
        paused = records[name].paused_until_ms > engine.membership.clock.server_ms()
        if not counts.jobs() and not paused and engine.registry.known_tube(name) is None:
            continue
        _note(engine, name, counts, records[name])
        total.ready += counts.ready
        total.urgent += counts.urgent
        total.delayed += counts.delayed
        total.buried += counts.buried
        total.reserved += counts.reserved
    _add_uses(engine)
    engine.counts = total


async def names(engine: "SharedEngine") -> "tuple[str, ...]":
    """Find the names of all tubes that exist: those used here in their order, then the others by age.

    Where there are very many segments they are not counted: a tube whose last job has gone is named until its segment ends.
    """
    records: dict[str, Directory] = await engine.try_for_a_while(engine.store.tubes)
    await engine.try_for_a_while(engine.membership.look)
    live = set(engine.membership.others)
    usages = [record.usage() for record in engine.membership.records if record.number in live]
    listed = sum([len(record.segments) + PAGE_MAX * len(record.pages) for record in records.values()])
    if listed + sum([len(usage) for usage in usages]) <= COUNTED_MAX:
        await everything(engine)
        return tuple([tube.name for tube in engine.tubes()])
    found = dict.fromkeys(engine.registry.used_names())
    now_ms = engine.membership.clock.server_ms()
    ages = [
        (record.first(), name)
        for name, record in records.items()
        if record.segments or record.pages or record.paused_until_ms > now_ms
    ]
    await asyncio.sleep(0)
    ages.sort()
    found.update(dict.fromkeys([name for _, name in ages]))
    for usage in usages:
        await asyncio.sleep(0)
        found.update(dict.fromkeys([name for name, use in usage.items() if use[0] or use[1]]))
    return tuple(found)


async def next_job(engine: "SharedEngine", home: "SharedTube", state: int) -> SharedJob | None:
    """Read the job of a tube that would leave a state next."""
    queue = QUEUES[state]
    # Segments in which no job can be read.
    barren: set[int] = set()
    for _ in range(LOOKS_MAX):
        best: list[tuple[bytes, int]] = []

        def see(number: int, size: Sizes) -> None:
            key = size.ready_key if state == IS_READY else size.due_key if state == IS_DELAYED else size.buried_key
            if key is not None and number not in barren and (not best or (key[:-2], number) < best[0]):  # noqa: B023
                best[:] = [(key[:-2], number)]  # noqa: B023

        await each_size(engine, home.name, await segments(engine, home), see)
        if not best:
            return None
        number = best[0][1]
        try:
            segment: Segment | None = await engine.try_for_a_while(lambda: engine.store.read(number))  # noqa: B023
        except Damaged:
            barren.add(number)
            continue
        entries = {} if segment is None else segment.queue(queue)
        for key, packed in entries.items():
            assert segment is not None
            found = seen(engine, segment, queue, key, packed)
            if found is None:
                continue
            whole, _ = await engine.try_for_a_while(lambda: fetch_bodies(engine.store, [found]))  # noqa: B023
            if whole:
                return found
        if entries:
            barren.add(number)
        # Or somebody was faster.
    return None


async def delete(engine: "SharedEngine", found: SharedJob) -> None:
    """Delete a job that was looked at. Raises JobGone if it is not where it was seen any more (segment-protocol H7)."""
    queue, place = QUEUES[found.state], found.place
    doubt = False
    try:
        if not await engine.store.remove(found.number, queue, place):
            raise JobGone("somebody else was faster")
    except Fenced as error:
        raise JobGone("somebody else was faster") from error
    except StoreError:
        doubt = True
    if doubt:
        # It may be done, or still be done: from now on only a job that is nowhere, or a certain success, may be told of.
        await _delete_in_doubt(engine, found)
    _deleted(engine, found)


async def _delete_in_doubt(engine: "SharedEngine", found: SharedJob) -> None:
    until = engine.now() + ANSWER_WITHIN
    while True:
        segment: Segment | None = await engine.try_for_a_while(lambda: engine.store.read(found.number))
        place = None if segment is None else _find(segment, found.slot())
        if place is None:
            return
        queue, key, _ = place
        try:
            if queue and await engine.store.remove(found.number, queue, key):
                return
        except Fenced:
            return
        except StoreError as error:
            logger.info("delete of job %d: %s", found.id, error)
        if engine.now() >= until:
            raise OutcomeUnknown("whether the job is deleted is not known")
        await engine.pause_between_tries()


def _deleted(engine: "SharedEngine", found: SharedJob) -> None:
    found.tube.deletes += 1
    cast("SharedTube", found.tube).live = False
    if found.body_number:
        engine.retirement.drop_body(found, found.body_number)
    home = cast("SharedTube", found.tube)
    if found.number in home.committers or found.number in home.notes:
        engine.scout.refresh_segment(home.committer_of(found.number))
    else:
        # It may have been the last job of a segment that nobody looks at.
        engine.retirement.come_back_to(found.tube.name, found.number)


async def kick_job(engine: "SharedEngine", found: SharedJob) -> None:
    """Make a buried or delayed job that was looked at ready. Raises JobGone if it is not where it was seen any more."""
    if not await make_ready(engine, found.number, QUEUES[found.state], {found.place: found.packed()}):
        raise JobGone("somebody else was faster")
    changed(engine, cast("SharedTube", found.tube), found.number)


def changed(engine: "SharedEngine", home: "SharedTube", number: int) -> None:
    """Jobs of a segment were made ready."""
    home.live = False
    engine.scout.refresh_segment(home.committer_of(number))
    engine.news.tell(home.name, number, CHANGED)


async def make_ready(engine: "SharedEngine", number: int, queue: str, jobs: dict[bytes, Packed]) -> int:
    """Kick jobs of one segment, all or none; return how many of them are not in their queue any more.

    Raises OutcomeUnknown or StoreFailed if that cannot be done in time.
    """
    entries: dict[bytes, bytes] = {}
    for key, found in jobs.items():
        found.kicks += 1
        found.reason = ""
        entries[ready_key(found.pri, found.put_us, job_slot(key))] = engine.formats.pack(found)
    until = engine.now() + ANSWER_WITHIN
    doubt = False
    while True:
        try:
            await engine.store.shift(number, queue, list(jobs), READY, entries)
        except (Refused, Fenced):
            break
        except StoreError as error:
            doubt = doubt or isinstance(error, Unknown)
            if engine.now() >= until:
                if doubt:
                    raise OutcomeUnknown("whether jobs were kicked is not known") from error
                raise StoreFailed(str(error)) from error
        else:
            return len(jobs)
        await engine.pause_between_tries()
    if not doubt:
        return 0
    # Whoever moved those that are not there: they were kicked (segment-protocol H10). The others cannot be by this any more.
    left = await _read_queue(engine, number, queue)
    return sum(key not in left for key in jobs)


async def _read_queue(engine: "SharedEngine", number: int, queue: str) -> "Mapping[bytes, bytes]":
    segment: Segment | None = await engine.try_for_a_while(lambda: engine.store.read(number))
    return {} if segment is None else segment.queue(queue)


async def kick(engine: "SharedEngine", home: "SharedTube", bound: int) -> int:
    """Make up to `bound` buried jobs of a tube ready, oldest first; if none is buried, delayed ones, soonest first.

    Those that cannot be read stay where they are.
    """
    buried: list[tuple[bytes, int]] = []
    delayed: list[tuple[bytes, int]] = []

    def see(number: int, size: Sizes) -> None:
        if size.buried_key is not None:
            buried.append((size.buried_key, number))
        if size.due_key is not None:
            delayed.append((size.due_key, number))

    await each_size(engine, home.name, await segments(engine, home), see)
    return await _kick(engine, home, BURIED, buried, bound) or await _kick(engine, home, DELAYED, delayed, bound)


async def _kick(
    engine: "SharedEngine", home: "SharedTube", queue: str, first: list[tuple[bytes, int]], bound: int
) -> int:
    """Kick jobs of one queue over segments, in the order of their keys."""
    order = [(key[:-2], number) for key, number in first]
    heapq.heapify(order)
    left = bound
    while order and left:
        number = heapq.heappop(order)[1]
        at_once = min(left, BATCH_MAX)
        jobs: dict[bytes, Packed] = {}
        try:
            entries = await _read_queue(engine, number, queue)
        except Damaged as error:
            logger.info("jobs of segment %d are not kicked: %s", number, error)
            continue
        for key, packed in entries.items():
            if len(jobs) > at_once:
                # So many are moved, and the next one's place is known.
                break
            job = _unpack(engine, number, key, packed)
            if job is not None:
                jobs[key] = job
        # This segment's jobs up to the first one of the next segment.
        limit = order[0] if order else None
        rest = list(jobs)
        some = [key for key in rest[:at_once] if limit is None or (key[:-2], number) <= limit]
        if some:
            kicked = await make_ready(engine, number, queue, {key: jobs[key] for key in some})
            if kicked:
                left -= kicked
                changed(engine, home, number)
            if kicked == len(some):
                rest = rest[kicked:]
            # Otherwise somebody changed it: look again.
        if rest:
            heapq.heappush(order, (rest[0][:-2], number))
    return bound - left


async def find(engine: "SharedEngine", home: "SharedTube", metadata: str) -> list[int]:
    """List the ids of a tube's jobs, buried ones left out, that were put with this metadata."""
    found: list[int] = []
    for number in await segments(engine, home):
        try:
            segment: Segment | None = await engine.try_for_a_while(lambda: engine.store.read(number))  # noqa: B023
        except Damaged as error:
            logger.info("segment %d is not looked through: %s", number, error)
            continue
        if segment is None:
            continue
        for entries in (segment.queue(READY), segment.queue(DELAYED), *segment.leases.values()):
            for key, packed in entries.items():
                unpacked = _unpack(engine, number, key, packed)
                if unpacked is not None and unpacked.metadata == metadata:
                    found.append(job_id(number, job_slot(key)))
    return found


async def sizes(engine: "SharedEngine", home: "SharedTube") -> TubeSizes:
    """Add up the sizes of the bodies of a tube's jobs."""
    summed: TubeSizes = await engine.try_for_a_while(lambda: engine.store.tube_sizes(home.name))
    return summed


async def delete_tube(engine: "SharedEngine", home: "SharedTube") -> None:
    """Delete all jobs of a tube: of each segment at once, with all leases, so that their holders are fenced."""
    newer: Newer | None = None
    for number in await segments(engine, home):
        try:
            deleted: int = await engine.try_for_a_while(lambda: engine.store.wipe(number))  # noqa: B023
            home.deletes += deleted
        except Fenced:
            continue
        except Newer as error:
            logger.warning("segment %d is not deleted: %s", number, error)
            newer = error
            continue
        committer = home.committers.get(number)
        if committer is not None:
            committer.abandon(JobGone("the tube was deleted"))
        home.notes.pop(number, None)
        await engine.retirement.end(home.name, number)
    if newer is not None:
        raise newer


async def pause(engine: "SharedEngine", home: "SharedTube", seconds: float) -> None:
    """Pause a tube everywhere."""
    await engine.registry.forgotten(home.name)
    pause_ms = round(seconds * 1000)
    until_ms = engine.membership.clock.server_ms() + pause_ms if pause_ms else 0
    await engine.try_for_a_while(lambda: engine.store.pause(home.name, pause_ms, until_ms))
    engine.timetable.apply_pause(home, pause_ms, until_ms)
    engine.news.tell(home.name)

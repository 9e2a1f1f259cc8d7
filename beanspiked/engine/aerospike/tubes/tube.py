"""A tube of a shared store, as this front-end knows it: its segments by their most urgent jobs, and who wants something of it."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from typing import Final

from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import Put, SharedJob
from beanspiked.engine.aerospike.segment.surroundings import Surroundings
from beanspiked.engine.aerospike.segment.view import View
from beanspiked.engine.aerospike.store.keys import key_ms
from beanspiked.engine.aerospike.store.seam import Head
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.notes import note_head, note_number, note_of, turn_of
from beanspiked.engine.aerospike.tubes.ranking import RankedTube, Ranking
from beanspiked.engine.contract import Waiter
from beanspiked.engine.errors import EngineError
from beanspiked.engine.later import Later

__all__ = ["PROMOTE_MS", "Schedule", "Seek", "SharedTube"]

# So long, in milliseconds, ready jobs wait for due ones that may be more urgent.
PROMOTE_MS: Final = 500
# A tube's order may hold so many entries beside two for each segment.
STALE_MAX: Final = 16


class Seek(Later):
    """One waiter's question whether there is a job for it.

    Attributes:
        waiter: Who waits.
        tubes: Where it waits.
        patient: Whether the waiter goes on waiting when there is no job.
        refreshing: How many of its tubes are being looked at.
        looked: Whether all of its tubes were looked at after the question.
        partial: Whether that look passed over segments that did not answer.
        until: When it fails if the store cannot be reached, in seconds since the epoch.
        overtime: How long this process has run since then, in seconds.
    """

    def __init__(self, waiter: Waiter, tubes: "list[SharedTube]", patient: bool, until: float) -> None:
        super().__init__()
        self.waiter: Waiter = waiter
        self.tubes: list[SharedTube] = tubes
        self.patient: bool = patient
        self.refreshing: int = 0
        self.looked: bool = False
        self.partial: bool = False
        self.until: float = until
        self.overtime: float = 0.0

    def waits_for_look(self, tube: "SharedTube") -> bool:
        """Tell whether a look may find a more urgent job than those of a tube. One whose news are followed has no such surprises."""
        return self.refreshing > 0 and (len(self.tubes) > 1 or not tube.live)


class Schedule:
    """What does something in a tube at its time."""

    def wait_for_due(self, tube: "SharedTube") -> None:
        """Make due jobs ready now, or when the first is due, if somebody waits for them."""
        raise NotImplementedError

    def tube_time(self, tube: "SharedTube", now: float) -> None:
        """Make due jobs ready and end a pause."""
        raise NotImplementedError


class SharedTube(RankedTube):
    """A tube and what is known of its segments.

    Args:
        id: Its number among what waits for a time.
        name: Its name.
        around: What its segments need of the front-end.
        agenda: What requests its jobs at the end of the turn.
        schedule: What makes its due jobs ready.
        ranking: Where it stands while waiters on many tubes are here.

    Attributes:
        committers: The segments in use here, by number.
        notes: What is known of its other segments, by number; see notes.py.
        page: A page of its directory that probably has room for more segments, or 0.
        full_until: Until when its directory has no room, by this process's clock; 0 while it has.
        open: The segment that takes puts from here, or None.
        opening: Whether a segment is being made.
        arriving: Puts that wait for a segment.
        granted: Taken jobs that were not handed over yet; empty at the end of each turn.
        unasked: Waiters whose jobs have not all been requested, but for those that linger. One whose jobs were requested in another tube
            may be among them.
        coming: How many jobs are being requested of it.
        refreshed: Whom to call when the next look at it ends.
        refreshing: Whether it is being looked at.
        live: Whether what is known of it is whole: news of it were followed since the last look. Only a look makes it so; see `doubt`.
        doubts: How often it was doubted: a look that began before the last time does not make it live.
        pause_seen: The engine's step at which its pause was last made here, or read.
        next_due: When the first known delayed job is due, by the server's clock in ms; 0 without one.
        promotion: What makes its due jobs ready now, if anything.
        held_until: Until when ready jobs wait for due ones, by the server's clock in ms; 0 once all are ready.
        wanted_until: Until when its news are asked for, at least, by this process's clock.
        forgetting: Done when its counters and its pause are forgotten, or remembered after all; None if it never began anew.
    """

    __slots__ = (
        "_agenda",
        "_around",
        "_noted",
        "_order",
        "_ranking",
        "_rest",
        "_schedule",
        "arriving",
        "coming",
        "committers",
        "doubts",
        "forgetting",
        "full_until",
        "granted",
        "held_until",
        "live",
        "next_due",
        "notes",
        "open",
        "opening",
        "page",
        "pause_seen",
        "promotion",
        "refreshed",
        "refreshing",
        "unasked",
        "wanted_until",
    )

    def __init__(
        self,
        id: int,  # noqa: A002 - as its base
        name: str,
        around: Surroundings,
        agenda: Agenda,
        schedule: Schedule,
        ranking: Ranking,
    ) -> None:
        super().__init__(id, name)
        self._around: Surroundings = around
        self._agenda: Agenda = agenda
        self._schedule: Schedule = schedule
        self._ranking: Ranking = ranking
        self.committers: dict[int, Committer] = {}
        self.notes: dict[int, bytes] = {}
        self.page: int = 0
        self.full_until: float = 0.0
        self.open: Committer | None = None
        self.opening: bool = False
        self.arriving: deque[Put] = deque()
        self.granted: deque[SharedJob] = deque()
        self.unasked: dict[Waiter, None] = {}
        self.coming: int = 0
        self.refreshed: list[Callable[[EngineError | None, bool], None]] = []
        self.refreshing: bool = False
        self.live: bool = False
        self.doubts: int = 0
        self.pause_seen: int = 0
        self.next_due: int = 0
        self.promotion: asyncio.Task[bool] | None = None
        self.held_until: int = 0
        self.forgetting: asyncio.Future[None] | None = None
        self.wanted_until: float = 0.0
        self._order: list[tuple[bytes, int]] = []
        # Notes of segments with ready jobs, most urgent first. Some are not true any more.
        self._noted: list[bytes] = []
        # Segments to be read before any is read again.
        self._rest: list[int] = []

    def enter(self, waiter: Waiter) -> None:
        """Enter one who waits, behind the others."""
        self.waiters[waiter] = None
        self.unasked[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Take one out who waits no more."""
        del self.waiters[waiter]
        self.unasked.pop(waiter, None)

    def linger(self, waiter: Waiter) -> None:
        """Add a waiter that stays here between its waits."""
        super().linger(waiter)
        self._ranking.unsure[self] = None
        best = self.best()
        if best is not None:
            self._ranking.add(self, best)

    def part(self, waiter: Waiter) -> None:
        """Remove a waiter that has stayed here."""
        super().part(waiter)
        if self.lingering is None:
            self._ranking.drop(self)
            self._ranking.unsure.pop(self, None)

    def on_time(self, now: float) -> None:
        """Make due jobs ready and end a pause."""
        self._schedule.tube_time(self, now)

    def rank(self, segment: View) -> None:
        """Take note that a segment's most urgent job may have changed."""
        best = None if segment.suspended else segment.best()
        if best is None:
            segment.rank = None
            return
        if best != segment.rank:
            segment.rank = best
            heapq.heappush(self._order, (best, segment.number))
            self._compact()
        if self.lingering is not None:
            self._ranking.add(self, best)
        self._agenda.request_soon(self)

    def _compact(self) -> None:
        """Drop what is stale of the order once that is most of it: where nobody takes, what lies behind the first is never met."""
        if len(self._order) > 2 * len(self.committers) + STALE_MAX:
            ranked = self.committers.values()
            self._order = [(committer.rank, committer.number) for committer in ranked if committer.rank is not None]
            heapq.heapify(self._order)

    def first(self) -> tuple[Committer, bytes | None] | None:
        """Return the segment with the most urgent job, and the key of the most urgent job of the others."""
        noted = self._first_noted()
        first = self._top()
        while noted is not None:
            best = None if first is None else first.best()
            if best is not None and best <= noted[0]:
                break
            self.committer_of(noted[1])
            noted = self._first_noted()
            first = self._top()
        if first is None:
            return None
        bound = None if noted is None else noted[0]
        if len(self._order) == 1:
            return first, bound
        entry = heapq.heappop(self._order)
        second = self._top()
        while second is first:
            # Left behind by an earlier change of rank.
            heapq.heappop(self._order)
            second = self._top()
        heapq.heappush(self._order, entry)
        best = None if second is None else second.best()
        return first, best if bound is None or (best is not None and best < bound) else bound

    def _top(self) -> Committer | None:
        """Return the segment in use with the most urgent job."""
        order = self._order
        while order:
            key, number = order[0]
            committer = self.committers.get(number)
            if committer is None or committer.rank != key:
                heapq.heappop(order)
                continue
            best = committer.best()
            if best == key:
                return committer
            heapq.heappop(order)
            committer.rank = best
            if best is not None:
                heapq.heappush(order, (best, number))
        return None

    def _first_noted(self) -> tuple[bytes, int] | None:
        """Return the segment with the most urgent job of those that are not in use, behind the key of its turn."""
        noted = self._noted
        while noted and self.notes.get(note_number(noted[0])) != noted[0]:
            heapq.heappop(noted)
        return (turn_of(noted[0]), note_number(noted[0])) if noted else None

    def best(self) -> bytes | None:
        """Return the key of the most urgent job that is expected in it."""
        if not self._order and not self._noted:
            return None
        top = self._top()
        best = None if top is None else top.best()
        noted = self._first_noted()
        return best if noted is None or (best is not None and best <= noted[0]) else noted[0]

    def note(self, number: int, head: Head) -> None:
        """Take note of what a segment holds that is not in use here."""
        made = note_of(number, head)
        if self.notes.get(number) == made:
            return
        self.notes[number] = made
        if head.ready:
            heapq.heappush(self._noted, made)
            if len(self._noted) > 2 * len(self.notes) + STALE_MAX:
                self._noted = [note for note in self.notes.values() if note_head(note).ready]
                heapq.heapify(self._noted)
            if self.lingering is not None:
                self._ranking.add(self, turn_of(made))
            self._agenda.request_soon(self)
        if head.due_key is not None:
            self.expect(head.due_key)

    def next_noted(self, most: int) -> list[int]:
        """Return segments that are not in use here, those first whose turn it is to be read, but not more than there are."""
        if len(self.notes) <= most:
            return list(self.notes)
        if not self._rest:
            self._rest = list(self.notes)
        part = self._rest[-most:]
        del self._rest[-most:]
        return [number for number in part if number in self.notes]

    def unread(self) -> list[int]:
        """Return those segments that are not in use here whose turn has not come; afterwards it is as if it had."""
        rest, self._rest = self._rest, []
        return [number for number in rest if number in self.notes]

    def committer_of(self, number: int) -> Committer:
        """Find or make this front-end's side of a segment."""
        committer = self.committers.get(number)
        if committer is None:
            committer = Committer(self._around, self, number, 0, owned=False)
            self.committers[number] = committer
            note = self.notes.pop(number, None)
            if note is not None:
                committer.update_head(note_head(note), 0)
        return committer

    def put_down(self, committer: Committer) -> int:
        """Keep no more than a note of a segment that rests; return the lease on it that is not needed any more, or 0."""
        assert committer.head is not None
        committer.gone = True
        self.drop(committer)
        self.note(committer.number, committer.head)
        return committer.lease

    def drop(self, segment: View) -> None:
        """Forget a segment."""
        if self.committers.get(segment.number) is segment:
            del self.committers[segment.number]
        if self.open is segment:
            self.open = None
        segment.rank = None
        self._compact()

    def forget_segments(self, reason: EngineError) -> None:
        """Let go of all segments: the session that used them is over."""
        self.open = None
        self.granted.clear()
        self.notes = {}
        for committer in list(self.committers.values()):
            committer.abandon(reason)
        self.committers = {}

    def expect(self, due: bytes) -> None:
        """Take note of a delayed job's key."""
        self.expect_at(key_ms(due))
        self._schedule.wait_for_due(self)

    def expect_at(self, due_ms: int) -> None:
        """Take note of when a delayed job is due."""
        if self.next_due == 0 or due_ms < self.next_due:
            self.next_due = due_ms
            self._be_unsure()

    def wait_for_due(self) -> None:
        """Make due jobs ready now, or when the first is due, if somebody waits for them."""
        self._schedule.wait_for_due(self)

    def has_due(self, now_ms: int) -> bool:
        """Tell whether jobs are due that may be more urgent than the ready ones. These do not wait long for it."""
        if 0 < self.held_until <= now_ms and self.best() is not None:
            return False
        return self.promotion is not None or 0 < self.next_due <= now_ms

    def settled(self) -> bool:
        """Tell whether all is known of it, whatever the time, and its news are wanted."""
        return self.live and not self.next_due and self.promotion is None and self.wanted_until > 0

    def doubt(self) -> None:
        """Take note that not all is known of it, until the next look."""
        self.live = False
        self.doubts += 1
        self._be_unsure()

    def _be_unsure(self) -> None:
        if self.lingering is not None:
            self._ranking.unsure[self] = None

    def put_no_more(self, segment: View) -> None:
        """Have further puts go to another segment."""
        if self.open is segment:
            self.open = None

    def paused(self, now: float) -> bool:
        """Tell whether no job may be taken now."""
        return self.pause > 0 and self.paused_until > now

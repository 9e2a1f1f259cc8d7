"""What others did: tubes' directories and the heads of their segments are read anew.

A tube that somebody waits for is looked at when somebody asks, when there are news of it, and every few seconds whatever the news
tell. What a look finds is a hint; an operation of this front-end that began after it knows better. Only a look makes a tube live.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN
from beanspiked.engine.aerospike.store.directory import Directory
from beanspiked.engine.aerospike.store.lister import PAGES_AT_ONCE, Lister
from beanspiked.engine.aerospike.store.seam import Busy, StoreError
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.due import Timetable
from beanspiked.engine.aerospike.tubes.heads import UNREAD_MAX, Heads, Look
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.errors import EngineError
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Scout"]

logger = logging.getLogger(__name__)

# Tubes that somebody waits on are looked at this often whatever the news tell, in seconds: where all news come over links, where some are
# read from records, and where others do things that are not told here.
RECHECK_RARELY: Final = 30.0
RECHECK_EVERY: Final = 5.0
RECHECK_OFTEN: Final = 1.0
# Where all news come over links, such a look finds something only after a fault: it is spread over so many seconds, or ticks.
SPREAD_OVER: Final = 25
# How many tubes are looked at together.
LOOK_AT_ONCE: Final = 500
# How many segments that are not in use here a look reads anew: where a tube has more of them, they take turns.
NOTES_A_LOOK: Final = 10_000


class Listing:
    """What the directory of a tube tells in a look.

    Attributes:
        tube: The tube.
        in_use: Its segments in use when the directory had been read.
        listed: Those of them that are listed.
    """

    def __init__(self, tube: SharedTube) -> None:
        self.tube: SharedTube = tube
        self.in_use: dict[int, Committer] = dict(tube.committers)
        self.listed: set[int] = set()

    def find(self, numbers: Sequence[int], look: Look) -> None:
        """Take note of segments that are listed, and have those read that are new here."""
        for number in numbers:
            if number in self.in_use:
                self.listed.add(number)
            elif number not in self.tube.notes and number not in self.tube.committers:
                look.unread.append((self.tube, number))


class Scout:
    """Looks at segments.

    Args:
        store: The store.
        clock: This process's time.
        membership: The sessions.
        tasks: What runs coroutines.
        agenda: What is in flight.
        news: This front-end's news.
        lister: What tells which segments are in a page.
        registry: The tubes that are known here.
        retirement: What lets segments die.
        timetable: What makes due jobs ready.
    """

    def __init__(
        self,
        store: "SegmentStore",
        clock: Clock,
        membership: Membership,
        tasks: Tasks,
        agenda: Agenda,
        news: News,
        lister: Lister,
        registry: Registry,
        retirement: Retirement,
        timetable: Timetable,
    ) -> None:
        self._store = store
        self._membership = membership
        self._tasks = tasks
        self._agenda = agenda
        self._news = news
        self._lister = lister
        self._registry = registry
        self._retirement = retirement
        self._timetable = timetable
        self._heads: Heads = Heads(store, clock, retirement)
        self._rechecked: float = 0.0
        # The tubes that are still to be looked at, and at how many each tick looks.
        self._left: list[SharedTube] = []
        # The tubes of which a look has failed.
        self._missed: dict[SharedTube, None] = {}
        self._part: int = 0
        self._rechecking: bool = False

    def refresh(self, tube: SharedTube, then: Callable[[EngineError | None, bool], None] | None = None) -> None:
        """Look at a tube's segments anew, and call back when a look that begins after this call has ended.

        The callback learns what kept the look from being made, or None, and whether all segments were seen.
        """
        if then is not None:
            tube.refreshed.append(then)
        if not tube.refreshing:
            tube.refreshing = True
            self._agenda.spawn(self._refresh(tube))

    def refresh_all(self, tubes: list[SharedTube], then: Callable[[EngineError | None, bool], None]) -> None:
        """Look at the segments of tubes anew, and call back for each of them; see `refresh`."""
        if len(tubes) > 1:
            self._agenda.spawn(self._refresh_all(tubes, then))
        else:
            self.refresh(tubes[0], then)

    async def _refresh_all(self, tubes: list[SharedTube], then: Callable[[EngineError | None, bool], None]) -> None:
        for start in range(0, len(tubes), LOOK_AT_ONCE):
            some = tubes[start : start + LOOK_AT_ONCE]
            passed: dict[SharedTube, None] | None = None
            try:
                passed = await self._look_at(some)
            except EngineError as error:
                # One of them may be where nobody answers.
                logger.info("tubes cannot be looked at together, so each is looked at alone: %s", error)
            except Exception as bug:
                # Only those who wait for the tube that has it get an error.
                logger.error("internal error", exc_info=bug)
            for tube in some:
                if passed is None:
                    self.refresh(tube, then)
                else:
                    then(None, tube not in passed)

    async def _refresh(self, tube: SharedTube) -> None:
        callbacks = tube.refreshed
        tube.refreshed = []
        passed: dict[SharedTube, None] = {}

        async def look() -> None:
            passed.update(await self._tasks.try_for_a_while(lambda: self._look_at([tube])))

        try:
            error = await self._tasks.failure(look)
            if error is not None:
                self._missed[tube] = None
            for callback in callbacks:
                callback(error, tube not in passed)
        finally:
            tube.refreshing = False
        if tube.refreshed:
            self.refresh(tube)

    async def _look_at(self, tubes: list[SharedTube]) -> dict[SharedTube, None]:
        """Read tubes' directories and the heads of their segments; promote what is due, and retire what is finished.

        Returns those tubes of which segments were passed over, since they do not answer.
        """
        await self._membership.have_session(ANSWER_WITHIN)
        session = self._membership.session
        look = Look(self._agenda.step())
        follows = [self._news.follows(tube.name) for tube in tubes]
        doubts = [tube.doubts for tube in tubes]
        records = await self._store.directories([tube.name for tube in tubes])
        if session.over:
            raise Busy("the session was over before the look was")
        for tube, record in zip(tubes, records, strict=True):
            if record is not None:
                self._timetable.apply_pause(tube, record.pause_ms, record.paused_until_ms, look.mark)
        await self._list(tubes, records, look)
        while look.unread or look.wanted:
            await self._heads.read(look)
            for tube in tubes:
                if tube.best() is None:
                    # Before it is told that nothing is there, all is read.
                    look.unread += [(tube, number) for number in tube.unread()]
        if session.over:
            raise Busy("the session was over before the look was")
        # Those that did not answer are to be looked at again soon.
        self._missed.update(look.passed)
        due: list[SharedTube] = []
        for tube, followed, doubted in zip(tubes, follows, doubts, strict=True):
            # They may be being made ready, and this look have seen them before that.
            if tube.has_due(self._membership.clock.server_ms()):
                due.append(tube)
            elif tube.next_due:
                self._timetable.wait_for_due(tube)
            # What is in a segment that no jobs are asked of may be more urgent than all that is known.
            whole = tube not in look.passed and not any(committer.tube is tube for committer in self._agenda.suspended)
            if whole and followed and tube.doubts == doubted and self._news.follows(tube.name):
                # A look that began before the news were followed, and ends after one that made it live, changes nothing.
                tube.live = True
            self._agenda.request_soon(tube)
        if due:
            # There may be jobs in other segments.
            look.passed.update(dict.fromkeys(await self._timetable.promote_due(due)))
        if session.over:
            # Its segments are not known any more, so nothing was learnt of them.
            raise Busy("the session was over before the look was")
        return look.passed

    async def look_at_known(self, tubes: list[SharedTube]) -> None:
        """Learn the heads of those segments of tubes that are known here, so that what others have emptied ends.

        Raises StoreError if none of them can be read.
        """
        look = Look(self._agenda.step())
        for tube in tubes:
            look.wanted += tube.committers.values()
            look.unread += [(tube, number) for number in tube.next_noted(NOTES_A_LOOK)]
        try:
            while look.unread or look.wanted:
                await self._heads.read(look)
        finally:
            # Somebody may wait there by now, for jobs of segments that did not answer.
            self._missed.update(look.passed)

    async def _list(self, tubes: list[SharedTube], records: list[Directory | None], look: Look) -> None:
        """Find out which segments of tubes are to be read: those in use, new ones, and of the others those whose turn it is.

        However many pages there are, others have turns, and not more than a part of it is in memory at once.
        """
        listings = [Listing(tube) for tube in tubes]
        pages: list[tuple[Listing, int]] = []
        for listing, record in zip(listings, records, strict=True):
            look.unread += [(listing.tube, number) for number in listing.tube.next_noted(NOTES_A_LOOK)]
            if record is not None:
                listing.find(record.segments, look)
                pages += [(listing, page) for page in record.pages]
            if len(look.unread) >= UNREAD_MAX:
                await self._heads.read_noted(look)
        for start in range(0, len(pages), PAGES_AT_ONCE):
            if len(look.unread) >= UNREAD_MAX:
                await self._heads.read_noted(look)
            part = pages[start : start + PAGES_AT_ONCE]
            found = await self._lister.in_pages([(listing.tube.name, page) for listing, page in part])
            for (listing, page), numbers in zip(part, found, strict=True):
                listing.find(numbers, look)
                if numbers:
                    await asyncio.sleep(0)
                else:
                    self._retirement.come_back_to_page(listing.tube.name, page)
        for listing in listings:
            self._want_listed(listing, look)

    def _want_listed(self, listing: Listing, look: Look) -> None:
        """Have those segments in use read that are listed, and let go of those that are dead."""
        tube, listed = listing.tube, listing.listed
        for number, committer in listing.in_use.items():
            if tube.committers.get(number) is not committer:
                continue
            if number in listed:
                look.wanted.append(committer)
            elif (
                committer is not tube.open
                and committer.used < look.mark
                and not (committer.knows_since(look.mark) or committer.busy())
            ):
                # It is dead: one that was made here since, or heard of, may not have been listed yet when the list was read. The open
                # one nobody else closes, so a sweep sees to it: were the list an old copy, it would never be closed.
                committer.gone = True
                tube.drop(committer)

    def refresh_segment(self, committer: Committer) -> None:
        """Look at one segment anew, from now on."""
        if committer.refreshing:
            committer.refresh_again = True
            return
        committer.refreshing = True
        self._agenda.looked_at[committer] = None
        self._agenda.spawn(self._refresh_segment(committer))

    async def _refresh_segment(self, committer: Committer) -> None:
        committer.refresh_again = False
        try:
            await self._see_segment(committer)
        finally:
            committer.refreshing = False
            del self._agenda.looked_at[committer]
        if committer.refresh_again:
            self.refresh_segment(committer)

    async def _see_segment(self, committer: Committer) -> None:
        try:
            while True:
                if committer.gone:
                    return
                mark = self._agenda.step()
                head = (await self._tasks.try_for_a_while(lambda: self._store.heads([committer.number])))[0]
                if committer.knows_since(mark):
                    return
                if not committer.running:
                    if head is not None:
                        committer.see(head, mark)
                        self._agenda.requester.advance_seeks(committer.tube)
                    return
                await committer.turn()
        except EngineError as error:
            logger.info("segment %d: %s", committer.number, error)
            committer.tube.doubt()
            self._missed[cast(SharedTube, committer.tube)] = None

    def segment_changed(self, tube_name: str, number: int) -> None:
        """Jobs of a segment became ready without an operation under a lease."""
        tube = self._registry.known_tube(tube_name)
        if tube is not None:
            self.look_again(tube)
        self._news.tell(tube_name, number, CHANGED)

    def look_again(self, tube: SharedTube) -> None:
        """Take note that a tube has changed, and look at it if somebody waits for its jobs."""
        tube.doubt()
        if tube.waited_for():
            # A look that has begun may have read it before.
            self.refresh(tube, None if tube.refreshed else _done)

    def look_once_more(self, tubes: list[SharedTube]) -> None:
        """Look at tubes together, from now on."""
        if tubes:
            self.refresh_all(tubes, _done)

    def doubt_all(self) -> None:
        """Take note that news may be missed of every tube, until the next look at each."""
        for tube in self._registry.known_tubes():
            tube.doubt()

    def look_everywhere(self) -> None:
        """Look at everything that somebody waits for: news were missed."""
        self._rechecked = 0.0
        self._news.wake()

    # --- what is looked at whatever is heard

    def recheck(self, now: float) -> None:
        """Look at the tubes that are waited for, if that is due. Called once a second."""
        if self._rechecking:
            return
        news = self._news
        linked = news.all_linked()
        every = RECHECK_RARELY if linked else RECHECK_EVERY if news.all_followed() else RECHECK_OFTEN
        missed = not self._rechecked
        # A round that takes longer goes on to its end: otherwise its last tubes might never have their turn.
        if now - self._rechecked >= every and (missed or not linked or not self._left):
            self._rechecked = now
            self._left = [tube for tube in self._registry.known_tubes() if tube.waited_for()]
            self._part = len(self._left) // SPREAD_OVER + 1 if linked and not missed else len(self._left)
        due = dict.fromkeys(self._left[: self._part])
        del self._left[: self._part]
        if self._membership.reachable:
            due.update(self._missed)
            self._missed = {}
        tubes = [tube for tube in due if tube.waited_for()]
        if tubes:
            self._rechecking = True
            self._agenda.spawn(self._recheck(tubes))

    async def _recheck(self, tubes: list[SharedTube]) -> None:
        """Look at some tubes, and at the rest afterwards."""
        some, rest = tubes[:LOOK_AT_ONCE], tubes[LOOK_AT_ONCE:]
        try:
            await self._look_at(some)
        except StoreError as error:
            # One of them may be where nobody answers.
            logger.info("tubes cannot be looked at together, so each is looked at alone: %s", error)
            for tube in some:
                self.refresh(tube)
        except EngineError as failure:
            logger.info("tubes cannot be looked at again yet: %s", failure)
            rest = []
        finally:
            # Also after a bug: otherwise nothing would be looked at again.
            self._rechecking = bool(rest)
            if rest:
                self._agenda.spawn(self._recheck(rest))


def _done(error: EngineError | None, whole: bool) -> None:
    """Nobody asks how a look has ended."""

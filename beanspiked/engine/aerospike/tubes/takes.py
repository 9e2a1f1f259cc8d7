"""Waiters, and the jobs that they get.

A waiter that finds no job has a *seek* in each of its tubes until it is known whether there is one. A request to a segment on behalf of a
waiter is its *claim*, so that no job is requested twice. A job that comes goes to the waiter that has waited longest, with or without a
claim.
"""

import logging
from typing import Final, cast

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, SharedJob
from beanspiked.engine.aerospike.segment.surroundings import Home
from beanspiked.engine.aerospike.store.seam import Newer
from beanspiked.engine.aerospike.tubes.agenda import Agenda, Requester
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.ranking import Ranking
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.tube import Seek, SharedTube
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.contract import Job, ReadyListener, Tube, Waiter
from beanspiked.engine.errors import EngineError, StoreFailed
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

__all__ = ["Takes"]

logger = logging.getLogger(__name__)

# How long news are followed after a client wanted a job, in seconds.
FOLLOW_FOR: Final = 2.0
# How often at most it is said that news of a tube are wanted, in seconds.
WANT_EVERY: Final = 5.0
# If the store answers and a poll's look still does not end, the poll fails this many seconds after the store's own time limit.
POLL_OVERTIME: Final = 8.0
# The longest time between two calls of `expire` in a process that runs; if it is longer, the process was frozen or had no processor.
EXPIRE_EVERY: Final = 2.0


class Takes(Requester):
    """Takes jobs for waiters.

    Args:
        clock: This process's time.
        membership: The sessions.
        agenda: The operations in flight.
        news: This front-end's news.
        registry: The tubes that are known here.
        ranking: Those of waiters on many tubes, by their most urgent jobs.
        view: Looks at segments.
        holdings: The jobs that are held here.
        listener: Hears when jobs were taken for waiters.
    """

    def __init__(
        self,
        clock: Clock,
        membership: Membership,
        agenda: Agenda,
        news: News,
        registry: Registry,
        ranking: Ranking,
        view: Scout,
        holdings: Holdings,
        listener: ReadyListener,
    ) -> None:
        self._clock = clock
        self._membership = membership
        self._agenda = agenda
        self._news = news
        self._registry = registry
        self._ranking = ranking
        self._view = view
        self._holdings = holdings
        self._listener = listener
        self._claims: dict[Waiter, int] = {}
        self._passed: dict[Waiter, dict[SharedTube, None]] = {}
        self._seeks: dict[Waiter, Seek] = {}
        self._last_seek_at: float = 0.0
        self._expired_at: float = 0.0
        self._delivering: bool = False

    def request_jobs(self, home: Home) -> None:
        """Request a tube's jobs, the most urgent first, for waiters whose jobs have not all been requested."""
        tube = cast(SharedTube, home)
        unasked = tube.unasked
        lingering = tube.lingering
        if (
            not (unasked or lingering)
            or self._membership.session.over
            or (tube.pause and tube.paused(self._clock.now()))
            or not (lingering or self._any_may_ask(tube))
        ):
            return
        claims = self._claims
        while True:
            found = tube.first()
            if found is None:
                return
            committer, bound = found
            room = committer.askable(bound)
            before = room
            sated: list[Waiter] = []
            if room > 0:
                for waiter in unasked:
                    count = self._ask(tube, committer, waiter, room)
                    room -= count
                    if count and claims[waiter] == waiter.wants:
                        sated.append(waiter)
                    if room == 0:
                        break
            if room > 0 and lingering is not None:
                for waiter in lingering:
                    if room > 0 and not waiter.idle:
                        room -= self._ask(tube, committer, waiter, room)
            for waiter in sated:
                del unasked[waiter]
            if room >= before:
                return
            self._agenda.wake(committer)
            tube.rank(committer)

    def _ask(self, tube: SharedTube, committer: Committer, waiter: Waiter, room: int) -> int:
        """Request jobs of a segment for a waiter, as many as it wants and there are; return how many."""
        claimed = self._claims.get(waiter, 0)
        count = min(waiter.wants - claimed, room)
        if count <= 0 and claimed:
            # Its claim, which may be on another tube, may end without a job.
            self._passed.setdefault(waiter, {})[tube] = None
        if count <= 0 or not self._may_ask(tube, waiter):
            return 0
        self._claims[waiter] = claimed + count
        committer.ask(waiter, count)
        tube.coming += count
        return count

    def _any_may_ask(self, tube: SharedTube) -> bool:
        """Tell whether there is a waiter that need not wait for a look: each segment that is asked is an object, others are notes."""
        for waiter in tube.unasked:
            seek = self._seeks.get(waiter)
            if seek is None or not seek.waits_for_look(tube):
                return True
        return False

    def _may_ask(self, tube: SharedTube, waiter: Waiter) -> bool:
        """Tell whether a waiter's next job is to come from this tube: not if another of its tubes has a more urgent one."""
        seek = self._seeks.get(waiter)
        if seek is None:
            return True
        if seek.waits_for_look(tube):
            return False
        if len(seek.tubes) > 1:
            first = self._ranking.most_urgent(waiter, seek.tubes)
            if first is not None and first is not tube:
                self._agenda.request_soon(first)
                return False
        return True

    def unclaim(self, tube: SharedTube, asks: list[tuple[Waiter, int]]) -> None:
        """End claims on a tube: their jobs have come, or will not. Empties the list, so that no claim ends twice."""
        told = asks[:]
        asks.clear()
        claims, waiters, unasked = self._claims, tube.waiters, tube.unasked
        for waiter, count in told:
            tube.coming -= count
            if waiter in waiters:
                unasked[waiter] = None
            left = claims[waiter] - count
            if left:
                claims[waiter] = left
                continue
            del claims[waiter]
            for other in self._passed.pop(waiter, ()):
                self._agenda.request_soon(other)
        if told:  # other segments may have jobs for waiters that got none
            self._agenda.request_soon(tube)

    def still_wanted(self, tube: SharedTube, asks: list[tuple[Waiter, int]]) -> bool:
        """Tell whether a waiter with one of these claims still waits."""
        return any(tube.waits(waiter) for waiter, _ in asks)

    def failed(self, asks: list[tuple[Waiter, int]], error: EngineError) -> None:
        """Fail the seeks of these claims that have no other claim: the jobs did not come, and may be there."""
        for waiter, _ in asks:
            seek = self._seeks.get(waiter)
            if seek is not None and waiter not in self._claims:
                self._settle_seek(seek, error)

    def seek(self, waiter: Waiter, tubes: list[Tube], patient: bool) -> Later | None:
        """Look for a job for a waiter."""
        homes = cast("list[SharedTube]", tubes)
        now = self._clock.now()
        live = not self._membership.session.over
        for tube in self._ranking.unsure_of(waiter, homes):
            if tube.wanted_until <= now:
                tube.wanted_until = now + WANT_EVERY
                self._news.want(tube.name)
            live = live and self._sure(tube)
            # Until now nobody waited, so nobody made due jobs ready.
            tube.wait_for_due()
        self._seeks.pop(waiter, None)
        likely = self._ranking.most_urgent(waiter, homes)
        if likely is None and live and patient:
            # From now on news tell of each job that is put.
            return None
        self._last_seek_at = now
        self._news.wake()
        seek = self._seeks[waiter] = Seek(waiter, homes, patient, now + ANSWER_WITHIN)
        if likely is not None and live:
            self._agenda.request_soon(likely)
        elif live and self._news.all_linked() and self._at_rest(waiter):
            self._agenda.spawn(self._ask_others(seek))
        else:
            self._look_for(seek)
        return seek

    def _sure(self, tube: SharedTube) -> bool:
        """Tell whether what is known of a tube is whole, and its ready jobs wait for no due ones."""
        now_ms = self._membership.clock.server_ms()
        return tube.live and (0 < tube.held_until <= now_ms or not tube.has_due(now_ms))

    def expects(self, waiter: Waiter, tubes: list[SharedTube]) -> bool:
        """Tell whether a job is on its way to a waiter, or due and not ready yet."""
        now_ms = self._membership.clock.server_ms()
        return waiter in self._claims or any(tube.has_due(now_ms) for tube in self._ranking.unsure_of(waiter, tubes))

    def _unsure(self, seek: Seek) -> list[SharedTube]:
        return [tube for tube in self._ranking.unsure_of(seek.waiter, seek.tubes) if not self._sure(tube)]

    async def _ask_others(self, seek: Seek) -> None:
        """Ask the others whether they have told everything; if so, no job is ready, and the store need not be asked."""
        told = await self._news.all_told()
        if seek.done:
            return
        if told and not self._unsure(seek) and self._at_rest(seek.waiter):
            seek.looked = True
            self._advance(seek)
        else:
            self._look_for(seek)

    def _at_rest(self, waiter: Waiter) -> bool:
        """Tell whether nothing is on its way in a waiter's tubes; it might be a job that is given back."""
        return not any(committer.tube.waits(waiter) for committer in self._agenda.busy())

    def _look_for(self, seek: Seek) -> None:
        """Look at the tubes of a seek anew; at all of them unless its waiter goes on waiting."""
        tubes = self._unsure(seek) if seek.patient else seek.tubes
        seek.refreshing = len(tubes)
        seek.partial = False
        session = self._membership.session

        def refreshed(error: EngineError | None, whole: bool) -> None:
            seek.refreshing -= 1
            seek.partial = seek.partial or not whole
            if error is not None:
                self._settle_seek(seek, error)
            elif seek.refreshing == 0:
                # If the session ended meanwhile, what was seen of the first tubes is gone.
                seek.looked = not session.over
                self._advance(seek)

        self._view.refresh_all(tubes, refreshed)

    def _advance(self, seek: Seek) -> None:
        """Go on with a seek after something was learnt."""
        waiter = seek.waiter
        if seek.done or self._seeks.get(waiter) is not seek:
            return
        if not seek.tubes[0].waits(waiter):
            del self._seeks[waiter]
            return
        if waiter in self._claims or seek.refreshing:
            return
        likely = self._ranking.most_urgent(waiter, seek.tubes)
        if likely is not None:
            self._agenda.request_soon(likely)
        elif seek.looked:
            if not seek.patient and self._coming(seek):
                # A job that was requested for a waiter with another job by now goes to the one that has waited longest.
                return
            if self._unknown(seek):
                # A job may be there that cannot be reached. A patient waiter waits for as long as the store may take to answer.
                if not seek.patient:
                    self._settle_seek(seek, StoreFailed("a segment does not answer"))
            elif not seek.patient and self.expects(waiter, seek.tubes):
                # The look did not wait for all of them, and others took what was ready then.
                self._look_for(seek)
            else:
                self._settle_seek(seek, None)
        elif seek.patient and not self._unsure(seek):
            self._settle_seek(seek, None)
        else:
            self._look_for(seek)

    def _settle_seek(self, seek: Seek, error: EngineError | None) -> None:
        if not seek.done and self._seeks.get(seek.waiter) is seek:
            del self._seeks[seek.waiter]
            seek.settle(error)

    def advance_seeks(self, tube: Home, anew: bool = False) -> None:
        """Go on with the seeks in a tube: jobs have come, or will not, or something was learnt.

        Args:
            tube: The tube.
            anew: Whether each of them has to look once more, since what was seen is lost.
        """
        seeks = self._seeks
        if len(seeks) <= len(tube.waiters):
            found = [seek for seek in seeks.values() if tube.waits(seek.waiter)]
        else:
            here = [*tube.waiters, *(tube.lingering or ())]
            found = [seeks[waiter] for waiter in here if waiter in seeks]
        for seek in found:
            seek.looked = seek.looked and not anew
            self._advance(seek)

    def expire(self, now: float) -> None:
        """Fail the seeks that have waited too long for a store or segment that does not answer; one that is only slow may go on."""
        ran = min(now - self._expired_at, EXPIRE_EVERY)
        self._expired_at = now
        for seek in [seek for seek in self._seeks.values() if seek.until <= now]:
            seek.overtime += min(ran, now - seek.until)
            if not self._membership.reachable or self._unknown(seek):
                self._settle_seek(seek, StoreFailed("the store does not answer"))
            elif not seek.patient and seek.overtime > POLL_OVERTIME:
                logger.error("a look for a job did not end for %.0f s; its client gets an error", now - seek.until)
                self._settle_seek(seek, StoreFailed("the look for a job did not end"))
            else:
                # The operation that it waited for may have ended unnoticed.
                self._advance(seek)

    def _coming(self, seek: Seek) -> bool:
        """Tell whether jobs of a seek's tubes are requested, and all their segments answer."""
        silent = any(committer.tube.waits(seek.waiter) for committer in self._agenda.suspended)
        return not silent and any(tube.coming for tube in seek.tubes)

    def _unknown(self, seek: Seek) -> bool:
        """Tell whether a job may be there for a seek that cannot be reached."""
        failing = [*self._agenda.suspended, *[committer for committer in self._agenda.running if committer.fails()]]
        return seek.partial or any(committer.tube.waits(seek.waiter) for committer in failing)

    def wants_jobs(self) -> bool:
        """Tell whether a job that becomes ready elsewhere is wanted here, or was lately."""
        now = self._clock.now()
        if now - self._last_seek_at >= FOLLOW_FOR and any(tube.waited_for() for tube in self._registry.known_tubes()):
            self._last_seek_at = now
        return now - self._last_seek_at < FOLLOW_FOR

    def take(self, tubes: list[Tube]) -> Job | None:
        """Return a job that was taken for a waiter. There is one only while `deliver` hands jobs over."""
        if not self._delivering:
            return None
        for tube in tubes:
            granted = cast(SharedTube, tube).granted
            while granted:
                job = granted.popleft()
                if job.committer is not None:
                    return job
        return None

    def deliver(self, tube: SharedTube) -> None:
        """Hand taken jobs to waiters; unwanted ones go back at once."""
        if tube.granted and self._membership.alive():
            self._delivering = True
            try:
                self._listener.tube_ready(tube)
            finally:
                self._delivering = False
        while tube.granted:
            job = tube.granted.popleft()
            if job.committer is not None:
                job.reserves -= 1
                self._holdings.give_back(job, timed_out=False)

    async def fetch_and_deliver(
        self, committer: Committer, jobs: list[SharedJob], asks: list[tuple[Waiter, int]]
    ) -> None:
        """Read the bodies that taken jobs have in records of their own, then hand the jobs over."""
        whole, error = await self._holdings.fetch_bodies(jobs)
        if error is not None:
            logger.warning(
                "segment %d: bodies cannot be read, so the reserved jobs are ready again: %s", committer.number, error
            )
            for job in jobs:
                if job not in whole and job.committer is not None and job.moving is None:
                    job.reserves -= 1
                    self._holdings.give_back(job, timed_out=False)
        claimants = list(asks)
        tube = cast(SharedTube, committer.tube)
        self.unclaim(tube, asks)
        tube.granted.extend(whole)
        self.deliver(tube)
        if error is not None and not isinstance(error, Newer):
            self.failed(claimants, error)
        self.advance_seeks(tube)

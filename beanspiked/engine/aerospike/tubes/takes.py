"""Who waits for a job, and who gets which.

A waiter that finds none has a *seek* in each of its tubes until it is known whether there is a job for it. What is requested of segments
for a waiter is its *claim*, so that no job is requested twice. A job that comes goes to who waits longest then, with a claim or without.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.bodies import fetch_bodies
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import ANSWER_WITHIN, SharedJob
from beanspiked.engine.aerospike.segment.surroundings import Home
from beanspiked.engine.aerospike.store.seam import Newer
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda, Requester
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.registry import Registry
from beanspiked.engine.aerospike.tubes.tube import Seek, SharedTube
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.contract import Job, ReadyListener, Tube, Waiter
from beanspiked.engine.errors import EngineError, StoreFailed
from beanspiked.engine.later import Later
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Takes"]

logger = logging.getLogger(__name__)

# News are followed for this long after somebody wanted a job, in seconds.
FOLLOW_FOR: Final = 2.0
# That news of a tube are wanted is said this often at most, in seconds.
WANT_EVERY: Final = 5.0
# A poll whose look does not end although the store answers fails after so many seconds more than a store has to answer.
POLL_OVERTIME: Final = 8.0


class Takes(Requester):
    """Takes jobs for those who wait.

    Args:
        store: The store.
        clock: This process's time.
        membership: The sessions.
        tasks: What runs coroutines.
        agenda: What is in flight.
        news: This front-end's news.
        registry: The tubes that are known here.
        view: What looks at segments.
        holdings: The jobs that are held here.
        listener: Whom to tell when jobs were taken for those who wait.
    """

    def __init__(
        self,
        store: "SegmentStore",
        clock: Clock,
        membership: Membership,
        tasks: Tasks,
        agenda: Agenda,
        news: News,
        registry: Registry,
        view: Scout,
        holdings: Holdings,
        listener: ReadyListener,
    ) -> None:
        self._store = store
        self._clock = clock
        self._membership = membership
        self._tasks = tasks
        self._agenda = agenda
        self._news = news
        self._registry = registry
        self._view = view
        self._holdings = holdings
        self._listener = listener
        self._claims: dict[Waiter, int] = {}
        self._seeks: dict[Waiter, Seek] = {}
        self._last_seek_at: float = 0.0

    # --- requests

    def request_jobs(self, tube: Home) -> None:
        """Request a tube's jobs, the most urgent first, for waiters whose jobs have not all been requested."""
        self._request(cast(SharedTube, tube))

    def _request(self, tube: SharedTube) -> None:
        unasked = tube.unasked
        if not unasked or self._membership.session.over or (tube.pause and tube.paused(self._clock.now())):
            return
        claims = self._claims
        while True:
            found = tube.first()
            if found is None:
                return
            committer, bound = found
            room = committer.forecast.askable(bound)
            asked = False
            sated: list[Waiter] = []
            if room > 0:
                for waiter in unasked:
                    claimed = claims.get(waiter, 0)
                    count = min(waiter.wants - claimed, room)
                    if count > 0 and self._may_ask(tube, waiter):
                        claimed += count
                        claims[waiter] = claimed
                        if claimed == waiter.wants:
                            sated.append(waiter)
                        committer.ask(waiter, count)
                        tube.coming += count
                        asked = True
                        room -= count
                        if room == 0:
                            break
            if not asked:
                return
            for waiter in sated:
                del unasked[waiter]
            self._agenda.wake(committer)
            tube.rank(committer)

    def _may_ask(self, tube: SharedTube, waiter: Waiter) -> bool:
        """Tell whether a waiter's next job is to come from this tube: not if another of its tubes has a more urgent one."""
        seek = self._seeks.get(waiter)
        if seek is None:
            return True
        if seek.refreshing and (len(seek.tubes) > 1 or not tube.live):
            # What the look finds may be more urgent. A tube whose news are followed has no such surprises.
            return False
        if len(seek.tubes) > 1:
            first = self._most_urgent(seek.tubes)
            if first is not None and first is not tube:
                self._agenda.request_soon(first)
                return False
        return True

    def _most_urgent(self, tubes: list[SharedTube]) -> SharedTube | None:
        """Return the tube with the most urgent job that may be taken now."""
        now = self._clock.now()
        found: SharedTube | None = None
        least: bytes | None = None
        for tube in tubes:
            key = tube.best()
            if key is not None and (least is None or key < least) and not tube.paused(now):
                found = tube
                least = key
        return found

    def unclaim(self, tube: SharedTube, asks: list[tuple[Waiter, int]]) -> None:
        """What was asked of a tube for those who wait has come, or will not. The list is empty afterwards: nothing is told twice."""
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
            else:
                del claims[waiter]

    def still_wanted(self, tube: SharedTube, asks: list[tuple[Waiter, int]]) -> bool:
        """Tell whether anybody still waits of those for whom jobs were asked for."""
        return any(waiter in tube.waiters for waiter, _ in asks)

    def failed(self, asks: list[tuple[Waiter, int]], error: EngineError) -> None:
        """Jobs that were asked for did not come, and perhaps they are there: fail the questions that nothing else is asked for."""
        for waiter, _ in asks:
            seek = self._seeks.get(waiter)
            if seek is not None and waiter not in self._claims:
                self._settle_seek(seek, error)

    # --- questions

    def seek(self, waiter: Waiter, tubes: list[Tube], patient: bool) -> Later | None:
        """Look for a job for one who waits."""
        homes = cast("list[SharedTube]", tubes)
        now = self._clock.now()
        live = not self._membership.session.over
        for tube in homes:
            if tube.wanted_until <= now:
                tube.wanted_until = now + WANT_EVERY
                self._news.want(tube.name)
            live = live and tube.live
            if tube.next_due:
                # A due job may be more urgent than those that are ready.
                live = live and tube.next_due > self._membership.clock.server_ms()
                # As long as nobody waited, nobody was going to make its due jobs ready.
                tube.wait_for_due()
        likely = self._most_urgent(homes)
        if likely is None and live and patient:
            # A job that is put anywhere will be told of.
            return None
        self._last_seek_at = now
        self._news.wake()
        seek = Seek(waiter, homes, patient, now + ANSWER_WITHIN)
        self._end_seek(waiter)
        self._seeks[waiter] = seek
        for tube in homes:
            tube.seeks[seek] = None
        if likely is not None and live:
            self._agenda.request_soon(likely)
        elif live and self._news.all_linked() and self._at_rest(homes):
            self._agenda.spawn(self._ask_others(seek))
        else:
            self._look_for(seek)
        return seek

    async def _ask_others(self, seek: Seek) -> None:
        """Nothing is known to be there: it is so if the others have told all that they did until now, which costs the store nothing."""
        told = await self._news.all_told()
        if seek.done:
            return
        if told and all(tube.live for tube in seek.tubes) and self._at_rest(seek.tubes):
            seek.looked = True
            self._advance(seek)
        else:
            self._look_for(seek)

    def _at_rest(self, homes: list[SharedTube]) -> bool:
        """Tell whether nothing is on its way in tubes: what is may be a job that is given back."""
        return not any(committer.tube in homes for committer in self._agenda.busy())

    def _end_seek(self, waiter: Waiter) -> None:
        former = self._seeks.pop(waiter, None)
        if former is not None:
            for tube in former.tubes:
                tube.seeks.pop(former, None)

    def _look_for(self, seek: Seek) -> None:
        """Look at all tubes of a question, from now on."""
        seek.refreshing = len(seek.tubes)
        seek.partial = False
        session = self._membership.session

        def refreshed(error: EngineError | None, whole: bool) -> None:
            seek.refreshing -= 1
            seek.partial = seek.partial or not whole
            if error is not None:
                self._settle_seek(seek, error)
            elif seek.refreshing == 0:
                # With a session all that was seen of its first tubes is gone.
                seek.looked = not session.over
                self._advance(seek)

        for tube in seek.tubes:
            self._view.refresh(tube, refreshed)

    def _advance(self, seek: Seek) -> None:
        """Go on with a question after something was learnt."""
        waiter = seek.waiter
        if seek.done or self._seeks.get(waiter) is not seek:
            return
        if waiter not in seek.tubes[0].waiters:
            self._end_seek(waiter)
            return
        if waiter in self._claims or seek.refreshing:
            return
        likely = self._most_urgent(seek.tubes)
        if likely is not None:
            self._agenda.request_soon(likely)
        elif seek.looked:
            if not seek.patient and self._coming(seek):
                # What was asked for somebody who has got another job meanwhile is for whoever waits longest.
                return
            if not self._unknown(seek):
                self._settle_seek(seek, None)
            elif not seek.patient:
                # A job may be there that cannot be had. Who would wait anyway, waits as long as a store has to answer.
                self._settle_seek(seek, StoreFailed("a segment does not answer"))
        else:
            self._look_for(seek)

    def _settle_seek(self, seek: Seek, error: EngineError | None) -> None:
        if not seek.done and self._seeks.get(seek.waiter) is seek:
            self._end_seek(seek.waiter)
            seek.settle(error)

    def advance_seeks(self, tube: Home) -> None:
        """Go on with the questions about a tube: jobs have come, or will not, or something was learnt."""
        for seek in list(cast(SharedTube, tube).seeks):
            self._advance(seek)

    def expire(self, now: float) -> None:
        """Fail the questions that have waited for too long for a store, or a segment, that does not answer; not one that is slow."""
        reachable = self._membership.reachable
        for seek in [seek for seek in self._seeks.values() if seek.until <= now]:
            if not reachable or self._unknown(seek):
                self._settle_seek(seek, StoreFailed("the store does not answer"))
            elif not seek.patient and seek.until + POLL_OVERTIME <= now:
                # Its client waits for a reply, whatever keeps the look from its end.
                logger.error("a look for a job has not ended for %.0f s; it is given up", now - seek.until)
                self._settle_seek(seek, StoreFailed("the look for a job did not end"))
            else:
                # What it waited for may have ended without a word.
                self._advance(seek)

    def _coming(self, seek: Seek) -> bool:
        """Tell whether jobs are asked for in the tubes of a question, of segments that answer."""
        if any(committer.tube in seek.tubes for committer in self._agenda.suspended):
            return False
        return any(tube.coming for tube in seek.tubes)

    def _unknown(self, seek: Seek) -> bool:
        """Tell whether a job may be there for a question that cannot be had."""
        failing = [*self._agenda.suspended, *[committer for committer in self._agenda.running if committer.fails()]]
        return seek.partial or any(committer.tube in seek.tubes for committer in failing)

    def wants_jobs(self) -> bool:
        """Tell whether a job that becomes ready elsewhere is wanted here, or was lately."""
        now = self._clock.now()
        if now - self._last_seek_at < FOLLOW_FOR:
            return True
        if any(tube.waiters for tube in self._registry.known_tubes()):
            self._last_seek_at = now
            return True
        return False

    # --- what comes

    def take(self, tubes: list[Tube]) -> Job | None:
        """Hand over a job that was taken for somebody who waits: while `deliver` does so, there is none at any other time."""
        for tube in tubes:
            granted = cast(SharedTube, tube).granted
            while granted:
                job = granted.popleft()
                if job.committer is not None:
                    return job
        return None

    def deliver(self, tube: SharedTube) -> None:
        """Hand taken jobs to those who wait; what nobody wants any more goes back at once."""
        if tube.granted and tube.waiters and self._membership.alive():
            self._listener.tube_ready(tube)
        while tube.granted:
            job = tube.granted.popleft()
            if job.committer is not None:
                job.reserves -= 1
                self._holdings.give_back(job, timed_out=False)

    async def _fetch_bodies(self, jobs: list[SharedJob]) -> tuple[list[SharedJob], EngineError | None]:
        """Return the jobs whose bodies came, and why others did not; those whose bodies are lost are buried."""
        whole: list[SharedJob] = []

        async def fetch(wanted: list[SharedJob]) -> EngineError | None:
            async def work() -> None:
                found: tuple[list[SharedJob], list[tuple[SharedJob, str]]]
                found = await self._tasks.try_for_a_while(lambda: fetch_bodies(self._store, wanted))
                whole.extend(found[0])
                for job, reason in found[1]:
                    if job.committer is not None:
                        self._holdings.bury_lost(job, reason)

            error = await self._tasks.failure(work)
            if isinstance(error, Newer) and len(wanted) == 1 and wanted[0].committer is not None:
                wanted[0].committer.unknown.add(wanted[0].place)
            return error

        error = await fetch(jobs)
        if error is not None and len(jobs) > 1:
            # Perhaps only one of them lies where nobody answers.
            await asyncio.gather(*[fetch([job]) for job in jobs])
        return whole, error

    async def fetch_and_deliver(
        self, committer: Committer, jobs: list[SharedJob], asks: list[tuple[Waiter, int]]
    ) -> None:
        """Fetch the bodies of taken jobs that lie outside, then hand them over."""
        whole, error = await self._fetch_bodies(jobs)
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
        tube.granted.extend([job for job in whole if job.committer is not None])
        self.deliver(tube)
        if error is not None and not isinstance(error, Newer):
            self.failed(claimants, error)
        self.advance_seeks(tube)

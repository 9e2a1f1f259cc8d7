"""The front-end, as the segments' sides see it: each thing that they need goes to the part that does it."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, cast

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.cluster.membership import Membership
from beanspiked.engine.aerospike.cluster.news import News
from beanspiked.engine.aerospike.segment.codec import Formats
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import Put, SharedJob
from beanspiked.engine.aerospike.segment.surroundings import Home, LeaseSource, Surroundings
from beanspiked.engine.aerospike.segment.view import View
from beanspiked.engine.aerospike.store.formats import SetAside
from beanspiked.engine.aerospike.store.seam import Full, Segment
from beanspiked.engine.aerospike.store.tasks import Tasks
from beanspiked.engine.aerospike.tubes.agenda import Agenda
from beanspiked.engine.aerospike.tubes.announcing import announce
from beanspiked.engine.aerospike.tubes.held import Holdings
from beanspiked.engine.aerospike.tubes.puts import Puts
from beanspiked.engine.aerospike.tubes.retirement import Retirement
from beanspiked.engine.aerospike.tubes.room import Room
from beanspiked.engine.aerospike.tubes.takes import Takes
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.aerospike.tubes.view import Scout
from beanspiked.engine.contract import Waiter
from beanspiked.engine.errors import DamagedEntry, EngineError
from beanspiked.engine.timers import Clock

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.store.contract import SegmentStore

__all__ = ["Around"]


class Around(Surroundings):
    """What segments need of the front-end.

    Args:
        store: The store.
        formats: The formats of jobs that this front-end knows.
        clock: This process's time.
        tasks: What runs coroutines.
        agenda: What is in flight.
        news: This front-end's news.
        unread: Jobs of newer formats that were met.
    """

    _membership: Membership
    _room: Room
    _retirement: Retirement
    _view: Scout
    _holdings: Holdings
    _takes: Takes
    _puts: Puts

    def __init__(
        self,
        store: "SegmentStore",
        formats: Formats,
        clock: Clock,
        tasks: Tasks,
        agenda: Agenda,
        news: News,
        unread: SetAside,
    ) -> None:
        super().__init__(store, formats)
        self._clock = clock
        self._tasks = tasks
        self._agenda = agenda
        self._news = news
        self._unread = unread

    def connect(
        self,
        membership: Membership,
        room: Room,
        retirement: Retirement,
        view: Scout,
        holdings: Holdings,
        takes: Takes,
        puts: Puts,
    ) -> None:
        """Take what is told what becomes of jobs: it needs segments, so there is no first of both."""
        self._membership = membership
        self._room = room
        self._retirement = retirement
        self._view = view
        self._holdings = holdings
        self._takes = takes
        self._puts = puts

    def now(self) -> float:
        """Return this process's time, in seconds since the epoch."""
        return self._clock.now()

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        return self._agenda.step()

    def session(self) -> LeaseSource:
        """Return the session, which may be over."""
        return self._membership.session

    def alive(self) -> bool:
        """Tell whether the session may act."""
        return self._membership.alive()

    async def decide(self) -> None:
        """Find out whether the session is over, however long the store takes to answer."""
        await self._membership.decide()

    def spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        """Run a coroutine beside everything else."""
        self._tasks.spawn(coroutine)

    def wake(self, segment: View) -> None:
        """Have a segment's operation begin in the next pass of the event loop."""
        self._agenda.wake(cast(Committer, segment))

    def in_flight(self, segment: View, running: bool) -> None:
        """Take note that a segment's operation has begun or ended."""
        if running:
            self._agenda.running[cast(Committer, segment)] = None
        else:
            self._agenda.running.pop(cast(Committer, segment), None)

    def suspended(self, segment: View, aside: bool) -> None:
        """Take note that a segment does not answer, or that jobs are asked of it again."""
        if aside:
            self._agenda.suspended[cast(Committer, segment)] = None
        else:
            self._agenda.suspended.pop(cast(Committer, segment), None)

    def turn_over(self) -> None:
        """Let sessions go on: something became known."""
        self._agenda.turn_over()

    async def pause_between_tries(self, failing_since: float) -> None:
        """Wait a little, never twice the same; longer the longer it has failed, given since when."""
        await self._tasks.pause_between_tries(failing_since)

    async def reading_segment(self, number: int, session: LeaseSource) -> Segment | None:
        """Read a segment, however long it takes while a session lasts, and for a while after it; None where it is gone.

        Raises StoreError when it cannot be known what is there.
        """
        return await self._tasks.try_while_it_lasts(lambda: self.store.read(number), lambda: session.over)

    def put_elsewhere(self, tube: Home, puts: list[Put]) -> None:
        """Put into another segment what was certainly not put."""
        self._puts.put_elsewhere(cast(SharedTube, tube), puts)

    def found_full(self, error: Full) -> None:
        """Take note that the store has no room."""
        self._room.found_full(error)

    def unclaim(self, tube: Home, asks: list[tuple[Waiter, int]]) -> None:
        """Jobs are not being asked for any more for those who wait."""
        self._takes.unclaim(cast(SharedTube, tube), asks)

    def still_wanted(self, tube: Home, asks: list[tuple[Waiter, int]]) -> bool:
        """Tell whether anybody still waits for what was asked for."""
        return self._takes.still_wanted(cast(SharedTube, tube), asks)

    def failed(self, asks: list[tuple[Waiter, int]], error: EngineError) -> None:
        """What was asked for failed."""
        self._takes.failed(asks, error)

    def advance_seeks(self, tube: Home, anew: bool = False) -> None:
        """Jobs that were asked for in a tube have come, or will not; `anew`: what was seen of it is lost."""
        self._takes.advance_seeks(tube, anew)

    def request_soon(self, tube: Home) -> None:
        """Jobs of a tube may be asked for that were not."""
        self._agenda.request_soon(tube)

    def deliver(self, tube: Home, jobs: list[SharedJob]) -> None:
        """Hand taken jobs to those who wait."""
        home = cast(SharedTube, tube)
        home.granted.extend(jobs)
        self._takes.deliver(home)

    def fetch_and_deliver(self, segment: View, jobs: list[SharedJob], asks: list[tuple[Waiter, int]]) -> None:
        """Fetch bodies that lie outside, then hand the jobs over."""
        self._agenda.spawn(self._takes.fetch_and_deliver(cast(Committer, segment), jobs, asks))

    def hold(self, job: SharedJob) -> None:
        """A job is held here."""
        self._holdings.jobs[job.id] = job

    def left(self, job: SharedJob, deleted: bool) -> None:
        """A job has left the lease."""
        self._holdings.left(job, deleted)

    def lost(self, job: SharedJob) -> None:
        """A held job is lost with its lease."""
        self._holdings.lose(job)

    def unreadable(self, what: str, error: DamagedEntry) -> None:
        """A job is of a format that is not known here."""
        self._unread.tell(what, error)

    def let_go_unread(self, segment: View, key: bytes, packed: bytes, damaged: bool) -> None:
        """Let go of a taken job that cannot be read."""
        self._holdings.let_go_unread(cast(Committer, segment), key, packed, damaged)

    def announce(self, segment: View, delayed: bool) -> None:
        """Tell the others of ready jobs that nobody here has asked for, or of one that will be ready."""
        announce(self._news, segment, delayed)

    def changed(self, segment: View) -> None:
        """Tell the others to look at a segment."""
        self._news.tell(segment.tube.name, segment.number, CHANGED)

    def look_at(self, segment: View) -> None:
        """Learn what a segment holds."""
        self._view.refresh_segment(cast(Committer, segment))

    def may_end(self, segment: View) -> None:
        """Let a segment die if nothing is left in it."""
        self._retirement.consider(cast(Committer, segment))

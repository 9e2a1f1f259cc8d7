"""The front-end, as the segments' sides see it: each thing that they need goes to the part of the engine that does it."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, cast

from beanspiked.engine.aerospike.cluster.links import CHANGED
from beanspiked.engine.aerospike.cluster.session import Session
from beanspiked.engine.aerospike.segment.committer import Committer
from beanspiked.engine.aerospike.segment.jobs import Put, SharedJob
from beanspiked.engine.aerospike.segment.surroundings import Home, LeaseSource, Surroundings
from beanspiked.engine.aerospike.segment.view import View
from beanspiked.engine.aerospike.store.seam import Full, Segment
from beanspiked.engine.aerospike.tubes.tube import SharedTube
from beanspiked.engine.contract import Waiter
from beanspiked.engine.errors import DamagedEntry, EngineError

if TYPE_CHECKING:
    from beanspiked.engine.aerospike.engine import SharedEngine

__all__ = ["Around"]


class Around(Surroundings):
    """An engine, with what its segments need of it.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: "SharedEngine") -> None:
        super().__init__(engine.store, engine.formats)
        self._engine: SharedEngine = engine

    def now(self) -> float:
        """Return this process's time, in seconds since the epoch."""
        return self._engine.now()

    def step(self) -> int:
        """Number one more moment, to tell which of two things was known first."""
        return self._engine.step()

    def session(self) -> LeaseSource:
        """Return the session, which may be over."""
        return self._engine.membership.session

    def alive(self) -> bool:
        """Tell whether the session may act."""
        return self._engine.membership.alive()

    async def decide(self) -> None:
        """Find out whether the session is over, however long the store takes to answer."""
        await self._engine.membership.decide()

    def spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        """Run a coroutine beside everything else."""
        self._engine.spawn(coroutine)

    def wake(self, segment: View) -> None:
        """Have a segment's operation begin at the end of this turn."""
        self._engine.wake(cast(Committer, segment))

    def in_flight(self, segment: View, running: bool) -> None:
        """Take note that a segment's operation has begun or ended."""
        if running:
            self._engine.running[cast(Committer, segment)] = None
        else:
            self._engine.running.pop(cast(Committer, segment), None)

    def suspended(self, segment: View, aside: bool) -> None:
        """Take note that a segment does not answer, or that jobs are asked of it again."""
        if aside:
            self._engine.suspended[cast(Committer, segment)] = None
        else:
            self._engine.suspended.pop(cast(Committer, segment), None)

    def gather(self, waiting: int) -> None:
        """One segment more, or less, waits for what the sockets bring."""
        self._engine.gathering += waiting

    def send_on(self) -> None:
        """Send on what was asked for."""
        self._engine.send_on()

    def turn_over(self) -> None:
        """Let sessions go on: something became known."""
        self._engine.turn_over()

    async def pause_between_tries(self, failing_since: float) -> None:
        """Wait a little, never twice the same; longer the longer it has failed, given since when."""
        await self._engine.pause_between_tries(failing_since)

    async def reading_segment(self, number: int, session: LeaseSource) -> Segment | None:
        """Read a segment, however long it takes while a session lasts; None where it is gone. Raises StoreError."""
        return await self._engine.reading_segment(number, cast(Session, session))

    def put_elsewhere(self, tube: Home, puts: list[Put]) -> None:
        """Put into another segment what was certainly not put."""
        self._engine.puts.put_elsewhere(cast(SharedTube, tube), puts)

    def found_full(self, error: Full) -> None:
        """Take note that the store has no room."""
        self._engine.puts.found_full(error)

    def unclaim(self, tube: Home, asks: list[tuple[Waiter, int]]) -> None:
        """Jobs are not being asked for any more for those who wait."""
        self._engine.takes.unclaim(cast(SharedTube, tube), asks)

    def still_wanted(self, tube: Home, asks: list[tuple[Waiter, int]]) -> bool:
        """Tell whether anybody still waits for what was asked for."""
        return self._engine.takes.still_wanted(cast(SharedTube, tube), asks)

    def failed(self, asks: list[tuple[Waiter, int]], error: EngineError) -> None:
        """What was asked for failed."""
        self._engine.takes.failed(asks, error)

    def advance_seeks(self, tube: Home) -> None:
        """Jobs that were asked for in a tube have come, or will not."""
        self._engine.takes.advance_seeks(cast(SharedTube, tube))

    def request_soon(self, tube: Home) -> None:
        """Jobs of a tube may be asked for that were not."""
        self._engine.takes.request_soon(cast(SharedTube, tube))

    def deliver(self, tube: Home, jobs: list[SharedJob]) -> None:
        """Hand taken jobs to those who wait."""
        home = cast(SharedTube, tube)
        home.granted.extend(jobs)
        self._engine.takes.deliver(home)

    def fetch_and_deliver(self, segment: View, jobs: list[SharedJob], asks: list[tuple[Waiter, int]]) -> None:
        """Fetch bodies that lie outside, then hand the jobs over."""
        self._engine.spawn(self._engine.takes.fetch_and_deliver(cast(Committer, segment), jobs, asks))

    def hold(self, job: SharedJob) -> None:
        """A job is held here."""
        self._engine.holdings.jobs[job.id] = job

    def left(self, job: SharedJob, deleted: bool) -> None:
        """A job has left the lease."""
        self._engine.holdings.left(job, deleted)

    def lost(self, job: SharedJob) -> None:
        """A held job is lost with its lease."""
        self._engine.holdings.lose(job)

    def unreadable(self, what: str, error: DamagedEntry) -> None:
        """A job is of a format that is not known here."""
        self._engine.unread.tell(what, error)

    def let_go_unread(self, segment: View, key: bytes, packed: bytes, damaged: bool) -> None:
        """Let go of a taken job that cannot be read."""
        self._engine.holdings.let_go_unread(cast(Committer, segment), key, packed, damaged)

    def announce(self, segment: View, delayed: bool) -> None:
        """Tell the others of ready jobs that nobody here has asked for, or of one that will be ready."""
        self._engine.scout.announce(cast(Committer, segment), delayed)

    def changed(self, segment: View) -> None:
        """Tell the others to look at a segment."""
        self._engine.news.tell(segment.tube.name, segment.number, CHANGED)

    def look_at(self, segment: View) -> None:
        """Learn what a segment holds."""
        self._engine.scout.refresh_segment(cast(Committer, segment))

    def may_end(self, segment: View) -> None:
        """Let a segment die if nothing is left in it."""
        self._engine.retirement.consider(cast(Committer, segment))
